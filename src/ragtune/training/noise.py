"""NEFTune's noise on the embeddings (Jain et al. 2023, https://arxiv.org/abs/2310.05914), sample by sample.

Trainer's own takes a row for one sample: in a packed row its noise would be smaller, and other with each plan.
It is drawn as dropout's masks are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ragtune.model.fast.dropout import Masks, numbers
from ragtune.model.wrapping import Tuned


class Noise:
    """Adds uniform noise within alpha / sqrt(T·D) to the embeddings of a sample of T tokens.

    Args:
        alpha: NEFTune's.
        masks: where it is drawn from.
    """

    def __init__(self, alpha: float, masks: Masks) -> None:
        self.alpha = alpha
        self.masks = masks
        self.borders: Tensor | None = None
        """[S + 1]: where the samples of the row that is read begin and end; None of a single one."""

    @contextmanager
    def on(self, model: Tuned) -> Iterator[None]:
        """Let a model have it while it is trained."""
        handle = model.get_input_embeddings().register_forward_hook(self._add)
        try:
            yield
        finally:
            handle.remove()

    def _add(self, module: nn.Module, _: object, output: Tensor) -> Tensor:
        """[1, T, D] with noise; unchanged where nothing is trained."""
        if not module.training:
            return output
        size_T = self._sizes(output.shape[1], output.device)
        within_T = self.alpha / torch.sqrt(size_T * output.shape[2])
        drawn_TD = (numbers(self.masks.of(0), output.shape[2]) + 0.5) / 2**15  # from -1 to 1
        return output + drawn_TD.to(output.dtype) * within_T[:, None].to(output.dtype)

    def _sizes(self, tokens: int, device: torch.device) -> Tensor:
        """[T]: of each token the tokens of its sample."""
        if self.borders is None:
            return torch.full((tokens,), float(tokens), device=device)
        sizes_S = self.borders.diff()
        return sizes_S.repeat_interleave(sizes_S, output_size=tokens).float()
