"""Answering questions greedily, in batches sorted by length, and going on after a break."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ragtune.answering.padded import EQUAL, IN_WORDS, PACKED, SINGLE, Way, choose_way, generate
from ragtune.answering.ragged import Ragged, probe_generate, unfit
from ragtune.base.console import note, warn
from ragtune.base.errors import RagtuneError, is_out_of_memory
from ragtune.base.files import appending, json_line
from ragtune.base.lock import see_held
from ragtune.base.stopping import finishing, stop_if_asked
from ragtune.model.fast.fused import forget
from ragtune.model.fast.positions import lengths_forgotten
from ragtune.model.gpu import free_gpu


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer: its text, its token ids without the stop token, and whether it stopped by itself."""

    qid: str
    prediction: str
    token_ids: list[int]
    stopped: bool

    def to_dict(self) -> dict[str, Any]:
        return {
            "qid": self.qid,
            "prediction": self.prediction,
            "token_ids": self.token_ids,
            "stopped": self.stopped,
        }


def answer(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[tuple[str, list[int]]],
    *,
    stop_id: int,
    max_new_tokens: int,
    batch_size: int,
    cache_tokens: int | None = None,
    partial: Path,
    tick: Callable[[int], None] = lambda _: None,
    on_way: Callable[[Way], None] = lambda _: None,
) -> list[Prediction]:
    """Answer every prompt greedily, in eval mode with the cache.

    The model's own generation settings hold (`min_new_tokens`, say), but nothing is sampled.
    Batches are of like length, the longest first, so that memory runs out at once or not at all;
    if it does, the batch is halved. What is answered is written to `partial` batch by batch and
    not asked again. A model that can't be asked in ragged batches is asked through transformers'
    `generate`, in batches in which the prompts' answers are those of each alone, and that is said.

    Args:
        model: on its device.
        tokenizer: for padding and decoding.
        prompts: (qid, token ids) pairs.
        stop_id: the token that ends an answer, beside the model's own.
        max_new_tokens: the longest answer.
        batch_size: questions at a time, at most.
        cache_tokens: tokens of prompts and answers at a time, at most; None for no limit.
        partial: where unfinished work is kept.
        tick: called with the number answered.
        on_way: is given how the questions are asked, before the first is.

    Returns:
        The predictions in the order of `prompts`.

    Raises:
        RagtuneError: memory does not do for a single question, or the model's cache is wrong.
    """
    done = kept_answers(partial, [qid for qid, _ in prompts])
    if all(qid in done for qid, _ in prompts):
        return [done[qid] for qid, _ in prompts]
    order = sorted(prompts, key=lambda prompt: (-len(prompt[1]), prompt[0]))
    model.eval()
    settings = _settings(model, tokenizer, stop_id, max_new_tokens)
    with lengths_forgotten(model):
        # All of them, not those that are left: a run that goes on has the batches that it had.
        way = _choose(model, settings, [ids for _, ids in order], batch_size)
    on_way(way)
    ragged = Ragged(model, settings) if way.how == PACKED else None
    cut = _Cut(1 if way.how == SINGLE else batch_size, cache_tokens, way.how == EQUAL)
    with lengths_forgotten(model), appending(partial) as file, finishing():
        # A batch is asked whole or not at all: half-precision answers depend on their batch.
        pending = [
            b for b in _batches(order, cut, max_new_tokens) if not all(qid in done for qid, _ in b)
        ]
        while pending:
            batch = pending.pop(0)
            ids = [ids for _, ids in batch]
            rows = _unless_out_of_memory(
                lambda ids=ids: (  # type: ignore[misc]
                    ragged.answer(ids) if ragged else generate(model, ids, settings)
                )
            )
            if rows is None:
                forget(model)
                free_gpu()
                if len(batch) == 1:
                    raise RagtuneError(
                        f"The memory does not do for the question {batch[0][0]} "
                        f"({len(batch[0][1])} tokens).",
                        "Set prompt.max_tokens lower, or model.quantization=nf4.",
                    )
                half = len(batch) // 2
                warn(f"Out of memory: {half} questions at a time.")
                flat = [prompt for one in (batch, *pending) for prompt in one]
                cut = dataclasses.replace(cut, most=half)
                pending = list(_batches(flat, cut, max_new_tokens))
                continue
            for (qid, _), row in zip(batch, rows, strict=True):
                prediction = _prediction(qid, row, tokenizer, settings)
                done[prediction.qid] = prediction
                file.write(partial_line(prediction))
            file.flush()
            tick(len(done))
            see_held()
            stop_if_asked(f"{len(done)} of {len(prompts)} answers are kept.")
    return [done[qid] for qid, _ in prompts]


