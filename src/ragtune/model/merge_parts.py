"""Merging tensor by tensor, from the base's files into the merged model's: neither is in memory as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from peft.tuners.lora import Linear, LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from ragtune.model.full import SHARD_SIZE
from ragtune.model.headers import empty_tensors
from ragtune.model.safety import INDEX
from ragtune.model.skeleton import stays_float32
from ragtune.model.tensor_file import KINDS, TensorFile, bytes_of, header, in_file
from ragtune.model.wrapping import ADAPTER

_PATTERN = "model{suffix}.safetensors"
_PAGE = 4096
"""Bytes of a file that are read together, at least."""

Read = Callable[[str], torch.Tensor]
Look = Callable[[str, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class Parts:
    """A model whose files hold each tensor as it is written again, but for what an adapter adds."""

    model: PreTrainedModel
    """Without weights."""
    files: Mapping[str, Path]
    """Where each tensor is that is written, by its name there."""
    places: Mapping[str, str]
    """What it is in the model, by the same name; nothing for what the model leaves unread."""
    loaded: Mapping[str, torch.Tensor]
    """As it is when it is loaded: shape and dtype, no numbers."""
    parameters: int

    @property
    def written(self) -> dict[str, torch.Tensor]:
        """Shapes and dtypes of what is written: bfloat16, but for what transformers keeps in float32."""
        single = stays_float32(self.model)
        return {
            name: tensor.to(torch.bfloat16)
            if name in self.places and not single(self.places[name])
            else tensor
            for name, tensor in self.loaded.items()
        }


def parts_of(
    model: PreTrainedModel, paths: Iterable[Path], unread: Iterable[str] = ()
) -> Parts | None:
    """How a model can be merged tensor by tensor; None where its weights are packed, or made of several.

    Args:
        model: loaded without weights, in the dtype that is merged in.
        paths: its files of weights.
        unread: names in them that the model leaves unread and that are written again.
    """
    files = {path: empty_tensors(path) for path in paths}
    there = {name: tensor for tensors in files.values() for name, tensor in tensors.items()}
    every = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name, tensor in every.items():
        first.setdefault(id(tensor), name)
    state = {name: every[name] for name in first.values()} | {name: there[name] for name in unread}
    known = {id(tensor): name for name, tensor in state.items()}
    written = revert_weight_conversion(model, dict(state))
    # What transformers makes of several tensors, or turns, is another one; of what is tied one is kept.
    same = len(written) == len(state) and all(
        id(tensor) in known and name in there and tensor.shape == there[name].shape
        and tensor.dtype in KINDS and there[name].is_floating_point()
        for name, tensor in written.items()
    )  # fmt: skip
    if not same or any(name in there for name in every.keys() - state.keys()):
        return None
    return Parts(
        model,
        {name: path for path, tensors in files.items() for name in tensors if name in written},
        {name: known[id(tensor)] for name, tensor in written.items() if known[id(tensor)] in every},
        {name: tensor.detach() for name, tensor in written.items()},
        model.num_parameters(),
    )


def keeps_tensors(model: PreTrainedModel) -> bool:
    """Whether transformers writes each of a model's tensors as one: none is made of several, or turned."""
    state = model.state_dict(keep_vars=True)
    known = set(map(id, state.values()))
    return all(
        id(tensor) in known for tensor in revert_weight_conversion(model, dict(state)).values()
    )


def fits(parts: Parts, layers: Mapping[str, LoraLayer]) -> bool:
    """Whether adapters each add a matrix to that of a linear layer which is written, and do nothing else."""
    own = set(parts.places.values())
    return all(
        type(one) is Linear and not one.lora_variant and not any(one.lora_bias.values())
        and f"{name}.weight" in own
        for name, one in layers.items()
    )  # fmt: skip


def fill(layers: Mapping[str, Linear], adapter: Path) -> dict[str, torch.Tensor]:
    """Put an adapter's weights into its layers, and return them: PEFT has left them where the model's are."""
    weights: dict[str, torch.Tensor] = load_file(adapter / "adapter_model.safetensors")
    for name, layer in layers.items():
        for part, modules in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B)):
            weight = weights[f"base_model.model.{name}.{part}.weight"]
            modules[ADAPTER].weight = nn.Parameter(weight, requires_grad=False)
    return weights


