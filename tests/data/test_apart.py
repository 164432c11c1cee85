from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import UsageError
from ragtune.base.files import read_jsonl
from ragtune.data.apart import hold_apart
from ragtune.recipe.data import Data
from tests.conftest import make_records, write_records


def titles(path: Path) -> list[set[str]]:
    return [
        {row["passages"][i]["title"] for i in row["positive_passage_indices"]}
        for row in read_jsonl(path)
    ]


def held_apart(records: list[dict[str, Any]], tmp_path: Path, seed: int = 1) -> tuple[Path, Path]:
    data = Data(train=str(write_records(tmp_path / "all.jsonl", records)), eval="unused.jsonl")
    train, held = tmp_path / "train.jsonl", tmp_path / "held.jsonl"
    counts = hold_apart(data, seed, train, held)
    assert counts.train == len(list(read_jsonl(train)))
    assert counts.held == len(list(read_jsonl(held)))
    assert counts.train + counts.held + counts.left_out == len(records)
    return train, held


def test_no_article_of_a_held_question_answers_a_trained_one(tmp_path: Path) -> None:
    records = make_records(300)
    for number, record in enumerate(records):
        for passage in record["passages"]:
            passage["title"] = f"Article {number // 6}"
        if number % 10 == 0:  # a second positive, of another article
            record["passages"][1] |= {
                "title": f"Article {(number // 6 + 7) % 50}",
                "text": record["answers"][0],
            }
            record["positive_passage_indices"] = [0, 1]
    train, held = held_apart(records, tmp_path)
    own = set().union(*({min(t)} if len(t) == 1 else t for t in titles(held)))
    articles = {row["passages"][0]["title"] for row in read_jsonl(held)}
    assert len(articles) == 5  # 30 questions, in whole articles
    assert articles <= own
    assert not articles & set().union(*titles(train))
    assert {row["qid"] for row in read_jsonl(train)}.isdisjoint(
        row["qid"] for row in read_jsonl(held)
    )


def test_the_seed_draws_the_articles_and_the_order_of_the_file_does_not(tmp_path: Path) -> None:
    records = make_records(200)

    def qids(seed: int, of: list[dict[str, Any]]) -> set[str]:
        return {row["qid"] for row in read_jsonl(held_apart(of, tmp_path, seed)[1])}

    first = qids(1, records)
    assert qids(1, records[::-1]) == first
    assert qids(2, records) != first


def test_a_single_article_can_not_be_held_apart(tmp_path: Path) -> None:
    records = make_records(30)
    for record in records:
        for passage in record["passages"]:
            passage["title"] = "The only one"
    with pytest.raises(UsageError, match=r"are of 1 article\."):
        held_apart(records, tmp_path)
