"""Answers through transformers' `generate`, and which prompts may share a batch there.

Prompts of unlike length are padded on the left. Some models then answer otherwise: a state that runs
over the padding, RoPE that is scaled by the longest of the batch, attention that chooses among padded
tokens. So the prompts themselves are tried before the first batch.

A tensor's name ends in its axes: N prompts, T tokens of the longest, S steps, V the vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from ragtune.answering.confined import Confined, chosen
from ragtune.answering.engine import EQUAL, PADDED, SINGLE, Way
from ragtune.answering.fit import allowed, grown
from ragtune.answering.ragged import Heard
from ragtune.answering.shared import Rows
from ragtune.base.errors import UsageError, is_out_of_memory
from ragtune.base.text import first_line, shortened
from ragtune.model.configuration import said
from ragtune.model.fast.eight import unrounded
from ragtune.model.generation import CORRECT, GENERATION
from ragtune.model.hardware import autocast, free_gpu
from ragtune.model.spread import is_spread

_STEPS = 3  # the last position of the prompt, and two cached steps
WORTH_A_PROBE = 8
"""Prompts: the probe reads as much as about that many."""


def generate(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    settings: GenerationConfig,
    heard: Heard | None = None,
    confined: Confined | None = None,
) -> Rows:
    """What follows each prompt, padded on the left, until every answer is finished.

    `heard` is told each token of a single one as soon as it is chosen. Only what `confined` allows
    can follow.
    """
    ids_NT, mask_NT = _padded(model, prompts)
    streamer = {} if heard is None else {"streamer": _Streamer(heard)}
    choosing = _Choosing(confined)
    with torch.inference_mode(), autocast(model):
        output = _generated(
            model,
            input_ids=ids_NT,
            attention_mask=mask_NT,
            generation_config=settings,
            logits_processor=LogitsProcessorList([choosing]),
            **streamer,
        )
    new_NS = output[:, ids_NT.shape[1] :]
    stops = torch.tensor(settings.eos_token_id, device=new_NS.device)
    ended_NS = torch.isin(new_NS, stops).long().cumsum(1) - torch.isin(new_NS, stops).long()
    log_p_NS = torch.stack(choosing.log_p_SN, dim=1)
    sure_N = log_p_NS.masked_fill(ended_NS > 0, 0.0).sum(1)
    return [*zip(new_NS.tolist(), sure_N.tolist(), strict=True)]


class _Choosing:
    """The last logits processor: lets only follow what may, and notes how likely what is chosen was."""

    def __init__(self, confined: Confined | None) -> None:
        self.confined = confined
        self.log_p_SN: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - its signature
        samples_N = torch.arange(len(scores), device=scores.device)
        token_N, log_p_N = chosen(scores.float(), samples_N, self.confined)
        self.log_p_SN.append(log_p_N)
        return torch.full_like(scores, float("-inf")).scatter(1, token_N[:, None], 0.0)


class _Streamer(BaseStreamer):  # type: ignore[misc]
    """Passes tokens on; the first that it gets are the prompt's."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._prompt = True

    def put(self, value: Tensor) -> None:
        if not self._prompt:
            self._heard(int(value[0]))
        self._prompt = False

    def end(self) -> None:
        """Nothing is kept back."""


def _generated(model: PreTrainedModel, **asked: object) -> Any:  # noqa: ANN401 - as transformers has it
    """What `generate` gives.

    Raises:
        UsageError: the model's own settings make no sense to transformers.
    """
    if is_spread(
        model
    ):  # else the ranks would be taken to ask the same, and count their answers together
        asked["synced_gpus"] = False
    try:
        return model.generate(**asked)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"model.id: with the settings of its {GENERATION} the model can't be asked: {said(error)}",
            CORRECT,
        ) from error


@unrounded()
def choose_way(
    model: PreTrainedModel, settings: GenerationConfig, prompts: Sequence[list[int]], most: int
) -> Way:
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
    if len(prompts) < WORTH_A_PROBE:
        return Way(SINGLE, f"there are fewer than {WORTH_A_PROBE} of them")
    try:
        return _Trial(model, settings).way(prompts, most)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    free_gpu()
    return Way(SINGLE, "there is too little memory to try batches")


@dataclass(frozen=True, slots=True)
class _Scores:
    """What the next token is chosen from, behind the prompt and behind each cached token."""

    logits_SNV: Tensor  # noqa: N815 - with its axes
    """As the model gives them."""
    changed_SNV: Tensor  # noqa: N815 - with its axes
    """Where the generation settings (penalties, tokens that may not follow) changed them."""

    def of(self, row: int) -> _Scores:
        return _Scores(self.logits_SNV[:, row : row + 1], self.changed_SNV[:, row : row + 1])

    def relative(self, expected: _Scores) -> Tensor:
        """The relative difference, by step and prompt."""
        difference_SN: Tensor = (self.logits_SNV - expected.logits_SNV).norm(dim=-1)
        size_SN: Tensor = expected.logits_SNV.norm(dim=-1)
        return difference_SN / size_SN


