"""Files are whole or not there, and a full disk is told in words."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragtune.base import files
from ragtune.base.disk import cache_dir, disk_errors, existing_parent
from ragtune.base.errors import RagtuneError, in_words, lost_disk
from ragtune.base.files import (
    appending,
    json_line,
    making_folder,
    read_json,
    read_jsonl,
    remember,
    remove,
    sha256,
    truncate,
    write_json,
    write_jsonl,
    writing,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


text = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)
@given(st.lists(st.dictionaries(text, values, max_size=4), max_size=4))
def test_jsonl_read_is_what_was_written(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "rows.jsonl"
    assert write_jsonl(path, rows) == len(rows)
    assert list(read_jsonl(path)) == rows
    assert len(path.read_text("utf-8").splitlines()) == len(rows)


def test_a_line_separator_in_a_text_ends_no_line() -> None:
    line = json_line({"text": "a\u2028b\u2029c\x85d\ne", "名": "東"})
    assert line == '{"text":"a\\u2028b\\u2029c\\u0085d\\ne","名":"東"}\n'
    assert json.loads(line) == {"text": "a\u2028b\u2029c\x85d\ne", "名": "東"}


def test_json_has_its_format_first(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"n": 1, "名": "東"})
    assert (tmp_path / "a.json").read_text(
        "utf-8"
    ) == '{\n  "format": 1,\n  "n": 1,\n  "名": "東"\n}\n'
    assert read_json(tmp_path / "a.json") == {"format": 1, "n": 1, "名": "東"}


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": "\xff"}', b"[1]"])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(RagtuneError, match=r"a\.json (can't be read|holds no JSON object)"):
        read_json(path)


@pytest.mark.parametrize("line", [b'{"a": ', b'{"a": "\xff"}', b""])
def test_a_damaged_line_is_named_and_those_before_it_are_read(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    rows = read_jsonl(path)
    assert next(rows) == {"a": 1}
    with pytest.raises(RagtuneError, match=r"a\.jsonl:2: damaged line"):
        next(rows)


def test_an_interrupted_file_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with writing(path) as file:
        file.write("old")

    def interrupted() -> None:
        with writing(path) as file:
            file.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert names(path.parent) == ["a.txt"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """Whoever may write beside a file could put one there, under the name that it has while it is made."""
    mine, own = tmp_path / "mine", tmp_path / "own"
    own.mkdir()
    for canary in (mine, own / "file"):
        canary.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".a.json.partial", "a.json", "lines.jsonl", ".lines.jsonl.partial"):
        (folder / name).symlink_to(mine)
    for name in (".made.partial", "made", ".made.old"):
        (folder / name).symlink_to(own)
    os.link(mine, folder / "hard.jsonl")
    write_json(folder / "a.json", {})
    with making_folder(folder / "made") as partial:
        (partial / "file").write_text("new")
    with pytest.raises(RagtuneError, match=r"lines\.jsonl is a link, through which nothing"):
        appending(folder / "lines.jsonl").__enter__()
    with appending(folder / "hard.jsonl") as file:
        file.write("more")
    truncate(folder / "hard.jsonl", 5)
    assert (folder / "hard.jsonl").read_text() == "minem"
    assert mine.read_text() == (own / "file").read_text() == "mine"
    assert names(own) == ["file"]
    assert (folder / "made" / "file").read_text() == "new"
    assert not (folder / "a.json").is_symlink()
    assert not (folder / "made").is_symlink()
    remove(folder / "lines.jsonl")
    remove(folder)
    remove(folder)
    assert mine.read_text() == (own / "file").read_text() == "mine"


def test_what_a_kill_left_is_removed_whatever_it_is(tmp_path: Path) -> None:
    (tmp_path / ".a.json.partial" / "deep").mkdir(parents=True)
    (tmp_path / ".made.partial").touch()
    write_json(tmp_path / "a.json", {})
    with making_folder(tmp_path / "made"):
        pass
    assert names(tmp_path) == ["a.json", "made"]


def test_an_interrupted_folder_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder"
    with making_folder(path) as partial:
        (partial / "a").write_text("old")
        assert not path.exists()

    def interrupted() -> None:
        with making_folder(path) as partial:
            (partial / "b").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (path / "a").read_text() == "old"
    assert names(path.parent) == ["folder"]


def test_a_folder_replaces_the_old_one_and_what_a_kill_left(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    (tmp_path / ".folder.partial").mkdir()
    (tmp_path / ".folder.partial" / "left").touch()
    (tmp_path / ".folder.old").mkdir()
    for name in ("a", "b"):
        with making_folder(path) as partial:
            (partial / name).touch()
    assert names(path) == ["b"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, r"The disk is full: could not write .*/run \(\d+ MiB free\)\.\nFree some space"),
        (errno.EACCES, r"Not allowed to write .*/run \(Permission denied\)\.\n.*another run dir"),
        (errno.EROFS, r"Not allowed to write .*/run \(Read-only file system\)\."),
    ],
)  # fmt: skip
def test_the_disk_s_errors_are_told(tmp_path: Path, number: int, message: str) -> None:
    with pytest.raises(RagtuneError, match=message), disk_errors(tmp_path / "a" / "run"):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("variable", "folder"),
    [
        ("RAGTUNE_CACHE", "cache"),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "ragtune"),
        ("XDG_CACHE_HOME", "huggingface"),
    ],
)
def test_where_a_cache_could_be_is_told_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, folder: str
) -> None:
    for name in ("RAGTUNE_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path if variable.startswith("XDG") else tmp_path / folder))
    told = {"huggingface": "HF_HOME", "ragtune": "RAGTUNE_CACHE"}.get(folder, variable)
    for number, words in ((errno.EACCES, "elsewhere"), (errno.ENOSPC, "on a larger disk")):
        with (
            pytest.raises(RagtuneError) as caught,
            disk_errors(tmp_path / folder / "models" / "one"),
        ):
            raise OSError(number, os.strerror(number))
        assert f"set {told} to a folder {words}." in caught.value.advice
        assert "--run-dir" not in caught.value.advice


def test_a_full_disk_says_how_much_is_needed_and_keeps_what_was_there(tmp_path: Path) -> None:
    with making_folder(tmp_path / "run") as partial:
        (partial / "a").write_text("old")

    def full() -> None:
        with making_folder(tmp_path / "run", 3 * 2**20) as partial:
            (partial / "a").write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RagtuneError, match=r"about 3 MiB needed, \d+ MiB free"):
        full()
    assert (tmp_path / "run" / "a").read_text() == "old"
    assert names(tmp_path) == ["run"]


class _Disk:
    """A disk's free bytes, as they are while something half-written lies there."""

    def __init__(self, part: Path, free: int) -> None:
        self.part, self.free = part, free

    def usage(self, _: Any) -> Any:
        return shutil._ntuple_diskusage(0, 0, 0 if self.part.exists() else self.free)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        RuntimeError("basic_ios::clear: iostream error"),
        OSError("32768 requested and 12320 written"),
    ],
    ids=["inline_container", "iostream", "numpy"],
)
def test_a_full_disk_of_pytorch_and_numpy_is_known_by_what_is_free_before_the_half_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full() -> None:
        with making_folder(tmp_path / "run") as partial:
            (partial / "half").touch()
            disk = _Disk(partial / "half", 2**30)
            monkeypatch.setattr("ragtune.base.disk.shutil.disk_usage", disk.usage)
            raise error

    with pytest.raises(RagtuneError, match=r"The disk is full: .*/run \(0 MiB free\)"):
        full()
    assert names(tmp_path) == []

    def roomy() -> None:
        with making_folder(tmp_path / "run"):
            raise error

    with pytest.raises(
        type(error), match=r"iostream|enforce|requested"
    ):  # a fault, where there is room
        roomy()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"n": 1}], "at least 1 KiB needed"),
        ([{"text": "x" * 5000}] * 1000, r"at least \d+ KiB needed"),  # those that came so far
        ([{"text": "x" * 3 * 2**20}], "at least 3 MiB needed"),
    ],
)
def test_a_file_that_does_not_fit_says_how_much_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], words: str
) -> None:
    monkeypatch.setattr("ragtune.base.files.no_links", lambda *_: os.open("/dev/full", os.O_WRONLY))
    with pytest.raises(RagtuneError, match=rf"could not write .*a\.jsonl \({words}, \d+ MiB free"):
        write_jsonl(tmp_path / "a.jsonl", rows)
    assert names(tmp_path) == []


