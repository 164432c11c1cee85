from __future__ import annotations

import os
from pathlib import Path

import pytest

from ragtune.base.files import sha256
from ragtune.store import seal
from ragtune.store.seal import checksums, facts_of


def test_a_large_file_is_read_only_where_size_or_time_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text("one", "utf-8")
    known = checksums(file)[file.name] | {"sha256": "known"}
    assert facts_of(file, known)["sha256"] == sha256(file)  # a small one is read
    monkeypatch.setattr(seal, "SMALL", 2)
    assert facts_of(file, known)["sha256"] == "known"
    assert facts_of(file, None)["sha256"] == sha256(file)
    os.utime(file, ns=(0, 0))
    assert facts_of(file, known)["sha256"] == sha256(file)
