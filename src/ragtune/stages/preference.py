"""What is trained: examples or, with train.preference, pairs of the right answer and a model's wrong one."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from ragtune.base.errors import UsageError
from ragtune.base.screen.console import note
from ragtune.base.text import one_or_many
from ragtune.data.citations import said
from ragtune.data.encode import Encoder, Sample
from ragtune.data.example import Example
from ragtune.data.read import records
from ragtune.data.words import refused
from ragtune.recipe.schema import Metric, Recipe
from ragtune.scoring.metrics import score
from ragtune.stages.predictions import prediction_of
from ragtune.training.pairs import Pair, trained_tokens
from ragtune.training.rows import steps_of

_EXACT: tuple[Metric, ...] = ("strict_em", "squad_em", "aio_em", "jsquad_em")
_KINDS = ("to be refused", "refused though answerable", "with another answer")


def steps_to_train(
    recipe: Recipe, encoder: Encoder, examples: Sequence[Example]
) -> list[list[Sample]]:
    """The samples, or pairs, of every optimizer step. Raises as `steps_of` and `wrong_answers` do."""
    if recipe.train.preference is None:
        return steps_of(recipe, encoder, examples)
    wrong = wrong_answers(recipe, examples, recipe.train.preference)
    steps = steps_of(recipe, encoder, [e for e in examples if e.qid in wrong])
    rejected = {qid: encoder.completion(text) for qid, text in wrong.items()}
    return [[_pair(sample, rejected, encoder.context) for sample in step] for step in steps]


def sizes_of(steps: Sequence[Sequence[Sample]]) -> list[list[tuple[int, int]]]:
    """Of each sample of each step its tokens, and those that are trained."""
    return [[(len(sample), trained_tokens(sample)) for sample in step] for step in steps]


def _pair(sample: Sample, rejected: Mapping[str, list[int]], context: int) -> Pair:
    """What is rejected is cut where the context ends."""
    fields = {f.name: getattr(sample, f.name) for f in dataclasses.fields(sample)}
    room = context - len(sample.prompt_ids)
    return Pair(**fields, rejected_ids=rejected[sample.qid][:room])


def wrong_answers(recipe: Recipe, examples: Sequence[Example], path: str) -> dict[str, str]:
    """The wrong predictions, by the qid of the training example; they are counted.

    Wrong is what no exact match takes for right, with any accepted answer: how answers are counted later on,
    which may change, is not asked.

    Args:
        recipe: what a refusal is, and what stands around an answer.
        examples: the training examples. One without answers is right if it was refused.
        path: records with `qid` and `prediction`, in any format that data are read from.

    Raises:
        UsageError: a bad record, or none of a training example is wrong.
    """
    texts: dict[str, str] = {}
    for where, record in records(path):
        qid, text = prediction_of(record, where)
        texts.setdefault(qid, text)
    asked = [e for e in examples if e.qid in texts]
    found = score(recipe, asked, [texts[e.qid] for e in asked], _EXACT, "all+alternatives")
    right = [any(found[metric][i] == 1 for metric in _EXACT) for i in range(len(asked))]
    wrong = [e for e, is_right in zip(asked, right, strict=True) if not is_right]
    if not wrong:
        raise UsageError(
            f"train.preference: {path} has no wrong answer to one of the {len(examples):,} training examples "
            f"({one_or_many(len(asked), 'of them is', 'of them are')} answered there).",
            "It must hold a model's answers to the questions of data.train, by the same qids.",
        )
    kinds = Counter(_kind(recipe, e, texts[e.qid]) for e in wrong)
    listed = ", ".join(f"{kinds[kind]:,} {kind}" for kind in _KINDS if kinds[kind])
    note(
        f"train.preference: of {len(examples):,} training examples "
        f"{one_or_many(len(wrong), 'was', 'were')} answered wrongly, which makes the pairs ({listed}); "
        f"{one_or_many(sum(right), 'was', 'were')} right, "
        f"{one_or_many(len(examples) - len(asked), 'has', 'have')} no answer there."
    )
    return {e.qid: texts[e.qid] for e in wrong}


def _kind(recipe: Recipe, example: Example, text: str) -> str:
    if not example.answers:
        return _KINDS[0]
    return _KINDS[1] if refused(said(recipe, text), recipe.data.refusal) else _KINDS[2]
