"""The loss as it is drawn: all of it, not at every step, and in a notebook alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ragtune.base.screen import notebook
from ragtune.stages import curve
from ragtune.stages.curve import Curve


def test_it_takes_little_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(curve, "time", SimpleNamespace(monotonic=lambda: clock.now))
    shown: list[tuple[str, str]] = []
    page = SimpleNamespace(draw=lambda *drawn: shown.append(drawn))
    monkeypatch.setattr(notebook, "page", lambda: page)

    def draw(log: Any, **_: object) -> str | None:
        clock.now += 0.1
        return f"<svg>{len(log)}</svg>" if log else None

    monkeypatch.setattr(curve, "loss_curve", draw)
    drawing, log = Curve(last=121, window=5), []
    drawing.tell(0, log)
    assert shown == []
    begun, step = clock.now, 0
    while clock.now < begun + 60:
        clock.now += 0.5
        step += 1
        log.append({"step": step, "loss": 1.0})
        drawing.tell(step, log)
    assert 10 <= len(shown) <= 12  # 0.1 s each, every 5 s
    assert shown[-1][0] != "<svg>121</svg>"
    log += [{"step": 121, "loss": 1.0}] * (121 - len(log))
    drawing.tell(121, log)
    assert shown[-1] == (
        "<svg>121</svg>",
        "The loss of each step, and its mean, up to step 121.",
    )


def test_elsewhere_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(*_: object, **__: object) -> str:
        raise AssertionError

    monkeypatch.setattr(curve, "loss_curve", draw)
    Curve(last=1, window=5).tell(1, [{"step": 1, "loss": 1.0}])
