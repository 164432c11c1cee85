"""Answers through transformers' `generate`, and which prompts may share a batch there.

Prompts of unlike length are padded on the left. Some models then answer otherwise: a state that runs
over the padding, RoPE that is scaled by the longest of the batch, attention that chooses among padded
tokens. So the prompts themselves are tried before the first batch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from ragtune.answering.ragged import grown
from ragtune.base.errors import is_out_of_memory
from ragtune.model.gpu import autocast, free_gpu

PACKED, PADDED, EQUAL, SINGLE = "packed", "padded", "equal_lengths", "single"

IN_WORDS = {
    PACKED: "packed, without padding",
    PADDED: "in padded batches",
    EQUAL: "in batches of prompts of one length",
    SINGLE: "one at a time",
}

_STEPS = 3  # the last position of the prompt, and two cached steps
_WORTH_A_PROBE = 8  # prompts: the probe reads as much as about that many


@dataclass(frozen=True, slots=True)
class Way:
    """How prompts are asked (a key of `IN_WORDS`), and why."""

    how: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def generate(model: Any, prompts: Sequence[list[int]], settings: Any) -> list[list[int]]:
    """The new tokens for each prompt, padded on the left, until every answer is finished."""
    input_ids, mask = _padded(model, prompts)
    with torch.inference_mode(), autocast(model):
        output = model.generate(
            input_ids=input_ids, attention_mask=mask, generation_config=settings
        )
    rows: list[list[int]] = output[:, input_ids.shape[1] :].tolist()
    return rows


def choose_way(model: Any, settings: Any, prompts: Sequence[list[int]], most: int) -> Way:
    """How `generate` may be asked these prompts so that each gets the answer that it gets alone.

    The shortest, a middle one and the longest, which is extended by its own tokens to where its
    answer can grow, are asked in one batch and each alone: every window and every change of RoPE that
    an answer can reach lies behind the longest one's end. What is compared are the scores from which
    the next token is chosen, behind the prompt and behind two cached tokens. Where they differ, the
    same is tried with two prompts of one length; where these differ, too, one prompt is asked at a time.

    Args:
        model: on its device, in eval mode.
        settings: for `generate`.
        prompts: token ids of all that are asked, so that a continued run chooses as it did before.
        most: prompts at a time.
    """
    if most == 1:
        return Way(SINGLE, "a batch holds one question")
    if len(prompts) < _WORTH_A_PROBE:
        return Way(SINGLE, f"there are fewer than {_WORTH_A_PROBE} of them")
    try:
        return _tried(model, settings, prompts, most)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    free_gpu()
    return Way(SINGLE, "there is too little memory to try batches")


def _tried(model: Any, settings: Any, prompts: Sequence[list[int]], most: int) -> Way:
    order = sorted(prompts, key=len)
    # The last token that is fed stands where the longest answer's last one does.
    more = max(0, settings.max_new_tokens - _STEPS)
    middle, longest = order[len(order) // 2], grown(order[-1], more)
    rows = [order[0], middle, longest] if most > 2 else [order[0], longest]  # noqa: PLR2004
    alone = [_scores(model, settings, [row]) for row in rows]
    again = _scores(model, settings, [rows[-2]])
    if wrong := _differ([again], alone[-2:-1], _allowed(model)):
        return Way(SINGLE, f"in any batch a prompt is read otherwise behind a longer one ({wrong})")
    if len(order[0]) == len(order[-1]):
        padded: str | None = "they have one length"
    else:
        wrong = _try(model, settings, rows, alone) or _leak(model, settings, rows)
        padded = wrong and f"padded they are read otherwise than alone ({wrong})"
    if padded is None:
        return Way(PADDED, "padded they get the scores that each gets alone")
    other = (middle * len(longest))[: len(longest)]
    if other == longest:
        other = longest[1:] + longest[:1]
    equal = _try(model, settings, [longest, other], alone[-1:])
    if equal is None:
        return Way(EQUAL, padded)
    return Way(SINGLE, f"{padded}, and so are those of one length ({equal})")


def _try(
    model: Any, settings: Any, rows: Sequence[list[int]], alone: Sequence[_Scores]
) -> str | None:
    """What is otherwise when rows share a batch; `alone` has the first of them, or all."""
    try:
        expected = [*alone, *(_scores(model, settings, [row]) for row in rows[len(alone) :])]
        together = _scores(model, settings, rows)
    except Exception as error:  # a model's own code may raise anything on a batch
        if is_out_of_memory(error):
            raise
        return f"it fails: {(str(error).splitlines() or ['?'])[0][:120]}"
    return _differ([together.of(i) for i in range(len(rows))], expected, _allowed(model))


def _leak(model: Any, settings: Any, rows: Sequence[list[int]]) -> str | None:
    """What the longest prompt's length, or what is masked, changes in the shortest; half precision only.

    It rounds otherwise in a batch of another shape, which can hide a small difference; in one of the same
    shape it does not, but for experts, who see another number of tokens: what other tokens in the longest
    prompt change is taken for rounding.
    """
    if model.dtype == torch.float32:
        return None
    short, long = rows[0], rows[-1]
    found = _scores(model, settings, [short, long]).of(0)
    moved = _scores(model, settings, [short, long[1:] + long[:1]]).of(0)
    changed = _scores(model, settings, [short, short], _Fill(len(long), long[-1])).of(0)
    rounding = float(_relative(moved, found).max())
    return _differ([changed], [found], min(1e-3 + 4 * rounding, _allowed(model)))


@dataclass(frozen=True, slots=True)
class _Scores:
    """What the next token is chosen from, behind the prompt and behind each cached token."""

    logits: Tensor
    """[steps, rows, vocabulary], as the model gives them."""
    changed: Tensor
    """Where the generation settings (penalties, tokens that may not follow) changed them."""

    def of(self, row: int) -> _Scores:
        return _Scores(self.logits[:, row : row + 1], self.changed[:, row : row + 1])


class _Forced:
    """The last logits processor: notes the scores, and lets only a given token follow."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        """[rows, steps]"""
        self.scores: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - its signature
        self.scores.append(scores.float().clone())
        token = self.tokens[:, min(len(self.scores), self.tokens.shape[1]) - 1, None]
        return torch.full_like(scores, float("-inf")).scatter(1, token, 0.0)


def _scores(
    model: Any, settings: Any, prompts: Sequence[list[int]], fill: _Fill | None = None
) -> _Scores:
    """The scores for prompts in one batch; the tokens that follow are of each prompt itself."""
    steps = min(_STEPS, settings.max_new_tokens)
    settings = copy.deepcopy(settings)
    settings.return_dict_in_generate = settings.output_logits = True
    settings.max_new_tokens = steps
    if settings.min_new_tokens:  # a 0 would take the place of min_length
        settings.min_new_tokens = min(settings.min_new_tokens, steps)
    input_ids, mask = _padded(model, prompts, fill)
    stops = set(settings.eos_token_id)  # one of them would end the answer
    goes_on = next(i for i in range(len(stops) + 1) if i not in stops)
    tokens = [[i if i not in stops else goes_on for i in (p * steps)[:steps]] for p in prompts]
    forced = _Forced(torch.tensor(tokens, device=input_ids.device))
    with torch.inference_mode(), autocast(model):
        output = model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            generation_config=settings,
            logits_processor=LogitsProcessorList([forced]),
        )
    logits = torch.stack(list(output.logits)).float()
    return _Scores(logits, logits != torch.stack(forced.scores))


def _relative(found: _Scores, expected: _Scores) -> Tensor:
    difference: Tensor = (found.logits - expected.logits).norm(dim=-1)
    size: Tensor = expected.logits.norm(dim=-1)
    return difference / size


def _allowed(model: Any) -> float:
    """The relative difference of logits that rounding explains."""
    return 1e-3 if model.dtype == torch.float32 else 0.1


def _differ(found: Sequence[_Scores], expected: Sequence[_Scores], allowed: float) -> str | None:
    """How scores differ; or None."""
    for one, other in zip(found, expected, strict=True):
        difference = _relative(one, other)
        if not bool((difference <= allowed).all()):  # a NaN, too
            return f"logits differ by {float(difference.max()):.2g}"
    if any(
        not torch.equal(one.changed, other.changed)
        for one, other in zip(found, expected, strict=True)
    ):
        return "generation_config.json penalises or forbids other tokens"
    return None


@dataclass(frozen=True, slots=True)
class _Fill:
    """Another padding than the usual one: to a width, with one token."""

    width: int
    token: int


def _padded(
    model: Any, prompts: Sequence[list[int]], fill: _Fill | None = None
) -> tuple[Tensor, Tensor]:
    """Token ids and mask [prompts, longest].

    What is masked is each prompt's first token: penalties for what was said, and the like, look at all
    tokens of a row, and would see in the usual padding, the end token, one that was never there.
    """
    width = fill.width if fill else max(map(len, prompts))
    device = model.get_input_embeddings().weight.device
    padding = [width - len(ids) for ids in prompts]
    rows = [
        [fill.token if fill else ids[0]] * n + ids for n, ids in zip(padding, prompts, strict=True)
    ]
    mask = [[0] * n + [1] * (width - n) for n in padding]
    return torch.tensor(rows, device=device), torch.tensor(mask, device=device)
