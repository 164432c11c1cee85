"""The page that `check` prints: no word is broken on a terminal, no line is broken in a pipe."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len

from ragtune.base.screen import console
from ragtune.base.screen.console import Door
from ragtune.stages.check import findings
from ragtune.stages.check.findings import Finding, show

LONG = "/home/someone/" + "folder/" * 20 + "train.jsonl"
JAPANESE = "日本の首都はどこですか？" * 8
FOUND = [
    Finding("environment", "ok", "nothing in it changes the training behind the recipe"),
    Finding("speed", "warning", "answers 25 questions at a time, 16.5 of 79.2 GiB", "Set evaluate.batch_size=8."),
    Finding("training data", "ok", f"{LONG}: 5,000 records"),
    Finding("questions", "fail", f"{JAPANESE} can't be read", f"See {JAPANESE}"),
    Finding("template", "ok", "trained:", excerpt=(("prompt", f"{JAPANESE}\n"), ("trained", "東京<|im_end|>"))),
]  # fmt: skip
WIDTHS = (50, 80, 120)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Door:
    door = Door()
    door.file = io.StringIO()
    monkeypatch.setattr(findings, "console", door)
    return door


def printed(page: Door, width: int, *, terminal: bool) -> str:
    page.width, page._force_terminal = width, terminal
    show(FOUND)
    assert isinstance(page._file, io.StringIO)
    return page._file.getvalue()


@pytest.mark.parametrize("width", WIDTHS)
def test_on_a_terminal_words_stay_whole(page: Door, width: int) -> None:
    text = printed(page, width, terminal=True)
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= width
    words = text.split()
    for one in FOUND:
        said = f"{one.name}: {one.message} {one.advice if one.level != 'ok' else ''}"
        short = [word for word in said.split() if cell_len(word) <= width - 11]
        assert not [word for word in short if word not in words]
    # What goes on in the next line stands below what was said, and nothing is lost.
    assert all(line[:9].strip() in ("", "ok", "warning", "will fail") for line in lines)
    joined = "".join(line[11:].rstrip() for line in lines)
    assert LONG in joined
    assert f"{JAPANESE}can't" in joined.replace(" ", "")
    assert f"{JAPANESE}⏎東京<|im_end|>" in joined


@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_pipe_nothing_is_wrapped(page: Door, width: int) -> None:
    lines = printed(page, width, terminal=False).splitlines()
    assert lines[0] == f"       ok  environment: {FOUND[0].message}"
    assert lines[2] == f"           {FOUND[1].advice}"
    assert len(lines) == len(FOUND) + 3


@pytest.mark.parametrize("width", WIDTHS)
def test_an_error_breaks_between_words_and_never_within_a_command(
    page: Door, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.width, page._force_terminal = width, True
    monkeypatch.setattr(console, "Door", lambda **_: page)
    command = (
        "Run: ragtune push 'runs/a long name' publish.repo=owner/name --run-dir /somewhere/else"
    )
    console.show_error(f"{FOUND[0].message}, {JAPANESE}", f"{FOUND[1].message}.\n{command}")
    assert isinstance(page._file, io.StringIO)
    lines = page._file.getvalue().splitlines()
    assert lines[-1] == command
    assert max(map(cell_len, lines[:-1])) <= width
    assert set(FOUND[0].message.split()[:-1]) <= set(" ".join(lines).split())
