"""Letting torch's FSDP2 forget a pass that was cut off, with torch's way or, before 2.13, by hand."""
# ruff: noqa: SLF001 - before torch 2.13 there is no public way

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from ragtune.base.errors import UsageError
from ragtune.base.text import first_line


def forget_pass(model: FSDPModule) -> None:
    """Let FSDP forget a pass that was cut off; after one that was whole there is nothing to forget.

    Torch 2.13 has a method for it. For older ones here is what that does where nothing that is spread
    learns, by torch's own names, which are the same in 2.10, 2.11 and 2.12.

    Raises:
        AttributeError: these are others.
    """
    if hasattr(FSDPModule, "reset_iter_state"):
        model.reset_iter_state()
        return
    root: Any = model._get_fsdp_state()
    passes, gathers = root._state_ctx, root._comm_ctx
    groups = [group for state in passes.all_states if (group := state._fsdp_param_group)]
    stream = root._device_handle.current_stream()
    last, begun = gathers.all_gather_state, [group._all_gather_result for group in groups]
    for event in [last and last.event, *(one and one.all_gather_event for one in begun)]:
        if event is not None:
            stream.wait_event(event)
    for one in (*passes.all_states, *groups):
        _set(one, _training_state=type(one._training_state).IDLE)
    for group in groups:
        _set(group, _all_gather_result=None)
        group._post_forward_indices.clear()
        group._to_sharded()
    gathers.post_forward_order.clear()
    _set(gathers, all_gather_state=None)
    _set(passes, iter_forward_root=None, post_backward_final_callback_queued=False)


def _set(thing: object, **values: object) -> None:
    """Set attributes that are there.

    Raises:
        AttributeError: one is not.
    """
    for name, value in values.items():
        getattr(thing, name)
        setattr(thing, name, value)


def require_forgetting(mesh: DeviceMesh, device: torch.device) -> None:
    """Require that a pass can be forgotten: tried, for before torch 2.13 that hangs on its own names.

    Raises:
        UsageError: it can't.
    """
    whole = nn.Linear(2, 2, device=device).requires_grad_(requires_grad=False)
    part = fully_shard(whole, mesh=mesh)
    whole(torch.zeros(1, 2, device=device))
    try:
        forget_pass(part)
    except AttributeError as error:
        raise UsageError(
            "The base doesn't fit on one GPU, and to spread it over several torch "
            f"{torch.__version__} is too old ({first_line(error)}).",
            "Install torch 2.13 or a newer one.",
        ) from error
