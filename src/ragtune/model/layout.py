"""How the samples of a step are dealt into rows, and how many of them a row of a GPU takes."""

from __future__ import annotations

import dataclasses
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TypeVar

from ragtune.base.errors import UsageError
from ragtune.base.text import size_of
from ragtune.model.memory import Estimate, row_tokens
from ragtune.recipe.schema import Recipe

T = TypeVar("T")

MAX_ROW_TOKENS = 16_000
"""Longer rows of a 7B model gain nothing: its matrix products fill the GPU long before."""
MIN_ROW_TOKENS = 4_000
"""With shorter rows than these a GPU waits for Python; recomputing in longer ones is faster."""
SPARE = 0.92
"""Of the memory; the allocator's fragments and the libraries' workspaces need the rest."""
_EVEN = 1.001
"""Of the rows' mean size: what the largest has at most when no more is to be gained."""

Size = tuple[int, int]
"""A sample's tokens, and how many of them are trained."""


def deal(items: Sequence[T], rows: int, size: Callable[[T], int]) -> list[list[T]]:
    """Deal items into at most `rows` rows of nearly equal size.

    The largest first, each into the smallest row that has room; a row takes at most
    ceil(items / rows), which is what the memory plan counts with.
    """
    rows = max(1, min(rows, len(items)))
    room = -(-len(items) // rows)
    out: list[list[T]] = [[] for _ in range(rows)]
    sizes = [0] * rows
    for item in sorted(items, key=size, reverse=True):
        target = min((r for r in range(rows) if len(out[r]) < room), key=lambda r: sizes[r])
        out[target].append(item)
        sizes[target] += size(item)
    return [row for row in out if row]


def share_out(items: Sequence[T], ranks: int, size: Callable[[T], int]) -> list[list[T]]:
    """Deal items to ranks, which wait for the one with most.

    As `deal`; then items of the largest share change places with others as long as that makes it smaller.
    """
    out = deal(items, ranks, size)
    while swap := _best_swap([[size(item) for item in share] for share in out]):
        (row, i), (other, k) = swap
        out[row][i], out[other][k] = out[other][k], out[row][i]
    return out


def _best_swap(rows: list[list[int]]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Which item (a row, its place there) of the largest row to swap with which, to make it smallest."""
    sums = [*map(sum, rows)]
    top = max(range(len(rows)), key=sums.__getitem__)
    if sums[top] <= _EVEN * sum(sums) / len(sums):
        return None
    found = []
    for row in (row for row in range(len(rows)) if row != top):
        last = len(rows[row]) - 1
        # Of equal ones the first.
        places = {size: last - k for k, size in enumerate(reversed(rows[row]))}
        sizes = sorted(places)
        for i, given in enumerate(rows[top]):
            # Of all sizes only the two that are nearest to what would make both rows even.
            near = bisect(sizes, given - (sums[top] - sums[row]) / 2)
            for taken in sizes[max(0, near - 1) : near + 1]:
                larger = max(sums[top] - given + taken, sums[row] + given - taken)
                found.append((larger, (top, i), (row, places[taken])))
    best, one, other = min(found)
    return (one, other) if best < sums[top] else None


def share_of(batch_size: int, ranks: int) -> int:
    """Samples of a step that a rank gets, at most."""
    return -(-batch_size // ranks)


def row_size(steps: Sequence[Sequence[Size]], per_row: int) -> Size:
    """Tokens of the longest row, and most trained ones of a row, when steps are dealt into rows."""
    rows = [
        row for step in steps for row in deal(step, -(-len(step) // per_row), lambda size: size[0])
    ]
    tokens, trained = ([sum(size[i] for size in row) for row in rows] for i in (0, 1))
    return max(tokens, default=0), max(trained, default=0)


def choose_rows(
    recipe: Recipe,
    base: Estimate,
    steps: Sequence[Sequence[Size]],
    question: int,
    budget: float,
    ranks: int = 1,
) -> tuple[Estimate, int]:
    """What is kept in memory, as an estimate under these choices, and the samples a row.

    Kept activations are worth more than dequantised weights, and both more than long rows; but below
    MIN_ROW_TOKENS recomputing in longer rows is faster than keeping. Weights are spread over several ranks
    only where nothing else fits.

    Args:
        recipe: the batch size, and what it fixes itself.
        base: the estimate without these choices.
        steps: the samples' sizes, step by step.
        question: tokens of the longest with its answer, which must fit too.
        budget: bytes.
        ranks: GPUs that may share the weights.

    Raises:
        UsageError: the weights and what is trained alone don't fit.
    """
    ways = [[*_choices(recipe, one)] for one in _bases(recipe, base, ranks)]
    for choices in ways:
        if found := _fitting(recipe, choices, steps, question, budget):
            return found
    # The formulas may be wrong by a little; what is too much is halved when it turns out to be.
    asked = recipe.train.samples_per_row
    for *_, smallest in ways:
        least = smallest.weights + smallest.adapter + smallest.rounded + smallest.gradients
        if least + smallest.moments <= budget:
            return smallest, 1 if asked == "auto" else min(asked, recipe.train.batch_size)
    needed = smallest.training(*row_size(steps, 1), recipe.train.batch_size)
    raise UsageError(
        f"The run needs about {size_of(needed)} of GPU memory"
        + (f" on each of {ranks} ranks, which share the weights" if smallest.shares > 1 else "")
        + f"; {size_of(budget / SPARE)} are there.",
        _for_weights(recipe, ranks, nf4=base.nf4)
        + f"Set train.optimizer=paged_adamw_8bit, {'tuning=lora' if recipe.full else 'a lower lora.rank'} or "
        "a lower prompt.max_tokens, or choose a smaller model.",
    )


def _for_weights(recipe: Recipe, ranks: int, *, nf4: bool) -> str:
    """What lets the weights of a run that doesn't fit take less; nothing where they take the least."""
    said = ""
    if recipe.evaluate.products == "fp8":
        said = "Set evaluate.products=null: answers in 8 bits need weights that neither stay in NF4 nor are "
        said += "shared by GPUs. "
    elif recipe.train.products == "fp8" and ranks > 1:
        said = "Set train.products=null: weights in 8 bits can't be shared by GPUs. "
    return said if nf4 or recipe.full else f"{said}Set model.quantization=nf4. "


def _bases(recipe: Recipe, base: Estimate, ranks: int) -> list[Estimate]:
    """With the weights whole on each rank and, where that can be, shared by all of them.

    PEFT replaces a weight that it adapts by itself, and reads those that DoRA scales: they must be there whole.
    So must one in 8 bits, with its second layout; and of weights that come quantised it is not known whether
    they can be shared.
    """
    comes_quantized = base.nf4 and recipe.model.quantization != "nf4"
    whole = recipe.full or recipe.lora.dora or base.fp8
    if ranks == 1 or whole or base.shape.by_weight or base.shape.experts or comes_quantized:
        return [base]
    return [base, dataclasses.replace(base, shares=ranks)]


def _fitting(
    recipe: Recipe,
    choices: Sequence[Estimate],
    steps: Sequence[Sequence[Size]],
    question: int,
    budget: float,
) -> tuple[Estimate, int] | None:
    """The best of some choices that fits, and its samples a row; None if none does."""
    train = recipe.train
    asked = (
        None if train.samples_per_row == "auto" else min(train.samples_per_row, train.batch_size)
    )
    sizes = cache(lambda count: row_size(steps, count))
    whole = sum(tokens for tokens, _ in steps[0]) if steps else 0

    def fits(estimate: Estimate, count: int) -> bool:
        tokens, trained = sizes(count)
        rows = -(-train.batch_size // count)
        most = max(row_tokens(MAX_ROW_TOKENS, estimate.shape.parameters), sizes(1)[0])
        short = asked is not None or tokens <= most
        needed = max(estimate.training(tokens, trained, rows), estimate.evaluation(question, 1))
        return short and needed <= budget

    # Of every number of rows the fewest samples a row.
    even = {-(-train.batch_size // rows) for rows in range(1, train.batch_size + 1)}
    counts = sorted(even, reverse=True) if asked is None else [asked]
    found: list[tuple[Estimate, int]] = []
    for estimate in choices:
        count = next((count for count in counts if fits(estimate, count)), None)
        if count is None:
            continue
        if asked is not None or sizes(count)[0] >= min(MIN_ROW_TOKENS, 0.9 * whole):
            return estimate, count
        found.append((estimate, count))
    if found:  # the first with the longest rows
        return max(found, key=lambda choice: sizes(choice[1])[0])
    return None


def _choices(recipe: Recipe, base: Estimate) -> Iterator[Estimate]:
    """What may be kept in memory, the best choice first: it takes the most."""
    auto = recipe.train.recompute == "auto"
    for recompute in (False, True) if auto else (recipe.train.recompute is True,):
        if recipe.model.quantization == "nf4":
            yield dataclasses.replace(base, dequantized=True, recompute=recompute)
        # Answers in 8 bits, token by token, would make these of packed weights each time.
        whole = base.shape.by_weight or recipe.evaluate.products == "fp8"
        if recipe.model.quantization != "nf4" or not whole:
            yield dataclasses.replace(base, dequantized=False, recompute=recompute)
