"""The wheel: what is in it, and that it works without a checkout, in a folder with a blank and Japanese letters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from email.parser import BytesParser
from pathlib import Path

import pytest
from packaging.metadata import Metadata

import ragtune

ROOT = Path(__file__).parents[1]
Command = Callable[..., str]


def python(*arguments: str | Path, cwd: Path, **environment: str) -> str:
    """What a Python that sees nothing of the checkout writes to standard output."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, arguments)), cwd=cwd, env={**kept, **environment},
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, made of the checkout."""
    folder = tmp_path_factory.mktemp("sdist")
    python(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made of the source distribution: so both are whole."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    python(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder 実行 環境 with a virtual environment that holds the wheel and sees what it depends on.

    A path in a .pth file is searched, but the .pth files there are not read: an editable ragtune isn't seen.
    """
    folder = tmp_path_factory.mktemp("fresh") / "実行 環境"
    python(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=ROOT)
    there = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
    dependencies = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    Path(there, "dependencies.pth").write_text("\n".join(sorted(dependencies)), "utf-8")
    python(
        sys.executable, "-m", "pip", "--python", program(folder, "python"),
        "install", "--quiet", "--no-index", "--no-deps", "--no-compile", wheel, cwd=folder,
    )  # fmt: skip
    return folder


def program(fresh: Path, name: str) -> Path:
    return Path(sysconfig.get_path("scripts", vars={"base": str(fresh / "venv")})) / name


@pytest.fixture
def command(fresh: Path) -> Command:
    """Do `ragtune ARGUMENTS` as it is installed; returns what it writes."""

    def do(*arguments: str) -> str:
        return python(program(fresh, "ragtune"), *arguments, cwd=fresh)

    return do


def test_it_holds_the_package_the_recipes_and_nothing_else(wheel: Path) -> None:
    tracked = python("git", "ls-files", "-z", "src", "recipes", cwd=ROOT).split("\0")
    wanted = {f"ragtune/{name.removeprefix('src/ragtune/')}" for name in tracked if name}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        ours = [name for name in archive.namelist() if "dist-info/licenses/" in name]
    assert names == wanted
    assert {"ragtune/recipes/quickstart.yaml", "ragtune/py.typed"} <= names
    assert {Path(name).name for name in ours} >= {"LICENSE", "NOTICE", "LICENSE-CC-BY-SA-4.0.md"}
    assert wheel.stat().st_size < 8 << 20


def test_the_sdist_holds_what_a_wheel_is_made_of(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {Path(*Path(name).parts[1:]).parts[0] for name in archive.getnames()}
    assert names == {
        "src", "recipes", "pyproject.toml", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "NOTICE",
        "constraints.txt", ".gitignore", "PKG-INFO",
    }  # fmt: skip


def test_its_metadata_are_valid_and_have_the_one_version(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        content = archive.read(name)
    found = Metadata.from_email(content, validate=True)
    assert str(found.version) == ragtune.__version__
    assert found.description_content_type == "text/markdown"
    raw = BytesParser().parsebytes(content)
    assert "version" in (ROOT / "pyproject.toml").read_text("utf-8").partition("dynamic = ")[2][:12]
    for minor in (11, 12, 13):
        assert f"Programming Language :: Python :: 3.{minor}" in raw.get_all("Classifier", [])


def test_what_runs_is_the_wheel(fresh: Path, command: Command) -> None:
    where = python(
        program(fresh, "python"), "-c", "import ragtune; print(ragtune.__file__)", cwd=fresh
    )
    assert Path(where.strip()).is_relative_to(fresh)
    lines = command("--version").splitlines()
    assert lines[0] == f"ragtune {ragtune.__version__}"
    assert '"title": "Recipe"' in command("schema")


IN_ONE = """
import json, sys
from ragtune.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        if end.code:
            raise
"""
"""Several commands in one process: each alone would import torch, which takes longer than all they do here."""


def test_the_recipes_that_come_with_it_run_from_documents_to_a_report(
    fresh: Path, command: Command, tiny_folder: Path
) -> None:
    assert "Then: ragtune run quickstart.yaml" in command("init", "--recipe", "quickstart")
    told = command("init", "--recipe", "quickstart-documents")
    assert "ragtune build quickstart-documents.corpus.yaml" in told
    assert len(list((fresh / "corpora/input/documents/ja").iterdir())) == 16
    # One document of each kind, with all questions in Japanese; a tiny model.
    documents = [f"corpora/input/documents/ja/{one}" for one in _one_of_each_kind(fresh)]
    corpus = [f"documents.files={json.dumps(documents, ensure_ascii=False)}",
              "questions.files=[corpora/input/questions.ja.csv]"]  # fmt: skip
    recipe = [f"model.id={tiny_folder}", "train.steps=2", "train.save_every=2", "evaluate.limit=2",
              "evaluate.max_new_tokens=2", "publish.format=adapter"]  # fmt: skip
    commands = [
        ["build", "quickstart-documents.corpus.yaml", *corpus],
        ["run", "quickstart-documents.yaml", *recipe],
    ]
    python(program(fresh, "python"), "-c", IN_ONE, json.dumps(commands), cwd=fresh)
    assert (fresh / "runs/quickstart-documents/report.html").is_file()


def _one_of_each_kind(fresh: Path) -> list[str]:
    names = sorted(one.name for one in (fresh / "corpora/input/documents/ja").iterdir())
    return list({Path(name).suffix: name for name in names}.values())
