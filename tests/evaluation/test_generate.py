from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ragtune.evaluation.generate import Prediction, answer
from tests.conftest import tiny_model


def prompts(count: int) -> list[tuple[str, list[int]]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (f"q{i}", torch.randint(3, 250, (5 + 3 * i,), generator=generator).tolist())
        for i in range(count)
    ]


def ask(
    model: Any, tokenizer: Any, asked: list[tuple[str, list[int]]], partial: Path, **options: Any
) -> list[Prediction]:
    defaults = {"stop_id": tokenizer.eos_token_id, "max_new_tokens": 6, "batch_size": 4}
    return answer(model, tokenizer, asked, partial=partial, **{**defaults, **options})


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_batched_answers_equal_those_one_at_a_time(
    tmp_path: Path, chatml_tokenizer: Any, family: str
) -> None:
    model = tiny_model(family)
    asked = prompts(9)
    batched = ask(model, chatml_tokenizer, asked, tmp_path / "a")
    single = ask(model, chatml_tokenizer, asked, tmp_path / "b", batch_size=1)
    assert batched == single
    assert [p.qid for p in batched] == [qid for qid, _ in asked]


def test_answers_are_greedy(tmp_path: Path, chatml_tokenizer: Any) -> None:
    model = tiny_model("llama")
    ((_, ids),) = asked = prompts(1)
    (found,) = ask(model, chatml_tokenizer, asked, tmp_path / "a", max_new_tokens=4)
    for _ in found.token_ids:
        logits = model(torch.tensor([ids])).logits[0, -1]
        ids = [*ids, int(logits.argmax())]
    assert found.token_ids == ids[-len(found.token_ids) :]


def test_the_stop_token_ends_an_answer_and_is_left_out(
    tmp_path: Path, chatml_tokenizer: Any
) -> None:
    model = tiny_model("llama")
    asked = prompts(1)
    (free,) = ask(model, chatml_tokenizer, asked, tmp_path / "a", stop_id=511)
    assert not free.stopped
    assert len(free.token_ids) == 6
    stop = free.token_ids[2]
    first = free.token_ids.index(stop)
    (cut,) = ask(model, chatml_tokenizer, asked, tmp_path / "b", stop_id=stop)
    assert cut.stopped
    assert cut.token_ids == free.token_ids[:first]


def test_the_models_min_new_tokens_holds(tmp_path: Path, chatml_tokenizer: Any) -> None:
    model = tiny_model("llama")
    asked = prompts(1)
    (free,) = ask(model, chatml_tokenizer, asked, tmp_path / "a", stop_id=511)
    model.generation_config.min_new_tokens = 6
    (found,) = ask(model, chatml_tokenizer, asked, tmp_path / "b", stop_id=free.token_ids[0])
    assert len(found.token_ids) == 6


def test_what_is_answered_is_not_asked_again(
    tmp_path: Path, chatml_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    asked = prompts(8)
    whole = ask(model, chatml_tokenizer, asked, tmp_path / "whole")
    partial = tmp_path / "partial"
    lines = (tmp_path / "whole").read_text("utf-8").splitlines(keepends=True)
    # One whole batch, a line of the next, and half a line: as a kill leaves it.
    partial.write_text("".join(lines[:5]) + lines[5][:20], "utf-8")
    batches = []
    original = model.generate
    monkeypatch.setattr(
        model, "generate", lambda **k: (batches.append(len(k["input_ids"])), original(**k))[1]
    )
    assert ask(model, chatml_tokenizer, asked, partial) == whole
    assert batches == [4]


def test_out_of_memory_halves_the_batch(
    tmp_path: Path,
    chatml_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tiny_model("llama")
    asked = prompts(8)
    expected = ask(model, chatml_tokenizer, asked, tmp_path / "a")
    original = model.generate

    def small(**options: Any) -> Any:
        if len(options["input_ids"]) > 2:
            raise torch.OutOfMemoryError("no")
        return original(**options)

    monkeypatch.setattr(model, "generate", small)
    assert ask(model, chatml_tokenizer, asked, tmp_path / "b", batch_size=8) == expected
    assert "2 questions at a time" in capsys.readouterr().out


def test_predictions_are_plain_json(tmp_path: Path, chatml_tokenizer: Any) -> None:
    found = ask(tiny_model("llama"), chatml_tokenizer, prompts(2), tmp_path / "a")
    rows = [json.loads(line) for line in (tmp_path / "a").read_text("utf-8").splitlines()]
    assert sorted(rows, key=lambda r: r["qid"]) == [p.to_dict() for p in found]
    assert set(rows[0]) == {"qid", "prediction", "token_ids", "stopped"}
