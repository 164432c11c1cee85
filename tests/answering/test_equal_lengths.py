from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ragtune.answering import local, padded
from ragtune.answering.engine import EQUAL
from ragtune.answering.local import Local
from tests.answering.families import NEW_TOKENS, STOP, alone, ask, family_model, prompts


def test_equal_lengths_and_memory_that_runs_out(
    tmp_path: Path,
    chatml_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ticks: list[int],
) -> None:
    seen: list[list[int]] = []

    def small(model: Any, ids: Any, settings: Any) -> Any:
        if len(ids) > 2:
            raise torch.OutOfMemoryError("no")
        seen.append([len(i) for i in ids])
        return padded.generate(model, ids, settings)

    monkeypatch.setattr(local, "generate", small)
    asked = prompts((40, 40, 40, 40, 40, 30, 20, 20, 20, 10))
    found, way = ask(
        family_model("llama_dynamic"),
        chatml_tokenizer,
        tmp_path / "a",
        asked,
        batch_size=8,
    )
    assert way.how == EQUAL
    assert "2 questions at a time" in capsys.readouterr().out
    assert seen == [[40, 40], [40, 40], [40], [30], [20, 20], [20], [10]]
    assert ticks == [2, 4, 5, 6, 8, 9, 10]
    assert [p.token_ids for p in found] == alone("llama_dynamic", asked)


def test_equal_lengths_go_on_with_whole_batches(
    tmp_path: Path, chatml_tokenizer: Any, batches: list[list[int]]
) -> None:
    model = family_model("llama_dynamic")
    whole, way = ask(model, chatml_tokenizer, tmp_path / "whole")
    assert way.how == EQUAL
    before = [list(batch) for batch in batches]
    batches.clear()
    lines = (tmp_path / "whole").read_text("utf-8").splitlines(keepends=True)
    # Batches of 2, 1, 1, 1 and 3, of which the last is not whole.
    (tmp_path / "partial").write_text("".join(lines[:6]) + lines[6][:20], "utf-8")
    again, way_again = ask(model, chatml_tokenizer, tmp_path / "partial")
    assert again == whole
    assert way_again == way
    assert batches == before[4:]
    assert before[4] == [20, 20, 20]
    batches.clear()
    partial = tmp_path / "whole"
    engine = Local(model, NEW_TOKENS, 4)
    assert engine.complete(prompts(), chatml_tokenizer, STOP, partial, "answering") == whole
    assert engine.way is None
    assert not batches
