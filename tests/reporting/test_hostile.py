"""Strangers' texts in every place that a command shows, through the real command line, on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ragtune.base.screen.visible import visible
from ragtune.base.windows import is_reserved
from tests.base.screen.payloads import PAYLOADS
from tests.conftest import make_records, write_records
from tests.ready import Ready

OURS = re.compile(r"\x1b\[[\d;]*m|\x1b\[\?25[lh]|\x1b\[2K|\x1b\[1A|\r")
"""What rich writes: colours, a hidden cursor, lines that are written over."""
ACTING = {name: text for name, text in PAYLOADS.items() if visible(text) != text}
NAME = "tr\x1b]0;owned\x07[red]\u202ein.jsonl"


class Screen:
    """A terminal, and what was written to it."""

    def __init__(self, width: int) -> None:
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        self.path = Path(os.ttyname(self._slave))
        self._found = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # nobody writes any more
            while part := os.read(self._master, 65536):
                self._found += part

    def text(self) -> str:
        """All of it, once the command has ended."""
        os.close(self._slave)
        self._reader.join()
        os.close(self._master)
        return self._found.decode("utf-8")


Look = Callable[..., tuple[int, str]]


@pytest.fixture
def look(ready: Ready, tmp_path: Path) -> Look:
    """Does a command on a terminal; returns its code and the screen, where nothing of a payload acted."""

    def look(*arguments: str, width: int = 120) -> tuple[int, str]:
        screen = Screen(width)
        started = ready.start(
            list(arguments), tmp_path, (screen.path, screen.path), TERM="xterm-256color"
        )
        code = started.wait()
        text = screen.text()
        for name, payload in ACTING.items():
            assert payload not in text, name
        assert "38;5;123" not in text.replace(r"\x1b[38;5;123m", "")
        quiet = OURS.sub("", text)
        assert visible(quiet) == quiet
        assert "--debug" in arguments or "Traceback" not in text
        return code, quiet

    return look


@pytest.fixture
def recipe(tiny_recipe: dict[str, Any], tmp_path: Path) -> str:
    """A recipe whose data hold every payload, in every field."""
    for split, name in (("train", NAME), ("eval", "ev\x1b[2J.jsonl")):
        records = make_records(len(PAYLOADS), split[0])
        for record, text in zip(records, PAYLOADS.values(), strict=True):
            record["qid"] += text
            record["question"] = f"{text} {record['question']} {text}"
            record["answers"].insert(0, text)
            for passage in record["passages"]:
                passage["title"] += text
                passage["text"] += text
        tiny_recipe["data"][split] = str(write_records(tmp_path / name, records))
    tiny_recipe["prompt"]["system"] = f"Answer. {''.join(ACTING.values())}".replace("\uffff", "")
    tiny_recipe["train"] |= {"steps": 2, "save_every": 2}
    tiny_recipe["data"]["max_passages"] = 1
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe), "utf-8")
    return str(path)


def test_a_whole_run(look: Look, recipe: str, tmp_path: Path) -> None:
    code, shown = look("prepare", recipe, "--show", "50")
    assert code == 0, shown
    assert r"t0\x1b[2J\x1b[H" in shown
    assert "[/red] [link=https://evil.example]x[/link] [bold]b[/] [reverse]r" in shown
    assert "\nError: all is lost" not in shown
    code, shown = look("run", recipe, width=70)
    assert code == 0, shown
    assert r"\x1b[2J\x1b[H  ←" in shown
    for more in (
        ["evaluate", recipe], ["compare", recipe], ["check", recipe, "--json"], ["report", recipe, "--format", "md"],
        ["evaluate", recipe, "--predictions", str(predictions(tmp_path))],
    ):  # fmt: skip
        code, shown = look(*more)
        assert code == 0, shown


def test_a_tuned_model_is_asked(look: Look, recipe: str, tmp_path: Path) -> None:
    assert look("train", recipe)[0] == 0
    rows = [
        {"passage_id": f"p{i}{text}", "title": text, "text": f"{text} A house is red."}
        for i, text in enumerate(PAYLOADS.values())
    ]
    passages = str(write_records(tmp_path / NAME, rows))
    short = f"{PAYLOADS['clear']}{PAYLOADS['link']}{PAYLOADS['override']} house"
    for more in (["--compare"], ["--whole"], [short.upper(), "--compare"], ["--json"]):
        code, shown = look("ask", recipe, short, *more, "--passages", passages)
        assert code == 0, shown
        assert "A house is red." in shown
    asked = "".join(ACTING.values()).replace("\0", "")
    for arguments in (
        ["ask", asked, "Who?"], ["ask", recipe, "Who?", "--passages", asked], ["ask", recipe, "Who?", "--corpus", asked],
        ["ask", recipe, "Who?", f"prompt.system={asked}"], ["demo", asked], ["demo", recipe, "--host", asked],
        ["demo", asked, "--forget-feedback"], ["serve", asked], ["serve", recipe, "--host", asked],
        ["serve", recipe, "--print", "--engine", "vllm", "--name", short],
        ["serve", recipe, "--endpoint", f"http://localhost:9/{asked}"],
    ):  # fmt: skip
        look(*arguments)


def test_documents_are_built(look: Look, tmp_path: Path) -> None:
    folder = tmp_path / "documents\x1b[2J\u202e"
    folder.mkdir()
    rows = []
    for number, (name, text) in enumerate(PAYLOADS.items()):
        plain = name.replace(" ", "")
        written = (
            f"# {text} Town {plain}\n\n{plain} {text} was founded in {1000 + number} by {text}.\n"
        )
        (folder / f"{number}\x1b]0;owned\x07[red]\u202e.md").write_text(written, "utf-8")
        rows.append(
            {
                "qid": f"{number}{text}",
                "question": f"{text} When was {plain} founded?",
                "answers": [str(1000 + number), text],
            }
        )
    (folder / "no\x1b[2Jt.pdf").write_bytes(b"%PDF-1.4 \x1b[2J")
    asked = write_records(tmp_path / "questions.jsonl", rows)
    corpus = {
        "name": "towns",
        "documents": {"files": [str(folder)]},
        "questions": {"files": [str(asked)], "eval_share": 0.5},
        "retrieval": {"passages": 3},
    }
    path = tmp_path / "corpus.yaml"
    path.write_text(yaml.safe_dump(corpus), "utf-8")
    built = str(tmp_path / "b\x1b[2J\u202e")
    code, shown = look("build", str(path), "--folder", built, "--show", "99", width=60)
    assert code == 0, shown
    assert r"[red]\u202e.md" in shown
    assert r"no\x1b[2Jt.pdf" in shown
    for more in (["--json"], ["--strict"], [f"name={NAME}"], [f"retrieval.retriever={NAME}"]):
        look("build", str(path), "--folder", built, *more)


def predictions(folder: Path) -> Path:
    """Answers to some of the questions."""
    rows = [{"qid": f"e{i}{p}", "prediction": p} for i, p in enumerate(PAYLOADS.values()) if i % 2]
    return write_records(folder / "predictions.jsonl", rows)


def test_what_is_wrong_is_told(look: Look, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    text = "".join([*ACTING.values(), PAYLOADS["markup"]]).replace("\0", "")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe), "utf-8")
    bad = write_records(tmp_path / "bad.jsonl", [{"qid": text, "question": 1, text: text}])
    for arguments in (
        [text], [f"--{text}"], ["run", text], ["run", str(path), f"{text}=1"], ["run", str(path), f"train.{text}=1"],
        ["check", str(path), f"train.steps={text}"], ["check", str(path), f"model.id={text}", f"data.train={bad}"],
        ["check", str(path), f"data.train={text}"],
        ["run", str(path), f"name={text}"], ["compare", text, text], ["report", str(path), "--format", text],
        ["run", str(path), "--debug", f"prompt.chat_template={{{{ raise_exception({text!r}) }}}}"],
    ):  # fmt: skip
        code, shown = look(*arguments)
        assert code in (1, 2), shown


def test_what_a_run_makes_can_lie_on_windows(
    look: Look, tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    tiny_recipe["train"] |= {"steps": 2, "save_every": 1}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe), "utf-8")
    assert look("train", str(path))[0] == 0
    names = {part.name for part in (tmp_path / "runs").rglob("*")}
    assert "stage.json" in names
    assert [n for n in names if is_reserved(n) or re.search(r'[<>:"|?*\\]', n)] == []
