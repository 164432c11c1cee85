"""A run whose answers cite, from its data to its report and to asking it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.answering.prediction import Prediction
from ragtune.asking.model import Model
from ragtune.asking.reader import Reader
from ragtune.data.example import Example
from ragtune.stages.context import Context
from tests.conftest import make_records, write_records


@pytest.fixture
def citing(tiny_recipe: dict[str, Any]) -> dict[str, Any]:
    tiny_recipe["prompt"]["citations"] = True
    tiny_recipe["evaluate"] |= {"max_new_tokens": 12}
    return tiny_recipe


def test_a_run_that_cites(
    citing: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    comparison = ragtune.run(citing, "train.steps=2", run_dir=run)
    assert comparison is not None
    assert comparison["citations"] is not None
    after = comparison["citations"]["after"]
    assert after is not None
    assert after["n"] == 10
    assert "Citation recall" in (run / "report.html").read_text("utf-8")
    assert "| Citation recall |" in ragtune.summary(run)
    metrics = json.loads((run / "eval/eval/after/metrics.json").read_text("utf-8"))
    assert metrics["citations"] == after

    # A model of two steps can't cite yet: what would be made of one that does.
    questions = Context(run).questions
    texts = [
        f"{e.answers[0]} [1]" if i < 6 else f"{e.answers[0]} [2][9]"
        for i, e in enumerate(questions)
    ]
    rows = [{"qid": e.qid, "prediction": text} for e, text in zip(questions, texts, strict=True)]
    found = ragtune.evaluate(run, predictions=write_records(tmp_path / "p.jsonl", rows))
    assert found["metrics"]["strict_em"] == 1
    cited = found["citations"]
    assert (cited["n"], cited["malformed"]) == (10, 4)
    assert (cited["recall"]["value"], cited["precision"]["value"]) == (0.6, 0.6)

    def answer(_: object, examples: list[Example], which: str) -> tuple[list[Prediction], float]:
        return [Prediction(e.qid, "red [2][1][7]", [], stopped=True) for e in examples], 0.1

    reader = Reader.load(run)
    monkeypatch.setattr(Model, "answer", answer)
    (one,) = reader.ask([questions[0].question], questions[0].passages[:2])
    assert (one.text, one.citations, one.malformed) == ("red", (2, 1), (7,))
    assert one.is_found


def test_check_says_what_is_cited(citing: dict[str, Any], tmp_path: Path) -> None:
    def found() -> list[dict[str, Any]]:
        every = ragtune.check(citing, run_dir=tmp_path / "run")
        return [one for one in every if one["name"] == "citations"]

    (one,) = found()
    assert one["level"] == "ok"
    assert one["message"] == "24 training answers cite 1.0 passages each"
    rows = [{k: v for k, v in r.items() if not k.endswith("_indices")} for r in make_records(24)]
    write_records(Path(citing["data"]["train"]), rows)
    (one,) = found()
    assert one["message"].endswith("; of 24 those in which an answer stands, if only by chance")
    citing["prompt"]["citations"] = False
    assert found() == []


def test_runs_with_and_without_citations_are_scored_as_their_own_prompts_say(
    citing: dict[str, Any], tmp_path: Path
) -> None:
    runs = [tmp_path / which for which in ("plain", "citing")]
    for run, cites in zip(runs, ("false", "true"), strict=True):
        ragtune.run(citing, f"prompt.citations={cites}", "train.steps=2", run_dir=run)
    (compared,) = ragtune.compare_runs(*runs)["comparisons"]
    alone = ragtune.compare(runs[1])
    assert compared["after"] == alone["after"]
    assert compared["citations"] is None
