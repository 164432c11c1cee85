"""The mean of the weights after each of the last steps (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ragtune.model.tensor_file import save_tensors
from ragtune.training.checkpoint import Writer

NAME = "average.safetensors"
_COUNT = "steps"


class Average:
    """A mean that grows step by step, and goes on from a checkpoint as if nothing had happened.

    Args:
        model: its weights that are trained.
        first: the step after which they count.
    """

    def __init__(self, model: nn.Module, first: int) -> None:
        self.first = first
        self.weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.mean: dict[str, Tensor] = {}
        self.count = 0

    @classmethod
    def of(cls, model: nn.Module, share: float, steps: int) -> Average | None:
        """Of the last share of the steps, at least one; None where there is none to be."""
        return cls(model, steps - max(1, round(share * steps))) if share else None

    @torch.no_grad()
    def take(self, step: int) -> None:
        """Let the weights after a step count, if it is one of the last."""
        if step <= self.first:
            return
        self.count += 1
        for name, weight in self.weights.items():
            if name in self.mean:
                self.mean[name] += (weight - self.mean[name]) / self.count
            else:
                self.mean[name] = weight.detach().clone()

    def save(self, folder: Path, writer: Writer) -> None:
        """Keep the mean beside a checkpoint's weights."""
        if self.count:
            count = {_COUNT: str(self.count)}
            writer.save(lambda mean: save_tensors(mean, folder / NAME, count), self.mean)

    def load(self, folder: Path) -> None:
        """Take up the mean of a checkpoint; of one before the last steps there is none."""
        self.mean, self.count = {}, 0
        if not (folder / NAME).exists():
            return
        with safe_open(folder / NAME, "pt") as file:
            self.count = int(file.metadata()[_COUNT])
            self.mean = {n: file.get_tensor(n).to(w.device) for n, w in self.weights.items()}

    @torch.no_grad()
    def put(self) -> None:
        """Put the mean in the place of the weights."""
        for name, mean in self.mean.items():
            self.weights[name].copy_(mean)
