"""Greedy answers to a batch of prompts of unlike length, without padding.

The prompts are read packed, as in training; the answers grow in a cache that is written in place,
and questions whose answer is finished leave the batch. transformers' `generate` pads every prompt to
the longest, copies the whole cache at every token and goes on until the last answer is finished.

A tensor's name ends in its axes: N questions that are still in the batch, A all questions of the batch,
T tokens of a packed row, S steps, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import ModelOutput

from ragtune.answering.confined import Confined, chosen
from ragtune.answering.shared import Rows
from ragtune.base.errors import is_out_of_memory
from ragtune.base.screen.console import note
from ragtune.base.text import first_line, shortened
from ragtune.model.fast.attention import using_packed
from ragtune.model.fast.cache import NO_ROOM, RaggedCache, Room
from ragtune.model.fast.graph import capture, why_not
from ragtune.model.fast.prefix import common, shared
from ragtune.model.hardware import autocast
from ragtune.model.memory import CPU_PREFILL_TOKENS, prefill_tokens
from ragtune.model.skeleton import parameters_of
from ragtune.model.spread import is_spread

_WORTH_A_GRAPH = 3  # steps that are left: capturing takes about as long as a step
_GRAPHS_BYTES = 2**30
"""More than most steps take beside the cache: the logits of 256 questions and the widest layer."""
_CAPTURED: set[torch.device] = set()
"""Where this process has had a graph: the kernels of the next one are probably there."""

Heard = Callable[[int], None]
"""Told the next token of an answer."""


class Ragged:
    """Asks a model, in eval mode, for which `unfit` is None.

    On CUDA the step that adds one token to every answer is captured as a graph and replayed: launched
    from Python, its thousands of small operations take longer than they run.

    Args:
        model: on its device.
        settings: `max_new_tokens`, `eos_token_id` (a list), `min_new_tokens`, `repetition_penalty`.
        room: what the batches to come need, if that is known.
    """

    def __init__(
        self, model: PreTrainedModel, settings: GenerationConfig, room: Room = NO_ROOM
    ) -> None:
        self.model = model
        self.settings = settings
        self.device = model.get_input_embeddings().weight.device
        # A graph would keep the weights that were gathered for it.
        self.graphs = self.device.type == "cuda" and not is_spread(model)
        self.warm = False
        self.room = room
        self._cache: RaggedCache | None = None
        self._step: _Step | None = None

    def forget(self) -> None:
        """Give back the memory that is kept for the next batch, whose size is no longer known."""
        self.room, self._cache, self._step = NO_ROOM, None, None

    @torch.inference_mode()
    def answer(
        self,
        prompts: Sequence[list[int]],
        heard: Heard | None = None,
        confined: Confined | None = None,
    ) -> Rows:
        """What follows each prompt; behind an answer's stop token stand others, as in `generate`.

        `heard` is told each token of the first one as soon as it is chosen. Only what `confined`
        allows can follow.
        """
        with autocast(self.model), using_packed(self.model):
            most = self.settings.max_new_tokens
            cache = self._room_for(len(prompts), max(map(len, prompts)) + most)
            stops = torch.tensor(self.settings.eos_token_id, device=self.device)
            choose = _Chooser(prompts, self.settings, stops, confined)
            end = self.settings.eos_token_id[0]
            found_AS = torch.full((len(prompts), most), end, device=self.device)
            sure_A = torch.zeros(len(prompts), device=self.device)
            samples_N = torch.arange(len(prompts), device=self.device)
            lengths_N = torch.tensor([len(p) for p in prompts], device=self.device)
            known = [len(p) for p in prompts]  # the same on the host
            going_N = torch.ones(len(prompts), dtype=torch.bool, device=self.device)
            # Afterwards the host is ahead of a GPU, and to send anything else it would have to wait.
            logits_NV = torch.cat(list(read(self.model, cache, prompts)))
            # A graph's questions stay, finished or not, and the host looks what is left a step later.
            stay = self.graphs
            left: Callable[[], int] = partial(len, prompts)
            for step in range(most):
                token_N, log_p_N = choose(logits_NV, found_AS[samples_N, :step], samples_N)
                found_AS[samples_N, step] = torch.where(going_N, token_N, end)
                sure_A[samples_N] += torch.where(going_N, log_p_N, 0.0)
                if heard is not None:
                    heard(int(found_AS[0, step]))
                going_N = going_N & ~torch.isin(token_N, stops)
                before, left = left, _later(going_N.sum())
                if step == most - 1 or (before if stay and heard is None else left)() == 0:
                    break
                if stay:
                    there_N = torch.where(going_N, lengths_N, 0)  # finished ones look at one token
                    logits_NV = self._stepped(cache, token_N, there_N, most - 1 - step)
                else:
                    if left() <= len(samples_N) // 2:
                        kept = going_N.nonzero()[:, 0]
                        cache.keep(kept)
                        samples_N, lengths_N, token_N, going_N = (
                            t[kept] for t in (samples_N, lengths_N, token_N, going_N)
                        )
                        known = [known[i] for i in kept.tolist()]
                    longest = max(known) + step
                    logits_NV = next_logits(self.model, cache, token_N, lengths_N, longest)
                lengths_N = lengths_N + 1
            return [*zip(found_AS[:, : step + 1].tolist(), sure_A.tolist(), strict=True)]

    def _room_for(self, samples: int, positions: int) -> RaggedCache:
        """The last batch's cache, and its graph, if they do for this batch."""
        if self._cache is None or not self._cache.renew(samples, positions):
            self._cache = self._step = None  # before there are others
            self.warm = False
            cache = RaggedCache(samples, positions, self.device, self.room)
            self._cache = cache if cache.flat else None  # another can't be renewed
            return cache
        return self._cache

    def _stepped(self, cache: RaggedCache, token_N: Tensor, lengths_N: Tensor, left: int) -> Tensor:
        """The logits_NV behind one more token of each question; captured when it is worth it."""
        if self._step is None:
            self._step = _Step(self.model, cache)
        step = self._step
        step.take(token_N, lengths_N)
        warm = self.warm or self.device in _CAPTURED
        if step.graph is None and self.graphs and warm and left >= _WORTH_A_GRAPH:
            self._capture(step)
        self.warm = True
        return step.run()[: len(token_N)]

    def _capture(self, step: _Step) -> None:
        """Have a step replayed, if it can be."""
        try:
            step.graph, step.logits_SV = capture(step.work, self.device, needs=_GRAPHS_BYTES)
            _CAPTURED.add(self.device)
        except RuntimeError as error:
            first = why_not(error)
            if is_out_of_memory(first):
                raise first from error
            if not self.warm:
                return  # a kernel may be another one than those that are there: after a step it is, too
            self.graphs = False  # something in the model asks the host
            why = shortened(first_line(first), 120)
            note(f"Answers without a CUDA graph, which is slower: {why}")


