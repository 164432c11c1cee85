"""A model whose weights are spread over the ranks: each has a share, and gathers a layer when it is used.

torch's FSDP2 does that. What it asks for is that every rank makes the same passes through the model, which
nothing else of ragtune does: one asks while another waits. So before each pass a rank says that it comes, and
a rank that has nothing to compute rests: it gives its share to the passes of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from ragtune.base.text import first_line
from ragtune.distributed.forgetting import forget_pass, require_forgetting

Together = Callable[[], AbstractContextManager[None]]

_REST, _FORWARD, _BACKWARD = 0, 1, 2
"""What a rank comes to do: nothing, a forward pass, or one with its backward pass."""
_REPEATED = 4
"""Passes of a module that is whole, to see whether they are the same to the bit."""
_ROUNDING = 0.01
"""Of an output's norm: more than bfloat16 rounds."""


class Passes:
    """The passes that the ranks make together through a model.

    Args:
        device: of this rank.
        together: within, a failure that comes of somebody's being gone says who it was.

    Raises:
        UsageError: this torch's FSDP2 can't forget a pass that was cut off.
    """

    def __init__(
        self,
        device: torch.device,
        together: Together,
    ) -> None:
        self._model: Any = None  # FSDP adds its methods to its class
        self._mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        require_forgetting(self._mesh, device)
        self._together = together
        self._coming = _REST
        self._gathered: list[FSDPModule] = []
        """In this pass, so far."""
        self._known: dict[int, list[FSDPModule]] = {}
        """All that a pass of a kind gathers, in order."""

    def spread(self, part: nn.Module, *, outermost: bool = False) -> None:
        """Leave this rank its share of a layer or, at last, of what of the model is outside of its layers.

        Parameters that a part gets later stay whole.
        """
        # Not the outermost one, either, is kept until its backward pass: each pass gathers the same.
        sharded = fully_shard(part, mesh=self._mesh, reshard_after_forward=True)
        gathering = _AllGather(sharded, self._gathers, self._together)
        sharded.set_custom_all_gather(gathering)  # type: ignore[arg-type]
        if outermost:
            self._model = part
            # Before FSDP's own hook.
            part.register_forward_pre_hook(lambda *_: self._begin(), prepend=True)

    def rest(self) -> None:
        """Give this rank's share to the passes of the others, until no rank wants another one."""
        while kind := self._agree(_REST):
            _gather(self._known[kind])

    def _begin(self) -> None:
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self._model.parameters())
        kind = _BACKWARD if learns else _FORWARD
        if self._agree(kind) != kind:
            raise RuntimeError("the ranks make passes of two kinds at a time")
        self._coming = kind

    def _agree(self, kind: int) -> int:
        """What any rank comes to do, which all do then."""
        self._finish()
        coming = torch.tensor(kind)
        with self._together():
            dist.all_reduce(coming, dist.ReduceOp.MAX)
        return int(coming)

    def _finish(self) -> None:
        """Gather what this rank's last pass did not: memory ran out in it, and the others made it whole."""
        kind, self._coming = self._coming, _REST
        gathered, self._gathered = self._gathered, []
        if kind == _REST:
            return
        forget_pass(self._model)  # whether the pass was whole FSDP doesn't say
        _gather(self._known.setdefault(kind, gathered)[len(gathered) :])

    def _gathers(self, part: FSDPModule) -> None:
        if self._coming != _REST:
            self._gathered.append(part)


def _gather(parts: Sequence[FSDPModule]) -> None:
    for part in parts:
        part.unshard()
        part.reshard()


class _AllGather:
    """torch's own gathering, which tells what it gathers."""

    def __init__(
        self, part: FSDPModule, tell: Callable[[FSDPModule], None], together: Together
    ) -> None:
        self._part = part
        self._tell = tell
        self._together = together

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: dist.ProcessGroup,
        async_op: bool = False,
    ) -> dist.Work | None:
        self._tell(self._part)
        # The older name, before torch 2.13.
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        with self._together():
            return gather(output_tensor, input_tensor, group=group, async_op=async_op)  # type: ignore[no-any-return]


def difference(make: Callable[[], nn.Module], x: Tensor) -> str:
    """What is otherwise in a module when it is spread, in words; empty if nothing is.

    To the bit, if one that is whole repeats itself so; a kernel that adds in no order gives other bits
    each time, and then it is to 1 %: what is wrong was all wrong.

    Every rank calls it.

    Args:
        make: gives the same module at each call, on the device of `x`.
        x: what it is given; its gradient is looked at, too.
    """

    def computed(module: nn.Module) -> tuple[Tensor, Tensor]:
        given = x.detach().clone().requires_grad_()
        output = module(given)
        output.square().sum().backward()
        assert given.grad is not None
        return output.detach(), given.grad

    mesh = init_device_mesh(x.device.type, (dist.get_world_size(),))
    expected, *again = (computed(make()) for _ in range(_REPEATED))
    try:
        found = computed(fully_shard(make(), mesh=mesh))  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 - another's code, on what it was not made for
        return f"it fails ({first_line(error)})"
    for what, one, other, *others in zip(
        ("output", "gradient"), found, expected, *again, strict=True
    ):
        away = (one - other).float().norm() / other.float().norm()
        repeats = all(torch.equal(other, another) for another in others)
        if not (torch.equal(one, other) if repeats else away < _ROUNDING):
            return f"the {what} of a layer is another one, by {away:.1%} of its norm"
    return ""


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of a model: what stands in its lists, the outermost ones; no architecture is named."""
    lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outer = [n for n in lists if not any(n.startswith(f"{other}.") for other in lists)]
    found = [part for name in outer for part in model.get_submodule(name).children()]
    return [part for part in found if any(True for _ in part.parameters())]


def shared_between(layers: Sequence[nn.Module]) -> bool:
    """Whether two layers have a parameter in common."""
    owners = Counter(
        id(p) for layer in layers for p in {id(p): p for p in layer.parameters()}.values()
    )
    return any(count > 1 for count in owners.values())
