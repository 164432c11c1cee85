from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ragtune.answering import local, padded
from ragtune.answering.engine import EQUAL, PACKED, PADDED, SINGLE
from ragtune.answering.local import greedy_settings
from ragtune.model.fast.rope import lengths_forgotten
from tests.answering.families import (
    NEW_TOKENS,
    STOP,
    Tokenizer,
    alone,
    ask,
    family_model,
    prompts,
)


@pytest.mark.parametrize(
    ("family", "how"),
    [
        ("llama", PACKED),
        ("gemma3", PACKED),
        ("gemma2", PADDED),
        ("gpt_oss", PADDED),
        ("lfm2", PADDED),
        ("llama4", PADDED),
        ("deepseek_v32", PADDED),
        ("glm_dsa", PADDED),
        ("mamba", PADDED),
        ("mamba2", PADDED),
        ("phi3_longrope", EQUAL),
        ("llama_dynamic", EQUAL),
        ("rwkv", SINGLE),
    ],
)
def test_answers_are_those_of_a_fresh_model_that_is_asked_one(
    tmp_path: Path, chatml_tokenizer: Any, batches: list[list[int]], family: str, how: str
) -> None:
    found, way = ask(family_model(family), chatml_tokenizer, tmp_path / "a")
    assert way.how == how
    assert [p.token_ids for p in found] == alone(family)
    if how == PADDED:
        assert any(len(set(batch)) > 1 for batch in batches)
    if how == EQUAL:
        assert all(len(set(batch)) == 1 for batch in batches)
        assert [len(batch) for batch in batches if batch[0] in (40, 36, 20)] == [2, 1, 3]
    if how == SINGLE:
        assert all(len(batch) == 1 for batch in batches)


def test_sparse_attention_that_must_choose_among_equals(
    tmp_path: Path, chatml_tokenizer: Any
) -> None:
    """With few heads many scores are exactly 0; which of them are chosen, padding changes."""
    found, way = ask(family_model("deepseek_v32_equals"), chatml_tokenizer, tmp_path / "a")
    assert way.how in (EQUAL, SINGLE)
    assert [p.token_ids for p in found] == alone("deepseek_v32_equals")


@pytest.mark.parametrize(
    "lengths", [(5, 7, 9, 9, 12, 13, 14, 17), (26, 28, 29, 30, 31, 33, 34, 40)]
)
def test_prompts_on_one_side_of_a_change_of_rope_are_packed(
    tmp_path: Path, chatml_tokenizer: Any, lengths: tuple[int, ...]
) -> None:
    asked = prompts(lengths)
    found, way = ask(family_model("phi3_longrope"), chatml_tokenizer, tmp_path / "a", asked)
    assert way.how == PACKED
    assert [p.token_ids for p in found] == alone("phi3_longrope", asked)


def test_an_answer_that_may_cross_a_change_of_rope_is_not_packed(
    tmp_path: Path, chatml_tokenizer: Any
) -> None:
    asked = prompts(
        (18, 17, 12, 12, 9, 7, 7, 5)
    )  # to 25 with the longest answer; the change is at 24
    found, way = ask(family_model("phi3_longrope"), chatml_tokenizer, tmp_path / "b", asked)
    assert way.how == EQUAL
    assert [p.token_ids for p in found] == alone("phi3_longrope", asked)


@pytest.mark.parametrize("family", ["phi3_longrope", "llama_dynamic"])
def test_padding_would_have_changed_answers(family: str) -> None:
    """Else the test above could not fail."""
    model = family_model(family)
    settings = greedy_settings(model, Tokenizer, STOP, NEW_TOKENS)
    asked = prompts()
    rows = padded.generate(model, [ids for _, ids in asked], settings)
    cut = [row[: row.index(STOP)] if STOP in row else row for row in rows]
    assert cut != alone(family)


def test_a_short_prompt_behind_a_long_one(tmp_path: Path, chatml_tokenizer: Any) -> None:
    """Both beyond the unscaled context, where transformers keeps the scaling of the longer one."""
    model = family_model("llama_dynamic")
    long, short = prompts((40, 30))
    ask(model, chatml_tokenizer, tmp_path / "a", [long])
    found, _ = ask(model, chatml_tokenizer, tmp_path / "b", [short])
    assert [p.token_ids for p in found] == alone("llama_dynamic", [short])


