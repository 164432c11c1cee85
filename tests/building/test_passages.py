"""Documents cut into passages: exact places, whole sentences, no heading crossed, and no more work than text."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.building import ruler
from ragtune.building.documents.document import Document, Mark
from ragtune.building.passages import Cutter, sections, titled
from ragtune.building.ruler import Tokens
from ragtune.building.sentences import sentence_spans
from ragtune.data.example import Passage, Place
from ragtune.data.read import read_examples
from ragtune.recipe.corpus import Passages
from tests.building.test_sentences import HOSTILE


def passages_of(
    text: str, size: int = 400, overlap: int = 0, language: str = "ja", marks: tuple[Mark, ...] = ()
) -> list[Passage]:
    cutter = Cutter(Passages(preset=None, size=size, overlap=overlap), language)
    return cutter.cut(Document("m.md", "m.md", "Manual", text, marks))


def texts_of(text: str, size: int = 400, overlap: int = 0, language: str = "ja") -> list[str]:
    return [p.text for p in passages_of(text, size, overlap, language)]


def place_of(passage: Passage) -> Place:
    assert passage.place is not None
    return passage.place


@st.composite
def documents(draw: st.DrawFn) -> Document:
    text = draw(HOSTILE) * draw(st.sampled_from([1, 1, 1, 3]))
    starts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    marks = tuple(
        Mark(start, draw(st.sampled_from([None, 1, 2])), draw(st.sampled_from(["", "A", "B"])))
        for start in starts
    )
    return Document("d", "f.md", "T", text, marks)


@given(
    documents(), st.sampled_from([(20, 0), (20, 9), (30, 14), (100, 30)]), st.sampled_from(["ja", "en"])
)  # fmt: skip
def test_every_passage_is_where_it_says_and_nothing_is_lost(
    document: Document, lengths: tuple[int, int], language: str
) -> None:
    size, overlap = lengths
    cutter = Cutter(Passages(preset=None, size=size, overlap=overlap), language)
    passages = cutter.cut(document)
    assert passages == cutter.cut(document)
    left = list(document.text)
    end = 0
    for passage in passages:
        place = place_of(passage)
        assert document.text[place.start : place.end] == passage.text == passage.text.strip()
        assert 0 < len(passage.text) <= size
        assert place.end > end
        assert end - place.start <= overlap
        left[place.start : place.end] = " " * len(passage.text)
        end = place.end
        before = [mark for mark in document.marks if mark.start <= place.start]
        assert (place.page, place.heading) == (
            (before[-1].page, before[-1].heading) if before else (None, "")
        )
        inside = [mark for mark in document.marks if place.start < mark.start < place.end]
        assert all(mark.heading == place.heading for mark in inside)
    assert not "".join(left).strip()
    ids = [passage.passage_id for passage in passages]
    assert ids == (["d"] if len(ids) == 1 else [f"d#{n}" for n in range(1, len(ids) + 1)])


def test_what_is_repeated_is_whole_sentences() -> None:
    text = "".join(f"これは{n}番目の文です。" for n in range(100, 200))
    starts = {start for start, _ in sentence_spans(text, 0, len(text), "ja")}
    passages = passages_of(text, 100, 30)
    for one, other in pairwise(passages):
        shared = place_of(one).end - place_of(other).start
        assert place_of(other).start in starts
        assert shared == 26  # two sentences; three would be 39


def test_sentences_are_packed_up_to_the_size() -> None:
    text = "Aaaa aaa. Bbbb bbb. Cccc ccc. Dddd ddd. Eeee eee."
    assert texts_of(text, 20, 0, "en") == [
        "Aaaa aaa. Bbbb bbb.",
        "Cccc ccc. Dddd ddd.",
        "Eeee eee.",
    ]
    assert texts_of(text, 29, 0, "en") == ["Aaaa aaa. Bbbb bbb. Cccc ccc.", "Dddd ddd. Eeee eee."]
    assert texts_of(text, 49, 0, "en") == [text]


def test_a_short_rest_is_no_passage_of_its_own() -> None:
    """It shares with the one before it; where the whole fits, that is one passage anyway."""
    text = "".join(f"これは{n}番目の文です。" for n in range(100, 108)) + "以上。"
    assert [len(t) for t in texts_of(text, 104)] == [65, 42]
    assert [len(t) for t in texts_of(text, 104, 26)] == [65, 68]
    assert [len(t) for t in texts_of(text, 107)] == [107]
    assert [len(t) for t in texts_of("あ" * 95 + "。以上。", 96)] == [96, 3]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("彼は「行く。きっと行くから待っていて。」と、そう言い残して去った。", ["彼は「行く。きっと行くから待っていて。」", "と、そう言い残して去った。"]),
        ("山があり川が流れ、その向こうに古い町が見える、そんな場所だった", ["山があり川が流れ、", "その向こうに古い町が見える、", "そんな場所だった"]),
        ("この長い文には読点がないので仕方なく言葉の切れ目で切るほかない", ["この長い文には読点がないので仕方なく", "言葉の切れ目で切るほかない"]),
        ("one two three four five six seven eight", ["one two three four", "five six seven eight"]),
        ("it was red, green and blue; then it was not any more", ["it was red,", "green and blue; then", "it was not any more"]),
        ("see https://example.com/aaa/bbbb/ccccc/dddddd", ["see https://example.", "com/aaa/bbbb/ccccc/", "dddddd"]),
        ("x" * 45, ["x" * 20, "x" * 20, "x" * 5]),
        ("👩‍👩‍👧" * 9, ["👩‍👩‍👧" * 4, "👩‍👩‍👧" * 4, "👩‍👩‍👧"]),
        ("🇯🇵" * 11, ["🇯🇵" * 10, "🇯🇵"]),
        ("e\u0301" * 11, ["e\u0301" * 10, "e\u0301"]),
        ("x" + "e\u0301" * 11, ["x" + "e\u0301" * 9, "e\u0301" * 2]),
        ("漢字" * 11, ["漢字" * 10, "漢字"]),
    ],
)  # fmt: skip
def test_a_sentence_that_is_too_long_is_cut_where_it_hurts_least(
    text: str, pieces: list[str]
) -> None:
    assert texts_of(text, 20) == pieces


def test_a_text_without_any_border_overlaps_too() -> None:
    assert texts_of("abcdefghijklmnopqrstuvwxyz01234567", 20, 5, "en") == [
        "abcdefghijklmnopqrst", "pqrstuvwxyz01234567",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "sign",
    [
        "a", "漢", "あ", "。", ".", "! ", '"', "“", "「", "(", "「」", "「。", "「()", "\n", " ", "a\n", "あ、", "M. ",
        "a\u0301", "\u0301", "\u200d", "🇯", "のは。", "\ta", "/a", "1.", "- a\n", "\r\n\r\n", "∯。",
    ],
)  # fmt: skip
def test_the_work_grows_with_the_text(sign: str) -> None:
    """Whatever grew with its square would take minutes; see the timeout."""
    text = sign * (200_000 // len(sign))
    passages = passages_of(text, 400, 100)
    assert all(len(p.text) <= 400 for p in passages)
    assert bool(passages) == bool(text.strip())


def test_passages_keep_to_headings_and_say_where_they_stand() -> None:
    text = (
        "Intro to it.\n\n# Pump\n\n## Care\nOil it daily. Keep it dry.\n\n## Faults\nIt hums. It leaks. It is "
        "cold.\n\n# Pump\nAgain."
    )
    at = [found.start() for found in re.finditer("^#", text, re.MULTILINE)]
    marks = (
        Mark(at[0], None, "Pump"),
        Mark(at[1], None, "Pump > Care"),
        Mark(at[2], None, "Pump > Faults"),
        Mark(at[3], None, "Pump"),
    )
    found = [(p.text, p.title, place_of(p).heading) for p in passages_of(text, 20, 0, "en", marks)]
    assert (
        found
        == [
            ("Intro to it.", "Manual", ""),
            ("## Care", "Manual — Pump > Care", "Pump > Care"),
            ("Oil it daily.", "Manual — Pump > Care", "Pump > Care"),
            ("Keep it dry.", "Manual — Pump > Care", "Pump > Care"),
            ("## Faults\nIt hums.", "Manual — Pump > Faults", "Pump > Faults"),
            ("It leaks.", "Manual — Pump > Faults", "Pump > Faults"),
            ("It is cold.", "Manual — Pump > Faults", "Pump > Faults"),
            ("# Pump\nAgain.", "Manual — Pump", "Pump"),
        ]
        or found
    )


def test_a_heading_alone_is_no_passage_where_those_below_it_have_it() -> None:
    text = "# Pump\n\n## Care\nOil it."
    marks = (Mark(0, None, "Pump"), Mark(8, None, "Pump > Care"))
    assert [p.text for p in passages_of(text, marks=marks)] == ["## Care\nOil it."]
    assert [p.text for p in passages_of("# Pump\n\n# Care\nOil.", marks=(Mark(0, None, "Pump"), Mark(8, None, "Care")))] == [
        "# Pump", "# Care\nOil.",
    ]  # fmt: skip


def test_a_passage_may_cross_pages_and_is_where_it_begins() -> None:
    text = "First page, whose last sentence\ngoes on. Second page.\n\nThird page."
    marks = (Mark(0, 1), Mark(32, 2), Mark(55, 3))
    (passage,) = passages_of(text, marks=marks, language="en")
    assert place_of(passage).page == 1
    assert passage.passage_id == "m.md"
    assert place_of(passage).in_words() == "m.md, p. 1"
    pages = [place_of(p).page for p in passages_of(text, 42, 0, "en", marks)]
    assert pages == [1, 2]


def test_a_heading_that_comes_again_on_the_next_page_is_the_same() -> None:
    """Slides and PDF pages carry a mark each; only a new heading, or a second on one page, parts them."""
    text = "One. Two. Three."
    assert sections(Document("d", "d", "", text, (Mark(0, 1, "A"), Mark(5, 2, "A")))) == [
        (0, 0),
        (0, 16),
    ]
    assert sections(Document("d", "d", "", text, (Mark(0, 1, "A"), Mark(5, 1, "A")))) == [
        (0, 0), (0, 5), (5, 16),
    ]  # fmt: skip


def test_titles() -> None:
    assert titled("Pump", "") == "Pump"
    assert titled("Pump", "Pump") == "Pump"
    assert titled("Pump", "Pump > Care") == "Pump — Care"
    assert titled("Pump", "Pumping > Care") == "Pump — Pumping > Care"
    assert titled("", "Care") == "Care"
    assert len(titled("Pump", "x" * 5000)) < 250


def test_nothing_to_cut() -> None:
    assert passages_of("") == []
    assert passages_of(" \n\u3000\r\n") == []


def test_presets() -> None:
    assert (Passages().longest, Passages().shared) == (400, 100)
    assert (Passages(preset="aio").longest, Passages(preset="aio").shared) == (400, 0)
    assert (Passages(size=200).longest, Passages(size=200).shared) == (200, 50)
    assert (Passages(preset="aio", size=200).shared, Passages(preset=None, size=99).shared) == (
        0,
        0,
    )
    assert Passages(overlap=0).shared == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"overlap": 200}, r"overlap \(200\) must be less than half of size \(400\)"),
        ({"preset": None}, "give either preset or size"),
        ({"unit": "tokens"}, "unit: tokens needs tokenizer"),
        ({"tokenizer": "x"}, "tokenizer is given, but characters are counted: set unit: tokens"),
        ({"size": 5}, "greater than or equal to 20"),
    ],
)
def test_passages_that_can_not_be_made(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Passages.model_validate(given)


def test_no_sentence_of_wikipedia_is_cut_in_the_middle() -> None:
    """But those that are longer than a passage."""
    for name, language in (("jaquad.dev", "ja"), ("squad2.dev", "en")):
        paragraphs = [p.text for e in read_examples(f"sample:{name}", "") for p in e.passages]
        text = "\n\n".join(dict.fromkeys(paragraphs))
        spans = sentence_spans(text, 0, len(text), language)
        ends = {end for _, end in spans}
        too_long = [span for span in spans if span[1] - span[0] > 400]
        for passage in passages_of(text, 400, 100, language):
            end = place_of(passage).end
            assert end in ends or any(start < end < stop for start, stop in too_long)


# Tokens.


def test_tokens_are_counted_by_the_models_tokenizer(
    tiny_folder: Path, chatml_tokenizer: object
) -> None:
    text = "これは長い文です。" * 60 + "It is so. " * 60 + "👩‍👩‍👧" * 100 + "x" * 9000
    passages = Passages(preset=None, size=60, overlap=20, unit="tokens", tokenizer=str(tiny_folder))
    found = Cutter(passages, "ja").cut(Document("d", "d", "", text))
    lengths = []
    for passage in found:
        place = place_of(passage)
        assert text[place.start : place.end] == passage.text
        lengths.append(len(chatml_tokenizer.encode(passage.text, add_special_tokens=False)))
    assert max(lengths) <= 62
    assert sorted(lengths)[len(lengths) // 2] > 40


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(0, 60), st.integers(1, 9))
def test_a_ruler_of_tokens(places: list[int], at: int, count: int) -> None:
    """A part has as many tokens as end in it; several may end at one place, as the bytes of a picture do."""
    ends = sorted(places)
    measured = Tokens(ends, 60)

    def tokens(start: int, end: int) -> int:
        return sum(start < one <= end for one in ends)

    assert tokens(at, measured.reach(at, count)) <= count
    assert tokens(measured.back(at, count), at) <= count
    further = [end for end in ends if end > max(at, measured.reach(at, count))]
    assert all(tokens(at, end) > count for end in further)


def test_a_tokenizer_that_can_not_say_where_its_tokens_stand(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruler._load.cache_clear()
    slow = SimpleNamespace(is_fast=False)
    monkeypatch.setattr("ragtune.model.load.load_tokenizer", lambda source: slow)
    with pytest.raises(UsageError, match="can't say where its tokens stand") as caught:
        Cutter(Passages(unit="tokens", tokenizer=str(tiny_folder)), "ja")
    assert caught.value.advice == "Name another model's, or set passages.unit: characters."


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    wrong = Passages(unit="tokens", tokenizer=str(tmp_path))
    with pytest.raises(UsageError, match=r"passages.tokenizer: .* holds no config.json"):
        Cutter(wrong, "ja")
