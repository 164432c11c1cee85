"""The house is in order: sizes, the tree in CONTRIBUTING, reasons of exceptions, what imports torch.

    python -m tests.test_house

writes the tree in CONTRIBUTING again, from the first line of each module's docstring.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from ragtune.data.prompt import PRESETS
from ragtune.recipe.data import Prompt
from ragtune.recipe.keys import all_keys, sections
from ragtune.recipe.schema import CHANGES_NOTHING, Metric
from ragtune.reporting import wording
from ragtune.scoring.metrics import METRICS
from ragtune.stages.order import ROAD

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "ragtune"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"

FILE_LINES = 350
FUNCTION_LINES = 60
LOOSE_FILES = 5
EXCEPTS = 4
"""In a thousand lines, outside of the edges."""
TYPICAL_CHANGES = 10
WITHOUT_TORCH = ("base", "recipe", "store", "data", "scoring")

EDGES = {
    "__main__.py": "whatever it is ends in a message",
    "base/ending.py": "whatever it is ends in a message",
    "asking/page.py": "whatever it is ends in a message on the page",
    "asking/page_guard.py": "strangers' requests",
    "asking/page_server.py": "addresses, a package that may be missing",
    "asking/feedback.py": "disks",
    "api.py": "a recipe that can't be read is a finding",
    "answering/llama_process.py": "another process",
    "asking/history.py": "the user's file",
    "asking/pieces.py": "another thread",
    "asking/published.py": "the network, strangers' files",
    "asking/session.py": "the user's terminal",
    "base/disk.py": "disks",
    "base/encoding.py": "strangers' text",
    "base/several.py": "strangers' files",
    "base/files.py": "disks",
    "base/web/answers.py": "the network",
    "base/web/hub.py": "the network",
    "base/web/hub_client.py": "the network",
    "base/lock.py": "disks, other processes",
    "base/secrets.py": "strangers' text",
    "recipe/load.py": "the user's file",
    "recipe/template.py": "the user's file",
    "recipe/yaml.py": "the user's file",
    "store/proof.py": "a file that may be damaged",
    "building/figures.py": "a file that may be damaged",
    "store/seal.py": "files that may be damaged or gone",
    "building/documents/office.py": "strangers' files",
    "building/documents/pdf.py": "strangers' files",
    "building/documents/parts.py": "a package that may be missing",
    "building/retrieval/sentence_models.py": "strangers' models",
    "building/retrieval/own.py": "the user's code",
    "building/retrieval/found.py": "what the user's code returns",
    "building/retrieval/vectors.py": "files that may be damaged",
    "building/retrieval/retrieved.py": "the user's file",
    "building/retrieval/distributed.py": "a cluster",
    "building/retrieval/segments.py": "disks, other processes",
    "building/retrieval/lexical.py": "files that may be damaged",
    "building/synthesis/answers.py": "a file that may be damaged",
    "building/synthesis/reply.py": "what a model writes",
    "building/synthesis/server.py": "the network",
    "building/synthesis/local.py": "strangers' models",
    "building/shelf.py": "disks, a file that may be damaged",
    "building/searching.py": "a file that may be cut off",
    "data/aio.py": "the network",
    "data/chat.py": "strangers' templates",
    "data/example.py": "strangers' records",
    "data/opening.py": "strangers' templates",
    "data/files.py": "strangers' files",
    "data/formats/mapped.py": "strangers' records",
    "data/hub.py": "the network",
    "data/json_file.py": "strangers' files",
    "data/parquet.py": "strangers' files",
    "data/prompt.py": "strangers' templates",
    "data/tables.py": "strangers' files",
    "data/splits.py": "strangers' templates",
    "data/template.py": "strangers' templates",
    "data/trial.py": "another process",
    "model/configuration.py": "strangers' models",
    "model/facts.py": "the network",
    "model/fast/probe.py": "strangers' models",
    "model/gguf.py": "strangers' files",
    "model/headers.py": "strangers' models",
    "model/hub_cache.py": "strangers' files, the network",
    "model/load.py": "strangers' models",
    "model/lora.py": "an adapter that may be damaged",
    "model/quantized.py": "strangers' models and quantizers",
    "model/safety.py": "strangers' files",
    "model/skeleton.py": "strangers' models",
    "model/trial.py": "strangers' models",
    "model/unloadable.py": "strangers' models",
    "training/trainer.py": "out of memory",
    "answering/client.py": "the network",
    "answering/connection.py": "the network",
    "answering/fit.py": "strangers' models",
    "answering/harness.py": "strangers' tasks",
    "answering/harnessed.py": "out of memory",
    "answering/local.py": "out of memory",
    "answering/padded.py": "strangers' models",
    "answering/prediction.py": "a file that may be damaged",
    "answering/ragged.py": "strangers' models, CUDA graphs",
    "answering/endpoint.py": "the network",
    "building/documents/archives.py": "strangers' files",
    "building/documents/encoding.py": "strangers' files",
    "building/documents/files.py": "strangers' files",
    "building/documents/find.py": "the user's files",
    "building/documents/html.py": "strangers' files",
    "building/documents/kinds.py": "strangers' files",
    "building/documents/read.py": "strangers' files",
    "building/documents/records.py": "strangers' files",
    "building/documents/source.py": "strangers' files",
    "building/documents/tables.py": "strangers' files",
    "building/documents/worker.py": "strangers' files, another process",
    "model/to_gguf/go_template.py": "strangers' templates",
    "publish/hub.py": "the network",
    "publish/licences.py": "the network, strangers' model cards",
    "stages/check/checks.py": "checks of strangers' models, templates and files",
    "stages/check/model.py": "strangers' models",
}
"""Where `except` belongs, and what lies behind the edge."""


def modules() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function's name and lines, from `def` to its end."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield node.name, node.end_lineno - node.lineno + 1


def excepts(path: Path) -> int:
    """How many errors a file handles: `except`, and `suppress`, which is the same."""
    return sum(
        isinstance(node, ast.ExceptHandler)
        or (isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node).endswith("suppress"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    )


def outside_of_edges() -> tuple[int, int]:
    """Handled errors and lines of all files that are no edge."""
    inner = [path for path in modules() if name_of(path) not in EDGES]
    return sum(map(excepts, inner)), sum(lines(path) for path in inner)


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def long_files() -> set[str]:
    return {name_of(path) for path in modules() if lines(path) > FILE_LINES}


def long_functions() -> set[str]:
    return {
        f"{name_of(path)}: {name}"
        for path in modules()
        for name, length in functions(path)
        if length > FUNCTION_LINES
    }


def unreasoned() -> set[str]:
    """Files with a `noqa` that gives no reason after ` - `. (`type: ignore[rule]` says what is lacking.)"""
    return {
        name_of(path)
        for path in modules()
        for line in path.read_text("utf-8").splitlines()
        if "# noqa" in line and not re.search(r"# noqa: [A-Z0-9, ]+ - \w", line)
    }


def many_excepts() -> set[str]:
    """Files that hold more than their share, if all together do."""
    found, length = outside_of_edges()
    if found <= EXCEPTS * length / 1000:
        return set()
    return {
        name_of(path)
        for path in modules()
        if name_of(path) not in EDGES and excepts(path) > EXCEPTS * lines(path) / 1000
    }


def named_torch() -> set[str]:
    """Files of rooms without torch that import it, wherever in the file."""
    return {
        name_of(path)
        for room in WITHOUT_TORCH
        for path in (SRC / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if "torch" in _imported(node)
    }


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {node.module.partition(".")[0]}
    return set()


def named_distributed() -> set[str]:
    """Files outside of the room `distributed` that import torch.distributed, but for the tensors of spread weights."""
    return {
        name_of(path)
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        for module in _modules(node)
        if module.startswith("torch.distributed")
        and not module.startswith("torch.distributed.tensor")
        and not name_of(path).startswith("distributed/")
    }


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def named() -> set[str]:
    """What "Where do I change …" sends its reader to, as `file` or `file:NAME`, and is not there."""
    rows = [row for row in CONTRIBUTING.read_text("utf-8").splitlines() if row.startswith("| a")]
    assert len(rows) >= TYPICAL_CHANGES
    found = set(re.findall(r"`([\w/]+\.[\w.]+)(?::(\w+))?`", "\n".join(rows)))
    return {f"{file}:{name}" for file, name in found if not _is_there(file, name)}


def _is_there(file: str, name: str) -> bool:
    path = (ROOT if file.startswith(("tests/", "bench/")) else SRC) / file
    if not path.exists():
        return False
    return (
        not name
        or re.search(rf"^(def |class )?{name}\b", path.read_text("utf-8"), re.MULTILINE) is not None
    )


OFFENDERS = {
    "long files": long_files,
    "long functions": long_functions,
    "exceptions without a reason": unreasoned,
    "excepts": many_excepts,
    "torch": named_torch,
    "torch.distributed": named_distributed,
    "Where do I change": named,
}


@pytest.mark.parametrize("what", OFFENDERS)
def test_in_order(what: str) -> None:
    assert OFFENDERS[what]() == set()


def test_few_files_lie_loose() -> None:
    loose = [path.name for path in SRC.iterdir() if path.is_file()]
    assert len(loose) <= LOOSE_FILES, loose


def test_lists_that_must_agree() -> None:
    """What a recipe may name, what does it, and what says it."""
    assert set(get_args(Metric)) == set(METRICS) == set(wording.METRICS)
    preset = get_args(Prompt.model_fields["preset"].annotation)[0]
    assert set(get_args(preset)) == set(PRESETS)


def test_every_key_of_the_recipe_is_read_or_changes_nothing() -> None:
    read = tuple(key for stage in ROAD for key in stage.reads)
    keys = [key for key in all_keys() if key not in sections()]
    assert [k for k in keys if not k.startswith((*read, *CHANGES_NOTHING))] == []


def test_every_edge_is_there() -> None:
    assert {name for name in EDGES if not (SRC / name).exists()} == set()


def test_rooms_without_torch_do_not_load_it() -> None:
    """Nor does anything that they import."""
    names = [
        ".".join(("ragtune", *path.relative_to(SRC).with_suffix("").parts))
        for room in WITHOUT_TORCH
        for path in sorted((SRC / room).rglob("*.py"))
        if path.name != "__init__.py"
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules:\n"
        "        sys.exit(name + ' loads torch')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def docstring(path: Path) -> str:
    """The first line of a module's docstring, without its full stop."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.partition("\n")[0].removesuffix(".")


