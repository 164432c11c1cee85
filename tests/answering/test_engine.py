"""What every engine must do: a model of this machine, and a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragtune.answering.engine import PACKED, Engine
from ragtune.answering.local import Local
from ragtune.answering.prediction import Prediction
from ragtune.answering.ragged import Ragged
from ragtune.answering.server import Server
from ragtune.base.errors import RagtuneError
from ragtune.data.encode import Encoder
from ragtune.data.example import Example, parse_example
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.recipe.load import load_recipe
from tests.answering.test_server import Chat, chat, pauses  # noqa: F401 - fixtures
from tests.conftest import make_records, tiny_model

EXAMPLES = [parse_example(record, "here") for record in make_records(6)]
TITLE = "answering (before)"


class Contract:
    """Tests of an engine with an encoder; `asked` notes what it is asked."""

    @pytest.fixture
    def encoder(self, chatml_tokenizer: Any, tiny_recipe: dict[str, Any], chat: Chat) -> Encoder:  # noqa: F811
        names = {"endpoint": chat.endpoint, "served_before": "base", "served_after": "tuned"}
        recipe = load_recipe(
            {**tiny_recipe, "evaluate": {"engine": "openai", "max_new_tokens": 6, **names}}
        )
        return Encoder(prepare_tokenizer(chatml_tokenizer, recipe), recipe, 1000)

    def answer(
        self, engine: Engine, encoder: Encoder, partial: Path, examples: list[Example] = EXAMPLES
    ) -> list[Prediction]:
        return engine.answer(encoder, examples, partial, TITLE)

    def test_answers_come_in_the_order_of_the_questions(
        self, engine: Engine, encoder: Encoder, tmp_path: Path
    ) -> None:
        found = self.answer(engine, encoder, tmp_path / "a")
        assert [one.qid for one in found] == [e.qid for e in EXAMPLES]
        again = self.answer(engine, encoder, tmp_path / "b", EXAMPLES[::-1])
        assert again == found[::-1]

    def test_it_goes_on_with_what_is_kept(
        self,
        engine: Engine,
        encoder: Encoder,
        tmp_path: Path,
        asked: list[Any],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        whole = self.answer(engine, encoder, tmp_path / "a")
        assert len(asked) == 6
        asked.clear()
        lines = (tmp_path / "a").read_text("utf-8").splitlines(keepends=True)
        # As a kill leaves it; one of the lines is of a question that is asked no more.
        left = [*lines[:4], lines[0].replace("q", "old"), lines[4][:20]]
        (tmp_path / "b").write_text("".join(left), "utf-8")
        assert self.answer(engine, encoder, tmp_path / "b") == whole
        assert len(asked) == 2
        assert "Going on: 4 of 6 answers are kept." in capsys.readouterr().out
        asked.clear()
        assert self.answer(engine, encoder, tmp_path / "b") == whole
        assert not asked

    def test_every_answer_counts_for_the_progress(
        self, engine: Engine, encoder: Encoder, tmp_path: Path, ticks: list[int]
    ) -> None:
        self.answer(engine, encoder, tmp_path / "a")
        assert ticks == sorted(ticks)
        assert ticks[-1] == 6

    def test_nothing_to_ask(
        self, engine: Engine, encoder: Encoder, tmp_path: Path, asked: list[Any]
    ) -> None:
        assert self.answer(engine, encoder, tmp_path / "a", []) == []
        assert not asked
        assert engine.way is None

    def test_a_question_that_does_not_fit(
        self, engine: Engine, encoder: Encoder, tmp_path: Path, asked: list[Any]
    ) -> None:
        encoder.max_prompt = 5
        with pytest.raises(RagtuneError, match="The question q0 no longer fits") as error:
            self.answer(engine, encoder, tmp_path / "a")
        assert "ragtune prepare" in error.value.advice
        assert not asked


class TestLocal(Contract):
    @pytest.fixture
    def engine(self) -> Engine:
        return Local(tiny_model("llama"), 6, batch_size=2)

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        seen: list[Any] = []
        plain = Ragged.answer
        monkeypatch.setattr(
            Ragged, "answer", lambda self, ids: (seen.extend(ids), plain(self, ids))[1]
        )
        return seen

    def test_how_they_were_asked_is_known(
        self, engine: Engine, encoder: Encoder, tmp_path: Path
    ) -> None:
        self.answer(engine, encoder, tmp_path / "a")
        assert engine.way
        assert engine.way.how == PACKED


class TestServer(Contract):
    @pytest.fixture
    def engine(self, encoder: Encoder) -> Engine:
        return Server(encoder.recipe, "before")

    @pytest.fixture
    def asked(self, chat: Chat) -> list[Any]:  # noqa: F811
        return chat.asked