def test_lines_are_written_many_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each writing lets another thread go on, and waits until it lets go."""
    sizes: list[int] = []
    write = files._Counted.write

    def counted(file: files._Counted, data: bytes) -> int:
        sizes.append(len(data))
        return write(file, data)

    monkeypatch.setattr(files._Counted, "write", counted)
    rows = [{"text": "x" * 9000}] * 300
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert len(sizes) <= 4  # of a MiB each
    assert list(read_jsonl(tmp_path / "a.jsonl")) == rows


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("name", ["there/file", None])
def test_a_drive_that_goes_away_is_told(tmp_path: Path, number: int, name: str | None) -> None:
    words = (
        rf"{name or '.*/run'} can't be reached any more \({os.strerror(number)}\)\.\n.*connect it"
    )
    with pytest.raises(RagtuneError, match=words), disk_errors(tmp_path / "run"):
        raise OSError(number, os.strerror(number), name)
    assert "A file can't be reached" in str(lost_disk(OSError(number, "x")))


def test_a_file_that_is_too_large_for_its_disk_is_told(tmp_path: Path) -> None:
    words = r"Could not write .*/run: File too large\.\n.*FAT32.*--run-dir"
    with pytest.raises(RagtuneError, match=words), disk_errors(tmp_path / "run"):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    with pytest.raises(RagtuneError, match="read: it has more"), disk_errors(tmp_path / "run"):
        raise OSError(errno.EFBIG, "it has more than 4 KiB", "file")


def test_a_pipe_in_the_place_of_a_file_is_no_fault_of_ours(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(OSError, match="a pipe") as found:
        sha256(tmp_path / "x.json")
    told = in_words(found.value)
    assert (
        told.message
        == f"{tmp_path / 'x.json'} can't be read: it is no plain file, but a pipe or a device."
    )
    assert "fault" not in told.advice


def test_what_is_no_lost_disk() -> None:
    assert lost_disk(FileNotFoundError(errno.ENOENT, "x", "y")) is None
    assert lost_disk(ValueError("x")) is None


@pytest.mark.parametrize("name", ["run", "run/a/b", ".run.partial", ""])
def test_a_run_directory_that_is_gone_is_told_but_a_missing_file_of_the_users_is_not(
    tmp_path: Path, name: str
) -> None:
    words = r"Could not write .*/run: there is no .*can't be made"
    with pytest.raises(RagtuneError, match=words), disk_errors(tmp_path / "run"):
        raise FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / name))
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path / "run"):
        (tmp_path / "train.jsonl").read_bytes()


def test_a_name_that_no_disk_can_have(tmp_path: Path) -> None:
    with pytest.raises(RagtuneError, match="…: a name is too long for the file system") as caught:
        write_json(tmp_path / ("x" * 300) / "a.json", {})
    assert len(caught.value.message) < 120
    assert existing_parent(tmp_path / ("x" * 300) / "a") == tmp_path


def test_other_errors_of_the_system_pass(tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError), disk_errors(tmp_path):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


@pytest.mark.parametrize("name", ["file/run", "file/deep/run", "file"])
def test_a_file_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / name / "a.txt"
    with pytest.raises(
        RagtuneError, match=r"Can't make the folder for .*a\.txt: .*file.* is a file"
    ):
        writing(path).__enter__()


def test_existing_parent_is_the_nearest_folder(tmp_path: Path) -> None:
    assert existing_parent(tmp_path / "a" / "b") == tmp_path
    assert existing_parent(tmp_path) == tmp_path


def test_sha256_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGTUNE_CACHE", "~/there")
    assert cache_dir() == Path.home() / "there"
    monkeypatch.delenv("RAGTUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/ragtune")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "ragtune"


def test_lines_that_do_not_fit_say_how_much_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "work" / "before.jsonl"
    with appending(path) as file:
        file.write("first\n")
    with appending(path) as file:
        file.write("second\n")
    assert path.read_text("utf-8") == "first\nsecond\n"
    monkeypatch.setattr("ragtune.base.files.no_links", lambda *_: os.open("/dev/full", os.O_WRONLY))
    with (
        pytest.raises(RagtuneError, match=r"before\.jsonl \(at least 2 KiB needed"),
        appending(path) as file,
    ):
        file.write("x" * 1500)


def test_a_digest_that_is_known_already(tmp_path: Path) -> None:
    """It is taken once, and of the file as it was: what was changed since is read."""
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    remember(path, "known")
    path.write_bytes(b"abcd")
    assert sha256(path) == hashlib.sha256(b"abcd").hexdigest()
    remember(path, "known")
    moved = path.rename(tmp_path / "b")
    assert sha256(moved) == "known"
    assert sha256(moved) == hashlib.sha256(b"abcd").hexdigest()
