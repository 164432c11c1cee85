"""Members of archives are sources; what would leave, grow without end or stay shut is named with its reason."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragtune.building.documents import archives
from ragtune.building.documents.archives import Unpacked, members
from ragtune.building.documents.document import UnreadableError
from ragtune.building.documents.source import Source

Members = list[tuple[str, bytes]]


def make_zip(path: Path, content: Members) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content:
            archive.writestr(name, data)


def make_tar(path: Path, content: Members) -> None:
    with tarfile.open(path, "w:gz" if path.name.lower().endswith("gz") else "w") as archive:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


MAKERS: dict[str, Callable[[Path, Members], None]] = {
    "a.zip": make_zip, "a.tar": make_tar, "a.tar.gz": make_tar, "a.TGZ": make_tar,
}  # fmt: skip


def listed(path: Path) -> tuple[list[Source], list[tuple[str, str]]]:
    skipped: list[tuple[str, str]] = []
    return members(path, path.name, lambda why, name: skipped.append((why, name))), skipped


def contents(sources: list[Source]) -> list[bytes]:
    with Unpacked() as unpacked:
        return [unpacked.path_of(source).read_bytes() for source in sources]


@pytest.mark.parametrize("name", MAKERS)
def test_members_in_any_order(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content = [
        ("./b/山.txt", "山".encode()),
        ("a.md", b"# A" * 10_000),
        ("b/", b""),
        ("c.txt", b""),
    ]
    MAKERS[name](path, [c for c in content if not c[0].endswith("/")])
    sources, skipped = listed(path)
    assert [s.name for s in sources] == [f"{name}/b/山.txt", f"{name}/a.md", f"{name}/c.txt"]
    assert [s.suffix for s in sources] == [".txt", ".md", ".txt"]
    assert skipped == []
    for order in (sources, sources[::-1], [sources[1], sources[1], sources[0]]):
        assert contents(order) == [dict(content)[f"{'./' if 'b/' in s.name else ''}{s.name.partition('/')[2]}"] for s in order]  # fmt: skip
    other = tmp_path / f"other-{name}"
    MAKERS[name](other, [("x", b"# A" * 10_000)])
    assert listed(other)[0][0].digest() == sources[1].digest() != sources[0].digest()


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    make_zip(tmp_path / "a.zip", [("a.txt", b"a"), ("b.txt", b"b")])
    with Unpacked() as unpacked:
        places = [unpacked.path_of(source) for source in listed(tmp_path / "a.zip")[0]]
        assert [place.name for place in places] == ["member.txt"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "inner", ["../up.txt", "a/../../up.txt", "/etc/passwd.txt", "C:/up.txt", "..\\up.txt"]
)
def test_paths_can_not_leave(name: str, inner: str, tmp_path: Path) -> None:
    path = tmp_path / name
    MAKERS[name](path, [(inner, b"x"), ("ok.txt", b"ok")])
    if "\\" in inner and name != "a.zip":  # a letter as any other, where Windows didn't pack
        assert listed(path)[1] == [("hidden", f"{name}/{inner}")]
        return
    refused, fine = listed(path)[0]
    assert refused.problem.endswith("leads out of the archive's folder.")
    assert contents([fine]) == [b"ok"]
    assert not (tmp_path.parent / "up.txt").exists()


def test_links_and_devices_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number, kind in enumerate(
            (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)
        ):
            info = tarfile.TarInfo(f"l{number}.txt")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    link = zipfile.ZipInfo("l.txt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive_:
        archive_.writestr(link, "/etc/passwd")
        archive_.writestr("__MACOSX/._a.txt", "x")
        archive_.writestr(".git/config.txt", "x")
    assert listed(tmp_path / "a.tar") == (
        [], [("a link, a pipe or a device", f"a.tar/l{n}.txt") for n in range(4)]
    )  # fmt: skip
    assert listed(tmp_path / "a.zip") == (
        [],
        [("a link, a pipe or a device", "a.zip/l.txt"), ("hidden", "a.zip/__MACOSX/._a.txt"),
         ("hidden", "a.zip/.git/config.txt")],
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["cp932", "utf-8"])
def test_names_that_do_not_say_their_encoding(encoding: str, tmp_path: Path) -> None:
    name = "表示/ソース能力.txt"  # in cp932 with the byte of a backslash
    stand_in = "x" * (len(name.encode(encoding)) - 4) + ".txt"
    make_zip(tmp_path / "a.zip", [(stand_in, b"x")])
    raw = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(raw.replace(stand_in.encode(), name.encode(encoding)))
    assert [s.name for s in listed(tmp_path / "a.zip")[0]] == [f"a.zip/{name}"]


def test_an_encrypted_member_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", [("secret.txt", b"secret"), ("ok.txt", b"ok")])
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(raw)
    refused, fine = listed(tmp_path / "a.zip")[0]
    assert refused.problem == "a.zip/secret.txt is encrypted: it opens only with a password."
    assert refused.advice == "Unpack it with the password, and name the folder."
    assert contents([fine]) == [b"ok"]


def test_other_ways_of_packing_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.txt", "x")
    assert "packed in a way that isn't read" in listed(tmp_path / "a.zip")[0][0].problem


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_bomb_is_not_unpacked(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RATIO_FROM", 2 << 20)
    MAKERS[name](tmp_path / name, [("a.txt", b"ok"), ("b.txt", bytes(8 << 20))])
    (only,) = listed(tmp_path / name)[0]
    assert only.problem.startswith(f"{name} is not unpacked: its ")
    assert only.problem.endswith("unpack to more than 200 times as much, like a zip bomb.")
    monkeypatch.setattr(archives, "MAX_RATIO", 2000)
    assert len(listed(tmp_path / name)[0]) == 2
    monkeypatch.setattr(archives, "MAX_UNPACKED", 1 << 20)
    assert "it unpacks to more than 1 MiB" in listed(tmp_path / name)[0][0].problem
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    assert "it has more than 1 members" in listed(tmp_path / name)[0][0].problem


def test_what_a_zip_says_of_sizes_is_not_believed(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", [("a.txt", bytes(100_000))])
    raw = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(raw.replace(struct.pack("<I", 100_000), struct.pack("<I", 10)))
    assert "a.zip/a.txt can't be unpacked (Bad CRC-32" in listed(tmp_path / "a.zip")[0][0].problem
    (tmp_path / "a.zip").write_bytes(raw.replace(struct.pack("<I", 100_000), b"\xff\xff\xff\x7f"))
    assert contents(listed(tmp_path / "a.zip")[0]) == [bytes(100_000)]


def test_a_list_of_members_without_end_is_not_read(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", [("a.txt", b"x")])
    raw = (tmp_path / "a.zip").read_bytes()
    end = raw.index(b"PK\5\6")
    (tmp_path / "a.zip").write_bytes(raw[:end] + bytes(40 << 20) + raw[end : end + 12] + struct.pack("<I", 40 << 20) + raw[end + 16 :])  # fmt: skip
    assert "its list of members is longer than 32 MiB" in listed(tmp_path / "a.zip")[0][0].problem


def test_a_header_without_end_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    assert "a header of" in listed(tmp_path / "a.tar")[0][0].problem


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x.txt")
    info.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    assert "is a sparse file" in listed(tmp_path / "a.tar")[0][0].problem


@pytest.mark.parametrize("name", MAKERS)
def test_damage_is_named(name: str, tmp_path: Path) -> None:
    noise = os.urandom(3000)
    MAKERS[name](tmp_path / name, [("a.txt", noise), ("b.txt", noise)])
    raw = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(raw[: len(raw) // 2])
    found = listed(tmp_path / name)[0]
    assert found[-1].problem.startswith(f"{name} can't be unpacked (")
    assert "download or pack it again" in found[-1].advice
    if name == "a.zip":
        changed = bytearray(raw)
        changed[100] ^= 0xFF
        (tmp_path / name).write_bytes(changed)
        bad, good = listed(tmp_path / name)[0]
        assert bad.problem.startswith("a.zip/a.txt can't be unpacked (")
        assert contents([good]) == [noise]
    (tmp_path / name).unlink()
    assert "can't be read (No such file or directory)" in listed(tmp_path / name)[0][0].problem


def test_an_archive_that_was_changed_is_noticed(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar", [("a.txt", b"a"), ("b.txt", b"b")])
    sources = listed(tmp_path / "a.tar")[0]
    make_tar(tmp_path / "a.tar", [("a.txt", b"a")])
    with pytest.raises(UnreadableError, match=r"a\.tar/b\.txt is not there any more"):
        contents(sources)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_is_changed_ends_in_sources_or_a_reason(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(MAKERS)))
    path = tmp_path_factory.mktemp("x") / name
    MAKERS[name](path, [("a.txt", b"some text" * 9), ("b/c.md", b"# A\n")])
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    for source in listed(path)[0]:
        assert source.problem or len(contents([source])[0]) <= 100
