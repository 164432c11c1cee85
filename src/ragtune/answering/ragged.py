"""Greedy answers to a batch of prompts of unlike length, without padding.

The prompts are read packed, as in training; the answers grow in a cache that is written in place,
and questions whose answer is finished leave the batch. transformers' `generate` pads every prompt to
the longest, copies the whole cache at every token and goes on until the last answer is finished.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ragtune.base.console import note
from ragtune.base.errors import is_out_of_memory
from ragtune.model.fast.attention import probe, using_packed
from ragtune.model.fast.cache import RaggedCache
from ragtune.model.fast.lengths import row_matters
from ragtune.model.gpu import autocast
from ragtune.model.memory import PREFILL_TOKENS

_WORTH_A_GRAPH = 3  # steps that are left: capturing takes about as long as a step

# Generation settings that this way honours, that do not concern greedy answers, or that say how
# transformers' own loop works.
_HONOURED = {"min_new_tokens", "repetition_penalty", "eos_token_id", "max_new_tokens"}
_IRRELEVANT = {
    "bos_token_id", "pad_token_id", "max_length", "do_sample", "temperature", "top_p", "top_k", "min_p",
    "typical_p", "epsilon_cutoff", "eta_cutoff", "num_beams", "use_cache", "cache_implementation",
    "cache_config", "disable_compile", "compile_config", "transformers_version", "_from_model_config",
    "return_dict_in_generate", "num_return_sequences", "trust_remote_code", "chat_format", "max_time",
    "output_attentions", "output_hidden_states", "output_scores", "output_logits", "is_assistant",
    "prefill_chunk_size", "early_stopping", "length_penalty", "diversity_penalty", "num_beam_groups",
}  # fmt: skip


def unfit(model: Any, settings: Any, prompts: Sequence[list[int]] = ()) -> str | None:
    """Why a model, with these generation settings, can't be asked these prompts this way; or None.

    The packed probe must hold, and a token that is added to the cache must get the logits that it
    gets in the whole text: tried on short texts, and on the shortest and the longest prompt, which is
    extended to where its answer can grow, behind every window and every change of RoPE on the way.
    """
    own = {k for k, v in settings.to_diff_dict().items() if v is not None}
    unknown = sorted(own - _HONOURED - _IRRELEVANT)
    if unknown:
        return f"generation_config.json sets {', '.join(unknown)}"
    reason = probe(model, any_length=not prompts)
    generator = torch.Generator().manual_seed(1)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    texts = [torch.randint(vocabulary, (n,), generator=generator).tolist() for n in (7, 2, 12)]
    reason = reason or _probe_cache(model, texts)
    if prompts and not reason:
        # The last new token is not read any more.
        longest = grown(max(prompts, key=len), settings.max_new_tokens - 1)
        real = [min(prompts, key=len), longest]
        reason = _probe_cache(model, real)
        reason = reason and f"of the shortest and the longest prompt {reason}"
        if not reason and model.dtype != torch.float32:
            with autocast(model):
                reason = row_matters(model, real)
    return reason


def grown(prompt: list[int], more: int) -> list[int]:
    """A prompt that goes on with `more` of its own tokens, as it would with an answer."""
    return prompt + (prompt * (more // len(prompt) + 1))[:more]


def _probe_cache(model: Any, texts: Sequence[list[int]]) -> str | None:
    device = model.get_input_embeddings().weight.device
    with torch.inference_mode(), autocast(model):
        whole = torch.stack(
            [
                model(torch.tensor([t], device=device), use_cache=False, logits_to_keep=1).logits[
                    0, -1
                ]
                for t in texts
            ]
        )
        try:
            with using_packed(model):
                cache = RaggedCache(len(texts), max(map(len, texts)))
                lengths = [len(t) - 1 for t in texts]
                for _ in _read(model, cache, [t[:-1] for t in texts]):
                    pass
                last = torch.tensor([t[-1] for t in texts], device=device)
                grown = _next_logits(
                    model, cache, last, torch.tensor(lengths, device=device), max(lengths)
                )
        except Exception as error:  # a model's own code may raise anything on a cache of our kind
            if is_out_of_memory(error):
                raise
            return f"it fails on a ragged cache ({(str(error).splitlines() or ['?'])[0][:120]})"
    return _differs(model, grown, whole)


def probe_generate(model: Any) -> str | None:
    """Why transformers' own answers to a batch can't be trusted: what its cache gets wrong; or None."""
    generator = torch.Generator().manual_seed(1)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    device = model.get_input_embeddings().weight.device
    texts = torch.randint(vocabulary, (3, 9), generator=generator).to(device)
    with torch.inference_mode(), autocast(model):
        whole = model(texts, use_cache=False).logits[:, -1]
        past = getattr(model(texts[:, :-1], use_cache=True), "past_key_values", None)
        if past is None:  # a model with a state of its own kind
            return None
        # A model with vision would count on from the batch that it was asked last.
        place = torch.full((len(texts), 1), texts.shape[1] - 1, device=device)
        places = {"position_ids": place} if _takes_positions(model) else {}
        output = model(texts[:, -1:], past_key_values=past, use_cache=True, **places)
    return _differs(model, output.logits[:, -1], whole)


def _takes_positions(model: Any) -> bool:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "position_ids" in inspect.signature(inner.forward).parameters


def _differs(model: Any, grown: Tensor, whole: Tensor) -> str | None:
    difference = (grown.float() - whole.float()).norm(dim=-1) / whole.float().norm(dim=-1)
    worst = float(difference.max())
    allowed = 1e-3 if model.dtype == torch.float32 else 0.1
    return None if worst <= allowed else f"cached and whole logits differ by {worst:.2g}"


class Ragged:
    """Asks a model, in eval mode, for which `unfit` is None.

    On CUDA the step that adds one token to every answer is captured as a graph and replayed: launched
    from Python, its thousands of small operations take longer than they run.

    Args:
        model: on its device.
        settings: `max_new_tokens`, `eos_token_id` (a list), `min_new_tokens`, `repetition_penalty`.
    """

    def __init__(self, model: Any, settings: Any) -> None:
        self.model = model
        self.settings = settings
        self.device = model.get_input_embeddings().weight.device
        self.graphs = self.device.type == "cuda"
        self.warm = False

    def answer(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """The new tokens for each prompt; behind an answer's stop token stand others, as in `generate`."""
        stops = torch.tensor(self.settings.eos_token_id, device=self.device)
        most = self.settings.max_new_tokens
        count = len(prompts)
        with torch.inference_mode(), autocast(self.model), using_packed(self.model):
            cache = RaggedCache(count, max(map(len, prompts)) + most)
            choose = _Chooser(prompts, self.settings, stops)
            logits = torch.cat(list(_read(self.model, cache, prompts)))
            end = self.settings.eos_token_id[0]
            found = torch.full((count, most), end, device=self.device)
            samples = torch.arange(count, device=self.device)  # those still in the batch
            lengths = torch.tensor([len(p) for p in prompts], device=self.device)
            known = [len(p) for p in prompts]  # the same on the host
            going = torch.ones(count, dtype=torch.bool, device=self.device)
            step_on = self._stepper(cache)
            for step in range(most):
                token = choose(logits, found[samples, :step], samples)
                found[samples, step] = torch.where(going, token, end)
                going = going & ~torch.isin(token, stops)
                left = int(going.sum())
                if left == 0 or step == most - 1:
                    break
                if left <= len(samples) // 2:
                    kept = going.nonzero()[:, 0]
                    cache.keep(kept)
                    samples, lengths, token, going = (
                        t[kept] for t in (samples, lengths, token, going)
                    )
                    known = [known[i] for i in kept.tolist()]
                    step_on = self._stepper(cache)
                logits = step_on(token, lengths, max(known) + step, most - 1 - step)
                lengths = lengths + 1
            rows: list[list[int]] = found[:, : step + 1].tolist()
        return rows

    def _stepper(self, cache: RaggedCache) -> Callable[[Tensor, Tensor, int, int], Tensor]:
        """A function of (token, lengths, longest, steps left) that gives the next logits."""
        graph: Any = None
        inputs: tuple[Tensor, Tensor] | None = None
        logits: Any = None

        def step_on(token: Tensor, lengths: Tensor, longest: int, left: int) -> Tensor:
            nonlocal graph, inputs, logits
            if graph is None and self.graphs and self.warm and left >= _WORTH_A_GRAPH:
                inputs = (token.clone(), lengths.clone())
                graph = torch.cuda.CUDAGraph()
                random = torch.cuda.default_generators[self.device.index or 0]
                state = random.clone_state()
                try:
                    with torch.cuda.graph(graph):
                        logits = _next_logits(self.model, cache, *inputs, None)
                except RuntimeError as error:
                    # A capture that is cut off leaves the generator waiting for its end.
                    random.graphsafe_set_state(state)
                    if is_out_of_memory(error):
                        raise
                    # Something in the model asks the host.
                    self.graphs, graph = False, None
                    reason = (str(error).splitlines() or ["?"])[0][:120]
                    note(f"Answers without a CUDA graph, which is slower: {reason}")
            if graph is None or inputs is None:
                self.warm = True
                return _next_logits(self.model, cache, token, lengths, longest)
            inputs[0].copy_(token)
            inputs[1].copy_(lengths)
            graph.replay()
            captured: Tensor = logits
            return captured

        return step_on


