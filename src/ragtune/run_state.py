"""The form of run.json, as far as a command relies on it."""

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


class RunState(_Loose):
    """What run.json holds."""

    recipe: dict[str, Any] = {}
    versions: dict[str, str] = {}
    times: dict[str, float] = {}
    peak_gib: dict[str, float] = {}
    files: dict[str, dict[str, _File]] = {}
    inputs: dict[str, _Input] = {}
    commit: str = ""
    data: dict[str, str] = {}
    plan: dict[str, Any] = {}
    train: dict[str, float | None] = {}
    merge: _Merge | None = None
    push: dict[str, str] = {}
