"""The notebooks: run from end to end in kernels with a tiny model, cut off and gone on with, and clean."""

from __future__ import annotations

import ast
import importlib.machinery
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

import ragtune
from tests.conftest import make_records
from tests.kernels import NOTEBOOKS, ROOT, Kernels, outputs
from tests.ready import Ready

AIO, OWN = (ROOT / "notebooks" / name for name in ("aio.ipynb", "own_documents.ipynb"))


@pytest.fixture
def kernels(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> Kernels:
    for name in ("nbclient", "ipykernel"):
        pytest.importorskip(name, reason=f"no {name} here")
    return Kernels(ready, monkeypatch)


def cells(notebook: Path) -> Iterator[dict[str, Any]]:
    return (c for c in json.loads(notebook.read_text("utf-8"))["cells"] if c["cell_type"] == "code")


def source(notebook: Path, name: str) -> str:
    return "".join(next(c["source"] for c in cells(notebook) if c["id"] == name))


def test_cut_off_and_gone_on_with(
    kernels: Kernels, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    """The kernel is killed within the training; the same notebook then goes on, and doesn't begin anew."""
    from nbclient.exceptions import DeadKernelError

    changes = {"steps": 30, "save_every": 3, "log_every": 5}
    recipe = tiny_recipe | {
        "train": tiny_recipe["train"] | changes,
        "publish": {"format": "adapter"},
    }
    path, run = tmp_path / "レシピ.yaml", tmp_path / "マイドライブ/run"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    cell = f"RECIPE, RUN = {str(path)!r}, {str(run)!r}"

    with pytest.raises(DeadKernelError):
        kernels.run(AIO, tmp_path, cell, fault=("signal_at_step", 8, signal.SIGKILL))
    assert not (run / "adapter").exists()
    before = (run / "eval/eval/before/stage.json").stat()

    shown = outputs(kernels.run(AIO, tmp_path, cell))
    first = re.search(r"Going on from step (\d+)\.", shown("run"))
    assert first
    assert 3 <= int(first[1]) < 30
    assert (run / "eval/eval/before/stage.json").stat() == before
    log = (run / "adapter/train_log.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["step"] for line in log] == [*range(1, 31)]
    assert shown("run").count("<svg") == 1
    assert "its mean, up to step 30." in shown("run")
    assert shown("comparison").count("<tr") == 11
    assert shown("answers").count("<tr") == 11
    assert "What colour is house 3?" in shown("answers")
    assert "<iframe" in shown("report")
    assert "パッセージの中に" in shown("ask")
    assert shown("push") == ""


def test_own_documents(kernels: Kernels, tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    rows = ["question,answers"]
    for i, record in enumerate(make_records(12)):
        text = (
            f"# House {i}\n\n{record['passages'][0]['text']} It stands at the end of the street.\n"
        )
        (tmp_path / f"documents/house-{i}.md").write_text(text, "utf-8")
        rows.append(f"{record['question']},{record['answers'][0]}|colour")
    (tmp_path / "questions.csv").write_text("\n".join(rows), "utf-8")
    cell = f"MODEL = {str(tiny_folder)!r}\nCHANGES = {{'train.steps': 2, 'train.epochs': 'null'}}"
    shown = outputs(kernels.run(OWN, tmp_path, cell))
    assert "12 documents" in shown("build")
    assert "a right passage among the first" in shown("build")
    assert "my-documents: 2 steps" in shown("recipe")
    assert "<svg" in shown("run")
    assert "difference" in shown("comparison")
    assert "accepted" in shown("answers")
    assert re.search(r"^- documents/house-\d+\.md", shown("ask"), re.MULTILINE)
    assert (tmp_path / "run/report.html").is_file()


@pytest.mark.slow
@pytest.mark.heavy
def test_a_real_model(kernels: Kernels, tmp_path: Path) -> None:
    """SmolLM2 on the sample of the quickstart: it learns."""
    path = tmp_path / "recipe.yaml"
    recipe = yaml.safe_load((ROOT / "recipes/quickstart.yaml").read_text("utf-8"))
    recipe["evaluate"]["limit"], recipe["publish"]["format"] = 30, "adapter"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    run = tmp_path / "run"
    kernels.run(AIO, tmp_path, f"RECIPE, RUN = {str(path)!r}, {str(run)!r}")
    assert ragtune.compare(run)["difference"]["squad_em"]["low"] > 0


@pytest.fixture
def colab(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Colab's modules: what was mounted, and what is uploaded when it is asked for."""
    seen = SimpleNamespace(mounted=[], asked=[])

    def upload(target_dir: str) -> None:
        seen.asked.append(target_dir)
        Path(target_dir, "questions.csv").write_text("question,answers\n", "utf-8")

    for name in ("google", "google.colab", "google.colab.drive", "google.colab.files"):
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    colab: Any = sys.modules["google.colab"]
    colab.drive = SimpleNamespace(mount=seen.mounted.append)
    colab.files = SimpleNamespace(upload=upload)
    return seen


def test_on_colab_results_are_on_the_drive(colab: SimpleNamespace, tmp_path: Path) -> None:
    here: dict[str, Any] = {"RUN": None, "RECIPE": "aio-swallow-7b-t4.yaml"}
    exec("from importlib.util import find_spec\nfrom pathlib import Path", here)
    exec(source(AIO, "drive"), here)
    assert here["RUN"] == Path("/content/drive/MyDrive/runs/aio-swallow-7b-t4")
    assert colab.mounted == ["/content/drive"]

    home = tmp_path / "ragtune"
    here |= {"HOME": home, "DOCUMENTS": "documents", "QUESTIONS": "questions.csv"}
    for _ in range(2):  # nothing is asked for again
        exec(source(OWN, "home"), here)
        assert colab.asked == [str(home / "documents"), str(home)]
    here["HOME"], here["DOCUMENTS"], here["QUESTIONS"] = None, str(home), str(home)
    exec(source(OWN, "home"), here)
    assert here["HOME"] == Path("/content/drive/MyDrive/ragtune")


def test_elsewhere_results_are_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for notebook, name in ((AIO, "drive"), (OWN, "home")):
        here: dict[str, Any] = {"RUN": None, "RECIPE": "recipe.yaml", "HOME": None}
        here |= {"DOCUMENTS": "documents", "QUESTIONS": "questions.csv"}
        exec("from importlib.util import find_spec\nfrom pathlib import Path", here)
        if notebook == OWN:
            (tmp_path / "questions.csv").touch()
            with pytest.raises(SystemExit, match="Put documents there, or set DOCUMENTS and QUEST"):
                exec(source(notebook, name), here)
            (tmp_path / "documents").mkdir()
        exec(source(notebook, name), here)
        assert (here["RUN"] or here["HOME"]) in (Path("runs/recipe"), Path())
    assert {path.name for path in tmp_path.iterdir()} == {"questions.csv", "documents"}


@pytest.mark.parametrize(
    ("capability", "name"),
    [(7, "aio-swallow-7b-t4"), (8, "aio-swallow-7b"), (None, "aio-swallow-7b")],
)
def test_the_recipe_fits_the_gpu(
    capability: int | None, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    gpu = SimpleNamespace(name="a GPU", total_memory=16 << 30, major=capability)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.chdir(tmp_path)
    asked: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.append(command))
    exec(source(AIO, "recipe"), here := {"RECIPE": None, "Path": Path})
    assert here["RECIPE"] == Path(f"{name}.yaml")
    assert asked == [[sys.executable, "-m", "ragtune", "init", "--recipe", name]]
    assert (ROOT / f"recipes/{name}.yaml").is_file()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_what_is_committed_is_clean(notebook: Path) -> None:
    """Without outputs, valid, with an id in every cell, and as ruff wants it."""
    import nbformat

    book = nbformat.read(notebook, as_version=4)
    nbformat.validate(book)
    assert (book.nbformat, book.nbformat_minor >= 5) == (4, True)
    code = list(cells(notebook))
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert 9 <= len(code) <= 14
    assert sum(cell["metadata"].get("tags") == ["parameters"] for cell in code) == 1
    assert "widgets" not in book.metadata
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff:
        for command in (["check"], ["format", "--check"]):
            done = subprocess.run(
                [ruff, *command, str(notebook)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_what_it_names_is_there(notebook: Path) -> None:
    """Functions of ragtune with their arguments, and the attributes of what they return."""
    import inspect

    code = "\n".join("".join(cell["source"]) for cell in cells(notebook))
    tree = ast.parse(re.sub(r"^( *)[%!].*$", r"\1pass", code, flags=re.MULTILINE))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = 0
    for call in calls:
        words = ast.unparse(call.func).split(".")
        found: Any = {"ragtune": ragtune, "reader": ragtune.Reader}.get(words[0])
        if found is None:
            continue
        for word in words[1:]:
            found = getattr(found, word)
        known = inspect.signature(found).parameters
        assert all(k.arg in known for k in call.keywords), ast.unparse(call)
        named += 1
    assert named >= 8
