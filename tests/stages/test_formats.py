"""A recipe whose data are in public formats: they are said, prepared, selected by the positives that they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.base.errors import UsageError
from tests.conftest import make_records


def hotpot(number: int) -> dict[str, Any]:
    """A question whose answer, yes, stands in no paragraph: what is gold only the record says."""
    record = make_records(number + 1)[number]
    return {
        "_id": f"h{number}",
        "question": record["question"],
        "answer": "yes",
        "context": [[f"{p['title']} {i}", [p["text"]]] for i, p in enumerate(record["passages"])],
        "supporting_facts": [[f"House {number} 0", 0]],
        "type": "comparison",
        "level": "easy",
    }


def squad(number: int) -> dict[str, Any]:
    record = make_records(number + 1, "s")[number]
    text = record["passages"][0]["text"]
    answers = [{"text": record["answers"][0], "answer_start": text.index(record["answers"][0])}]
    asked = {"id": record["qid"], "question": record["question"], "answers": answers}
    return {"title": f"House {number}", "paragraphs": [{"context": text, "qas": [asked]}]}


def test_they_are_read_as_they_are(
    tiny_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, evaluation = tmp_path / "hotpot_train.json", tmp_path / "dev-v1.1.json"
    train.write_text(json.dumps([hotpot(i) for i in range(12)]), "utf-8")
    evaluation.write_text(
        json.dumps({"version": "1.1", "data": [squad(i) for i in range(6)]}), "utf-8"
    )
    tiny_recipe["data"] |= {"train": str(train), "eval": str(evaluation)}
    page = " ".join(str(ragtune.check(tiny_recipe, run_dir=tmp_path / "run")).split())
    assert "hotpot_train.json is read as HotpotQA; 12 of 12 records are selected" in page
    capsys.readouterr()
    report = ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")
    said = capsys.readouterr().out.replace("\n", "")
    assert said.count("is read as HotpotQA.") == said.count("is read as SQuAD.") == 1
    assert report["train"]["selected"] == 12
    assert report["eval"]["selected"] == 6
    first = json.loads((tmp_path / "run/data/train.jsonl").read_text("utf-8").splitlines()[0])
    assert (first["qid"], first["positive_passage_indices"], first["level"]) == ("h0", [0], "easy")


def test_questions_alone_lead_to_a_corpus(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "questions.csv"
    path.write_text("question,answer\nWho?,Ann\n", "utf-8")
    tiny_recipe["data"]["eval"] = str(path)
    with pytest.raises(UsageError, match="questions without passages") as raised:
        ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")
    assert "let `ragtune build` retrieve them" in raised.value.advice
