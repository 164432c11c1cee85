"""Every family runs as the table says: see `table.py`, and docs/models.md for what came of it.

    make families

measures all of them (minutes), and writes bench/results/families.json and docs/models.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragtune.training.trainer import PackedTrainer
from tests.families import page
from tests.families.measure import Result, explain, measure
from tests.families.table import FAMILIES, Family
from tests.reference import Words


@pytest.fixture(scope="module")
def measured() -> Iterator[list[Result]]:
    """What was measured; of all families it becomes the record."""
    results: list[Result] = []
    yield results
    if len(results) == len(FAMILIES):
        page.record(results)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.short], ids=lambda f: f.name)
def test_a_family_of_the_short_set_runs_as_the_table_says(family: Family, tmp_path: Path) -> None:
    result = measure(family, tmp_path)
    assert result.outcome == family.expected, explain(result, family)


@pytest.mark.families
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_a_family_runs_as_the_table_says(
    family: Family, tmp_path: Path, measured: list[Result]
) -> None:
    result = measure(family, tmp_path)
    measured.append(result)
    assert result.outcome == family.expected, explain(result, family)


def test_a_fault_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PackedTrainer.compute_loss

    def a_little_more(self: Any, *args: Any, **named: Any) -> Any:
        return 1.001 * whole(self, *args, **named)

    monkeypatch.setattr(PackedTrainer, "compute_loss", a_little_more)
    family = FAMILIES[0]
    result = measure(family, tmp_path)
    assert result.outcome == "packed; losses differ"
    told = explain(result, family)
    assert "llama: expected 'packed', found 'packed; losses differ'." in told
    assert "Losses differ by 0.00" in told


def test_every_row_has_a_name_of_its_own() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_the_pages_are_what_the_record_gives() -> None:
    words = Words(page.JAPANESE.read_text("utf-8"))
    for path, say in ((page.PAGE, str), (page.JAPANESE_PAGE, words)):
        text = path.read_text("utf-8")
        assert text == page.with_tables(text, say), "run: python -m tests.families.page"
    assert not words.missing, "docs/ja/models.yaml has no Japanese for these"


def test_the_record_is_of_these_families() -> None:
    recorded = {row["family"]: row["outcome"] for row in page.read()["families"]}
    expected = {family.name: family.expected for family in FAMILIES}
    assert recorded == expected, "run: make families"
