"""What of a model's configuration is refused before anything is made of it, and which key is to blame."""

from __future__ import annotations

import copy
import importlib.util
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence

from transformers import PreTrainedConfig

from ragtune.base.errors import UsageError, is_panic
from ragtune.base.text import first_line, shortened
from ragtune.model.quiet import quiet

_PATIENCE = 5.0
"""Seconds that are spent on finding out which key is to blame."""
_IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
_LIMITS = (
    (re.compile(r"(^|[._])(n_?)?(layers?|blocks|depths?)$"), 1_000),
    (re.compile(r"(^|[._])num_labels$"), 1_000_000),
)
_LAYERS = re.compile(r"(^|[._])(num_hidden_layers|num_layers|n_layers?)$")
_COUNT = re.compile(
    r"(^|_)(size|dim|rank|heads?|layers?|blocks|depth|experts|groups|embd|inner|model|ff|theta|factor|state)$"
)
"""Keys whose numbers a model's layers are made from."""
_FITTING: dict[tuple[str, ...], Callable[[object], bool]] = {
    ("architectures",): lambda v: isinstance(v, list) and all(isinstance(n, str) for n in v),
    ("auto_map",): lambda v: (
        isinstance(v, dict) and all(isinstance(n, (str, list)) for n in v.values())
    ),
    ("output_attentions", "output_hidden_states", "use_cache"): lambda v: isinstance(v, bool),
    ("return_dict",): lambda v: v is True,  # outputs are read by their names
}
"""What transformers takes as it is and stumbles on later, by key."""
AGAIN = "The model is damaged, or was made to do harm: get it again, or name another one."


def require_sane(values: dict[str, object], name: str, file: str = "config.json") -> None:
    """Require of what a configuration says that a model can be made of it, and from what is here alone.

    Args:
        values: as they were read.
        name: of the model.
        file: that they are from.

    Raises:
        UsageError: it wants code of the Hub, a number that is none, or more layers than any model has.
    """
    for keys, fits in _FITTING.items():
        for key in keys:
            if (value := values.get(key)) is not None and not fits(value):
                what = f"model.id: {file} of {name}: {key} is {shortened(repr(value))}"
                raise UsageError(f"{what}, which is of no use there.", AGAIN)
    for key, value in _walk(values):
        what = f"model.id: {file} of {name}: {key} is {shortened(repr(value))}"
        if isinstance(value, float) and math.isnan(value):
            raise UsageError(f"{what}.", AGAIN)
        if isinstance(value, (int, float)) and value > _most(key):
            raise UsageError(f"{what}; no model has more than {_most(key):,}.", AGAIN)
        if isinstance(value, (int, float)) and value < 0 and _LAYERS.search(key):
            raise UsageError(f"{what}.", AGAIN)
        if _IMPLEMENTATION.search(key) and value is not None:
            _require_ours(value, what, file)


def _most(key: str) -> float:
    """What a number may be at most: lists and modules as many as it says are made of some."""
    return next((most for pattern, most in _LIMITS if pattern.search(key)), math.inf)


def _require_ours(implementation: object, what: str, file: str) -> None:
    """Require that an implementation of attention or experts is no code that would be downloaded and run."""
    if not isinstance(implementation, str):
        raise UsageError(f"{what}, and no name.", AGAIN)
    if "/" in implementation:
        raise UsageError(
            f"{what}: code from the Hub, which ragtune does not run.",
            f"If you trust the model in other ways, remove the key from {file} in a copy of its folder, and "
            "set model.id to it; PyTorch's own attention is used then.",
        )
    # transformers would take a kernel of the Hub in its place.
    if "flash" in implementation and importlib.util.find_spec("flash_attn") is None:
        raise UsageError(
            f"{what}, and the library flash-attn is not installed.",
            f"Remove the key from {file} in a copy of the model's folder, and set model.id to it: PyTorch's "
            "own attention is used then.",
        )


def _walk(values: object) -> Iterator[tuple[str, object]]:
    """Every value with its key, those of parts as part.key."""
    waiting: list[tuple[str, object]] = [("", values)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict) and value:
            waiting += [(f"{key}.{name}".lstrip("."), one) for name, one in value.items()]
        elif isinstance(value, list) and value:
            waiting += [(key, one) for one in value]
        else:
            yield key, value


def said(error: BaseException) -> str:
    """What an error of another library says, in one line."""
    text = " ".join(str(error).split()) or first_line(error)
    kind = "" if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: "
    return kind + shortened(text, 240)


def culprit(values: dict[str, object], attempt: Callable[[dict[str, object]], object]) -> str:
    """The key of a model's file that is to blame, in words: the one without which what fails succeeds.

    Args:
        values: what the file says.
        attempt: what fails, of values.

    Returns:
        Where a key was found within a few seconds: " (part.key is value)"; else nothing.
    """
    if _works(attempt, copy.deepcopy(values)):
        return ""  # it is another file's
    end, path = time.monotonic() + _PATIENCE, list[str]()
    while (key := _key_below(values, path, attempt, end)) is not None:
        path.append(key)
    return f" ({'.'.join(path)} is {shortened(repr(_at(values, path)))})" if path else ""


def _key_below(
    values: dict[str, object],
    path: Sequence[str],
    attempt: Callable[[dict[str, object]], object],
    end: float,
) -> str | None:
    """The key of a part, found by its path, without which an attempt succeeds; None if there is none."""
    part = _at(values, path)
    for key in part if isinstance(part, dict) else ():
        changed = copy.deepcopy(values)
        rest = _at(changed, path)
        if time.monotonic() > end or not isinstance(rest, dict):
            return None
        del rest[key]
        if _works(attempt, changed):
            return str(key)
    return None


def _at(values: object, path: Sequence[str]) -> object:
    for key in path:
        values = values[key] if isinstance(values, dict) else None
    return values


def _works(attempt: Callable[[dict[str, object]], object], values: dict[str, object]) -> bool:
    try:
        with quiet():
            attempt(values)
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        return False
    return True


def keys_with(config: PreTrainedConfig, numbers: set[int]) -> str:
    """The keys of a configuration whose numbers these are, in parentheses; nothing if there are none."""
    keys = [
        k
        for k, v in _walk(config.to_dict())
        if type(v) is int and v in numbers and _COUNT.search(k)
    ]
    return f" ({', '.join(sorted(keys)[:3])})" if keys else ""
