"""The drawings of the report."""

from __future__ import annotations

import re

from ragtune.reporting.plots import controls_chart, gain_chart, loss_curve
from tests.reporting.made import LOG, a_recipe, compared, controls, rows


def test_loss_curve() -> None:
    svg = loss_curve(LOG, window=2, width=7.0)
    assert svg is not None
    assert svg == loss_curve(LOG, window=2, width=7.0)
    assert "nan" not in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)  # only the page's colours
    assert loss_curve([], window=2, width=7.0) is None
    assert loss_curve([{"step": 1, "loss": float("inf")}], window=2, width=7.0) is None
    assert loss_curve([{"step": 1, "loss": 2.0}], window=2, width=7.0) is not None
    assert loss_curve([{"step": 1, "eval_loss": 2.0}], window=2, width=7.0) is not None


def test_drawings_have_the_colours_of_the_page() -> None:
    for svg in (
        gain_chart(compared(a_recipe(), rows()), width=3.7),
        controls_chart(controls(), width=9),
    ):
        assert svg
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
        assert "var(--accent)" in svg
