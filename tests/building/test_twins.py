"""Passages that are there again are found, whatever their order, and no others."""

from __future__ import annotations

import random

import pytest

from ragtune.building.twins import Twins
from ragtune.data.example import Passage, Place

LETTERS = {
    "ja": [chr(c) for c in range(0x3041, 0x3097)],
    "en": list("abcdefghijklmnopqrstuvwxyz     "),
}


def texts(count: int, language: str, seed: int = 1, length: int = 400) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(LETTERS[language], k=length)) for _ in range(count)]


def found(*passages: str, before: int | None = None) -> tuple[int, int, list[tuple[str, str]]]:
    """The same, nearly the same, and where the examples stand."""
    twins = Twins()
    every = {
        str(i): Passage(t, "", str(i), Place(f"{i}.md", 0, len(t))) for i, t in enumerate(passages)
    }
    for number, passage in enumerate(every.values()):
        if number == before:
            twins.divide()
        twins.add(passage)
    figures = twins.figures(every.__getitem__)
    assert figures.of == len(passages) - (before or 0)
    return figures.exact, figures.near, [(e.place, e.other_place) for e in figures.examples]


@pytest.mark.parametrize("language", LETTERS)
def test_passages_of_one_corpus(language: str) -> None:
    assert found(*texts(300, language)) == (0, 0, [])


def test_neighbours_that_share_their_overlap_are_no_twins() -> None:
    whole = "".join(texts(30, "ja"))
    pieces = [whole[i : i + 400] for i in range(0, len(whole) - 400, 300)]
    assert found(*pieces)[:2] == (0, 0)


def test_the_same_but_for_form() -> None:
    one, other = (
        "ＡＢＣ　の ポンプ は 1954 年 に 作られた。" * 9,
        "abc のポンプは1954年に作られた。" * 9,
    )
    assert found(one, "x" * 400, other) == (1, 0, [("2.md", "0.md")])


def test_nearly_the_same() -> None:
    first = texts(50, "ja")
    second = [t[:200] + "☆" + t[201:] for t in first]  # eight shingles of 393
    exact, near, places = found(*first, *second)
    assert exact == 0
    assert near >= 48  # 0.96 of the shingles are the same
    assert all(int(a[:-3]) == int(b[:-3]) + 50 for a, b in places)
    assert len(places) == 10


def test_short_texts_of_one_form_are_not_the_same() -> None:
    """What the hashes take for alike is compared: of few shingles they say little."""
    towns = [
        "Iota",
        "Delta",
        "Sigma",
        "Zeta",
        "Lambda",
        "Kappa",
        "Theta",
        "Eta",
        "Omega",
        "Alpha",
        "Gamma",
    ]
    assert found(*(f"The works stand in {town}ville, beside the river." for town in towns)) == (
        0,
        0,
        [],
    )


def test_half_the_text_is_another_text() -> None:
    first, second = texts(100, "ja"), texts(100, "ja", seed=2)
    mixed = [a[:200] + b[200:] for a, b in zip(first, second, strict=True)]
    assert found(*first, *mixed)[:2] == (0, 0)


def test_each_that_is_there_again_counts_once() -> None:
    text, *others = texts(5, "en")
    assert found(text, others[0], text, text, others[1], text)[0] == 3


def test_of_two_parts_only_the_second_is_looked_for_in_the_first() -> None:
    a, b, c = texts(3, "en")
    near = b[:100] + "#" + b[101:]
    assert found(a, a, b, c, c, near, a, before=3) == (1, 1, [("5.md", "2.md"), ("6.md", "0.md")])


@pytest.mark.parametrize("texts", [(), ("",), ("", ""), ("a", "b"), ("a", "a", " A ")])
def test_short_texts(texts: tuple[str, ...]) -> None:
    again = {(): 0, ("",): 0, ("", ""): 1, ("a", "b"): 0, ("a", "a", " A "): 2}
    assert found(*texts)[:2] == (again[texts], 0)


def test_boilerplate_without_end_takes_no_time() -> None:
    text = texts(1, "en")[0]
    copies = [text[:-1] + chr(0x4E00 + i) for i in range(2000)]
    exact, near, _ = found(*copies)
    assert exact == 0
    assert near > 1900
