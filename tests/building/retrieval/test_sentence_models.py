"""Without the extra, a message names the command that installs it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from ragtune.base.errors import UsageError
from ragtune.building.retrieval.dense import DenseIndex


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as raised:
        DenseIndex.open(tmp_path, "any/model")
    assert str(raised.value) == (
        "retrieval.model needs the package sentence-transformers, which is not installed.\n"
        "Run: pip install 'sentence-transformers>=5.0'"
    )