def _read(model: Any, cache: RaggedCache, prompts: Sequence[list[int]]) -> Iterator[Tensor]:
    """Put prompts into the cache, in packed rows; gives the logits [samples, vocabulary] of each row."""
    device = model.get_input_embeddings().weight.device
    start = 0
    while start < len(prompts):
        end, tokens = start, 0
        while end < len(prompts) and (end == start or tokens + len(prompts[end]) <= PREFILL_TOKENS):
            tokens += len(prompts[end])
            end += 1
        row = prompts[start:end]
        sizes = torch.tensor([len(p) for p in row])
        borders = torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)])
        places = torch.cat([torch.arange(len(p)) for p in row]).to(device)
        samples = torch.repeat_interleave(torch.arange(start, end), sizes).to(device)
        cache.put(samples, places)
        on_device = borders.to(device, torch.int32)
        output = model(
            input_ids=torch.tensor([[i for p in row for i in p]], device=device),
            position_ids=places[None],
            past_key_values=cache,
            use_cache=True,
            cu_seq_lens_q=on_device,
            cu_seq_lens_k=on_device,
            max_length_q=int(sizes.max()),
            max_length_k=int(sizes.max()),
            logits_to_keep=(borders[1:] - 1).to(device),
        )
        yield output.logits[0]
        start = end


