"""What docs/gpus.md says: the figures that are predicted are those of the file, and commands are right."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bench"))
import gpus  # noqa: E402 - a script
import scaling  # noqa: E402 - a script

FOUND = json.loads((ROOT / "bench/results/gpus-predicted.json").read_text("utf-8"))


def test_the_file_is_what_the_measured_results_give() -> None:
    assert FOUND["links"] == gpus.links(gpus.measured(), FOUND["gradient_bytes"])
    assert "no measurement" in FOUND["what"]


def test_the_page_has_the_tables_of_the_file() -> None:
    page = (ROOT / "docs/gpus.md").read_text("utf-8")
    for table in gpus.tables(FOUND):
        assert "\n".join(table) in page
    assert "This is a prediction, and no measurement" in page


def test_the_page_has_the_tables_of_what_was_measured() -> None:
    page = (ROOT / "docs/gpus.md").read_text("utf-8")
    for path in (ROOT / "bench/results").glob("scaling-*.json"):
        assert "\n".join(scaling.table(json.loads(path.read_text("utf-8")))) in page
        assert path.name in page


@pytest.mark.parametrize("link", gpus.LINKS.values())
def test_more_gpus_never_do_more_than_their_share(link: float) -> None:
    one, gradient = gpus.measured(), FOUND["gradient_bytes"]
    alone = gpus.step(one, 1, gradient, link)
    assert alone == pytest.approx(one.step)
    assert all(gpus.step(one, n, gradient, link) > alone / n for n in (2, 4, 8))