def write_parts(
    parts: Parts,
    layers: Mapping[str, Linear],
    folder: Path,
    look: Look,
) -> None:
    """Write the merged model's files of weights.

    Args:
        parts: the model.
        layers: PEFT's around its linear layers, by their names.
        folder: exists.
        look: is given each tensor's name, what it was and what it is now.
    """
    written = parts.written
    split = split_torch_state_dict_into_shards(
        written, filename_pattern=_PATTERN, max_shard_size=SHARD_SIZE
    )
    merging = _Sum(parts, layers)
    with torch.no_grad():
        for shard, names in split.filename_to_tensors.items():
            # Opened anew for each: what was read of a file stays in memory until it is closed, and what is
            # still being read of it as an error comes is waited for.
            with (
                ExitStack() as opened,
                TensorFile(folder / shard, merging.give_back) as file,
                ThreadPoolExecutor(1) as reading,
            ):
                read = _reader(parts, opened)
                ordered = in_file({name: written[name] for name in names})
                file.write(header(ordered))
                for name, base in _ahead(reading, read, [*ordered]):
                    tensor = merging.of(name, base, written[name].dtype)
                    look(name, base, tensor)
                    file.put(tensor)
    if split.is_sharded:
        index = {
            "metadata": {"total_parameters": parts.parameters, **split.metadata},
            "weight_map": split.tensor_to_filename,
        }
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / INDEX).write_text(text, encoding="utf-8", newline="\n")


def _reader(parts: Parts, opened: ExitStack) -> Read:
    files: dict[Path, safe_open] = {}

    def read(name: str) -> torch.Tensor:
        path = parts.files[name]
        if path not in files:
            files[path] = opened.enter_context(safe_open(path, "pt"))
        tensor: torch.Tensor = files[path].get_tensor(name)  # type: ignore[no-untyped-call]
        bytes_of(tensor)[::_PAGE].sum()  # it is a view of the file, which is read only now
        return tensor

    return read


def _ahead(
    thread: ThreadPoolExecutor, read: Read, names: Sequence[str]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Names with their tensors; the next one is read while the caller works on this one."""
    following = thread.submit(read, names[0])
    for name, after in zip(names, [*names[1:], None], strict=True):
        tensor = following.result()
        if after is not None:
            following = thread.submit(read, after)
        yield name, tensor


class _Sum:
    """The base's tensors with what their adapters add: as PEFT does with a model in memory, bit for bit.

    Memory is used again: new one takes as long as the sum itself.
    """

    def __init__(self, parts: Parts, layers: Mapping[str, Linear]) -> None:
        self.parts = parts
        self.layers = {f"{name}.weight": layer for name, layer in layers.items()}
        self.memory = [torch.empty(0), torch.empty(0)]
        """Of an update, and of a base's tensor in float32."""
        self.free: dict[int, list[torch.Tensor]] = {}
        """Memory of sums that were written, by its bytes."""
        self.lent: dict[int, torch.Tensor] = {}
        """That of sums which are to be written, by where it is."""

    def of(self, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """What a tensor of the base becomes, in the dtype that is written."""
        if name not in self.parts.places:
            return tensor
        tensor = tensor.to(self.parts.loaded[name].dtype)
        layer = self.layers.get(self.parts.places[name])
        if layer is None:
            return tensor.to(dtype)
        update = self._update(layer)
        # Float32 and bfloat16 are added four times as fast when both are float32 before; the sum is the same.
        update += self._room(1, tensor.shape).copy_(tensor)
        return self._lend(tensor.shape, dtype).copy_(update)

    def _update(self, layer: Linear) -> torch.Tensor:
        up, down = layer.lora_B[ADAPTER].weight, layer.lora_A[ADAPTER].weight
        update = torch.mm(up, down, out=self._room(0, torch.Size([len(up), down.shape[1]])))
        update *= layer.scaling[ADAPTER]
        return update.T if layer.fan_in_fan_out else update

    def _room(self, which: int, shape: torch.Size) -> torch.Tensor:
        if len(self.memory[which]) < shape.numel():
            self.memory[which] = torch.empty(shape.numel())
        return self.memory[which][: shape.numel()].view(shape)

    def _lend(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        size = shape.numel() * dtype.itemsize
        free = self.free.setdefault(size, [])
        memory = free.pop() if free else torch.empty(size, dtype=torch.uint8)
        self.lent[memory.data_ptr()] = memory
        return memory.view(dtype).view(shape)

    def give_back(self, tensor: torch.Tensor) -> None:
        """Take back the memory of a sum that is written; any other tensor's is left alone."""
        if (memory := self.lent.pop(tensor.data_ptr(), None)) is not None:
            self.free[len(memory)].append(memory)
