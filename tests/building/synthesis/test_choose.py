"""Which passages are asked for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.building.synthesis.choose import SHORTEST, SHORTEST_CJK, choose, is_short, is_table
from ragtune.data.example import Passage, Place

PROSE = (
    "The mill by the river was built by two brothers who came from the north, and it works today. "
)


def document(file: str, count: int) -> list[Passage]:
    texts = [f"Part {n} of {file}. {PROSE * 2}" for n in range(count)]
    return [
        Passage(text, "", f"{file}#{n + 1}", Place(file, 300 * n, 300 * n + len(text)))
        for n, text in enumerate(texts)
    ]


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)
def test_no_document_gets_a_second_before_all_have_one(
    sizes: list[int], count: int, seed: int
) -> None:
    every = [p for i, size in enumerate(sizes) for p in document(f"{i}.md", size)]
    chosen = choose(every, count, seed)
    assert len(chosen.passages) == min(count, sum(sizes))
    assert len({p.passage_id for p in chosen.passages}) == len(chosen.passages)
    taken = Counter(p.place.file for p in chosen.passages if p.place)
    most = max(taken.values())
    assert all(taken[f"{i}.md"] >= min(size, most - 1) for i, size in enumerate(sizes))
    assert choose(every, count, seed) == chosen


def test_the_records_of_one_file_are_documents_of_their_own() -> None:
    rows = [
        Passage(f"{i}. {PROSE * 2}", "", f"rows.csv#{i}", Place("rows.csv", 0, 99))
        for i in range(20)
    ]
    taken = choose([*rows, *document("a.md", 20)], 21, 1).passages
    assert sum(p.place.file == "rows.csv" for p in taken if p.place) == 20


def test_a_corpus_that_grew_keeps_most_of_what_was_chosen() -> None:
    every = [p for i in range(50) for p in document(f"{i}.md", 5)]
    before = choose(every, 40, 3).passages
    after = choose([*every, *document("new.md", 5)], 40, 3).passages
    assert len({*before} - {*after}) <= 1
    other = choose(every, 40, 4).passages
    assert len({*before} & {*other}) < 20


def test_too_short_ones_and_tables_are_left_out() -> None:
    place = Place("a", 0, 9)
    every = [
        Passage("Too short.", "", "a", place),
        Passage("| mill | 1901 |\n" * 40, "", "b", place),
    ]
    chosen = choose([*every, *document("c", 2)], 10, 1)
    assert (chosen.offered, chosen.too_short, chosen.tables) == (4, 1, 1)
    assert len(chosen.passages) == 2


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("x" * SHORTEST, False),
        ("x" * (SHORTEST - 1) + " ,." * 99, True),
        ("富" * SHORTEST_CJK, False),
        ("富" * (SHORTEST_CJK - 1) + "、。" * 99, True),
        ("富士" + "x" * (SHORTEST - 3), True),
        ("", True),
    ],
)
def test_short(text: str, short: bool) -> None:
    assert is_short(text) == short


@pytest.mark.parametrize(
    ("text", "table"),
    [
        (PROSE * 3, False),
        ("富士山は、静岡県と山梨県に跨がる活火山である。標高3776.12 m、日本最高峰。", False),
        (
            "In 1901 it had 12,345 inhabitants, in 1931 it had 23,456, and in 2001 it had 1,234.",
            False,
        ),
        ("Name\tHeight\nAro\t1000\nBelu\t1111", True),
        ("| River | Height |\n|---|---|\n| Aro | 1000 |", True),
        ("Name   |  Height\nAro    |  1000", True),
        ("1000 1111 1222 1333 1444 1555 12.5 99 % m", True),
        (PROSE + "\n" + PROSE + "\nName\tHeight", False),
    ],
)
def test_table(text: str, table: bool) -> None:
    assert is_table(text) == table
