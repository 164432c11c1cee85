"""The documentation says what the code does: its commands run, its keys exist, its links lead somewhere.

    python -m tests.test_docs

writes again what the pages have from the code (tests/reference.py).
"""

from __future__ import annotations

import inspect
import io
import json
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from ragtune.base.commands import PACKAGES
from ragtune.cli import app, main
from ragtune.recipe.corpus import Corpus
from ragtune.recipe.keys import all_keys, sections
from ragtune.recipe.load import load_corpus, load_recipe
from ragtune.stages.sweep.grid import points_of
from tests import reference

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RECIPE_PAGE = ROOT / "docs/recipe.md"
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.md")]
)  # fmt: skip

A_CORPUS = {
    "name": "manuals",
    "documents": {"files": ["manuals/"]},
    "questions": {"files": ["questions.csv"]},
}
# Commands of the README that are not run here; each is checked as far as it can be (see below).
NOT_RUN = {
    "make quickstart": "makes an environment and takes minutes; tests/stages/test_run.py runs the stages",
    "make quickstart TORCH_INDEX=https://download.pytorch.org/whl/cpu": "the same",
    "make test": "is what runs this test",
    "ragtune run recipes/aio-swallow-7b.yaml": "needs a GPU, the network and a 7B model",
    "pip install -e .": "changes the environment",
    "pip install -e '.[documents]'": "changes the environment",
    "pip install -e '.[gguf]'": "changes the environment",
    "pip install -e '.[cuda]'": "changes the environment",
    "pip install torch --index-url https://download.pytorch.org/whl/cpu": "changes the environment",
    "hf auth login": "needs an account",
    "ragtune push runs/my-run publish.repo=YOUR-NAME/MODEL": "needs an account; tests/publish has a stand-in",
}


def blocks(page: Path, language: str) -> Iterator[str]:
    """The fenced blocks of a language, also those within a list."""
    for match in re.finditer(
        rf"^( *)```{language}\n(.*?)^\1```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    ):
        yield textwrap.dedent(match[2])


def commands(page: Path) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.splitlines() if line]


def everywhere(language: str) -> list[Any]:
    """Every block of a language, as parameters named by page."""
    return [
        pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page, language), 1)
    ]


