"""The form of run.json, as far as a command relies on it, and what is taken out of it with a stage."""

import datetime as dt
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict


class _Loose(BaseModel):
    model_config = ConfigDict(extra="allow")


class _File(_Loose):
    size: int
    sha256: str


class _Input(_Loose):
    path: str
    files: dict[str, _File]


class _Merge(_Loose):
    asked: int
    changed: int
    metrics: dict[str, float]
    intervals: dict[str, Any]


class _Retiring(_Loose):
    """The stages that are being moved into old-NUMBER."""

    number: int
    stages: list[str]


class RunState(_Loose):
    """What run.json holds."""

    recipe: dict[str, Any] = {}
    versions: dict[str, str] = {}
    times: dict[str, float] = {}
    peak_gib: dict[str, float] = {}
    asked: dict[str, dict[str, str]] = {}
    files: dict[str, dict[str, _File]] = {}
    inputs: dict[str, _Input] = {}
    commit: str = ""
    date: dt.date | None = None
    data: dict[str, str] = {}
    plan: dict[str, Any] = {}
    train: dict[str, float | str | None] = {}
    merge: _Merge | None = None
    push: dict[str, str] = {}
    retiring: _Retiring = _Retiring(number=0, stages=[])


_TIMES = {"data": "prepare", "adapter": "train", "merged": "merge", "controls": "controls_",
          "checkpoints": "checkpoint_"}  # fmt: skip
"""What a stage's times are named, or how their names begin, where it is not the stage's own name."""
_OF = {"data": ("data", "inputs", "commit", "plan"), "adapter": ("train",), "after": ("merge",),
       "merged": ("merge",)}  # fmt: skip
"""What else run.json says of a stage."""


def forget_stages(state: dict[str, Any], stages: Iterable[str]) -> None:
    """Take what run.json says of stages out of it."""
    files = state.get("files", {})
    for stage in stages:
        for key in _OF.get(stage, ()):
            state.pop(key, None)
        forget_times(state, stage)
        for name in [n for n in files if n.split("/")[0] == stage]:
            del files[name]


def forget_times(state: dict[str, Any], name: str) -> None:
    """Take the time, the peak and the way of asking of a stage out of run.json.

    Or of one of its folders (controls/before).
    """
    stage, _, part = name.partition("/")
    first = _TIMES.get(stage, stage) + part
    for values in (state.get(key, {}) for key in ("times", "peak_gib", "asked")):
        for one in [n for n in values if n == first or (n.startswith(first) and first[-1] == "_")]:
            del values[one]
