"""What a sweep's points are ranked by: from answers that lie in runs, as a sweep leaves them. Nothing is trained."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ragtune.answering.prediction import Prediction, write_predictions
from ragtune.base.files import write_json, write_jsonl
from ragtune.recipe.load import load_recipe
from ragtune.reporting.sweep import dev_lines, sweep_table
from ragtune.scoring.sweep import Results
from ragtune.stages.sweep import sweep as sweeping
from ragtune.stages.sweep.figures import Figures, name_of
from ragtune.stages.sweep.folder import SweepFolder
from ragtune.stages.sweep.grid import Point, points_of
from tests.conftest import make_records

SEEDS = (7, 8)
DEV = "dev-1"
ANSWERABLE, UNANSWERABLE = 10, 10
BOLD, CAREFUL = {"right": 10, "refused": 0}, {"right": 8, "refused": 10}
"""Of ten questions with an answer and ten without: how many are right, and how many are refused."""


@pytest.fixture
def where(tmp_path: Path) -> SweepFolder:
    return SweepFolder(tmp_path / "sweep")


def answer(where: SweepFolder, point: Point, what: str, right: int, refused: int) -> None:
    """Let a point's runs have given so many answers rightly, and refused so many questions without an answer.

    The other questions with an answer are refused, and the others without one are answered.
    """
    records = make_records(ANSWERABLE + UNANSWERABLE)
    rows, said = [], []
    for place, record in enumerate(records):
        there = place < ANSWERABLE
        text = record["answers"][0] if place < right else "No answer"
        if not there:
            text = "No answer" if place - ANSWERABLE < refused else "purple"
            record |= {"answers": [], "positive_passage_indices": []}
        rows.append(record | {"selected": there, "reason": None if there else "no_answer"})
        said.append(Prediction(record["qid"], text, [], stopped=True))
    for seed in SEEDS:
        run = where.runs / point.run(seed)
        places = {"answers": f"{what}-after", "before": "before", "questions": f"{what}-questions"}
        write_jsonl(run / places["questions"] / "eval.jsonl", rows)
        write_predictions(run / places["answers"] / "predictions.jsonl", said)
        write_predictions(run / "before" / "predictions.jsonl", said[:ANSWERABLE])
        write_json(where.reached(point.run(seed), what), places)


def grid(recipe: dict[str, Any], *rates: str) -> list[Point]:
    changes = ["data.refusal=No answer", f"train.learning_rate={','.join(rates)}"]
    return points_of(load_recipe(recipe), changes)


def results(where: SweepFolder, points: Sequence[Point]) -> Results:
    return Figures(where, points, SEEDS, DEV).results(lambda _: [])


def test_what_refuses_rightly_is_better_than_what_answers_everything(
    tiny_recipe: dict[str, Any], where: SweepFolder
) -> None:
    """Although it has fewer of the questions right that can be answered."""
    bold, careful = points = grid(tiny_recipe, "1e-3", "2e-3")
    answer(where, bold, "1", **BOLD)
    answer(where, careful, "1", **CAREFUL)
    answer(where, careful, DEV, **CAREFUL)
    found = results(where, points)
    assert found["by"] == "crag"
    assert found["questions"] == 20
    assert [row["name"] for row in found["points"]] == [careful.name, bold.name]
    assert found["best"] == found["winner"] == careful.name
    first, second = found["points"]
    assert first["spread"]
    assert first["answerable"]
    assert second["spread"]
    assert second["answerable"]
    assert second["behind"]
    assert first["spread"]["figure"]["value"] == pytest.approx(8 / 20)
    assert second["spread"]["figure"]["value"] == pytest.approx((10 - 10) / 20)
    assert first["answerable"]["figure"]["value"] == pytest.approx(0.8)
    assert second["answerable"]["figure"]["value"] == 1
    assert second["answerable"]["n"] == 10
    assert second["behind"]["n"] == 20  # compared over all of them, too
    assert second["behind"]["figure"]["low"] > 0
    assert (
        "train.learning_rate=2e-3 is better than the runner-up by +40.0 points" in found["verdict"]
    )

    shown = io.StringIO()
    Console(width=200, file=shown, color_system=None).print(sweep_table(found))
    text = " ".join(shown.getvalue().split())
    assert "CRAG's score over all 20 questions asked" in text
    assert "0 for a refusal, -100 for a wrong one; squad_em of those that can be answered" in text
    assert "+40.0 +40.0" in text
    (line,) = dev_lines(found)
    assert "20 questions, train.learning_rate=2e-3: CRAG's score before +80.0" in line
    assert "squad_em of the 10 that can be answered: before 80.0" in line


def test_without_a_refusal_points_are_ranked_by_the_headline(
    tiny_recipe: dict[str, Any], where: SweepFolder
) -> None:
    bold, careful = points = points_of(
        load_recipe(tiny_recipe), ["train.learning_rate=1e-3,2e-3", "evaluate.questions=all"]
    )
    answer(where, bold, "1", **BOLD)
    answer(where, careful, "1", **CAREFUL)
    found = results(where, points)
    assert found["by"] == "squad_em"
    assert found["questions"] == 10
    assert found["winner"] is None  # 20 points, of ten questions
    assert [row["name"] for row in found["points"]] == [bold.name, careful.name]
    assert {row["answerable"] for row in found["points"]} == {None}


def test_what_refuses_rightly_goes_on_when_others_stop(
    tiny_recipe: dict[str, Any], where: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = grid(tiny_recipe, "1e-3", "2e-3", "3e-3", "4e-3")
    reached = []

    def advance(_: object, going: Sequence[Point], share: float) -> None:
        reached.append([points.index(point) for point in going])
        for point in going:
            kind = CAREFUL if points.index(point) in (1, 3) else BOLD
            answer(where, point, name_of(share), **kind)

    monkeypatch.setattr(sweeping._Sweep, "advance", advance)
    options = sweeping._Options(seeds=2, jobs=1, whole=False)
    sweeping._Sweep(where, points, options, Path(DEV)).climb()
    assert reached == [[0, 1, 2, 3], [1, 3]]
