"""A whole run with evaluate.orders: every stage's answers are chosen among those to all orders."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.answering.local import Local
from ragtune.answering.prediction import Prediction, read_partial, read_predictions
from ragtune.base.errors import UsageError
from ragtune.data.prepare import load_examples
from ragtune.stages.context import Context
from ragtune.stages.order import checkpoints_of

SET = Path("eval") / "eval"


def test_every_answer_of_a_run_is_chosen_among_its_orders(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, while it trains, after, merged, of a checkpoint, and with other passages; `ask` does the same."""
    run = tmp_path / "run"
    tiny_recipe["evaluate"] |= {"orders": 2, "max_new_tokens": 1}  # of one token it is surer
    titles = set()
    plain = Local.answer

    def noted(self: Local, *asked: Any) -> list[Prediction]:
        titles.add(asked[-1])
        return plain(self, *asked)

    monkeypatch.setattr(Local, "answer", noted)
    ragtune.run(tiny_recipe, "train.eval_every=4", "train.eval_answers=4", run_dir=run)
    ragtune.controls(run)
    ragtune.evaluate(run, checkpoint=4)
    every = ("before", "asking (step 4)", "asking (step 8)", "after", "merged", "step 4")
    asked = {one if "asking" in one else f"answering ({one})" for one in every}
    assert titles == {f"{one} in 2 orders" for one in asked}
    examples = load_examples(run / SET / "questions" / "eval.jsonl")
    qids = [e.qid for e in examples]
    found = {}
    for place in ("before", "after", "merged", "checkpoints/4"):
        found[place] = read_predictions(run / SET / place / "predictions.jsonl")
        assert [one.qid for one in found[place]] == qids
    context = Context(run)
    (kept,) = checkpoints_of(context.folder, context.recipe).glob("answers-*/4.jsonl")
    orders = [one.qid.partition("/")[0] for one in read_partial(kept)]
    assert sorted(orders) == ["0"] * 4 + ["1"] * 4
    shown = read_predictions(run / SET / "controls-after" / "predictions.jsonl")
    assert {one.qid.rpartition("/")[2] for one in shown} == {*qids}
    # The positive in either place: the two orders of the one are those of the other.
    controls = {one.qid: one for one in shown}
    for qid in qids:
        first, last = (controls[f"positive_{place}/{qid}"] for place in ("first", "last"))
        assert abs((first.probability or 0) - (last.probability or 0)) < 0.0005
    reader = ragtune.Reader.load(run)
    assert [one.text for one in reader.answer(examples)] == [o.prediction for o in found["after"]]
    single = ragtune.Reader.load(run, "evaluate.orders=1")
    turned = [
        dataclasses.replace(
            e,
            passages=(e.passages[1], e.passages[0]),
            positive_passage_indices=(),
            negative_passage_indices=(),
        )
        for e in examples
    ]
    both = [*zip(single.answer(examples), single.answer(turned), strict=True)]
    for (one, two), given in zip(both, found["after"], strict=True):
        sure: dict[str, float] = {}
        for answer in (one, two):
            sure[answer.text] = sure.get(answer.text, 0.0) + (answer.probability or 0.0)
        # The last decimal depends on what shares the batch.
        assert sure[given.prediction] >= max(sure.values()) - 0.0005
        assert abs((given.probability or 0.0) - sure[given.prediction] / 2) < 0.0005
    assert any(g.prediction != o.text for (o, _), g in zip(both, found["after"], strict=True))
    with pytest.raises(
        UsageError, match=r"evaluate\.orders: 2 there, 1 now: no longer valid: before"
    ) as told:
        ragtune.evaluate(run, "evaluate.orders=1")
    assert "adapter" not in told.value.message  # a training doesn't read it
