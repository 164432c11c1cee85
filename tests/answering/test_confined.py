"""With evaluate.refuse_below the model only answers, and the threshold refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from ragtune.answering.confined import Answering, refusal_starts
from ragtune.answering.engine import PACKED, PADDED, SINGLE
from ragtune.answering.local import Local
from ragtune.answering.orders import answer_in_orders
from ragtune.answering.prediction import Prediction
from ragtune.answering.shared import Shared
from ragtune.data.encode import Encoder
from ragtune.data.example import Example
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.recipe.load import load_recipe
from tests.answering.families import family_model
from tests.answering.test_copying import Desk, ask, encoder_of, examples


def begins(found: list[Prediction]) -> list[int]:
    return [one.token_ids[0] for one in found if one.token_ids]


def pair(tokenizer: Any, recipe: dict[str, Any], **evaluate: Any) -> list[Encoder]:
    """Of a model that may refuse, and of one that only answers."""
    each = ({**evaluate, "refuse_below": below} for below in (None, 0))
    return [encoder_of(tokenizer, recipe, copy=False, **one) for one in each]


def barring(monkeypatch: pytest.MonkeyPatch, token: int) -> None:
    """Let the refusal begin with a token with which a model of random weights begins answers."""

    def starts(encoder: Encoder) -> list[list[int]]:
        return [[token]] if refusal_starts(encoder) else []

    monkeypatch.setattr("ragtune.answering.local.refusal_starts", starts)


@pytest.mark.parametrize(("family", "how"), [("llama", PACKED), ("lfm2", PADDED), ("rwkv", SINGLE)])
def test_with_a_threshold_no_answer_begins_as_the_refusal_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chatml_tokenizer: Any,
    tiny_recipe: dict[str, Any],
    family: str,
    how: str,
) -> None:
    # `generate` asks prompts in batches from 8 on
    model, asked = family_model(family), examples(9)
    free, barred = pair(chatml_tokenizer, tiny_recipe)
    before, _ = ask(model, free, tmp_path / "a", asked)
    token = begins(before)[0]
    barring(monkeypatch, token)
    after, way = ask(model, barred, tmp_path / "b", asked)
    assert way == how
    assert token not in begins(after)
    for example, one, other in zip(asked, before, after, strict=True):
        if one.token_ids[:1] != [token]:
            assert one == other
            continue
        # What is left is the next likely, with the probability that it had beside the refusal.
        prompt = barred.prompt(example)
        assert prompt
        new = other.token_ids + [barred.stop_id] * other.stopped
        if how == PACKED:
            with torch.inference_mode():
                logits = model(torch.tensor([prompt.ids + new])).logits[0, len(prompt.ids) - 1 : -1]
            assert int(logits[0].topk(2).indices[1]) == new[0]
            each = logits.log_softmax(-1).gather(1, torch.tensor(new)[:, None])
            assert other.probability == pytest.approx(float(each.sum().exp()), abs=1.01e-4)


@pytest.mark.gpu
def test_on_cuda_too_no_answer_begins_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chatml_tokenizer: Any,
    tiny_recipe: dict[str, Any],
) -> None:
    """What is barred is decided beside the graph of the step."""
    model, asked = family_model("llama"), examples(16)
    free, barred = pair(chatml_tokenizer, tiny_recipe, max_new_tokens=24)
    token = begins(ask(model, free, tmp_path / "f", asked)[0])[0]
    barring(monkeypatch, token)
    expected, _ = ask(model, barred, tmp_path / "a", asked)
    found, how = ask(model.to("cuda"), barred, tmp_path / "b", asked)
    assert how == PACKED
    assert token not in begins(found)
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]


def test_another_rank_keeps_to_it_too(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chatml_tokenizer: Any,
    tiny_recipe: dict[str, Any],
) -> None:
    model, asked = family_model("llama"), examples(6)
    free, barred = pair(chatml_tokenizer, tiny_recipe)
    barring(monkeypatch, begins(ask(model, free, tmp_path / "f", asked)[0])[0])
    alone, _ = ask(model, barred, tmp_path / "a", asked, batch=2)

    def follow(world: Any) -> None:
        Local(family_model("llama"), 8, 2).follow(Shared(world, "q"), PACKED, barred)

    engine, desk = Local(model, 8, 2), Desk(follow)
    share: Any = desk
    engine.share = lambda _: Shared(share, "q")
    assert engine.answer(barred, asked, tmp_path / "b", "answering") == alone


def test_a_model_that_only_copies_does_not_copy_the_refusal(
    tmp_path: Path, chatml_tokenizer: Any, tiny_recipe: dict[str, Any]
) -> None:
    """With nothing to copy the answer is empty: that is refused, whatever its probability."""
    model, asked = family_model("llama"), examples(6)
    bare = [dataclasses.replace(e, passages=()) for e in asked]
    plain = encoder_of(chatml_tokenizer, tiny_recipe)
    assert {one.prediction for one in ask(model, plain, tmp_path / "a", bare)[0]} == {"No answer"}
    barred = encoder_of(chatml_tokenizer, tiny_recipe, refuse_below=0)
    found, _ = ask(model, barred, tmp_path / "b", [*asked, *more(bare)])
    assert all(one.source for one in found[:6])
    for one in found[6:]:
        assert (one.prediction, one.unsure, one.probability) == ("No answer", True, None)


def test_the_refusal_is_barred_as_it_is_trained_and_in_capitals_and_without(
    chatml_tokenizer: Any, tiny_recipe: dict[str, Any]
) -> None:
    """Blanks that the template lets stand before it are passed over: every answer begins with them."""
    barred = encoder_of(chatml_tokenizer, tiny_recipe, refuse_below=0.5)
    assert refusal_starts(encoder_of(chatml_tokenizer, tiny_recipe)) == []
    for lead in ("", "\n\n"):
        barred.turn = dataclasses.replace(barred.turn, lead=lead)
        starts = refusal_starts(barred)
        for words in ("No answer", "no answer", "NO ANSWER", " no answer"):
            (ids,) = barred.behind_prompt([lead + words])
            assert any(ids[: len(start)] == start for start in starts)
        for start in starts:
            assert barred.tokenizer.decode(start).strip().lower() in ("n", "no")
            assert not barred.tokenizer.decode(start[:-1]).strip()


def test_what_is_barred_is_a_whole_letter(
    chatml_tokenizer: Any, tiny_recipe: dict[str, Any]
) -> None:
    """With the first byte of わ begins much of katakana."""
    recipe = {**tiny_recipe, "data": {**tiny_recipe["data"], "refusal": "わかりません"}}
    recipe["evaluate"] = {**recipe["evaluate"], "refuse_below": 0}
    loaded = load_recipe(recipe)
    encoder = Encoder(prepare_tokenizer(chatml_tokenizer, loaded), loaded, 500)
    starts = refusal_starts(encoder)
    assert {encoder.tokenizer.decode(start).strip()[:1] for start in starts} == {"わ"}
    other = encoder.completion("を")
    assert not any(other[: len(start)] == start for start in starts)


def test_what_is_the_refusal_nonetheless_is_marked(
    chatml_tokenizer: Any, tiny_recipe: dict[str, Any]
) -> None:
    """And what holds no answer, as before a citation."""
    barred = encoder_of(chatml_tokenizer, tiny_recipe, copy=False, refuse_below=0)
    asked = examples(4)
    said = ["no  Answer.", "No one", " ", "No answer at all"]

    class Engine:
        way = None

        def answer(self, *_: object) -> list[Prediction]:
            return [
                Prediction(e.qid, one, [1], True, 0.9) for e, one in zip(asked, said, strict=True)
            ]

    found = answer_in_orders(Engine(), barred, asked, Path("a"), "x")
    assert [one.unsure for one in found] == [True, False, True, False]
    assert [one.prediction for one in found] == ["No answer", said[1], "No answer", said[3]]
    recipe = {**tiny_recipe, "data": {**tiny_recipe["data"], "refusal": "No answer"}}
    loaded = load_recipe(recipe, ["prompt.citations=true", "evaluate.refuse_below=0"])
    citing = Encoder(prepare_tokenizer(chatml_tokenizer, loaded), loaded, 500)
    said[:] = [" [1]", "red [1]", "no answer [2]", "No"]
    marked = [one.unsure for one in answer_in_orders(Engine(), citing, asked, Path("a"), "x")]
    assert marked == [True, False, True, False]


def more(examples: list[Example]) -> list[Example]:
    return [dataclasses.replace(e, qid=f"{e.qid}-bare") for e in examples]


def test_a_start_of_several_tokens_is_barred_at_its_last() -> None:
    """An answer that goes another way may write the token."""
    answering, samples = Answering([[5, 7], [4]], 3, torch.device("cpu")), torch.arange(3)
    logits = torch.zeros(3, 9)
    assert answering.allow(logits, samples).isneginf().nonzero().tolist() == [
        [0, 4],
        [1, 4],
        [2, 4],
    ]
    answering.advance(torch.tensor([5, 5, 7]), samples)
    left = torch.tensor([0, 2])  # the second one has left the batch
    assert answering.allow(logits[left], left).isneginf().nonzero().tolist() == [[0, 7]]
    answering.advance(torch.tensor([3, 5]), left)
    assert not answering.allow(logits[left], left).isneginf().any()
    assert not logits.isneginf().any()
