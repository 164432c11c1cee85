"""What is imported ahead is there where it is used, or fails there as it would have."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path

import pytest

from ragtune.base import sparing


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is spared: its __init__.py is to be written."""
    monkeypatch.setattr(sparing, "_SPARED", "ragtune_test_spared")
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "ragtune_test_spared"
    folder.mkdir()
    (folder / "functional.py").write_text("value = 1\n")
    return folder


def ahead() -> None:
    sparing.import_ahead()
    sparing.await_import()
    assert not any(one.name.startswith("importing ") for one in threading.enumerate())


def test_it_is_there_when_it_is_used(package: Path) -> None:
    (package / "__init__.py").write_text("")
    ahead()
    found = [name for name in sys.modules if name.startswith("ragtune_test_spared")]
    assert found == ["ragtune_test_spared", "ragtune_test_spared.functional"]
    for name in found:
        del sys.modules[name]


def test_one_that_is_broken_says_so_where_it_is_used(
    package: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (package / "__init__.py").write_text("raise RuntimeError('no CUDA runtime')\n")
    ahead()
    assert capfd.readouterr() == ("", "")
    with pytest.raises(RuntimeError, match="no CUDA runtime"):
        importlib.import_module("ragtune_test_spared.functional")