@dataclass(frozen=True, slots=True)
class _Trial:
    """Tries prompts in batches, and says in words what is otherwise there; None if nothing is."""

    model: PreTrainedModel
    settings: GenerationConfig

    def way(self, prompts: Sequence[list[int]], most: int) -> Way:
        """See `choose_way`."""
        order = sorted(prompts, key=len)
        # The last token that is fed stands where the longest answer's last one does.
        more = max(0, self.settings.max_new_tokens - _STEPS)
        middle, longest = order[len(order) // 2], grown(order[-1], more)
        rows = [order[0], middle, longest] if most > 2 else [order[0], longest]  # noqa: PLR2004 - two fit
        alone = [self.scores([row]) for row in rows]
        again = self.scores([rows[-2]])
        if wrong := _differ([again], alone[-2:-1], allowed(self.model)):
            return Way(
                SINGLE, f"in any batch a prompt is read otherwise behind a longer one ({wrong})"
            )
        if len(order[0]) == len(order[-1]):
            padded = "they have one length"
        elif wrong := self.together(rows, alone) or self.leak(rows):
            padded = f"padded they are read otherwise than alone ({wrong})"
        else:
            return Way(PADDED, "padded they get the scores that each gets alone")
        other = (middle * len(longest))[: len(longest)]
        if other == longest:
            other = longest[1:] + longest[:1]
        if wrong := self.together([longest, other], alone[-1:]):
            return Way(SINGLE, f"{padded}, and so are those of one length ({wrong})")
        return Way(EQUAL, padded)

    def together(self, rows: Sequence[list[int]], alone: Sequence[_Scores]) -> str | None:
        """What is otherwise when rows share a batch; `alone` has the first of them, or all."""
        try:
            expected = [*alone, *(self.scores([row]) for row in rows[len(alone) :])]
            together = self.scores(rows)
        except Exception as error:  # a model's own code may raise anything on a batch
            if is_out_of_memory(error):
                raise
            return f"it fails: {shortened(first_line(error), 120)}"
        found = [together.of(i) for i in range(len(rows))]
        return _differ(found, expected, allowed(self.model))

    def leak(self, rows: Sequence[list[int]]) -> str | None:
        """What the longest prompt's length, or what is masked, changes in the shortest; half precision only.

        It rounds otherwise in a batch of another shape, which can hide a small difference; in one of the
        same shape it does not, but for experts, who see another number of tokens: what other tokens in the
        longest prompt change is taken for rounding.
        """
        if self.model.dtype == torch.float32:
            return None
        short, long = rows[0], rows[-1]
        found = self.scores([short, long]).of(0)
        moved = self.scores([short, long[1:] + long[:1]]).of(0)
        changed = self.scores([short, short], (len(long), long[-1])).of(0)
        rounding = float(moved.relative(found).max())
        return _differ([changed], [found], min(1e-3 + 4 * rounding, allowed(self.model)))

    def scores(self, prompts: Sequence[list[int]], fill: tuple[int, int] | None = None) -> _Scores:
        """The scores for prompts in one batch; the tokens that follow are of each prompt itself."""
        steps = min(_STEPS, self.settings.max_new_tokens)
        settings = copy.deepcopy(self.settings)
        settings.return_dict_in_generate = settings.output_logits = True
        settings.max_new_tokens = steps
        if settings.min_new_tokens:  # a 0 would take the place of min_length
            settings.min_new_tokens = min(settings.min_new_tokens, steps)
        ids_NT, mask_NT = _padded(self.model, prompts, fill)
        stops = set(settings.eos_token_id)  # one of them would end the answer
        goes_on = next(i for i in range(len(stops) + 1) if i not in stops)
        tokens = [[i if i not in stops else goes_on for i in (p * steps)[:steps]] for p in prompts]
        forced = _Forced(torch.tensor(tokens, device=ids_NT.device))
        with torch.inference_mode(), autocast(self.model):
            output = _generated(
                self.model,
                input_ids=ids_NT,
                attention_mask=mask_NT,
                generation_config=settings,
                logits_processor=LogitsProcessorList([forced]),
            )
        logits_SNV = torch.stack(list(output.logits)).float()
        return _Scores(logits_SNV, logits_SNV != torch.stack(forced.scores))


class _Forced:
    """The last logits processor: notes the scores, and lets only a given token follow."""

    def __init__(self, tokens_NS: Tensor) -> None:
        self.tokens_NS = tokens_NS
        self.scores: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - its signature
        self.scores.append(scores.float().clone())
        step = min(len(self.scores), self.tokens_NS.shape[1]) - 1
        token_N1 = self.tokens_NS[:, step, None]
        return torch.full_like(scores, float("-inf")).scatter(1, token_N1, 0.0)


def _differ(found: Sequence[_Scores], expected: Sequence[_Scores], most: float) -> str | None:
    """How scores differ, by more than `most` of their size or in what is forbidden; or None."""
    pairs = list(zip(found, expected, strict=True))
    for one, other in pairs:
        difference_SN = one.relative(other)
        if not bool((difference_SN <= most).all()):  # a NaN, too
            return f"logits differ by {float(difference_SN.max()):.2g}"
    if any(not torch.equal(one.changed_SNV, other.changed_SNV) for one, other in pairs):
        return "generation_config.json penalises or forbids other tokens"
    return None


def _padded(
    model: PreTrainedModel, prompts: Sequence[list[int]], fill: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Token ids and mask; `fill` is another padding than the usual one: to a width, with one token.

    What is masked is each prompt's first token: penalties for what was said, and the like, look at all
    tokens of a row, and would see in the usual padding, the end token, one that was never there.
    """
    width = fill[0] if fill else max(map(len, prompts))
    device = model.get_input_embeddings().weight.device
    padding = [width - len(ids) for ids in prompts]
    rows = [
        [fill[1] if fill else ids[0]] * n + ids for n, ids in zip(padding, prompts, strict=True)
    ]
    mask = [[0] * n + [1] * (width - n) for n in padding]
    return torch.tensor(rows, device=device), torch.tensor(mask, device=device)
