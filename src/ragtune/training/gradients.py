"""Whether what is called trained gets a gradient: one backward pass on a short row."""

from __future__ import annotations

import torch
from peft import PeftModel
from torch.nn import functional
from transformers import PreTrainedModel

from ragtune.base.errors import UsageError
from ragtune.data.encode import Sample
from ragtune.model.experts import expert_lists
from ragtune.model.hardware import autocast
from ragtune.model.lora import attach
from ragtune.model.wrapping import ADAPTER, Tuned, adapters
from ragtune.recipe.lora import ALL_LINEAR, Lora
from ragtune.training.rows import RowCollator, read_row

_LENGTHS = (33, 17, 9)
_TRAINED = 4


def attach_reached(
    model: PreTrainedModel, lora: Lora, seed: int, *, packed: bool
) -> tuple[PeftModel, list[str]]:
    """Put an adapter on a model, and leave out what a row of text gives no gradient.

    A layer of a vision tower is such a one, or one whose weight is read without calling the layer.

    Args:
        model: the base, with the attention that it is trained with.
        lora: the adapter.
        seed: of its weights.
        packed: whether rows are packed.

    Returns:
        The PEFT model, and the names of the layers that were left out.

    Raises:
        UsageError: as `find_targets` does; or nothing is left.
    """
    tuned = attach(model, lora, seed)
    unreached = without_gradient(tuned, packed=packed)
    if not unreached:
        return tuned, []
    if len(unreached) == len(adapters(tuned)):
        raise UsageError(
            f"lora.target_modules: none of {', '.join(lora.target_modules)} gets a gradient from text.",
            "Name other layers."
            if lora.target_modules == [ALL_LINEAR]
            else f"Name other layers, or use [{ALL_LINEAR}].",
        )
    return attach(tuned.unload(), lora, seed, unreached), unreached


def without_gradient(tuned: Tuned, *, packed: bool) -> list[str]:
    """What a PEFT model with a fresh adapter adapts, or a whole model has, but gives no gradient, by name.

    An adapter starts with B = 0, so that A gets its first gradient after a step; B shows it at once.
    """
    _backward(tuned, packed=packed)
    whole = isinstance(tuned, PreTrainedModel)
    # An expert that is a module of its own learns when a token goes to it: so short a row shows nothing.
    experts = expert_lists(tuned if whole else tuned.get_base_model())
    if whole:
        unreached = [name for name, weight in tuned.named_parameters() if weight.grad is None]
    else:
        pairs = ((name, one.lora_B[ADAPTER].weight.grad) for name, one in adapters(tuned).items())
        unreached = [name for name, gradient in pairs if gradient is None or not gradient.any()]
    tuned.zero_grad(set_to_none=True)
    return [name for name in unreached if not name.startswith(experts)]


def let_learn(model: PreTrainedModel, *, packed: bool) -> list[str]:
    """Let all weights of a model learn but those that a row of text gives no gradient.

    Args:
        model: with the attention that it is trained with.
        packed: whether rows are packed.

    Returns:
        The names of the weights that stay as they are.
    """
    model.requires_grad_(requires_grad=True)
    still = without_gradient(model, packed=packed)
    for name in still:
        model.get_parameter(name).requires_grad_(requires_grad=False)
    return still


def _backward(model: Tuned, *, packed: bool) -> None:
    """Give a model the gradients of a short row in train mode."""
    embedding = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(2)
    samples = []
    for length in _LENGTHS if packed else _LENGTHS[:1]:
        ids = torch.randint(embedding.shape[0], (length,), generator=generator).tolist()
        samples.append(Sample("probe", ids[:-_TRAINED], ids[-_TRAINED:]))
    row = RowCollator(packed=packed)([{"index": 0, "samples": samples}])
    row = {k: v.to(embedding.device) if isinstance(v, torch.Tensor) else v for k, v in row.items()}
    was_training = model.training
    model.train()
    with torch.enable_grad(), autocast(model):
        _, logits_KV = read_row(model, row)
        functional.cross_entropy(logits_KV.float(), row["targets"]).backward()  # type: ignore[no-untyped-call]
    model.train(was_training)