def tree() -> list[str]:
    """The folders and modules of ragtune, each with a line."""
    found = [("src/ragtune/", docstring(SRC / "__init__.py")), *_below(SRC, 1)]
    width = max(len(name) for name, _ in found) + 2
    return [f"{name:<{width}}{line}".rstrip() for name, line in found]


def _below(folder: Path, depth: int) -> Iterator[tuple[str, str]]:
    """Loose files, then rooms."""
    indent = "  " * depth
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"{indent}{path.name}", docstring(path)
    for path in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield f"{indent}{path.name}/", docstring(path / "__init__.py")
        yield from _below(path, depth + 1)


def tree_in(text: str) -> tuple[int, int]:
    """Where in CONTRIBUTING the tree begins and ends."""
    start = (
        text.index("src/ragtune/\n") if "src/ragtune/\n" in text else text.index("src/ragtune/ ")
    )
    return start, text.index("```", start)


def test_the_tree_is_the_folder() -> None:
    text = CONTRIBUTING.read_text("utf-8")
    start, end = tree_in(text)
    assert text[start:end].splitlines() == tree(), "python -m tests.test_house writes it again"


def test_every_line_of_the_tree_says_something() -> None:
    silent = [name_of(path) for path in modules() if not docstring(path)]
    assert silent == []


def main() -> None:
    text = CONTRIBUTING.read_text("utf-8")
    start, end = tree_in(text)
    CONTRIBUTING.write_text(text[:start] + "\n".join(tree()) + "\n" + text[end:], "utf-8")
    for what, offenders in OFFENDERS.items():
        print(f"{what}: {', '.join(sorted(offenders())) or 'none'}")
    found, length = outside_of_edges()
    print(
        f"{found} errors are handled outside of the edges, {1000 * found / length:.1f} in a thousand lines"
    )


if __name__ == "__main__":
    main()
