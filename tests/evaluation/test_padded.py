from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ragtune.evaluation import generate, padded
from ragtune.evaluation.generate import Prediction, answer
from ragtune.evaluation.padded import EQUAL, PACKED, PADDED, SINGLE, Way
from ragtune.model.positions import lengths_forgotten
from tests.evaluation.families import FAMILIES, family_model

LENGTHS = (10, 11, 13, 13, 18, 20, 20, 20, 25, 31, 36, 40, 40)
NEW_TOKENS = 8
STOP = 2


def prompts(lengths: tuple[int, ...] = LENGTHS) -> list[tuple[str, list[int]]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (f"q{i:02}", torch.randint(3, 500, (n,), generator=generator).tolist())
        for i, n in enumerate(lengths)
    ]


def ask(
    model: Any,
    tokenizer: Any,
    partial: Path,
    asked: list[tuple[str, list[int]]] | None = None,
    **more: Any,
) -> tuple[list[Prediction], Way]:
    ways: list[Way] = []
    defaults = {
        "stop_id": STOP,
        "max_new_tokens": NEW_TOKENS,
        "batch_size": 4,
        "on_way": ways.append,
    }
    found = answer(model, tokenizer, asked or prompts(), partial=partial, **{**defaults, **more})
    (way,) = ways
    return found, way


def alone(
    name: str, asked: list[tuple[str, list[int]]] | None = None, **settings: Any
) -> list[list[int]]:
    """Transformers' answers, each by a model that has read nothing before, without the stop token."""
    found = []
    unused = family_model(name)
    unused.generation_config.update(
        eos_token_id=STOP, pad_token_id=0, max_new_tokens=NEW_TOKENS, **settings
    )
    for _, ids in asked or prompts():
        model = copy.deepcopy(unused)
        with torch.inference_mode():
            whole = model.generate(
                torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long()
            )
        row = whole[0, len(ids) :].tolist()
        found.append(row[: row.index(STOP)] if STOP in row else row)
    return found


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The lengths of the prompts in every batch that `generate` is asked."""
    seen: list[list[int]] = []
    original = generate.generate
    monkeypatch.setattr(
        generate,
        "generate",
        lambda model, ids, settings: (
            seen.append([len(i) for i in ids]),
            original(model, ids, settings),
        )[1],
    )
    return seen


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


def test_every_family_is_tried() -> None:
    assert len(FAMILIES) == 14


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
    settings = generate._settings(model, _Tokenizer, STOP, NEW_TOKENS)
    asked = prompts()
    rows = padded.generate(model, [ids for _, ids in asked], settings)
    cut = [row[: row.index(STOP)] if STOP in row else row for row in rows]
    assert cut != alone(family)


class _Tokenizer:
    pad_token_id = 0


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

    monkeypatch.setattr(generate, "lengths_forgotten", nothing)
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
    settings = generate._settings(model, _Tokenizer, STOP, NEW_TOKENS)
    rows = [ids for _, ids in prompts((10, 23, 52))]
    assert "logits differ" in (padded._leak(model, settings, rows) or "")
    plain = family_model("gemma2").to(torch.bfloat16)
    assert padded._leak(plain, settings, rows) is None


@pytest.mark.parametrize("family", ["gemma2", "lfm2"])
@pytest.mark.parametrize(
    ("settings", "how"),
    [
        ({"repetition_penalty": 1.7}, PADDED),
        ({"min_new_tokens": 5}, PADDED),
        ({"min_length": 30}, EQUAL),  # it counts the padding, too
    ],
)
def test_generation_settings_look_at_no_padding(
    tmp_path: Path, chatml_tokenizer: Any, family: str, settings: dict[str, Any], how: str
) -> None:
    model = family_model(family)
    model.generation_config.update(**settings)
    # The padding token of this tokenizer is its end token.
    stop = {"stop_id": chatml_tokenizer.pad_token_id}
    found, way = ask(model, chatml_tokenizer, tmp_path / "a", **stop)
    assert way.how == how
    single, _ = ask(model, chatml_tokenizer, tmp_path / "b", batch_size=1, **stop)
    assert found == single


def test_a_setting_that_is_refused_elsewhere_holds_here(
    tmp_path: Path, chatml_tokenizer: Any
) -> None:
    model = family_model("llama")
    model.generation_config.no_repeat_ngram_size = 2
    found, way = ask(model, chatml_tokenizer, tmp_path / "a")
    assert way.how == EQUAL  # two masked tokens are a pair that may not come again
    assert way.reason == (
        "generation_config.json sets no_repeat_ngram_size; padded they are read otherwise than alone "
        "(generation_config.json penalises or forbids other tokens)"
    )
    assert [p.token_ids for p in found] == alone("llama", no_repeat_ngram_size=2)


def test_a_limit_of_time_cuts_no_answer(tmp_path: Path, chatml_tokenizer: Any) -> None:
    model = family_model("gemma2")
    model.generation_config.update(max_time=1e-9, return_dict_in_generate=True)
    found, _ = ask(model, chatml_tokenizer, tmp_path / "a")
    assert [p.token_ids for p in found] == alone("gemma2")


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
    monkeypatch.setattr(padded, "_scores", None)
    asked = prompts()[:count]
    _, way = ask(
        family_model("gemma2"), chatml_tokenizer, tmp_path / "a", asked, batch_size=batch_size
    )
    assert way.how == SINGLE
    assert way.reason.endswith(why)


def test_no_memory_for_the_probe(
    tmp_path: Path, chatml_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(padded, "_scores", full)
    found, way = ask(family_model("gemma2"), chatml_tokenizer, tmp_path / "a")
    assert way.how == SINGLE
    assert "the memory does not do" in way.reason
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


def test_equal_lengths_and_memory_that_runs_out(
    tmp_path: Path,
    chatml_tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[list[int]] = []
    ticks: list[int] = []

    def small(model: Any, ids: Any, settings: Any) -> Any:
        if len(ids) > 2:
            raise torch.OutOfMemoryError("no")
        seen.append([len(i) for i in ids])
        return padded.generate(model, ids, settings)

    monkeypatch.setattr(generate, "generate", small)
    asked = prompts((40, 40, 40, 40, 40, 30, 20, 20, 20, 10))
    found, way = ask(
        family_model("llama_dynamic"),
        chatml_tokenizer,
        tmp_path / "a",
        asked,
        batch_size=8,
        tick=ticks.append,
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
    kept = answer(
        model,
        chatml_tokenizer,
        prompts(),
        stop_id=STOP,
        max_new_tokens=NEW_TOKENS,
        batch_size=4,
        partial=partial,
    )
    assert kept == whole
    assert not batches
