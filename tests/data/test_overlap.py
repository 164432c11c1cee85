"""Shared text is found wherever it begins, and nothing is reported that is not shared."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from ragtune.base.files import write_jsonl
from ragtune.data import overlap
from ragtune.data.overlap import CHUNK, SHARED, TrainingText, text_hash


def letters(count: int, seed: int) -> str:
    draw = random.Random(seed)
    return "".join(chr(draw.randrange(0x4E00, 0x9000)) for _ in range(count))


def training(folder: Path, *texts: str) -> TrainingText:
    """A row of one passage for each text."""
    path = folder / "train.jsonl"
    write_jsonl(path, ({"qid": f"t{i}", "passages": [{"text": t}]} for i, t in enumerate(texts)))
    found = TrainingText(path)
    for number, text in enumerate(texts):
        found.add(number, [text])
    return found


def longest(one: str, two: str) -> int:
    """The longest common text, by trying."""
    best = 0
    for start in range(len(one)):
        while one[start : start + best + 1] in two and start + best < len(one):
            best += 1
    return best


@pytest.mark.parametrize("before", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_shared_text_is_found_wherever_it_begins(tmp_path: Path, before: int) -> None:
    common = letters(SHARED, 1)
    known = training(tmp_path, letters(500, 2), letters(before, 3) + common + letters(70, 4))
    for offset in (0, 1, 63, 64, 100):
        assert known.shared(letters(offset, 5) + common + letters(9, 6)) == (1, common)


def test_every_offset_in_training_is_met(tmp_path: Path) -> None:
    common = letters(SHARED, 1)
    texts = [letters(before, before + 10) + common for before in range(CHUNK)]
    for before, text in enumerate(texts):
        assert training(tmp_path, text).shared("x" + common) == (0, common), before


def test_shorter_text_is_not_reported(tmp_path: Path) -> None:
    common = letters(SHARED - 1, 1)
    known = training(tmp_path, common + letters(80, 2))
    assert known.shared(letters(80, 3) + common) is None
    assert known.shared(common[:CHUNK]) is None
    assert known.shared("") is None


def test_the_whole_shared_text_is_given(tmp_path: Path) -> None:
    common = letters(300, 1)
    known = training(tmp_path, "a" + common + "b")
    assert known.shared("x" + common + "y") == (0, common)
    assert known.shared(common) == (0, common)


def test_it_agrees_with_trying(tmp_path: Path) -> None:
    draw = random.Random(0)
    source = letters(2000, 7)
    found = 0
    for number in range(120):
        pieces = []
        for seed in (1, 2):
            start = draw.randrange(0, 600)
            piece = source[start : start + draw.randrange(100, 400)]
            pieces.append(letters(draw.randrange(90), 2 * number + seed) + piece)
        shared = training(tmp_path, pieces[0]).shared(pieces[1])
        length = longest(pieces[1], pieces[0])
        assert (len(shared[1]) if shared else 0) == (length if length >= SHARED else 0)
        found += shared is not None
    assert 20 < found < 100


def test_equal_hashes_are_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_FACTORS", np.zeros(CHUNK, np.uint64))
    known = training(tmp_path, letters(300, 1))
    assert known.shared(letters(300, 2)) is None
    assert known.shared(letters(300, 1)[100:]) == (0, letters(300, 1)[100:])


def test_equal_passages_lead_to_the_first_row(tmp_path: Path) -> None:
    known = training(tmp_path, "a passage", "another", "a passage")
    assert (known.equal("a passage"), known.equal("another")) == (0, 1)
    assert known.equal("a passage ") is None


def test_nothing_is_shared_with_short_passages(tmp_path: Path) -> None:
    known = training(tmp_path, "short")
    assert known.shared(letters(300, 1)) is None


def test_rows_are_found_in_a_file_of_many_bytes_a_character(tmp_path: Path) -> None:
    texts = [letters(200 + 3 * i, i) + "\n\u2028𠮷" for i in range(20)]
    known = training(tmp_path, *texts)
    for number, text in enumerate(texts):
        assert known.shared("x" + text) == (number, text)


def test_hashes_are_the_same_in_every_process() -> None:
    assert text_hash("富士山") == 18154741902487053604
    assert overlap._window_hashes("x" * CHUNK).tolist() == [17317681624195734640]
