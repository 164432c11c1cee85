"""Predictions that were made elsewhere score as a run's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.base.errors import UsageError
from ragtune.cli import main
from tests.stages.test_measure import SET, finished, refusing, run

__all__ = ["finished", "refusing", "run"]


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    return path


def test_predictions_from_elsewhere_score_as_one_s_own(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = json.loads((finished / SET / "after" / "metrics.json").read_text("utf-8"))
    file = finished / SET / "after" / "predictions.jsonl"
    recipe = str(finished / "recipe.yaml")
    for place in (finished, tmp_path / "nothing"):
        with pytest.raises(SystemExit) as end:
            main(
                ["evaluate", recipe, "--run-dir", str(place), "--predictions", str(file), "--json"]
            )
        assert end.value.code == 0
        printed = json.loads(capsys.readouterr().out)
        assert printed == {"n": own["n"], "metrics": own["metrics"]}
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"qid": "e1"}], "p.jsonl:1: prediction is missing"),
        ([{"prediction": "x"}], "p.jsonl:1: qid is missing"),
        ([{"qid": "e1", "prediction": 3}], "p.jsonl:1: prediction is no string"),
        ([{"qid": True, "prediction": ""}], "p.jsonl:1: qid is neither"),
        ([{"qid": "e1", "prediction": "x"}] * 2, "p.jsonl:2: qid 'e1' was already used at .*p.jsonl:1"),
        ([{"qid": "e11", "prediction": "x"}], "p.jsonl:1: data.eval has no question 'e11'"),
        ([], "holds no prediction"),
        ([[1]], "p.jsonl:1: no JSON object"),
    ],
)  # fmt: skip
def test_bad_predictions_are_named(
    finished: Path, tmp_path: Path, rows: list[Any], message: str
) -> None:
    file = lines(tmp_path / "p.jsonl", *rows)
    with pytest.raises(UsageError, match=message):
        ragtune.evaluate(finished, predictions=file)


def test_questions_without_a_prediction_count_as_wrong_and_are_told(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = lines(tmp_path / "p.jsonl", {"qid": "e0", "prediction": "red"})
    metrics = ragtune.evaluate(finished, predictions=file)
    assert metrics["n"] == 10
    assert metrics["metrics"]["strict_em"] == pytest.approx(0.1)
    assert "9 of 10 questions have no prediction" in " ".join(capsys.readouterr().out.split())


def test_a_missing_prediction_is_wrong_even_where_nothing_would_be_right(
    refusing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"qid": "e0", "prediction": "red"}, {"qid": "e6", "prediction": "no answer."}]
    rows += [{"qid": "e10", "prediction": "red"}]  # not asked: its answer is not retrieved
    found = ragtune.evaluate(refusing, predictions=lines(tmp_path / "p.jsonl", *rows))
    assert (found["n"], found["all"]["asked"]) == (6, 3)
    assert found["metrics"]["strict_em"] == pytest.approx(1 / 6)
    assert found["all"]["intervals"]["strict_em"]["value"] == pytest.approx(3 / 14)
    # Four that are asked, and the third, which has no answer in its passages either.
    assert found["refusals"]["unanswerable"]["n"] == 5
    out = " ".join(capsys.readouterr().out.split())
    assert "8 of 10 questions have no prediction" in out
    assert "1 prediction is of a question that the recipe does not ask: it counts among all." in out


def test_how_a_file_is_scored_may_differ_from_the_run(finished: Path, tmp_path: Path) -> None:
    file = lines(tmp_path / "p.jsonl", {"qid": "e0", "prediction": "RED"})
    found = ragtune.evaluate(finished, "evaluate.answers=first", predictions=file)
    assert found["answers"] == "first"


def test_what_is_not_predicted_is_neither_refused_nor_right(refusing: Path, tmp_path: Path) -> None:
    wanted = [json.loads(x) for x in (refusing / SET / "after" / "predictions.jsonl").open()]
    rows = [{"qid": wanted[0]["qid"], "prediction": "no answer"}]
    found = ragtune.evaluate(refusing, predictions=lines(tmp_path / "p.jsonl", *rows))
    crag = found["refusals"]["crag"]
    assert crag["n"] == len(wanted)
    assert crag["value"] == pytest.approx(-(len(wanted) - 1) / len(wanted))


def test_a_data_file_that_has_changed_since_counts_for_predictions(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")
    rows = lines(tmp_path / "p.jsonl", {"qid": "e0", "prediction": "violet"})
    data = Path(tiny_recipe["data"]["eval"])
    scored = []
    for _ in range(2):
        found = ragtune.evaluate(tiny_recipe, run_dir=tmp_path / "run", predictions=rows)
        scored.append(found["metrics"]["strict_em"])
        text = data.read_text("utf-8")
        data.write_text(text.replace("House 0 is red", "House 0 is violet").replace(
            '"answers": ["red"]', '"answers": ["violet"]', 1), "utf-8")  # fmt: skip
    assert scored == [0, 0.1]
