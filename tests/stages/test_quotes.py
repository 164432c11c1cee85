"""A run whose answers quote, from its data to its report and to asking it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.answering.prediction import Prediction
from ragtune.asking.model import Model
from ragtune.asking.reader import Reader
from ragtune.data.example import Example
from ragtune.stages.context import Context
from tests.conftest import make_records, write_records


@pytest.fixture
def quoting(tiny_recipe: dict[str, Any]) -> dict[str, Any]:
    tiny_recipe["prompt"]["quote"] = True
    tiny_recipe["evaluate"] |= {"max_new_tokens": 40}
    return tiny_recipe


def test_a_run_that_quotes(
    quoting: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    comparison = ragtune.run(quoting, "train.steps=2", run_dir=run)
    assert comparison is not None
    assert comparison["quotes"] is not None
    after = comparison["quotes"]["after"]
    assert after is not None
    assert after["n"] == 10
    assert "Quotes that stand in a passage" in (run / "report.html").read_text("utf-8")
    assert "| Answers behind a quote |" in ragtune.summary(run)

    # A model of two steps can't quote yet: what would be made of one that does.
    questions = Context(run).questions
    rows = [
        {"qid": e.qid, "prediction": f"> {e.passages[i > 5].text}\n{e.answers[0]}"}
        for i, e in enumerate(questions)
    ]
    found = ragtune.evaluate(run, predictions=write_records(tmp_path / "p.jsonl", rows))
    assert found["metrics"]["strict_em"] == 1
    assert found["quotes"]["verbatim"]["value"] == 1
    assert found["quotes"]["supporting"]["value"] == 0.6

    def answer(_: object, examples: list[Example], which: str) -> tuple[list[Prediction], float]:
        text = f"> {questions[0].passages[0].text}\nred"
        return [Prediction(e.qid, text, [], stopped=True) for e in examples], 0.1

    reader = Reader.load(run)
    monkeypatch.setattr(Model, "answer", answer)
    (one,) = reader.ask([questions[0].question], questions[0].passages[:2])
    assert (one.text, one.quote, one.quote_found) == ("red", questions[0].passages[0].text, True)
    assert one.is_found
    (other,) = reader.ask([questions[0].question], questions[0].passages[1:2])
    assert not other.quote_found


def test_check_says_how_many_quote(quoting: dict[str, Any], tmp_path: Path) -> None:
    def found() -> list[dict[str, Any]]:
        every = ragtune.check(quoting, run_dir=tmp_path / "run")
        return [one for one in every if one["name"] == "quotes"]

    (one,) = found()
    assert one["level"] == "ok"
    assert one["message"] == "24 training answers stand behind a quote"
    rows = make_records(24)
    for row in rows[:4]:
        row["answers"] = ["a colour"]
    write_records(Path(quoting["data"]["train"]), rows)
    assert any("4 of 24 training answers have no quote" in one["message"] for one in found())
    quoting["prompt"]["quote"] = False
    assert found() == []
