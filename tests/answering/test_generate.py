from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.llama import modeling_llama

from ragtune.answering import local
from ragtune.answering.fit import probe_generate, unfit
from ragtune.answering.local import Local, greedy_settings
from ragtune.answering.prediction import Prediction, read_predictions, write_predictions
from ragtune.answering.ragged import Ragged
from ragtune.base.errors import RagtuneError
from ragtune.model.fast.liger import _rotary, fuse_kernels
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
    options = {"stop_id": tokenizer.eos_token_id, "max_new_tokens": 6, "batch_size": 4, **options}
    stop_id = options.pop("stop_id")
    return Local(model, **options).complete(asked, tokenizer, stop_id, partial, "answering")


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
    original = Ragged.answer
    monkeypatch.setattr(
        Ragged, "answer", lambda self, ids: (batches.append(len(ids)), original(self, ids))[1]
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
    original = Ragged.answer

    def small(self: Any, ids: Any) -> Any:
        if len(ids) > 2:
            raise torch.OutOfMemoryError("no")
        return original(self, ids)

    monkeypatch.setattr(Ragged, "answer", small)
    assert ask(model, chatml_tokenizer, asked, tmp_path / "b", batch_size=8) == expected
    assert "2 questions at a time" in capsys.readouterr().out


def test_predictions_are_plain_json(tmp_path: Path, chatml_tokenizer: Any) -> None:
    found = ask(tiny_model("llama"), chatml_tokenizer, prompts(2), tmp_path / "a")
    rows = [json.loads(line) for line in (tmp_path / "a").read_text("utf-8").splitlines()]
    assert all(isinstance(row.pop("check"), int) for row in rows)
    assert sorted(rows, key=lambda r: r["qid"]) == [dataclasses.asdict(p) for p in found]
    said = {"qid", "prediction", "token_ids", "stopped", "probability", "source", "unsure"}
    assert set(rows[0]) == said
    write_predictions(tmp_path / "predictions.jsonl", found)
    assert read_predictions(tmp_path / "predictions.jsonl") == found


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
@pytest.mark.parametrize("settings", [{}, {"min_new_tokens": 5}, {"repetition_penalty": 1.7}])
def test_ragged_answers_are_those_of_generate(
    tmp_path: Path,
    chatml_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    settings: dict[str, Any],
) -> None:
    """One at a time, where generate pads nothing."""
    model = tiny_model(family)
    model.generation_config.update(**settings)
    asked = prompts(7)
    stop = {"stop_id": 17, "max_new_tokens": 12}
    ragged = ask(model, chatml_tokenizer, asked, tmp_path / "a", **stop)
    monkeypatch.setattr(local, "unfit", lambda *_, **__: "it is to be compared")
    expected = ask(model, chatml_tokenizer, asked, tmp_path / "b", batch_size=1, **stop)
    assert ragged == expected


def test_finished_answers_leave_the_batch(
    tmp_path: Path, chatml_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragtune.model.fast.cache import RaggedCache

    model = tiny_model("llama")
    model.generation_config.eos_token_id = list(range(0, 512, 3))
    asked = prompts(16)
    kept: list[int] = []
    original = RaggedCache.keep
    monkeypatch.setattr(
        RaggedCache, "keep", lambda self, s: (kept.append(len(s)), original(self, s))[1]
    )
    one = ask(model, chatml_tokenizer, asked, tmp_path / "a", batch_size=1, max_new_tokens=20)
    assert not kept
    batched = ask(model, chatml_tokenizer, asked, tmp_path / "b", batch_size=16, max_new_tokens=20)
    assert batched == one
    assert len(kept) > 1
    assert kept == sorted(kept, reverse=True)


@pytest.mark.parametrize(
    ("family", "why"), [("gemma2", "softcap"), ("lfm2", "see each other"), ("gpt_oss", "s_aux")]
)
def test_other_families_are_asked_through_generate_and_that_is_said(
    tmp_path: Path,
    chatml_tokenizer: Any,
    capsys: pytest.CaptureFixture[str],
    family: str,
    why: str,
) -> None:
    found = ask(tiny_model(family), chatml_tokenizer, prompts(3), tmp_path / "a")
    assert len(found) == 3
    out = " ".join(capsys.readouterr().out.split())
    assert "through transformers' generate" in out
    assert why in out


def test_settings_that_ragged_batches_lack_are_left_to_generate(chatml_tokenizer: Any) -> None:
    model = tiny_model("llama")
    assert unfit(model, greedy_settings(model, chatml_tokenizer, 3, 5)) is None
    model.generation_config.no_repeat_ngram_size = 2
    settings = greedy_settings(model, chatml_tokenizer, 3, 5)
    assert "no_repeat_ngram_size" in (unfit(model, settings) or "")


def test_a_batch_is_cut_by_the_tokens_of_its_longest(
    tmp_path: Path, chatml_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    asked = prompts(9)
    expected = ask(model, chatml_tokenizer, asked, tmp_path / "a")
    batches: list[list[int]] = []
    original = Ragged.answer
    monkeypatch.setattr(
        Ragged,
        "answer",
        lambda self, ids: (batches.append([len(i) for i in ids]), original(self, ids))[1],
    )
    found = ask(model, chatml_tokenizer, asked, tmp_path / "b", batch_size=9, cache_tokens=70)
    assert found == expected
    assert [len(b) for b in batches] == [2, 2, 3, 2]
    assert all(max(b) + 6 <= 70 // len(b) for b in batches)


@pytest.mark.gpu
@pytest.mark.parametrize("liger", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_answers_on_cuda_are_those_on_a_cpu(
    tmp_path: Path, chatml_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, family: str, liger: bool
) -> None:
    """With the kernels for a flat cache, and from the graph that all batches share."""
    model = tiny_model(family)
    model.generation_config.eos_token_id = list(range(0, 512, 30))
    asked = prompts(40)
    options: dict[str, Any] = {"batch_size": 16, "max_new_tokens": 24}
    expected = ask(model, chatml_tokenizer, asked, tmp_path / "a", **options)
    replays: list[int] = []
    original = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda self: (replays.append(1), original(self))[1]
    )
    model.to("cuda")
    if liger:
        fuse_kernels(model)
    assert unfit(model, greedy_settings(model, chatml_tokenizer, 1, 24)) is None
    assert probe_generate(model) is None
    found = ask(model, chatml_tokenizer, asked, tmp_path / "b", **options)
    assert found == expected
    assert len(replays) > 10


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "gemma2", "gpt_oss", "lfm2"])
def test_transformers_own_cache_is_right(family: str) -> None:
    assert probe_generate(tiny_model(family)) is None


def test_a_model_whose_cache_is_wrong_is_refused(
    tmp_path: Path, chatml_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a kernel that reads new tokens from the wrong place: a score would mean nothing."""
    model = tiny_model("llama")
    plain = modeling_llama.apply_rotary_pos_emb

    def wrong(q: Any, k: Any, cos: Any, sin: Any, *rest: Any, **named: Any) -> Any:
        if q.shape[2] == 1:
            q, k = q[:1].expand_as(q), k[:1].expand_as(k)
        return plain(q, k, cos, sin, *rest, **named)

    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", wrong)
    with pytest.raises(RagtuneError, match="can't be trusted here"):
        ask(model, chatml_tokenizer, prompts(4), tmp_path / "a")


def test_rows_of_one_position_have_their_own_stride() -> None:
    """Liger's kernel takes the stride of the positions for that of a row."""
    rows: list[tuple[int, ...]] = []
    apply = _rotary(lambda q, k: rows.append((q.stride(), k.stride())) or (q, k))
    query = torch.arange(3 * 4 * 8.0).view(
        3, 4, 1, 8
    )  # as a norm behind the transposition leaves it
    key = query[:, :2].contiguous()
    q, k = apply(query, key)
    assert torch.equal(q, query)
    assert torch.equal(k, key)
    for strides, heads in zip(rows[0], (4, 2), strict=True):
        assert strides == (heads * 8, 8, heads * 8, 1)
    long = query.expand(3, 4, 5, 8)
    assert apply(long, long)[0] is long
