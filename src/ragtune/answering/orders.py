"""Questions asked with their passages in several orders, of whose answers the most probable is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ragtune.answering.engine import Engine, fitting
from ragtune.answering.prediction import Prediction
from ragtune.data.citations import said
from ragtune.data.encode import EncodedPrompt, Encoder
from ragtune.data.example import Example
from ragtune.data.words import refused
from ragtune.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class _Turned:
    """A question with what its prompt shows, in one of the orders."""

    example: Example
    indices: tuple[int, ...]
    """Of its passages the index that each has in the question as it was given."""


def answer_in_orders(
    engine: Engine, encoder: Encoder, examples: Sequence[Example], partial: Path, title: str
) -> list[Prediction]:
    """An engine's answers, each chosen among those to the recipe's number of orders (`evaluate.orders`).

    The orders are rotations of the passages as they stand in the prompt, the first one as they are; a
    question with fewer passages is asked in as many orders as it has. Answers of the same text count
    together, each as much as it is probable; of equal ones that of the earlier order is given.
    `evaluate.refuse_below` looks at the answer that is given. Arguments, and what it raises, as of
    `Engine.answer`.
    """
    if encoder.recipe.evaluate.orders == 1:
        found = engine.answer(encoder, examples, partial, title)
    else:
        found = _chosen(engine, encoder, examples, partial, title)
    return [_refused_if_unsure(one, encoder.recipe) for one in found]


def _chosen(
    engine: Engine, encoder: Encoder, examples: Sequence[Example], partial: Path, title: str
) -> list[Prediction]:
    orders = encoder.recipe.evaluate.orders
    turned = [_turned(encoder, *one, orders) for one in fitting(encoder, examples)]
    asked = [one.example for each in turned for one in each]
    # Their passages are chosen already, and stand in their order.
    said = f"{title} in {orders} orders"
    answers = iter(engine.answer(encoder.showing_all(), asked, partial, said))
    found = []
    for example, each in zip(examples, turned, strict=True):
        best = voted([_turned_back(next(answers), one.indices) for one in each])
        found.append(replace(best, qid=example.qid))
    return found


def voted(answers: Sequence[Prediction]) -> Prediction:
    """The answer that is given, of those to one question in several orders, with its mean probability."""
    groups: dict[str, list[Prediction]] = {}
    for one in answers:
        groups.setdefault(one.prediction, []).append(one)
    best = max(groups.values(), key=_weight)  # of equal ones the first
    given = best[0]
    if given.probability is None:
        return given
    return replace(given, probability=round(_weight(best) / len(answers), 4))


def _weight(answers: Sequence[Prediction]) -> float:
    """How much answers of the same text count; where nobody says how probable they are, each is one."""
    # Rounded as they are: sums that are equal but for their last bits are a tie.
    return round(sum(1.0 if one.probability is None else one.probability for one in answers), 4)


def _turned(
    encoder: Encoder, example: Example, prompt: EncodedPrompt, orders: int
) -> list[_Turned]:
    """A question in its orders: every one shows the very texts that are left in its prompt."""
    kept = encoder.kept(example, prompt)
    found = []
    for turn in range(min(orders, max(1, len(kept)))):
        shown = [*kept[turn:], *kept[:turn]]
        variant = replace(
            example,
            qid=f"{turn}/{example.qid}",
            passages=tuple(replace(example.passages[i], text=text) for i, text in shown),
            positive_passage_indices=(),  # nobody looks at them here
            negative_passage_indices=(),
        )
        found.append(_Turned(variant, tuple(i for i, _ in shown)))
    return found


def _turned_back(one: Prediction, indices: Sequence[int]) -> Prediction:
    """An answer with its source among the passages as the question was given with them."""
    if one.source is None:
        return one
    return replace(one, source=replace(one.source, passage=indices[one.source.passage]))


def _refused_if_unsure(one: Prediction, recipe: Recipe) -> Prediction:
    """With `evaluate.refuse_below` the refusal in the place of a less probable answer, or of none."""
    least, refusal = recipe.evaluate.refuse_below, recipe.data.refusal
    if least is None or refusal is None or one.probability is None:
        return one
    text = said(recipe, one.prediction)
    if one.probability >= least and text.strip() and not refused(text, refusal):
        return one
    # Tokens and probability are the hidden answer's: the latter says nothing of these words.
    return replace(one, prediction=refusal, source=None, probability=None, unsure=True)
