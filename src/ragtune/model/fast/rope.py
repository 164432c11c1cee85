"""RoPE that is scaled by the length of what is read (dynamic NTK), without a memory of what was read before."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel


@contextlib.contextmanager
def lengths_forgotten(model: PreTrainedModel) -> Iterator[None]:
    """Let every call choose its RoPE scaling as it would in a model that has read nothing yet.

    transformers keeps the scaling of the longest text until one comes that needs none: a prompt would
    be read otherwise behind a longer one, and a training that goes on otherwise than one that was never
    stopped. It takes the scaling back at a position below the unscaled context, so each module is shown
    the first position before it is called. Within one answer nothing changes: its positions grow.
    `choose_way` (answering/padded.py) tests on the prompts themselves that nothing is left behind.
    """
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            # The test by which transformers itself decides; one name a kind of layer in some models.
            if "dynamic" in str(getattr(module, "rope_type", "")):
                handle = module.register_forward_pre_hook(_show_first_position, with_kwargs=True)
                stack.callback(handle.remove)
        yield


def _show_first_position(
    module: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    call = inspect.signature(module.forward).bind(*args, **kwargs)
    call.arguments["position_ids"] = torch.zeros_like(call.arguments["position_ids"])
    module.forward(*call.args, **call.kwargs)
