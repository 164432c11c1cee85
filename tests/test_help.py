"""The help in narrow and in wide terminals: nothing cut, nothing broken in two, the same with every Typer."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from ragtune.base.screen.usage import settle
from ragtune.cli import app, main

COMMANDS = ["", *(c.callback.__name__ for c in app.registered_commands if c.callback)]
WIDTHS = (50, 80, 120)


Helped = Callable[[str, int], str]


@pytest.fixture
def helped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Helped:
    def text(command: str, width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit) as end:
            main([*([command] if command else []), "--help"])
        assert not end.value.code
        return capsys.readouterr().out

    return text


@pytest.mark.parametrize("command", COMMANDS)
def test_no_width_cuts_or_breaks_a_word(command: str, helped: Helped) -> None:
    texts = {width: helped(command, width) for width in WIDTHS}
    for width, text in texts.items():
        assert max(map(len, text.splitlines())) <= width, text
        assert not re.search(r"\w(\.\.\.|…)", text.replace("RUN...", "")), text
    # The same words in the same order: where a line ends is all that a width changes.
    assert len({tuple(text.split()) for text in texts.values()}) == 1


def test_usage_says_what_is_given(helped: Helped) -> None:
    first = {command: helped(command, 80).splitlines()[0] for command in COMMANDS}
    changed = " [OPTIONS] RECIPE [SECTION.KEY=VALUE]..."
    assert first["run"] == f"Usage: ragtune run{changed}"
    assert first["evaluate"] == f"Usage: ragtune evaluate{changed}"
    assert first["compare"] == "Usage: ragtune compare [OPTIONS] RECIPE|RUN..."
    assert first["init"] == "Usage: ragtune init [OPTIONS] [FILE]"
    assert first["schema"] == "Usage: ragtune schema [OPTIONS]"


def test_every_summary_fits_on_one_line_of_80(helped: Helped) -> None:
    listed = helped("", 80).partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS[1:]
    assert all(line.endswith(".") for line in listed)


def test_every_argument_says_what_it_is() -> None:
    settle(app)  # twice is once
    for command in app.registered_commands:
        assert command.short_help
        assert len(command.short_help) <= 64
