"""Which samples make up which step and which row: drawn once, before training, by the seed."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ragtune.base.errors import RagtuneError
from ragtune.base.screen.progress import in_parts
from ragtune.data.encode import IGNORE, Encoder, Sample
from ragtune.data.example import Example
from ragtune.data.redraw import varied
from ragtune.data.splits import positives_cut
from ragtune.model.fast.dropout import places
from ragtune.model.fast.prefix import common, shared
from ragtune.model.layout import deal, share_out
from ragtune.recipe.schema import Recipe

_NOT_READ = {"labels", "targets", "places", "row", "answer", "reference"}
"""Of what a collator makes, what is for the loss and for dropout."""


def draw_steps(
    examples: int, batch_size: int, *, steps: int | None, epochs: float | None, seed: int
) -> list[list[int]]:
    """The example indices of every optimizer step.

    Examples come in a fresh order each epoch; a step may cross the border between two. With
    `epochs` the last step takes what is left; with `steps` all are full.
    """
    total = steps * batch_size if steps is not None else max(1, round((epochs or 0) * examples))
    order: list[int] = []
    for epoch in range(math.ceil(total / examples)):
        once = list(range(examples))
        random.Random(f"order:{seed}:{epoch}").shuffle(once)
        order += once
    return [order[i : min(i + batch_size, total)] for i in range(0, total, batch_size)]


def digest_of_steps(steps: Sequence[Sequence[Sample]]) -> str:
    """Of every field of every sample, step by step: what a pair rejects belongs to it."""
    found = hashlib.sha256()
    for step in steps:
        read = [[getattr(s, field.name) for field in dataclasses.fields(s)] for s in step]
        found.update(json.dumps(read).encode())
    return found.hexdigest()


def split_rows(step: Sequence[Sample], rows: int) -> list[list[Sample]]:
    """Deal the samples of a step into at most `rows` rows of nearly equal tokens."""
    return deal(step, rows, len)


def rows_of(
    steps: Sequence[Sequence[Sample]], count: int, rank: int = 0, size: int = 1
) -> list[list[Sample]]:
    """A rank's rows of every step, at most `count` of each; of several ranks each has exactly so many.

    A step's samples are dealt to the ranks so that all have nearly the same number of tokens. A rank that
    has too few samples for its rows reads one that trains nothing.
    """
    if size == 1:
        return [row for step in steps for row in split_rows(step, count)]
    rows = []
    for step in steps:
        shares = share_out(step, size, len)
        dealt = split_rows(shares[rank], count) if rank < len(shares) else []
        shortest = min(step, key=len)
        nothing = Sample(shortest.qid, shortest.prompt_ids + shortest.completion_ids, [])
        rows += dealt + [[nothing]] * (count - len(dealt))
    return rows


@dataclass(frozen=True)
class PackedRows(Dataset[dict[str, Any]]):
    """Rows of samples in training order; every step but the last has the same number of rows."""

    rows: list[list[Sample]]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index, "samples": self.rows[index]}


class RowCollator:
    """Makes the tensors of one row.

    The samples stand behind each other, as transformers' flattening collator lays them, in a fraction of its
    time. Added are the positions whose logits are needed (`logits_to_keep`), so that the output layer sees no
    others.

    Returns, for a row of T tokens in S samples with K trained ones:
        input_ids, labels: [1, T];
        position_ids: [1, T], cu_seq_lens_q/_k: [S + 1], max_length_q/_k: a number (packed only);
        logits_to_keep: [K], the positions before the trained tokens; targets: [K];
        places: [T], what dropout's masks go by; row: the index, a number.
    With `shared` what all prompts of a row begin with stands there once, as its first part.
    """

    def __init__(self, *, packed: bool, shared: bool = False) -> None:
        self.packed, self.shared = packed, shared

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        (row,) = features
        samples: list[Sample] = row["samples"]
        sizes = [len(s) for s in samples]
        ends = [*itertools.accumulate(sizes, initial=0)]
        ids = [i for s in samples for part in (s.prompt_ids, s.completion_ids) for i in part]
        ids_T = torch.from_numpy(
            np.array(ids, dtype=np.int64)
        )  # torch itself takes five times as long
        labels_T = torch.full_like(ids_T, IGNORE)
        for sample, start, end in zip(samples, ends, ends[1:], strict=False):
            trained = slice(start + max(1, len(sample.prompt_ids)), end)
            labels_T[trained] = ids_T[trained]
        keep_K = (labels_T[1:] != IGNORE).nonzero()[:, 0]
        batch: dict[str, Any] = {
            "input_ids": ids_T[None],
            "labels": labels_T[None],
            "logits_to_keep": keep_K,
            "targets": labels_T[keep_K + 1],
            "places": places(sizes, [s.number for s in samples]),
            "row": row["index"],  # a number: a tensor would have to be fetched from the GPU
        }
        if self.packed:
            borders = torch.tensor(ends, dtype=torch.int32)
            batch["position_ids"] = torch.cat([*map(torch.arange, sizes)])[None]
            batch |= {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders.clone()}
            batch |= {"max_length_q": max(sizes), "max_length_k": max(sizes)}
        return _with_beginning_once(batch, samples) if self.shared else batch


def _with_beginning_once(batch: dict[str, Any], samples: Sequence[Sample]) -> dict[str, Any]:
    """A packed row without what its prompts begin with but for the first time; no trained token is in that."""
    first = common([sample.prompt_ids for sample in samples])
    if not first:
        return batch
    row = shared([*map(len, samples)], first)
    whole = {name: batch[name][:, row.kept] for name in ("input_ids", "position_ids", "labels")}
    sizes = {"max_length_q": max(row.sizes), "max_length_k": max(row.sizes)}
    return {
        **batch, **whole, **sizes,
        "cu_seq_lens_q": row.borders, "cu_seq_lens_k": row.borders, "shared_prefix": True,
        "logits_to_keep": row.places[batch["logits_to_keep"]], "places": batch["places"][row.kept],
    }  # fmt: skip


def read_row(model: PreTrainedModel, row: dict[str, Any]) -> tuple[ModelOutput, Tensor]:
    """What a model gives for a row of the collator, and its logits [K, vocabulary] for the targets."""
    inputs = {k: v for k, v in row.items() if k not in _NOT_READ}
    output = model(**inputs, use_cache=False)
    logits, keep = output.logits[0], row["logits_to_keep"]
    return output, logits if len(logits) == len(keep) else logits[
        keep
    ]  # some models give all of them


def cross_entropies(logits_KV: Tensor, targets_K: Tensor, smoothing: float) -> Tensor:
    """The sum of those of the targets."""
    return functional.cross_entropy(
        logits_KV.float(), targets_K, reduction="sum", label_smoothing=smoothing
    )


def steps_of(recipe: Recipe, encoder: Encoder, examples: Sequence[Example]) -> list[list[Sample]]:
    """The samples of every optimizer step, in order.

    Raises:
        RagtuneError: an example of the prepared data no longer fits (another tokenizer).
    """
    train = recipe.train
    drawn = draw_steps(
        len(examples), train.batch_size, steps=train.steps, epochs=train.epochs, seed=recipe.seed
    )
    # Of each sample the example, and the epoch where that matters.
    varies = train.reorder_passages or recipe.data.redraw_negatives is not None
    epochs = (n // len(examples) if varies else 0 for n in itertools.count())
    chosen = [[(index, next(epochs)) for index in step] for step in drawn]
    used = sorted({one for step in chosen for one in step})
    samples: dict[tuple[int, int], Sample] = {}

    def make(ones: Sequence[tuple[int, int]]) -> list[Sample | None]:
        plain = [examples[index] for index, _ in ones]
        if not varies:
            return encoder.samples(plain)
        shown = [varied(e, recipe, epoch) for e, (_, epoch) in zip(plain, ones, strict=True)]
        return _varied_samples(encoder, plain, shown)

    made = in_parts("tokenising", make, used, "samples")
    for one, sample in zip(used, made, strict=True):
        if sample is None:
            raise RagtuneError(
                f"The example {examples[one[0]].qid} no longer fits into the model's context.",
                "Run `ragtune prepare` again: the prepared data belong to another model.",
            )
        samples[one] = sample
    return [
        [dataclasses.replace(samples[one], number=n) for n, one in enumerate(step)]
        for step in chosen
    ]


def _varied_samples(
    encoder: Encoder, examples: Sequence[Example], shown: Sequence[Example]
) -> list[Sample | None]:
    """The samples of examples as they are shown; as they are where that would cut an answer away."""
    prompts = encoder.prompts(shown)
    samples = encoder.samples(shown, prompts)
    for n, (one, prompt) in enumerate(zip(shown, prompts, strict=True)):
        if samples[n] is None or (prompt is not None and positives_cut(encoder, one, prompt)):
            samples[n] = encoder.sample(examples[n])
    return samples
