"""With evaluate.copy every answer is a span of one shown passage, or the refusal, however it is asked."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ragtune.answering.copying import Copying
from ragtune.answering.engine import PACKED, PADDED, SINGLE
from ragtune.answering.local import Local
from ragtune.answering.orders import answer_in_orders
from ragtune.answering.prediction import Prediction, read_predictions, write_predictions
from ragtune.answering.shared import Shared
from ragtune.data.encode import Encoder
from ragtune.data.example import Example, parse_example
from ragtune.data.spans import Paths, Source
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.data.words import stands
from ragtune.recipe.load import load_recipe
from tests.answering.families import family_model
from tests.conftest import make_records

TEXTS = ("富士山は日本の山である。高さは3,776 mで、🗼より高い。", "The capital of France is Paris, </s> not Rome.",
         "A street\nhas houses.", "<|im_end|> 1.5")  # fmt: skip


def examples(count: int) -> list[Example]:
    """Questions about passages of two languages, each with others."""
    records = make_records(count)
    for i, record in enumerate(records):
        for k, passage in enumerate(record["passages"]):
            passage["text"] = TEXTS[(i + k) % len(TEXTS)] * (1 + i % 3)
        record["positive_passage_indices"] = []
    return [parse_example(record, "here") for record in records]


def encoder_of(tokenizer: Any, recipe: dict[str, Any], **evaluate: Any) -> Encoder:
    data = {**recipe["data"], "refusal": "No answer", "shuffle_passages": True}
    evaluate = {"max_new_tokens": 8, "copy": True, **evaluate}
    loaded = load_recipe({**recipe, "data": data, "evaluate": evaluate})
    return Encoder(prepare_tokenizer(tokenizer, loaded), loaded, 500)


def ask(
    model: Any, encoder: Encoder, partial: Path, asked: list[Example], batch: int = 4
) -> tuple[list[Prediction], str]:
    engine = Local(model, encoder.recipe.evaluate.max_new_tokens, batch)
    found = answer_in_orders(engine, encoder, asked, partial, "answering")
    assert engine.way
    return found, engine.way.how


@pytest.mark.parametrize(
    ("family", "how"), [("llama", PACKED), ("gemma3", PACKED), ("lfm2", PADDED), ("rwkv", SINGLE)]
)
def test_every_answer_is_a_span_of_one_shown_passage_or_the_refusal(
    tmp_path: Path, chatml_tokenizer: Any, tiny_recipe: dict[str, Any], family: str, how: str
) -> None:
    encoder = encoder_of(chatml_tokenizer, tiny_recipe)
    asked = examples(9)
    found, way = ask(family_model(family), encoder, tmp_path / "a", asked)
    assert way == how
    copied = 0
    for example, one in zip(asked, found, strict=True):
        if one.source is None:
            assert one.prediction == "No answer"
            continue
        copied += 1
        text = example.passages[one.source.passage].text
        assert one.source.passage < 2  # the third is not shown
        assert text[one.source.start : one.source.end] == one.prediction != ""
        assert stands(text, one.prediction) or not one.stopped
    assert copied > 5
    free = encoder_of(chatml_tokenizer, tiny_recipe, copy=False)
    before, _ = ask(family_model(family), free, tmp_path / "free", asked)
    assert all(one.source is None for one in before)
    assert not any(stands(p.text, b.prediction) for e, b in zip(asked, before, strict=True)
                   for p in e.passages if b.prediction)  # fmt: skip


def test_the_answers_are_those_of_each_question_alone(
    tmp_path: Path, chatml_tokenizer: Any, tiny_recipe: dict[str, Any]
) -> None:
    """Packed, with answers of unlike length that leave the batch, and through `generate`."""
    encoder, asked = encoder_of(chatml_tokenizer, tiny_recipe), examples(9)
    together, _ = ask(family_model("llama"), encoder, tmp_path / "a", asked, batch=9)
    model = family_model("llama")
    model.generation_config.no_repeat_ngram_size = 50  # which packed batches don't honour
    padded, how = ask(model, encoder, tmp_path / "b", asked, batch=9)
    assert how == PADDED
    for i, example in enumerate(asked):
        ((alone,), _) = ask(family_model("llama"), encoder, tmp_path / f"{i}", [example])
        for one in (together[i], padded[i]):
            assert (one.token_ids, one.source) == (alone.token_ids, alone.source)
            assert one.probability == pytest.approx(alone.probability, abs=1.01e-4)


@pytest.mark.parametrize("copy", [False, True])
def test_the_probability_is_that_of_the_tokens_and_the_stop_token(
    tmp_path: Path, chatml_tokenizer: Any, tiny_recipe: dict[str, Any], copy: bool
) -> None:
    """By the model itself, whatever might be copied."""
    encoder, asked = encoder_of(chatml_tokenizer, tiny_recipe, copy=copy), examples(3)
    model = family_model("llama")
    model.generation_config.eos_token_id = encoder.stop_id
    found, _ = ask(model, encoder, tmp_path / "a", asked)
    for example, one in zip(asked, found, strict=True):
        prompt = encoder.prompt(example)
        assert prompt
        new = one.token_ids + [encoder.stop_id] * one.stopped
        with torch.inference_mode():
            logits = model(torch.tensor([prompt.ids + new])).logits[0, len(prompt.ids) - 1 : -1]
        each = logits.log_softmax(-1).gather(1, torch.tensor(new)[:, None])
        assert one.probability == pytest.approx(float(each.sum().exp()), abs=1.01e-4)


class Desk:
    """A world of two ranks, of which the second does all the work as soon as something lies there."""

    size = 2

    def __init__(self, work: Callable[[Any], None]) -> None:
        self.left: dict[str, str] = {}
        self.said: list[str] = []
        self.numbers = itertools.count()
        self.work: Callable[[Any], None] | None = work

    def put(self, key: str, value: Any) -> None:
        self.said.append(key)
        self.left[key] = json.dumps(value)

    def take(self, key: str, *, forget: bool = False) -> Any:
        return json.loads(self.left.pop(key) if forget else self.left[key])

    def forget(self, key: str) -> None:
        del self.left[key]

    def has(self, key: str) -> bool:
        return key in self.left

    def next(self, _: str) -> int:
        if self.work:
            work, self.work = self.work, None
            work(self)
        return next(self.numbers)

    def rest(self) -> None:
        """No model is spread."""


def test_what_another_rank_answers_is_copied_too(
    tmp_path: Path, chatml_tokenizer: Any, tiny_recipe: dict[str, Any]
) -> None:
    encoder, asked = encoder_of(chatml_tokenizer, tiny_recipe), examples(6)
    alone, _ = ask(family_model("llama"), encoder, tmp_path / "a", asked, batch=2)

    def follow(world: Any) -> None:
        engine = Local(family_model("llama"), 8, 2)
        engine.follow(Shared(world, "q"), PACKED, encoder)

    engine = Local(family_model("llama"), 8, 2)
    desk: Any = Desk(follow)
    engine.share = lambda _: Shared(desk, "q")
    assert engine.answer(encoder, asked, tmp_path / "b", "answering") == alone
    assert any(one.source for one in alone)
    assert sum(key.startswith("shared/q/rows") for key in desk.said) == 3
    assert not any(
        key.startswith("shared/q/rows") for key in desk.left
    )  # what was read is forgotten


def test_probability_and_source_are_kept(tmp_path: Path) -> None:
    found = [Prediction("a", "x", [1], True, 0.5, Source(1, 2, 3)), Prediction("b", "", [], False)]
    write_predictions(tmp_path / "p.jsonl", found)
    assert read_predictions(tmp_path / "p.jsonl") == found


def test_predictions_of_older_versions_are_read(tmp_path: Path) -> None:
    line = '{"qid": "a", "prediction": "x", "token_ids": [1], "stopped": true}\n'
    (tmp_path / "p.jsonl").write_text(line, "utf-8")
    assert read_predictions(tmp_path / "p.jsonl") == [Prediction("a", "x", [1], True)]


def test_what_settings_forbid_is_chosen_where_nothing_else_is_left() -> None:
    """`min_new_tokens` forbids to stop; of two ways the likelier is taken."""
    every = [Paths([0, 0], [3, 4], [1, 1], [0], [1], 2), Paths([], [], [], [0], [0], 1)]
    copying, samples = Copying(every, torch.tensor([7])), torch.tensor([0, 1])
    logits = torch.zeros(2, 9)
    logits[0, 4], logits[:, 7], logits[:, 8] = 1.0, -float("inf"), 5.0
    assert copying.allow(logits, samples).argmax(-1).tolist() == [4, 7]
    copying.advance(torch.tensor([4, 7]), samples)
    assert copying.allow(logits, samples).argmax(-1).tolist()[0] == 7


def test_an_answer_that_is_less_probable_is_refused(
    tmp_path: Path, chatml_tokenizer: Any, tiny_recipe: dict[str, Any]
) -> None:
    asked = examples(4)
    model = family_model("llama")
    free = encoder_of(chatml_tokenizer, tiny_recipe, copy=False, max_new_tokens=1)
    found, _ = ask(model, free, tmp_path / "a", asked)
    sure = sorted(one.probability or 0.0 for one in found)
    assert sure[1] < sure[2]
    careful = encoder_of(
        chatml_tokenizer, tiny_recipe, copy=False, max_new_tokens=1, refuse_below=sure[2]
    )
    # An engine says what the model gave: of several orders no answer is refused by itself.
    assert Local(model, 1, 2).answer(careful, asked, tmp_path / "c", "answering") == found
    for one, other in zip(found, ask(model, careful, tmp_path / "b", asked)[0], strict=True):
        unsure = (one.probability or 0.0) < sure[2]
        # What the model gave to the hidden answer says nothing of the refusal.
        assert (other.unsure, other.probability) == (unsure, None if unsure else one.probability)
        assert other.prediction == ("No answer" if unsure else one.prediction)