class _Step:
    """One more token for each question of a batch, which has as many as the cache is wide; S are these."""

    def __init__(self, model: PreTrainedModel, cache: RaggedCache) -> None:
        self.token_S = torch.zeros_like(cache.starts_S)
        self.lengths_S = torch.zeros_like(cache.starts_S)
        self.work = partial(next_logits, model, cache, self.token_S, self.lengths_S, None)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.logits_SV: Tensor

    def take(self, token_N: Tensor, lengths_N: Tensor) -> None:
        """What the next run reads; questions that aren't there have no tokens."""
        self.token_S[: len(token_N)] = token_N
        self.lengths_S.zero_()
        self.lengths_S[: len(token_N)] = lengths_N

    def run(self) -> Tensor:
        """The logits_SV; the next run may write over them."""
        if self.graph is None:
            return self.work()
        self.graph.replay()
        return self.logits_SV


def _later(count: Tensor) -> Callable[[], int]:
    """A number that the device is yet to find: only who asks waits for it."""
    if count.device.type != "cuda":
        return lambda: int(count)
    found = count.to("cpu", non_blocking=True)
    there = torch.cuda.current_stream(count.device).record_event()

    def read() -> int:
        there.synchronize()
        return int(found)

    return read


def read(
    model: PreTrainedModel, cache: RaggedCache, prompts: Sequence[list[int]]
) -> Iterator[Tensor]:
    """Put prompts into the cache, in packed rows; gives the logits_NV of each row's questions."""
    device = model.get_input_embeddings().weight.device
    on_cpu = device.type == "cpu"
    most = CPU_PREFILL_TOKENS if on_cpu else prefill_tokens(parameters_of(model))
    start = 0
    while start < len(prompts):
        end, tokens = start, 0
        while end < len(prompts) and (end == start or tokens + len(prompts[end]) <= most):
            tokens += len(prompts[end])
            end += 1
        output = _read_row(model, cache, prompts[start:end], start)
        yield output.logits[0]
        start = end


