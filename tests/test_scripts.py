"""The scripts of bench/ and scripts/: what they import of ours is there. Most are run by nobody for months."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_records, write_records

ROOT = Path(__file__).parents[1]
FOLDERS = (ROOT / "scripts", ROOT / "bench")
INIT = "__init__.py"


def file_of(module: str, script: Path) -> Path | None:
    """Of a module of ours, as a script would find it; None of a library's."""
    below = Path(*module.split("."))
    bases = (
        ROOT / "src",
        *FOLDERS,
        script.parent,
        ROOT,
    )  # scripts/ goes before a benchmark's folder
    files = [file for base in bases for file in (base / below / INIT, base / f"{below}.py")]
    return next((file for file in files if file.is_file()), None)


def statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """What stands at the top of a module, under `if` and `try`, too."""
    for one in body:
        yield one
        if isinstance(one, ast.If | ast.Try):
            handlers = one.handlers if isinstance(one, ast.Try) else []
            yield from statements(
                [*one.body, *one.orelse, *(s for handler in handlers for s in handler.body)]
            )


@cache
def names_in(file: Path) -> set[str]:
    """What a module defines or imports, without loading it, and a package's modules."""
    found = {path.stem for path in file.parent.iterdir()} if file.name == INIT else set()
    for one in statements(ast.parse(file.read_text("utf-8")).body):
        if isinstance(one, ast.FunctionDef | ast.ClassDef):
            found.add(one.name)
        elif isinstance(one, ast.Import | ast.ImportFrom):
            found |= {(name.asname or name.name).partition(".")[0] for name in one.names}
        elif isinstance(one, ast.Assign | ast.AnnAssign):
            targets = one.targets if isinstance(one, ast.Assign) else [one.target]
            parts = [part for target in targets for part in ast.walk(target)]
            found |= {part.id for part in parts if isinstance(part, ast.Name)}
    return found


def imported(text: str) -> Iterator[tuple[str, str]]:
    """Every module that a text imports, at its top or later, and what of it; "" for the module alone."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, name.name) for name in node.names)
        elif isinstance(node, ast.Import):
            yield from ((name.name, "") for name in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield from [("ragtune", node.attr)] if node.value.id == "ragtune" else []


def lacking(script: Path, text: str) -> set[str]:
    """What a script's text imports of ours, and is not there."""
    found = set()
    for module, name in imported(text):
        file = file_of(module, script)
        if file is None and module.partition(".")[0] == "ragtune":
            found.add(module)
        elif file is not None and name and name not in names_in(file):
            found.add(f"{module}.{name}")
    return found


def test_what_scripts_import_is_there() -> None:
    scripts = [path for folder in FOLDERS for path in sorted(folder.rglob("*.py"))]
    assert len(scripts) > 40
    gone = {path: lacking(path, path.read_text("utf-8")) for path in scripts}
    assert {str(path.relative_to(ROOT)): names for path, names in gone.items() if names} == {}


def test_what_copying_reaches_is_asked_of_other_records(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bench/copying.py --reach --data: of records that hold their answer, and of one whose answer is nowhere."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    copying = importlib.import_module("copying")
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out.json"
    recipe.write_text(json.dumps(tiny_recipe), "utf-8")
    records = make_records(4)
    write_records(tmp_path / "all.jsonl", records)
    write_records(tmp_path / "fewer.jsonl", [*records[:3], {**records[3], "answers": ["nowhere"]}])
    files = [str(tmp_path / name) for name in ("all.jsonl", "fewer.jsonl")]
    given = ["copying.py", str(recipe), "--out", str(out), "--reach", "--data", files[0], "--data"]
    monkeypatch.setattr(sys, "argv", [*given, files[1]])
    copying.main()
    found = json.loads(out.read_text("utf-8"))["reach"]["recipe"]["samples"]
    assert [*found] == ["all.jsonl", "fewer.jsonl"]
    assert [one["records"] for one in found.values()] == [4, 4]
    shares = [one["an_accepted_answer_can_be_written"] for one in found.values()]
    assert shares == [1, 0.75]
    monkeypatch.setattr(sys, "argv", [*given, files[0]])
    with pytest.raises(SystemExit):  # one would stand for both
        copying.main()


def test_what_is_gone_is_noticed() -> None:
    text = (
        "import json, trl, ragtune.nothing\nfrom machine import made_with, unmade\nragtune.tune()\n"
        "from ragtune.data.unanswerable import refusing, without_positives\nfrom ragtune.gone import x\n"
        "def later():\n    from ragtune.model import load as loading, lost\n    ragtune.train()\n"
    )
    assert lacking(ROOT / "bench" / "new.py", text) == {
        "ragtune.nothing", "machine.unmade", "ragtune.tune", "ragtune.gone", "ragtune.model.lost",
        "ragtune.data.unanswerable.without_positives",
    }  # fmt: skip
