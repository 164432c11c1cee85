"""A whole run with evaluate.copy: every answer of every stage is a span of a shown passage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ragtune
from ragtune.answering.prediction import read_predictions
from ragtune.data.prepare import load_examples

SET = Path("eval") / "eval"


def test_every_answer_of_a_run_is_copied(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    """Before, while it trains, after, merged, of a checkpoint, and with other passages."""
    run, copy = tmp_path / "run", "evaluate.copy=true"
    looks = ("train.eval_every=4", "train.eval_answers=4")
    found = ragtune.run(tiny_recipe, copy, *looks, run_dir=run)
    assert found is not None
    assert found["confidence"]["after"]["n"] == 10
    controls = ragtune.controls(run)
    assert "no_passages" not in {one["name"] for one in controls["conditions"]}
    ragtune.evaluate(run, checkpoint=4)
    examples = {e.qid: e for e in load_examples(run / SET / "questions" / "eval.jsonl")}
    places = ["before", "after", "merged", "controls-before", "controls-after", "checkpoints/4"]
    for place in places:
        answers = read_predictions(run / SET / place / "predictions.jsonl")
        assert len(answers) >= 10
        for one in answers:
            example = examples[one.qid.rpartition("/")[2]]
            assert one.source is not None
            assert any(one.prediction in p.text for p in example.passages)
            if place in ("before", "after", "merged"):
                text = example.passages[one.source.passage].text
                assert text[one.source.start : one.source.end] == one.prediction
                assert one.source.passage < 2  # data.max_passages
    report = (run / "report.html").read_text("utf-8")
    assert '<section id="confidence">' in report
    written = json.loads((run / SET / "after" / "metrics.json").read_text("utf-8"))
    assert written["confidence"]["n"] == 10
