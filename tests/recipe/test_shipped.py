"""The recipes that come with ragtune: `ragtune init --recipe`."""

from __future__ import annotations

from pathlib import Path

import pytest

import ragtune
from ragtune.cli import main
from ragtune.recipe import shipped

ROOT = Path(__file__).parents[2]


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`ragtune init ARGUMENTS` in an empty folder: (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)

    def do(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["init", *arguments])
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return do


def test_each_is_written_as_it_is_and_is_valid(init, tmp_path: Path) -> None:
    assert "quickstart" in shipped.names()
    for name in shipped.names():
        code, out, _ = init("--recipe", name)
        assert code == 0
        written = tmp_path / f"{name}.yaml"
        assert written.read_bytes() == (ROOT / f"recipes/{name}.yaml").read_bytes()
        assert ragtune.load_recipe(written).name == name
        assert f"ragtune run {name}.yaml" in out
    assert ragtune.load_corpus(tmp_path / "quickstart-documents.corpus.yaml")


def test_what_it_says(init) -> None:
    assert init("--recipe", "quickstart", "own name.yaml")[1] == (
        "Wrote own name.yaml. Then: ragtune run 'own name.yaml'\n"
    )
    assert init("--recipe", "quickstart-documents")[1] == (
        "Wrote quickstart-documents.yaml, quickstart-documents.corpus.yaml and corpora/input. Then: "
        "ragtune build quickstart-documents.corpus.yaml, and ragtune run quickstart-documents.yaml\n"
    )


def test_nothing_is_replaced_unasked(init, tmp_path: Path) -> None:
    init("--recipe", "quickstart-documents")
    own = tmp_path / "corpora/input/documents/own.md"
    own.write_text("Mine.", "utf-8")
    code, _, errors = init("--recipe", "quickstart-documents")
    assert code == 2
    assert "quickstart-documents.yaml is there already" in errors
    (tmp_path / "quickstart-documents.yaml").unlink()
    code, _, errors = init("--recipe", "quickstart-documents")
    assert code == 2
    assert "quickstart-documents.corpus.yaml is there already" in errors
    assert not (tmp_path / "quickstart-documents.yaml").exists()
    code, out, _ = init("--recipe", "quickstart-documents", "--force")
    assert code == 0
    assert "corpora/input was there already, and stays as it is." in out
    assert own.exists()


def test_a_name_that_there_is_not(init, tmp_path: Path) -> None:
    code, _, errors = init("--recipe", "quickstrat")
    assert code == 2
    assert "There is no recipe 'quickstrat' in ragtune." in errors
    assert "Did you mean quickstart?" in errors
    assert all(name in errors for name in shipped.names())
    code, _, errors = init("--recipe", "../recipes/quickstart")
    assert code == 2
    assert "There are: aio-swallow-7b" in errors
    code, _, errors = init("--recipe", "quickstart", "--corpus")
    assert code == 2
    assert "don't go together" in errors
    assert not list(tmp_path.iterdir())


def test_where_it_cant_be_written(init, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, errors = init("--recipe", "quickstart", "file/mine.yaml")
    assert code == 1
    assert "is a file" in errors
    assert "ragtune init FILE" in errors