def test_dynamic_scaling_without_a_memory() -> None:
    model = family_model("llama_dynamic")
    (_, long), (_, short) = prompts((40, 30))
    fresh = model(torch.tensor([short])).logits
    model(torch.tensor([long]))
    assert not torch.allclose(model(torch.tensor([short])).logits, fresh, atol=1e-3)
    with lengths_forgotten(model):
        for ids in (long, short, long[:24], short):
            expected = family_model("llama_dynamic")(torch.tensor([ids])).logits
            torch.testing.assert_close(model(torch.tensor([ids])).logits, expected)


def test_a_model_that_remembers_what_it_read_is_said(
    tmp_path: Path,
    chatml_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @contextlib.contextmanager
    def nothing(_: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(local, "lengths_forgotten", nothing)
    asked = prompts(tuple(range(26, 46)))
    _, way = ask(family_model("llama_dynamic"), chatml_tokenizer, tmp_path / "a", asked)
    assert way.how == SINGLE
    said = " ".join(capsys.readouterr().out.split())
    assert "one at a time: in any batch a prompt is read otherwise behind a longer one" in said


def test_what_was_chosen_and_why_is_said(
    tmp_path: Path, chatml_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    _, way = ask(family_model("phi3_longrope"), chatml_tokenizer, tmp_path / "a")
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("Questions are asked") == 1
    assert "in batches of prompts of one length: padded they are read otherwise than alone" in said
    assert way.reason.startswith(
        "of the shortest and the longest prompt cached and whole logits differ"
    )


def test_half_precision_hides_nothing_in_a_batch_of_the_same_shape() -> None:
    """Narrow weights: the change of RoPE is about as small as rounding in a batch of another shape."""
    model = family_model("phi3_longrope")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.02 / 0.3)
    model.to(torch.bfloat16)
    settings = greedy_settings(model, Tokenizer, STOP, NEW_TOKENS)
    rows = [ids for _, ids in prompts((10, 23, 52))]
    assert "logits differ" in (padded._Trial(model, settings).leak(rows) or "")
    plain = family_model("gemma2").to(torch.bfloat16)
    assert padded._Trial(plain, settings).leak(rows) is None


@pytest.mark.parametrize(
    ("count", "batch_size", "why"),
    [(13, 1, "a batch holds one question"), (5, 4, "there are fewer than 8 of them")],
)
def test_what_needs_no_probe_gets_none(
    tmp_path: Path,
    chatml_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    batch_size: int,
    why: str,
) -> None:
    monkeypatch.setattr(padded._Trial, "scores", None)
    asked = prompts()[:count]
    _, way = ask(
        family_model("gemma2"), chatml_tokenizer, tmp_path / "a", asked, batch_size=batch_size
    )
    assert way.how == SINGLE
    assert way.reason.endswith(why)


def test_a_question_in_several_orders_is_asked_as_the_first_one_was(
    tmp_path: Path, chatml_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever asks one after the other waits for no trial again, and reads the reason once."""
    engine = local.Local(family_model("gemma2"), NEW_TOKENS, batch_size=4)
    for question in range(3):
        # Longer ones each time.
        asked = prompts(tuple(range(9 + 3 * question, 12 + 3 * question)))
        found = engine.complete(asked, chatml_tokenizer, STOP, tmp_path / str(question), "asking")
        assert [p.token_ids for p in found] == alone("gemma2", asked)
    assert engine.way
    assert engine.way.how == SINGLE
    assert capsys.readouterr().out.count("Answers through transformers' generate") == 1
    engine.complete(prompts(), chatml_tokenizer, STOP, tmp_path / "many", "asking")
    assert engine.way.how == PADDED  # of many it is tried


def test_no_memory_for_the_probe(
    tmp_path: Path, chatml_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(padded._Trial, "scores", full)
    found, way = ask(family_model("gemma2"), chatml_tokenizer, tmp_path / "a")
    assert way.how == SINGLE
    assert "too little memory to try batches" in way.reason
    assert [p.token_ids for p in found] == alone("gemma2")


def test_a_batch_that_fails_is_a_reason(
    tmp_path: Path, chatml_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = family_model("gemma2")
    plain = model.generate

    def picky(*, input_ids: Any, attention_mask: Any, **options: Any) -> Any:
        if len(input_ids) > 1:
            raise ValueError("one at a time, please")
        return plain(input_ids=input_ids, attention_mask=attention_mask, **options)

    monkeypatch.setattr(model, "generate", picky)
    found, way = ask(model, chatml_tokenizer, tmp_path / "a")
    assert way.how == SINGLE
    assert "one at a time, please" in way.reason
    assert [p.token_ids for p in found] == alone("gemma2")
