"""Shards that share their counts give what one index gives."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ragtune.building.retrieval.distributed import merge
from ragtune.building.retrieval.lexical import LexicalIndex
from ragtune.building.retrieval.retriever import Entry, Hit
from ragtune.building.retrieval.shard import Counts, LexicalShard

pytest.importorskip("tantivy", reason="the extra documents is not installed")

WORDS = [f"w{chr(97 + n)}{chr(97 + m)}x" for n in range(12) for m in range(5)]


def passages(count: int) -> list[Entry]:
    """All of one length: what shards don't share is the mean of it (which the canary changes a little)."""
    chance = random.Random(7)
    weights = [1 / (n + 1) for n in range(len(WORDS))]
    texts = (chance.choices(WORDS, weights, k=20) for _ in range(count))
    return [Entry(f"p{n:03d}", "", " ".join(text)) for n, text in enumerate(texts)]


def shards(folder: Path, entries: list[Entry], count: int) -> list[LexicalShard]:
    """Cut so that words are as unlike as can be: by the first word."""
    ordered = sorted(entries, key=lambda entry: entry.text)
    made = [LexicalShard.open(folder / f"{n}", "en") for n in range(count)]
    for n, shard in enumerate(made):
        shard.index(ordered[n * len(ordered) // count : (n + 1) * len(ordered) // count])
    return made


def furthest(found: list[list[Hit]], expected: list[list[Hit]]) -> float:
    """By how much the scores at some rank differ at most, relatively."""
    return max(
        abs(a.score / b.score - 1)
        for hits, others in zip(found, expected, strict=True)
        for a, b in zip(hits, others, strict=True)
    )


def test_shared_counts_are_those_of_one_index(tmp_path: Path) -> None:
    entries = passages(240)
    one = LexicalIndex.open(tmp_path / "one", "en")
    one.index(entries)
    parts = shards(tmp_path, entries, 3)
    chance = random.Random(8)
    questions = [" ".join(chance.choices(WORDS, k=4)) for _ in range(60)]
    counts = Counts.sum(part.counts(questions) for part in parts)
    found = merge([part.search_with(questions, 10, counts) for part in parts], 10)
    expected = one.search(questions, 10)
    apart = merge([part.search(questions, 10) for part in parts], 10)
    assert furthest(found, expected) < 0.02
    assert furthest(apart, expected) > 0.1


def test_a_word_that_one_shard_alone_has(tmp_path: Path) -> None:
    entries = [Entry(f"a{n}", "", "valve pump") for n in range(9)] + [Entry("b", "", "valve tank")]
    first, second = shards(tmp_path, entries, 2)
    first.index(Entry(f"c{n}", "", "oil lid") for n in range(9))
    counts = Counts.sum([first.counts(["valve tank"]), second.counts(["valve tank"])])
    assert counts.holding.keys() == {"valv", "tank", "^valv"}  # and the longer word's head
    found = merge([s.search_with(["valve tank"], 3, counts) for s in (first, second)], 3)[0]
    assert found[0].passage_id == "b"
    assert first.search(["valve tank"], 3) != []


def test_afterwards_a_shard_counts_for_itself_again(tmp_path: Path) -> None:
    (shard,) = shards(tmp_path, passages(30), 1)
    question = [" ".join(WORDS[:3])]
    before = shard.search(question, 5)
    assert shard.search_with(question, 5, Counts(10**6, {WORDS[0]: 1})) != before
    assert shard.search(question, 5) == before