def test_the_readmes_commands_run(
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In their order, on the README's own data, with a tiny model and few steps in its recipe."""
    listed = commands(README)
    assert not NOT_RUN.keys() - set(listed), "listed as not run, but not in the README"
    files = re.findall(
        r"^`([\w./]+)`\n\n```(?:json|markdown|text)\n(.*?)^```$",
        README.read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert [name for name, _ in files] == [
        "train.jsonl", "eval.jsonl", "documents/house.md", "documents/street.md", "questions.csv"
    ]  # fmt: skip
    (tmp_path / "documents").mkdir()
    for name, text in files:
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    ran = 0
    for line in listed:
        if line in NOT_RUN:
            continue
        # `ask` without a question reads it
        monkeypatch.setattr("sys.stdin", io.StringIO("Who built the street?\n"))
        program, *arguments = shlex.split(line)
        assert program == "ragtune", line
        with pytest.raises(SystemExit) as end:
            main([*arguments, "train.steps=3"] if "train.steps=50" in arguments else arguments)
        assert end.value.code == 0, f"{line}\n{capsys.readouterr().err}"
        ran += 1
        if arguments[0] == "init" and "--corpus" not in arguments:
            recipe = tmp_path / arguments[1]
            text = recipe.read_text("utf-8")
            for key, value in (("id", tiny_folder), ("steps", 4)):
                text, found = re.subn(
                    rf"^  {key}: .*$", f"  {key}: {value}", text, flags=re.MULTILINE
                )
                assert found == 1
            recipe.write_text(text, "utf-8")
    assert ran == 16
    assert (tmp_path / "runs/my-run/report.html").exists()
    assert (tmp_path / "runs/documents/report.html").exists()
    assert (tmp_path / "runs/shorter/merged/model.safetensors").exists()
    out = capsys.readouterr().out
    assert '{"n": 2, "metrics": {' in out
    assert "\n## my-run: " in out
    assert (tmp_path / "runs/my-run/eval/eval/controls.json").exists()


def require_installable(words: list[str]) -> None:
    """What is installed is a package that ragtune knows, or ragtune itself with extras that it has."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for word in words:
        name, _, more = word.partition("[")
        assert set(more.rstrip("]").split(",")) <= {"", *extras["optional-dependencies"]}, word
        assert (
            name.startswith(("-", "https://download.pytorch.org/"))
            or name
            in ("pip", "venv", "tool", "install", "download", "auto", "3.12", "packages", ".")
            or re.fullmatch(r"ragtune-[\d.]+-py3-none-any\.whl", name)
            or name in PACKAGES
        ), word


def words_of(line: str) -> list[str]:
    """A command's words; of a launcher's those of the program that it starts."""
    words = shlex.split(line)
    launched = words[0] in ("torchrun", "accelerate")
    return words[words.index("-m") + 1 :] if launched else words


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in commands(page)}))
def test_a_command_is_one_that_there_is(line: str) -> None:
    program, *arguments = [a for a in words_of(line) if a not in ("--offline", "--debug")]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    if program == "make":
        named = [
            rf"{re.escape(a)}:" if "=" not in a else rf"{a.partition('=')[0]} \?="
            for a in arguments
        ]
        assert all(re.search(f"^{name}", makefile, re.MULTILINE) for name in named)
    elif program in ("pip", "uv"):
        require_installable(arguments)
    elif program in ("python", "sbatch"):
        assert (ROOT / arguments[0]).is_file()
        text = (ROOT / arguments[0]).read_text("utf-8")
        assert all(f'"{a}"' in text for a in arguments if a.startswith("--"))
    elif program == "ragtune":
        name = arguments[0]
        command: Any = typer.main.get_command(app)
        if name.startswith("--"):
            assert any(name in option.opts for option in command.params)
            return
        given = command.commands[name].make_context(name, arguments[1:]).params
        target = given.get("target", "")
        if "corpus" in given and name == "build":
            load_corpus(A_CORPUS, given["overrides"])
            return
        recipe = ROOT / (target if target.startswith("recipes/") else "recipes/quickstart.yaml")
        if name == "sweep":
            assert len(points_of(load_recipe(recipe), given["overrides"])) > 1
        else:
            load_recipe(recipe, given.get("overrides"))
    elif program in ("vllm", "transformers"):
        assert arguments[0] == "serve"
        if program == "transformers":
            from transformers.cli.serve import Serve

            known = inspect.signature(Serve.__init__).parameters
            assert all(a[2:] in known for a in arguments if a.startswith("--"))
    else:
        assert line in ("hf auth login", "git worktree add ../before main")


@pytest.mark.parametrize("block", everywhere("python"))
def test_python_compiles(block: str) -> None:
    compile(block, "README", "exec")
    import ragtune

    for name in re.findall(r"\bragtune\.(\w+)", block):
        assert name in ragtune.__all__


@pytest.mark.parametrize("block", everywhere("yaml"))
def test_recipe_keys_and_values_are_valid(block: str) -> None:
    found = yaml.safe_load(block)
    overrides = [
        f"{section}.{key}={yaml.dump(value, default_flow_style=True, width=10_000)}"
        for section, values in found.items()
        for key, value in values.items()
    ]
    if found.keys() <= Corpus.model_fields.keys():
        load_corpus(A_CORPUS, overrides)
    else:
        load_recipe(ROOT / "recipes/quickstart.yaml", overrides)


@pytest.mark.parametrize("block", everywhere("json"))
def test_json_is_one_record_a_line(block: str) -> None:
    from ragtune.data.example import parse_example
    from ragtune.data.select import rejection

    for number, line in enumerate(block.splitlines(), 1):
        example = parse_example(json.loads(line), f"line {number}")
        assert rejection(example, 3) is None


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http://", "https://")):
            name, _, anchor = target.partition("#")
            name = name or page.name
            assert (page.parent / name).exists(), f"{page.name}: {target}"
            if anchor:
                heads = re.findall(
                    r"^#+ (.+)$", (page.parent / name).read_text("utf-8"), re.MULTILINE
                )
                names = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in heads]
                assert anchor in names, f"{page.name}: {target}"


def test_every_page_is_linked_from_the_readme() -> None:
    text = README.read_text("utf-8")
    assert all(f"(docs/{page.name})" in text for page in (ROOT / "docs").glob("*.md"))


def test_every_sample_is_attributed() -> None:
    folder = ROOT / "src/ragtune/data/samples"
    text = (folder / "README.md").read_text("utf-8")
    assert all(f"`{path.name}`" in text for path in folder.glob("*.gz"))


def test_keys_that_the_pages_name_are_there() -> None:
    names = "|".join([*sections(), *sections(Corpus)])
    there = {*all_keys(), *all_keys(Corpus)}
    for page in PAGES:
        for key in re.findall(rf"`((?:{names})\.[a-z_.]+)(?:[:=` ])", page.read_text("utf-8")):
            assert key in there or key.endswith(
                (".yaml", ".jsonl", ".json", ".parquet", ".safetensors", ".gz", ".csv")
            ), f"{page.name}: {key}"


@pytest.mark.parametrize("page", reference.PARTS)
def test_what_is_made_from_the_code_is_in_step_with_it(page: str) -> None:
    path = ROOT / "docs" / page
    assert path.read_text("utf-8") == reference.fresh(path, str), "run: python -m tests.test_docs"


def test_every_recipe_is_in_the_table() -> None:
    listed = re.findall(
        r"^\| \[([\w.-]+)\]\(\.\./recipes/", RECIPE_PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert sorted(listed) == sorted(path.name for path in (ROOT / "recipes").iterdir())


if __name__ == "__main__":
    reference.main()
