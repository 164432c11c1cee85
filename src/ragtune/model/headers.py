"""The headers of a model's files against its class: names and shapes, before any weight is read."""

from __future__ import annotations

import math
import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedModel

from ragtune.base.errors import UsageError
from ragtune.base.text import named, one_or_many
from ragtune.model.complete import REPORTED, Report, innermost, require_all
from ragtune.model.configuration import AGAIN, culprit, said
from ragtune.model.hub_cache import folder_of, loads_without_hub, weights_in
from ragtune.model.quantized import quantization_values, without_quantization
from ragtune.model.quiet import quiet
from ragtune.model.skeleton import FOREIGN, skeleton
from ragtune.model.source import ModelSource

_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32,
    "F64": torch.float64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}  # fmt: skip
"""safetensors' names; of any other the size alone is compared."""
_BESIDE = re.compile(
    r"(scales?(_inv|_2)?|zeros?|zero_points?|g_idx|absmax|quant_map|SCB|weight_format|weight_shape)$"
)
"""What stands beside packed weights, and says nothing without them."""
_EXPERT = re.compile(r"((?:.*\.)?experts)\.([0-9]{1,6})\.(.+)")
_FEW = 100
"""Layers that are made in no time, whether the files have them or not."""
_QUICK = 1.0
"""Seconds of a comparison that may be repeated, to find the key that is to blame."""


@dataclass(frozen=True)
class Compared:
    """What was found when a model's files were held against its class."""

    tensors: int
    """In the files."""
    unread: Counter[str]
    """Tensors of each part that the class does not have: a vision tower, layers that predict further tokens."""
    shapes: bool
    """Whether names and shapes were compared; else only that each part of the model has weights."""

    @property
    def words(self) -> str:
        what = (
            "have the names and shapes of the model's"
            if self.shapes
            else "name every part of the model (it is quantised: shapes are seen when it is loaded)"
        )
        words = f"{self.tensors:,} tensors in the files {what}"
        if self.unread:
            parts = named(sorted(self.unread))
            more = one_or_many(self.unread.total(), "more is", "more are")
            words += f"; {more} of parts that are not loaded: {parts}"
        return words


_last: dict[object, Compared | None] = {}
"""What was found last: a run's check compares, and so does loading, mostly the same headers."""


def compare(config: PreTrainedConfig, source: ModelSource) -> Compared | None:
    """Hold the headers of a model's files against its class, by loading tensors that hold nothing.

    Names go the way that they go when the model is loaded, with all that transformers renames, fuses and
    splits; no weight is read.

    Returns:
        What was compared; None where the weights are not here yet, or packed in a way that hides their names.

    Raises:
        UsageError: as `require_all`.
    """
    folder = folder_of(source)
    if folder is None or (source.path == source.name and not loads_without_hub(source)):
        return None
    tensors = {
        name: tensor for file in weights_in(folder) for name, tensor in empty_tensors(file).items()
    }
    _require_layers(config, len(tensors), source.path)
    _require_experts(config, tensors, source.path)
    if (key := _key(config, tensors)) in _last:
        return _last[key]
    start = time.monotonic()
    try:
        found = _compared(config, tensors, source.path)
    except UsageError as error:
        if time.monotonic() - start > _QUICK:
            raise
        blamed = culprit(
            config.to_diff_dict(),
            lambda values: _compared(type(config).from_dict(values), tensors, source.path),
        )
        raise UsageError(
            error.message.removesuffix(".") + blamed + "." * (not blamed), error.advice
        ) from error
    _last.clear()
    if key is not None:
        _last[key] = found
    return found


def _key(config: PreTrainedConfig, tensors: dict[str, torch.Tensor]) -> tuple[object, ...] | None:
    """All that a comparison depends on; None of a configuration that can't be written down."""
    try:
        text = config.to_json_string()
    except FOREIGN:
        return None
    return type(config), text, frozenset((n, t.shape, t.dtype) for n, t in tensors.items())


def require_none_drawn(model: PreTrainedModel, folder: Path, unused: str = "") -> None:
    """Require of a model that a library has loaded that all of its weights were in the files.

    Args:
        model: as it was loaded.
        folder: with its files.
        unused: how the names of weights begin that are never asked for what they say; "" if all are.

    Raises:
        UsageError: transformers has drawn some.
    """
    config = model.config
    if without_quantization(config) is not config:
        return
    tensors = {
        name: tensor for file in weights_in(folder) for name, tensor in empty_tensors(file).items()
    }
    with quiet():
        again, report = type(model).from_pretrained(
            None, config=config, state_dict=tensors, device_map={"": "meta"}, **REPORTED
        )
    missing = {name for name in report["missing_keys"] if not (unused and name.startswith(unused))}
    lacks = Report(
        missing_keys=missing, mismatched_keys=report["mismatched_keys"], unexpected_keys=set()
    )
    require_all(lacks, again, str(folder))


