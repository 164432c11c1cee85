"""Refusing by the model's own confidence: a threshold that is chosen on training data held apart.

    python bench/unsure.py RUN --out bench/results/NAME.json [KEY=VALUE ...]

RUN is one of recipes/quickstart.yaml, which never learnt to refuse. The threshold (evaluate.refuse_below) is
the best of CRAG's score over records of squad2.train that were not trained: some as they are, as many others
without the paragraphs that hold an answer. It is measured on sample:squad2.refuse, whose articles are others.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from machine import made_with
from ragtune.answering.prediction import Prediction, read_predictions
from ragtune.base.files import write_json
from ragtune.data.example import Example
from ragtune.data.read import read_examples
from ragtune.data.select import rejection
from ragtune.data.unanswerable import refusing, without_oracle
from ragtune.scoring.score import Answers, Scored, metrics_of, score_answers
from ragtune.stages.answer import ANSWERS, ask
from ragtune.stages.context import Context

REFUSAL = "No answer"
EACH = 40
"""Questions with an answer, and as many without."""


def held_apart(context: Context) -> list[Example]:
    """Training records that no step saw: the first ones as they are, the next ones without an answer."""
    trained = {sample.qid for step in context.steps for sample in step}
    left = [e for e in read_examples("sample:squad2.train", "train") if e.qid not in trained]
    bare = (without_oracle(e, context.recipe.data) for e in left[EACH:])
    return [*left[:EACH], *[refusing(e) for e in bare if e is not None][:EACH]]


def answered(context: Context, examples: Sequence[Example]) -> list[Prediction]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "answers"
        out.mkdir()
        ask(context, "after", context.encoder, examples, out)
        return read_predictions(out / ANSWERS)


def scored(context: Context, examples: Sequence[Example], found: Sequence[Prediction]) -> Scored:
    most = context.recipe.data.max_passages
    marked = [
        replace(e, extra={**e.extra, "selected": rejection(e, most) is None}) for e in examples
    ]
    return score_answers(context.recipe, marked, Answers.of(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("changes", nargs="*", help="changes to the recipe")
    options = parser.parse_intermixed_args()
    context = Context(
        options.run, [*options.changes, f"data.refusal={REFUSAL}", "evaluate.refuse_below=0"]
    )
    chosen_on = held_apart(context)
    chosen = scored(context, chosen_on, answered(context, chosen_on)).confidence
    assert chosen is not None
    threshold = chosen["refuse_below"]
    asked = [*read_examples("sample:squad2.refuse", "validation")]
    found = answered(context, asked)
    careful = [
        replace(
            one,
            prediction=REFUSAL if (one.probability or 0) < threshold["value"] else one.prediction,
        )
        for one in found
    ]
    sides = {"without": scored(context, asked, found), "with": scored(context, asked, careful)}
    confidence = sides["without"].confidence
    result = {
        **made_with(),
        "model": context.recipe.model.id,
        "copy": context.recipe.evaluate.copy,
        "chosen_on": len(chosen_on),
        "threshold": threshold,
        "asked": len(asked),
        "refusals": {name: metrics_of(one)["refusals"] for name, one in sides.items()},
        "confidence": confidence,
    }
    write_json(options.out, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
