"""The summary for a pull request."""

from __future__ import annotations

import re

from ragtune.reporting.markdown import summary
from ragtune.scoring.metrics import METRICS
from tests.reporting import made
from tests.reporting.made import a_recipe, compared, controls, rows


def tables(text: str) -> list[list[str]]:
    """The tables' lines; each table has as many cells in every line."""
    found = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    for table in found:
        assert re.fullmatch(r"\|(---\|)+", table[1])
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    return found


def test_the_figures_are_in_it() -> None:
    text = summary("百科", compared(a_recipe(), rows(), unasked=1))
    assert text.startswith("## 百科: aio_em 50.0 % → 50.0 %\n\n**0.0 points** (95 % interval ")
    assert "1 fixed, 1 broken, McNemar's exact p = 1.000." in text
    assert "Accepted: every answer of each record (`all`)." in text
    metrics, over, refusals = tables(text)
    assert [line.split()[1] for line in metrics[2:]] == list(METRICS)
    assert over[2].startswith("| answerable questions | 4 | 50.0 (0.0 … 100.0) |")
    assert over[3].startswith(
        "| all questions (the 1 not asked counts as wrong, also in the intervals: before and after are "
        "lower bounds, the difference is no bound) | 5 | 40.0"
    )
    assert "- Retrieval ceiling: 100.0 (47.8 … 100.0) % of all" in text
    gain = r"- Strict EM gain 0.0 \(.*\) = format 0.0 \(.*\) \+ reading 25.0 \(.*\) − lost 25.0 \(.*\)\.\n"
    assert re.search(gain, text)
    assert re.search(
        r"first 50.0 \(.*\) → 50.0 \(.*\), all 50.0 .*, all\+alternatives .*\.\n- Mean length of an answer: 2.8 \(",
        text,
    )
    assert len(refusals) == 4  # nothing unanswerable was asked
    assert "- Answers cut off" not in text  # what a text alone does not tell
    assert "\n\n\n" not in text
    assert text.endswith("|\n")


def test_a_length_that_all_answers_have_is_given_without_an_interval() -> None:
    comparison = compared(a_recipe(), rows())
    comparison["length"]["before"] = {"value": 7.0, "low": 7.0, "high": 7.0}
    assert "- Mean length of an answer: 7.0 → 8.5 (" in summary("x", comparison)


def test_answers_that_were_cut_off_are_in_it() -> None:
    comparison = compared(a_recipe(), rows()) | {"cut": {"before": 3, "after": 0}}
    text = summary("x", comparison)
    assert "characters.\n- Answers cut off at `evaluate.max_new_tokens`: 3 → 0 of 4.\n" in text
    assert "\n\n\n" not in text


def test_controls_are_in_it() -> None:
    every = [*rows(), made.unanswerable()]
    text = summary("x", compared(a_recipe(), every), controls("As | asked\nhere"))
    assert "lower bound" not in text
    *_, refusals, last, effects = tables(text)
    assert len(refusals) == 5
    assert last[2].startswith(r"| As \| asked here | 4 | 25.0 (20.0 … 30.0) | 50.0")
    assert last[3] == "| No passages | 3 | – | 10.0 (5.0 … 15.0) | – |"
    assert effects[2] == "| what the passages add | 3 | – | +40.0 (+10.0 … +70.0) |"


def test_what_was_forgotten_is_in_it() -> None:
    found = tables(summary("x", compared(a_recipe(), rows()), general=made.general("|")))[-1]
    assert (
        found[0] == "| general task, by lm-evaluation-harness | n | before | after | difference |"
    )
    change = "50.0 (45.0 … 55.0) | 25.0 (20.0 … 30.0) | −25.0 (−30.0 … −20.0) |"
    assert found[2:] == [rf"| {name}\|, acc\| | 1200 | {change}" for name in ("arc", "mmlu")]


def test_citations_are_in_it() -> None:
    comparison = compared(a_recipe(), rows())
    comparison["citations"] = {"before": None, "after": made.citation_figures()}
    text = summary("x", comparison)
    found = tables(text)[-1]
    assert found[0] == "| citations, by string | before | after |"
    assert found[2] == "| Citation recall | – | 75.0 (50.0 … 90.0) |"
    assert found[-2:] == [
        "| Citations of no passage | – | 2 |",
        "| Answered questions | 0 | 1234 |",
    ]
    assert "\n\n\n" not in text


def test_quotes_are_in_it() -> None:
    comparison = compared(a_recipe(), rows())
    comparison["quotes"] = {"before": None, "after": made.quote_figures()}
    found = tables(summary("x", comparison))[-1]
    assert found[0] == "| quotes | before | after |"
    assert found[2] == "| Answers behind a quote | – | 50.0 (25.0 … 75.0) |"
    assert found[-2:] == [
        "| Answers without a quote | – | 617 |",
        "| Answered questions | 0 | 1234 |",
    ]