def _compared(
    config: PreTrainedConfig, tensors: dict[str, torch.Tensor], where: str
) -> Compared | None:
    plain = without_quantization(config)
    kind = type(skeleton(plain))
    try:
        with quiet():
            model, report = kind.from_pretrained(
                None, config=plain, state_dict=tensors, device_map={"": "meta"}, **REPORTED
            )
    except FOREIGN as error:
        if plain is not config:
            return None  # packed weights that transformers fuses only when it has unpacked them
        raise UsageError(
            f"model.id: the weights of {where} make no {kind.__name__}: {said(error)}", AGAIN
        ) from error
    asked = quantization_values(config)
    fp8 = asked.get("quant_method") == "fp8"
    if plain is config:
        _require_numbers(tensors, model, where)
    else:
        report = _of_quantized(report, model, tensors, fp8=fp8)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    unread = require_all(report, model, where, shapes)
    if fp8:
        _require_scales(asked.get("weight_block_size"), tensors, where)
    return Compared(len(tensors) - unread.total(), unread, plain is config)


def _require_layers(config: PreTrainedConfig, tensors: int, where: str) -> None:
    """Require that a configuration has no more layers than the files have tensors: they would all be made."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if isinstance(layers, int) and layers > max(tensors, _FEW):
        raise UsageError(
            f"model.id: config.json of {where} describes {layers:,} layers (num_hidden_layers), and its "
            f"weights are {tensors:,} tensors.",
            AGAIN,
        )


def _require_experts(
    config: PreTrainedConfig, tensors: dict[str, torch.Tensor], where: str
) -> None:
    """Require each expert to have what the others of its layer have: they are stacked without a look."""
    # LongCat's last experts compute nothing: transformers writes two matrices of them, not the third.
    computing = config.n_routed_experts if config.model_type == "longcat_flash" else math.inf
    found: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for name in tensors:
        one = _EXPERT.fullmatch(name)
        if one and not _BESIDE.search(name) and int(one[2]) < computing:
            found[one[1]][one[3]].add(int(one[2]))
    lacking = []
    for layer, parts in found.items():
        count = 1 + max(map(max, parts.values()))
        for part, numbers in parts.items():
            if len(numbers) < count:
                first = next(n for n in range(count) if n not in numbers)
                lacking.append(f"{layer}.{first}.{part}")
    if lacking:
        raise UsageError(
            f"model.id: the weights of {where} lack {named(sorted(lacking))}, and have it of further experts.",
            AGAIN,
        )


def _of_quantized(
    report: Report, model: PreTrainedModel, tensors: dict[str, torch.Tensor], *, fp8: bool
) -> Report:
    """What a report says of packed weights as well: of modules, not of their tensors."""
    parts = {name.rpartition(".")[0] for name in tensors if not _BESIDE.search(name)}
    missing = {k for k in report["missing_keys"] if k.rpartition(".")[0] not in parts}
    if not fp8 and any(_EXPERT.fullmatch(name) for name in tensors):
        # Packed, they are not stacked under the names of the class.
        missing = {k for k in missing if ".experts." not in k}
    foreign = set()
    for name in report["unexpected_keys"]:
        modules, rest = innermost(name, model)
        packed = any(True for _ in modules[-1].parameters(recurse=False))  # beside its own weight
        beside = len(rest) == 1 and _BESIDE.search(name)
        if not (packed or beside or _EXPERT.fullmatch(name)):
            foreign.add(name)
    # FP8 weights have the shape of the weights; what is packed has not, and is of integers.
    shapes = {one for one in report["mismatched_keys"] if fp8 or _is_fp8(tensors.get(one[0]))}
    return Report(missing_keys=missing, mismatched_keys=shapes, unexpected_keys=foreign)


def _is_fp8(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and tensor.is_floating_point() and tensor.dtype.itemsize == 1


def _require_scales(block: object, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Require a scale for each block of FP8 weights: another number of them would be spread over all."""
    if not (isinstance(block, (list, tuple)) and len(block) == 2 and all(block)):  # noqa: PLR2004 - rows, columns
        return
    for name, weight in tensors.items():
        if not _is_fp8(weight) or f"{name}_scale" in tensors:
            continue
        if (scale := tensors.get(f"{name}_scale_inv")) is None:
            raise UsageError(f"model.id: the weights of {where} lack {name}_scale_inv.", AGAIN)
        blocks = [math.ceil(n / int(b)) for n, b in zip(weight.shape[-2:], block, strict=True)]
        if list(scale.shape) != [*weight.shape[:-2], *blocks]:
            raise UsageError(
                f"model.id: in the weights of {where}, {name}_scale_inv has the shape {list(scale.shape)}, and "
                f"by config.json (weight_block_size) it is {[*weight.shape[:-2], *blocks]}.",
                AGAIN,
            )


def _require_numbers(tensors: dict[str, torch.Tensor], model: PreTrainedModel, where: str) -> None:
    """Require that what counts as real numbers is stored so: packed weights would be taken for weights."""
    wanted = model.state_dict()
    packed = [n for n, t in tensors.items() if not t.is_floating_point() or _is_fp8(t)]
    found = sorted(
        name
        for name in packed
        if (wanted[name].is_floating_point() if name in wanted else _EXPERT.fullmatch(name))
    )
    if found:
        raise UsageError(
            f"model.id: in the weights of {where}, {named(found)} are stored as {tensors[found[0]].dtype}, and "
            "config.json has no quantization_config that says how they are read.",
            AGAIN,
        )


def empty_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file as its header has them, by name: shapes and dtypes, no numbers."""
    with safe_open(file, "pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        return {
            name: torch.empty(
                one.get_shape(), dtype=_DTYPES.get(one.get_dtype(), torch.float32), device="meta"
            )
            for name, one in slices.items()
        }
