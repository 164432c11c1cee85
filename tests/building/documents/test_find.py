"""What the user names becomes sources: each file once, in order, and what is left out is said."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.building.documents.find import find_files
from ragtune.building.documents.source import Source
from ragtune.recipe.corpus import Documents


def put(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, "utf-8")
    return folder


def found(*files: object) -> list[Source]:
    return find_files(Documents(files=[str(file) for file in files]))


def names(*files: object) -> list[str]:
    return [source.name for source in found(*files)]


def refusal(*files: object) -> UsageError:
    with pytest.raises(UsageError) as raised:
        found(*files)
    return raised.value


def test_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = put(
        tmp_path / "docs", "b.md", "a.TXT", "sub/c.html", "sub/deep/d.csv", ".hidden/e.md", "sub/.f.md", "~$g.docx",
        "h.xyz", "LICENSE", "x.png",
    )  # fmt: skip
    assert names(folder) == ["docs/a.TXT", "docs/b.md", "docs/sub/c.html", "docs/sub/deep/d.csv"]
    said = capsys.readouterr().out
    assert "Left out: 3 files, hidden (docs/.hidden, docs/sub/.f.md, docs/~$g.docx)." in said
    assert "! Left out: 3 files, of unknown kinds (docs/LICENSE, docs/h.xyz, docs/x.png)." in said
    os.chdir(folder)
    assert names(".") == ["a.TXT", "b.md", "sub/c.html", "sub/deep/d.csv"]
    assert names("../docs/sub") == ["sub/c.html", "sub/deep/d.csv"]
    os.chdir(folder / "sub")
    assert names("..")[0] == "docs/a.TXT"


@pytest.fixture(autouse=True)
def _back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_globs(tmp_path: Path) -> None:
    put(tmp_path / "docs", "a.md", "b.txt", "s/c.md", "s/.d.md", "e[1].md")
    assert names("docs/*.md") == ["docs/a.md", "docs/e[1].md"]
    assert names("docs/**/*.md") == ["docs/a.md", "docs/e[1].md", "docs/s/c.md"]
    assert names(f"{tmp_path}/*/?.md") == [f"{tmp_path.name}/docs/a.md"]
    assert names("docs/e[1].md") == ["e[1].md"]  # a file of this name is no glob
    assert names("d*/s/c.md") == ["docs/s/c.md"]
    assert "docs/*.pdf matches nothing" in refusal("docs/*.pdf").message


def test_each_file_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path / "docs", "a.md", "s/b.md")
    (tmp_path / "docs" / "z.md").symlink_to("a.md")
    (tmp_path / "docs" / "t").symlink_to("s")
    assert names("docs/a.md", "docs", "docs/*.md", tmp_path / "docs") == ["a.md", "docs/s/b.md"]
    assert (
        "files, named twice (docs/a.md, docs/a.md, docs/a.md and 6 more)" in capsys.readouterr().out
    )


def test_links_that_leave_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = put(tmp_path / "docs", "a.md")
    put(tmp_path / "secret", "b.md")
    (folder / "out.md").symlink_to("../secret/b.md")
    (folder / "folder").symlink_to("../secret")
    (folder / "nowhere.md").symlink_to("nowhere")
    (folder / "self.md").symlink_to("self.md")
    assert names(folder) == names("docs/**/*.md") == ["docs/a.md"]
    said = capsys.readouterr().out
    assert "! Left out: 4 files, links that leave the folder (docs/folder, docs/nowhere.md" in said
    (tmp_path / "link").symlink_to("secret")
    assert names("link") == ["link/b.md"]  # the user named it


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has none")
def test_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = put(tmp_path / "docs", "a.md")
    os.mkfifo(folder / "b.md")
    assert names(folder) == ["docs/a.md"]
    assert "a link, a pipe or a device (docs/b.md)" in capsys.readouterr().out
    assert "is no plain file" in refusal(folder / "b.md").message


def test_names_are_unique(tmp_path: Path) -> None:
    put(tmp_path, "one/docs/a.md", "two/docs/a.md", "two/a.md")
    assert names("one/docs", "two/docs", "two/a.md") == ["docs/a.md", "two/docs/a.md", "a.md"]
    assert names("two/a.md", "one/docs/a.md") == ["a.md", "docs/a.md"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.md", "1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.md", "2")
    assert names("a.zip") == ["a.zip/a.md", "a.zip/a (2).md"]
    assert [source.suffix for source in found("a.zip")] == [".md", ".md"]


def test_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a.md", "old.doc", "inner.zip", "x.png"):
            archive.writestr(name, name)
    sources = found("a.zip")
    assert [(source.name, source.problem) for source in sources] == [
        ("a.zip/a.md", ""),
        ("a.zip/old.doc", "a.zip/old.doc: .doc files are not read."),
        ("a.zip/inner.zip", "a.zip/inner.zip: an archive in an archive is not opened."),
    ]
    assert "Unpack the outer one" in sources[2].advice
    assert "of unknown kinds (a.zip/x.png)" in capsys.readouterr().out


def test_old_kinds_have_a_way_out(tmp_path: Path) -> None:
    put(tmp_path / "docs", "a.doc", "b.xls", "c.ppt", "d.rtf", "e.odt", "f.xlsm")
    sources = found("docs")
    assert [source.problem for source in sources] == [
        f"docs/{name}: {name[1:]} files are not read." for name in ("a.doc", "b.xls", "c.ppt", "d.rtf", "e.odt", "f.xlsm")
    ]  # fmt: skip
    assert sources[0].advice.startswith("Open it and save it as .docx")
    assert "save it as .xlsx" in sources[1].advice
    assert len({source.digest() for source in sources}) == len(sources)
    assert found("docs/a.doc")[0].problem  # named alone, too


def test_what_is_not_there(tmp_path: Path) -> None:
    put(tmp_path, "a.xyz", "empty/.x")
    assert refusal("nowhere.md").message == "documents.files: nowhere.md does not exist."
    assert "owner/name" not in refusal("nowhere.md").advice
    assert "A dataset of the Hub is owner/name." in refusal("nowhere").advice
    assert str(tmp_path) in refusal("docs/nowhere.md").advice
    assert "a.xyz is of a kind that is not read" in refusal("a.xyz").message
    assert ".pptx" in refusal("a.xyz").advice
    assert refusal("empty").message == "documents.files: empty holds no document."
    assert "can't be a path" in refusal("x" * 5000).message


def test_an_encoding_that_is_none(tmp_path: Path) -> None:
    put(tmp_path, "a.md")
    with pytest.raises(UsageError, match=r"documents\.encoding: 'cp932x' is no encoding"):
        find_files(Documents(files=["a.md"], encoding="cp932x"))


@pytest.mark.parametrize("name", ["owner/name", "owner/name:train", "owner/name:config.x-1:train"])
def test_datasets_of_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = found(name)
    assert (source.dataset, source.name) == (name, name)
    monkeypatch.setenv("RAGTUNE_OFFLINE", "1")
    with pytest.raises(
        RagtuneError, match="is no file or folder here; a dataset of this name would be on the Hub"
    ):
        source.digest()


def test_the_digest_of_a_dataset_is_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        sha = "a"

        def dataset_info(self, repo: str) -> Api:
            if repo != "owner/name":
                raise OSError("not found")
            return self

    api = Api()
    monkeypatch.setattr("ragtune.base.web.hub.api", lambda: api)
    first, other = found("owner/name:train", "owner/name:test")
    before = first.digest()
    assert before == first.digest() != other.digest()
    api.sha = "b"
    assert first.digest() != before
    with pytest.raises(
        UsageError, match=r"documents\.files: docs/manuals is no file or folder here, and"
    ) as raised:
        found("docs/manuals")[0].digest()
    assert "Correct the path" in raised.value.advice


def test_digests(tmp_path: Path) -> None:
    put(tmp_path, "a.md", "b.md")
    a, b = found("a.md", "b.md")
    before = a.digest()
    assert before == "".join(found("a.md")[0].digest()) != b.digest()
    a.path.write_text("b.md", "utf-8")
    assert a.digest() == b.digest() != before
    a.path.unlink()
    assert a.digest() == a.digest() != before  # that it is gone is said when it is read


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a/b.PDF", ".pdf"), ("a.tar.gz", ".tar.gz"), ("a.b.jsonl.gz", ".jsonl.gz"), ("a", ""), (".md", ""), ("a.gz", ".gz"),
     ("x.d/a", "")],
)  # fmt: skip
def test_suffixes(name: str, suffix: str) -> None:
    assert Source(Path(), name).suffix == suffix


@pytest.mark.skipif(sys.platform != "linux", reason="where a name may be any bytes")
def test_names_are_text_as_one_types_it(tmp_path: Path) -> None:
    folder = put(tmp_path / "docs", "\u30ab\u3099.md")
    (folder / os.fsdecode(b"\xff\xfe.md")).write_text("x", "utf-8")
    assert names(folder) == ["docs/\u30ac.md", "docs/??.md"]


def test_a_path_that_is_no_name_of_a_dataset_is_not_asked_of_the_hub() -> None:
    source = Source(Path(), "社内文書/古い.pdf", dataset="社内文書/古い.pdf")
    with pytest.raises(UsageError, match=r"社内文書/古い\.pdf is no file or folder here\.\n"):
        source.digest()
