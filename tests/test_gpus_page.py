"""What docs/gpus.md says: the figures that are predicted are those of the file, and commands are right."""

from __future__ import annotations

import json
import re
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


@pytest.mark.parametrize("page", ["docs/gpus.md", "docs/ja/gpus.md"])
def test_the_messages_that_the_page_explains_are_those_that_are_said(page: str) -> None:
    """But for names and numbers, which stand in the sources as what they are made of."""
    rooms = ("distributed", "stages", "training")
    files = [file for room in rooms for file in (ROOT / "src/ragtune" / room).rglob("*.py")]
    said = "".join(file.read_text("utf-8") for file in files)
    table = (ROOT / page).read_text("utf-8").rpartition("\n## ")[2]
    messages = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(messages) == 11
    for message in messages:
        for words in re.split(r" on |[1-9]\d*|HOST|PORT|[A-Z]+_[A-Z]+|SIG[A-Z]+|[:…]", message):
            assert words.strip() in said, message


@pytest.mark.parametrize("link", gpus.LINKS.values())
def test_more_gpus_never_do_more_than_their_share(link: float) -> None:
    one, gradient = gpus.measured(), FOUND["gradient_bytes"]
    alone = gpus.step(one, 1, gradient, link)
    assert alone == pytest.approx(one.step)
    assert all(gpus.step(one, n, gradient, link) > alone / n for n in (2, 4, 8))
