"""JaQuAD and SQuAD 2 as passages and questions, rebuilt from records; and any number of passages like them."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragtune.building.retrieval.retriever import Entry


@dataclass(frozen=True)
class Asked:
    """A question, the answers it accepts, and the passage it was asked about, where that is known."""

    question: str
    answers: tuple[str, ...]
    passage: str | None = None


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def passages_of(paths: list[Path]) -> dict[str, Entry]:
    """Every passage of the records, once: each split counts its own from 0."""
    found = {}
    for path in paths:
        for record in read(path):
            for passage in record["passages"]:
                name = f"{path.name.split('.')[1]}-{passage['passage_id']}"
                found[name] = Entry(name, passage["title"], passage["text"])
    return found


def questions_of(path: Path) -> list[Asked]:
    """The questions that have answers.

    A qid of JaQuAD (`tr-583-05-002`) says which paragraph of which article was asked about, and passages
    are numbered in the order of the data: an article's begin where most of its positives say so.
    """
    split, records = path.name.split(".")[1], read(path)
    starts: dict[str, Counter[int]] = defaultdict(Counter)
    for record in records:
        if asked_about := re.fullmatch(r"\w\w-(\d+)-(\d+)-\d+", record["qid"]):
            for i in record["positive_passage_indices"]:
                number = record["passages"][i]["passage_id"]
                starts[asked_about[1]][number - int(asked_about[2])] += 1
    questions = []
    for record in records:
        if not record["answers"]:
            continue
        gold = None
        if asked_about := re.fullmatch(r"\w\w-(\d+)-(\d+)-\d+", record["qid"]):
            start = starts[asked_about[1]].most_common(1)[0][0]
            gold = f"{split}-{start + int(asked_about[2])}"
        questions.append(Asked(record["question"], tuple(record["answers"]), gold))
    return questions


_CLAUSE = re.compile(r"[^、。]+[、。]")
_WORD = re.compile(r"[一-龥々]{2,8}|[ァ-ヶー]{3,12}")
COINED = 0.3
"""Share of the clauses in which a word is a new one, made of halves of two others: a larger corpus has
more words, and each of them more seldom."""
CHARACTERS = 400


def made(entries: list[Entry], count: int, seed: int) -> Iterator[Entry]:
    """Passages of 400 characters: real clauses in new order, some of their words new ones."""
    draw = random.Random(seed)
    clauses = [c for e in entries for c in _CLAUSE.findall(e.text)]
    words: dict[bool, list[str]] = {True: [], False: []}
    for clause in clauses:
        for word in _WORD.findall(clause):
            words[word[0] > "ヿ"].append(word)

    def coined(match: re.Match[str]) -> str:
        like = words[match[0][0] > "ヿ"]
        first, last = draw.choice(like), draw.choice(like)
        return first[: (len(first) + 1) // 2] + last[len(last) // 2 :]

    for number in range(count):
        text = ""
        while len(text) < CHARACTERS:
            clause = draw.choice(clauses)
            if draw.random() < COINED:
                clause = _WORD.sub(coined, clause, count=1)
            text += clause
        yield Entry(f"{seed}-{number}", draw.choice(entries).title, text[:CHARACTERS])


def crossed(questions: list[Asked], count: int, seed: int) -> Iterator[str]:
    """Real questions, and then beginnings of some with the ends of others."""
    draw = random.Random(seed)
    for number in range(count):
        if number < len(questions):
            yield questions[number].question
        else:
            first, last = draw.choice(questions).question, draw.choice(questions).question
            yield first[: len(first) // 2] + last[len(last) // 2 :]