def _choose(model: Any, settings: Any, prompts: Sequence[list[int]], most: int) -> Way:
    """How these prompts are asked; what is not the usual way is said.

    Raises:
        RagtuneError: the model's cache is wrong.
    """
    reason = unfit(model, settings, prompts)
    if not reason:
        return Way(PACKED, "packed prompts and a growing cache give the logits of the whole text")
    if wrong := probe_generate(model):
        raise RagtuneError(
            f"This model's answers can't be trusted here: with transformers' own cache, too, {wrong}.",
            "Try model.dtype=float32, another version of transformers, or remove liger-kernel; "
            "please report it.",
        )
    way = choose_way(model, settings, prompts, most)
    warn(
        f"Answers through transformers' generate, which is slower: {reason}. "
        f"Questions are asked {IN_WORDS[way.how]}: {way.reason}."
    )
    return Way(way.how, f"{reason}; {way.reason}")


def _unless_out_of_memory(run: Callable[[], list[list[int]]]) -> list[list[int]] | None:
    """What `run` returns; None, with nothing of it kept, if memory ran out."""
    try:
        return run()
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def read_partial(path: Path) -> Iterator[Prediction]:
    """The whole lines of an unfinished predictions file; a half-written last one is cut off."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))  # not written anew: on a full disk that would lose it
    damaged = 0
    for line in whole.decode("utf-8", "replace").split("\n")[:-1]:
        prediction = _read_line(line)
        if prediction is None:
            damaged += 1
        else:
            yield prediction
    if damaged:
        warn(f"{path}: {damaged} damaged lines; those questions are asked again.")


def _read_line(line: str) -> Prediction | None:
    try:
        row = json.loads(line)
        check = row.pop("check", None)  # older versions wrote none
        return Prediction(**row) if check in (None, _check(row)) else None
    except (ValueError, TypeError, AttributeError):
        return None


def kept_answers(partial: Path, qids: Sequence[str]) -> dict[str, Prediction]:
    """The answers that an earlier run left unfinished, by qid; how many is said."""
    wanted = set(qids)
    done = {p.qid: p for p in read_partial(partial) if p.qid in wanted}
    if done:
        note(f"Going on: {len(done):,} of {len(wanted):,} answers are kept.")
    return done


def partial_line(prediction: Prediction) -> str:
    """A line of an unfinished predictions file, with a checksum."""
    row = prediction.to_dict()
    return json_line({**row, "check": _check(row)})


def _check(row: dict[str, Any]) -> int:
    return zlib.crc32(json_line(row).encode())


def _settings(model: Any, tokenizer: Any, stop_id: int, max_new_tokens: int) -> Any:
    settings = copy.deepcopy(model.generation_config)
    own = settings.eos_token_id
    own = [] if own is None else own if isinstance(own, list) else [own]
    settings.update(
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        max_length=None,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted({stop_id, *own}),
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
        return_dict_in_generate=False,
    )
    if settings.max_time is not None:
        settings.max_time = float("inf")  # a batch's time would cut the answers; None is filled up
    return settings


def _prediction(qid: str, row: list[int], tokenizer: Any, settings: Any) -> Prediction:
    stops = set(settings.eos_token_id)
    end = next((i for i, token in enumerate(row) if token in stops), None)
    ids = row if end is None else row[:end]
    return Prediction(qid, tokenizer.decode(ids, skip_special_tokens=True), ids, end is not None)


@dataclass(frozen=True, slots=True)
class _Cut:
    """How prompts are cut into batches."""

    most: int
    """prompts"""
    cache_tokens: int | None
    """tokens of prompts and answers"""
    equal: bool
    """Whether the prompts of a batch must have one length."""


def _batches(
    order: Sequence[tuple[str, list[int]]], cut: _Cut, new_tokens: int
) -> Iterator[Sequence[tuple[str, list[int]]]]:
    """Cut prompts, the longest first, into batches that fit; each is as long as its first prompt."""
    start = 0
    while start < len(order):
        length = len(order[start][1])
        count = cut.most
        if cut.cache_tokens is not None:
            count = min(count, cut.cache_tokens // (length + new_tokens))
        end = start + 1
        while (
            end < len(order)
            and end - start < count
            and not (cut.equal and len(order[end][1]) < length)
        ):
            end += 1
        yield order[start:end]
        start = end