def _read_row(
    model: PreTrainedModel, cache: RaggedCache, row: Sequence[list[int]], start: int
) -> ModelOutput:
    """What a model gives for prompts, the cache's from `start` on, in one row: the logits behind each."""
    device = model.get_input_embeddings().weight.device

    def moved(tensor: Tensor) -> Tensor:
        # The host goes on at once: it prepares the next row while this one is read.
        return (
            tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
        )

    sizes = [len(p) for p in row]
    ids_T = torch.tensor([i for p in row for i in p])
    places_T = torch.cat([*map(torch.arange, sizes)])
    samples_T = torch.repeat_interleave(torch.arange(start, start + len(row)), torch.tensor(sizes))
    more: dict[str, bool] = {}
    borders = torch.tensor([0, *accumulate(sizes)], dtype=torch.int32)
    ends = borders[1:]
    # A GPU's kernel for rows knows no part that the others see.
    if device.type == "cpu" and (first := common(row)):
        one = shared(sizes, first)
        cache.put(samples_T, places_T, one.places)
        ids_T, places_T = ids_T[one.kept], places_T[one.kept]
        borders, more = one.borders, {"shared_prefix": True}
        ends = borders[2:]
    else:
        cache.put(moved(samples_T), moved(places_T))
    longest = int(borders.diff().max())
    borders_on = moved(borders)
    output: ModelOutput = model(
        input_ids=moved(ids_T)[None],
        position_ids=moved(places_T)[None],
        past_key_values=cache,
        use_cache=True,
        cu_seq_lens_q=borders_on,
        cu_seq_lens_k=borders_on,
        max_length_q=longest,
        max_length_k=longest,
        logits_to_keep=moved(ends - 1),
        **more,
    )
    return output


def next_logits(
    model: PreTrainedModel,
    cache: RaggedCache,
    token_N: Tensor,
    lengths_N: Tensor,
    longest: int | None,
) -> Tensor:
    """The logits_NV behind one more token of each question, which joins the cache."""
    cache.grow(lengths_N, longest)
    more = {"cache_starts": cache.starts_S[: len(lengths_N)]} if cache.flat else {}
    output = model(
        input_ids=token_N[:, None],
        position_ids=lengths_N[:, None],
        past_key_values=cache,
        use_cache=True,
        cache_lengths=lengths_N,
        **more,
    )
    logits_NV: Tensor = output.logits[:, -1]
    return logits_NV


class _Chooser:
    """The most likely token under the generation settings."""

    def __init__(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationConfig,
        stops: Tensor,
        confined: Confined | None,
    ) -> None:
        self.confined = confined
        self.least = settings.min_new_tokens or 0
        self.stops = stops
        penalty = settings.repetition_penalty
        self.penalty = 1.0 if penalty is None else float(penalty)
        if self.penalty != 1:
            longest = max(map(len, prompts))
            # A prompt is filled up with its own tokens, which are penalised already.
            rows = [p + [p[0]] * (longest - len(p)) for p in prompts]
            self.prompts = torch.tensor(rows, device=stops.device)

    def __call__(
        self, logits_NV: Tensor, found_NS: Tensor, samples_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """token_N and the logarithm of its probability, from the logits behind the tokens found so far."""
        logits_NV = logits_NV.float()
        if self.penalty != 1:
            seen = torch.cat([self.prompts[samples_N], found_NS], dim=1)
            score = logits_NV.gather(1, seen)
            score = torch.where(score < 0, score * self.penalty, score / self.penalty)
            logits_NV = logits_NV.scatter(1, seen, score)
        if found_NS.shape[1] < self.least:
            logits_NV = logits_NV.index_fill(1, self.stops, float("-inf"))
        return chosen(logits_NV, samples_N, self.confined)
