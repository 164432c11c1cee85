"""Completion: what shells are offered, by Typer's protocol of each, and bash itself with its tabulator."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ragtune.base.screen.usage import complete_with
from ragtune.cli import main
from ragtune.recipe.completion import COMPLETERS
from ragtune.recipe.corpus import Corpus
from ragtune.recipe.keys import all_keys, sections
from ragtune.recipe.shipped import names

Asked = Callable[[str], list[str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run, a recipe, and names that a shell would act on."""
    for run in (
        "first",
        "次",
        "a b",
        "$(touch gone)",
        "q'; touch gone; '",
        'x\\"; touch gone; "',
        "../--yes",
    ):
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "recipe.yaml").touch()
    (tmp_path / "runs/empty").mkdir()
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "corpora/manuals").mkdir(parents=True)
    (tmp_path / "corpora/manuals/build.json").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Asked:
    """What fish is offered for a line that is begun: words, with what they are behind a tab."""
    complete_with(COMPLETERS)

    def ask(line: str, shell: str = "fish") -> list[str]:
        monkeypatch.setenv("_RAGTUNE_COMPLETE", f"complete_{shell}")
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"ragtune {line}")
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        with pytest.raises(SystemExit) as end:
            main([])
        assert not end.value.code
        return capsys.readouterr().out.splitlines()

    return ask


def words(lines: list[str]) -> list[str]:
    return [line.partition("\t")[0] for line in lines if line]


def test_commands_and_options(asked: Asked) -> None:
    assert asked("ev") == ["evaluate\tAnswer the questions, and score the answers."]
    assert "--show" in words(asked("prepare x --s"))
    assert words(asked("report x --format ")) == ["html", "md"]


def test_recipes_and_runs(asked: Asked) -> None:
    assert asked("run ") == ["mine.yaml\ta file", "runs/first\ta run", "runs/次\ta run"]
    assert words(asked("compare runs/f")) == ["runs/first"]
    assert words(asked("run mine.yaml --run-dir ")) == ["runs/first", "runs/次"]
    assert words(asked("build ")) == ["mine.yaml"]
    assert words(asked("build mine.yaml --folder ")) == ["corpora/manuals"]
    assert words(asked("init --recipe ")) == names()
    assert not words(asked("run nowhere"))  # the shell's own completion of files is next


def test_keys_and_their_values(asked: Asked) -> None:
    offered = words(asked("run mine.yaml "))
    assert offered == [f"{key}=" for key in all_keys() if key not in sections()]
    assert asked("run m.yaml train.learning") == [
        "train.learning_rate=\tpeak learning rate",
        "train.learning_rate=0.0001",
    ]
    assert words(asked("train m.yaml train.steps=3 model.quantization=")) == [
        "model.quantization=nf4",
        "model.quantization=null",
    ]
    assert words(asked("run m.yaml model.trust_remote_code=t")) == ["model.trust_remote_code=true"]
    of_a_corpus = words(asked("build mine.yaml passages.si"))
    assert of_a_corpus == ["passages.size=", "passages.size=null"]
    assert "documents.files" in all_keys(Corpus)
    assert words(asked("ask runs/first Who? model.dt")) == [
        "model.dtype=",
        *(f"model.dtype={one}" for one in ("auto", "float32", "bfloat16", "float16")),
    ]
    assert not words(asked("run m.yaml nothing.of.the.kind="))


def test_no_name_is_offered_that_would_be_an_option(asked: Asked, here: Path) -> None:
    assert (here / "--yes" / "recipe.yaml").exists()
    assert not [word for word in words(asked("run ")) if word.startswith("-")]


def test_no_offer_breaks_a_shells_line(asked: Asked) -> None:
    """Typer's zsh evaluates what it is told: nothing in it may be read as anything but words."""
    complete_with(COMPLETERS)
    for line in ("run ", "run m.yaml ", "build m.yaml ", "init --recipe "):
        (first, *lines) = asked(line, shell="zsh")  # type: ignore[call-arg]
        assert first.startswith("_arguments '*: :((\"")
        for one in (first.removeprefix("_arguments '*: :(("), *lines):
            assert set(one.removesuffix("))'")) <= set(
                '"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 =:,.()/_+@-次'
            ), one
    assert all(len(one) <= 120 for one in asked("run m.yaml "))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_come_out_as_they_are(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_RAGTUNE_COMPLETE", f"source_{shell}")
    with pytest.raises(SystemExit) as end:
        main([])
    assert not end.value.code
    out = capsys.readouterr().out
    assert f"complete_{shell}" in out
    assert "\\n" not in out
    assert "\\x" not in out


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_bash_completes_at_its_tabulator(here: Path) -> None:
    """Typed into a bash, which breaks words at =; another key shows the line as it then stands."""
    import pexpect

    program = here / "bin/ragtune"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ragtune "$@"\n', "utf-8")
    program.chmod(0o755)
    environment = {**os.environ, "TERM": "dumb", "INPUTRC": os.devnull, "LC_ALL": "C.UTF-8",
                   "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}  # fmt: skip
    bash = pexpect.spawn(
        "bash", ["--norc", "--noprofile", "-i"], env=environment, cwd=str(here), encoding="utf-8",
        timeout=60, dimensions=(50, 200),
    )  # fmt: skip
    bash.sendline(
        'eval "$(_RAGTUNE_COMPLETE=source_bash ragtune)"; bind "set enable-bracketed-paste off";'
        ' bind -x \'"\\C-x": printf "LINE=[%s]\\n" "$READLINE_LINE"\'; echo rea""dy'
    )
    bash.expect("ready\r\n")
    for typed, completed in {
        "ev": "evaluate ",
        "run runs/fi": "runs/first ",
        "run m.yaml train.learning": "train.learning_rate=",
        "run m.yaml model.quantization=nf": "model.quantization=nf4 ",
        "run m.yaml data.train=mi": "data.train=mine.yaml ",
    }.items():
        bash.send(f"ragtune {typed}\t\x18")
        bash.expect(r"LINE=\[(.*?)\]\r")
        assert bash.match[1].endswith(f" {completed}")
        bash.send("\x15")
    bash.close()
    assert not (here / "gone").exists()
