"""Whether a model may be asked in packed batches with a cache of ours: tried on it, never assumed.

Logits are named by their axes: N texts, V the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from ragtune.answering.ragged import next_logits, read
from ragtune.base.errors import is_out_of_memory
from ragtune.base.text import first_line, shortened
from ragtune.model.fast.attention import using_packed
from ragtune.model.fast.cache import RaggedCache
from ragtune.model.fast.eight import unrounded
from ragtune.model.fast.probe import probe, row_matters
from ragtune.model.hardware import autocast

# Generation settings that packed batches honour, that do not concern greedy answers, or that say how
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


def unfit(
    model: PreTrainedModel,
    settings: GenerationConfig,
    prompts: Sequence[list[int]] = (),
    *,
    again: bool = False,
) -> str | None:
    """Why a model, with these generation settings, can't be asked these prompts packed; or None.

    The packed probe must hold, and a token that is added to the cache must get the logits that it
    gets in the whole text: tried on short texts, and on the shortest and the longest prompt, which is
    extended to where its answer can grow, behind every window and every change of RoPE on the way.
    `again`: this held here for other prompts, and only what depends on the prompts is tried.
    """
    own = {k for k, v in settings.to_diff_dict().items() if v is not None}
    if unknown := sorted(own - _HONOURED - _IRRELEVANT):
        return f"generation_config.json sets {', '.join(unknown)}"
    if not again:
        texts = [text.tolist() for text in _random(model, (7,), (2,), (12,))]
        reason = probe(model, any_length=not prompts) or _probe_cache(model, texts)
        if reason or not prompts:
            return reason
    # The last new token is not read any more.
    longest = grown(max(prompts, key=len), settings.max_new_tokens - 1)
    real = [min(prompts, key=len), longest]
    # One alone is the beginning of what it grows to: who asks one question waits for this.
    if reason := _probe_cache(model, real if len(prompts) > 1 else [longest]):
        return f"of the shortest and the longest prompt {reason}"
    if model.dtype == torch.float32:
        return None
    with autocast(model):
        return row_matters(model, real)


@unrounded()
def probe_generate(model: PreTrainedModel) -> str | None:
    """Why transformers' own answers to a batch can't be trusted: what its cache gets wrong; or None."""
    device = model.get_input_embeddings().weight.device
    texts = _random(model, (3, 9))[0].to(device)
    with torch.inference_mode(), autocast(model):
        whole_NV = model(texts, use_cache=False).logits[:, -1]
        past = getattr(model(texts[:, :-1], use_cache=True), "past_key_values", None)
        if past is None:  # a model with a state of its own kind
            return None
        # A model with vision would count on from the batch that it was asked last.
        place = torch.full((len(texts), 1), texts.shape[1] - 1, device=device)
        places = {"position_ids": place} if _takes_positions(model) else {}
        output = model(texts[:, -1:], past_key_values=past, use_cache=True, **places)
    return _differs(model, output.logits[:, -1], whole_NV)


def grown(prompt: list[int], more: int) -> list[int]:
    """A prompt that goes on with `more` of its own tokens, as it would with an answer."""
    return prompt + (prompt * (more // len(prompt) + 1))[:more]


def allowed(model: PreTrainedModel) -> float:
    """The relative difference of logits that rounding explains."""
    return 1e-3 if model.dtype == torch.float32 else 0.1


@unrounded()
def _probe_cache(model: PreTrainedModel, texts: Sequence[list[int]]) -> str | None:
    """What is otherwise where a text's last token is added to a cache of ours; or None."""
    device = model.get_input_embeddings().weight.device
    with torch.inference_mode(), autocast(model):
        alone = (torch.tensor([text], device=device) for text in texts)
        whole_NV = torch.stack(
            [model(text, use_cache=False, logits_to_keep=1).logits[0, -1] for text in alone]
        )
        try:
            with using_packed(model):
                cache = RaggedCache(len(texts), max(map(len, texts)), device)
                lengths = [len(text) - 1 for text in texts]
                for _ in read(model, cache, [text[:-1] for text in texts]):
                    pass
                last = torch.tensor([text[-1] for text in texts], device=device)
                places = torch.tensor(lengths, device=device)
                grown_NV = next_logits(model, cache, last, places, max(lengths))
        except Exception as error:  # a model's own code may raise anything on a cache of our kind
            if is_out_of_memory(error):
                raise
            return f"it fails on a ragged cache ({shortened(first_line(error), 120)})"
    return _differs(model, grown_NV, whole_NV)


def _random(model: PreTrainedModel, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Random token ids, the same each time."""
    generator = torch.Generator().manual_seed(1)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    return [torch.randint(vocabulary, shape, generator=generator) for shape in shapes]


def _takes_positions(model: PreTrainedModel) -> bool:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "position_ids" in inspect.signature(inner.forward).parameters


def _differs(model: PreTrainedModel, grown_NV: Tensor, whole_NV: Tensor) -> str | None:
    difference_N = (grown_NV.float() - whole_NV.float()).norm(dim=-1) / whole_NV.float().norm(
        dim=-1
    )
    worst = float(difference_N.max())
    return None if worst <= allowed(model) else f"cached and whole logits differ by {worst:.2g}"
