"""The table of the loss, in terminals of any width."""

from __future__ import annotations

from typing import Any

import pytest

from ragtune.base.screen.console import console
from ragtune.training.questions import Questions
from ragtune.training.table import LossTable

ASKING = Questions(50, "eval_exact_match", "EM", lambda *_: {}, times=2)


def table(width: int, monkeypatch: pytest.MonkeyPatch, capsys: Any, **how: Any) -> list[str]:
    monkeypatch.setattr(console, "_width", width)
    one = LossTable(**{"every": 10, "last": 25, "looks": 20, "asking": ASKING, **how})
    for step in range(1, 26):
        one.add({"step": step, "loss": 3.0 - step / 10, "learning_rate": 1e-4})
        if one.looks and step % one.looks == 0:
            figure = {"": 1.0, "_low": 1.0, "_high": 1.0}
            answers = {f"eval_exact_match{end}": value for end, value in figure.items()}
            one.add({"step": step, "eval_loss": 1.23456} | (answers if one.asking else {}))
    one.add({"step": 25, "train_loss": 1.0})
    lines: list[str] = capsys.readouterr().out.splitlines()
    return lines


def test_a_look_stands_in_the_line_of_its_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table(80, monkeypatch, capsys) == [
        "  step    loss  learning rate  eval loss         EM %, n = 50",
        "    10  2.4500       1.00e-04",
        "    20  1.4500       1.00e-04     1.2346  100.0 (100.0…100.0)",
        "    25  0.7000       1.00e-04",
    ]


def test_fifty_columns_have_no_learning_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = table(50, monkeypatch, capsys)
    assert lines[0] == "  step    loss  eval loss         EM %, n = 50"
    assert lines[2] == "    20  1.4500     1.2346  100.0 (100.0…100.0)"
    assert max(map(len, lines)) <= 50


def test_without_looks_there_is_the_loss_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = table(50, monkeypatch, capsys, looks=None, asking=None)
    assert lines[0] == "  step    loss  learning rate"
    assert [line.split()[0] for line in lines[1:]] == ["10", "20", "25"]


def test_a_look_between_two_lines_has_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = table(80, monkeypatch, capsys, looks=7, asking=None)
    assert [line.split()[0] for line in lines[1:]] == ["7", "10", "14", "20", "21", "25"]
    assert lines[1] == f"{'7':>6}{'1.2346':>34}"