def _next_logits(
    model: Any, cache: RaggedCache, token: Tensor, lengths: Tensor, longest: int | None
) -> Tensor:
    """The logits [samples, vocabulary] behind one more token a sample, which joins the cache."""
    cache.grow(lengths, longest)
    output = model(
        input_ids=token[:, None],
        position_ids=lengths[:, None],
        past_key_values=cache,
        use_cache=True,
        cache_lengths=lengths,
    )
    logits: Tensor = output.logits[:, -1]
    return logits


class _Chooser:
    """The most likely token under the generation settings."""

    def __init__(self, prompts: Sequence[list[int]], settings: Any, stops: Tensor) -> None:
        self.least = settings.min_new_tokens or 0
        self.stops = stops
        penalty = settings.repetition_penalty
        self.penalty = float(penalty) if penalty is not None else 1.0
        if self.penalty != 1:
            longest = max(map(len, prompts))
            # A prompt is filled up with its own tokens, which are penalised already.
            rows = [p + [p[0]] * (longest - len(p)) for p in prompts]
            self.prompts = torch.tensor(rows, device=stops.device)

    def __call__(self, logits: Tensor, found: Tensor, samples: Tensor) -> Tensor:
        """From logits [samples, vocabulary] behind the tokens found so far [samples, step]."""
        logits = logits.float()
        if self.penalty != 1:
            seen = torch.cat([self.prompts[samples], found], dim=1)
            score = logits.gather(1, seen)
            score = torch.where(score < 0, score * self.penalty, score / self.penalty)
            logits = logits.scatter(1, seen, score)
        if found.shape[1] < self.least:
            logits = logits.index_fill(1, self.stops, float("-inf"))
        return logits.argmax(dim=-1)
