"""Radicals become the letters that they stand for, and nothing else is changed."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.building.documents.normalise import normalise

RADICALS = [
    chr(code)
    for code in range(0x2E80, 0x2FD6)
    if unicodedata.name(chr(code), "").startswith(("CJK RADICAL", "KANGXI"))
]


@pytest.mark.parametrize(
    ("read", "typed"),
    [
        ("⽬⽴つ⾊", "目立つ色"),
        ("⻑野県⻑", "長野県長"),  # NFKC leaves this one
        ("⽇本⼈の⼥⼦⽣徒", "日本人の女子生徒"),
        (
            "⺠主主義、⻄暦、⻘⾊、⻩⾊、⻨茶、⻭⻲⻯⻤⻁⻝",
            "民主主義、西暦、青色、黄色、麦茶、歯亀竜鬼虎食",
        ),
        ("神⼾の⿊⽥", "神戸の黒田"),  # which NFKC would write 神戶の黑田
        ("Ａ１　ｱ ① ㈱ ﬁ é", "Ａ１　ｱ ① ㈱ ﬁ é"),  # NFKC would change all of these
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\0b\ud800", "a\ufffdb\ufffd"),
    ],
)
def test_as_typed(read: str, typed: str) -> None:
    assert normalise(read) == typed


def test_every_radical_but_those_without_a_letter_becomes_one() -> None:
    left = [c for c in RADICALS if normalise(c) == c]
    assert left == ["⺀"]
    assert all(len(normalise(c)) == 1 for c in RADICALS)


@given(st.text(st.characters() | st.sampled_from([*RADICALS, "\r", "\n"])))
def test_only_radicals_and_line_ends_change(text: str) -> None:
    found = normalise(text)
    assert normalise(found) == found
    found.encode()
    same = [
        c for c in text if c not in RADICALS and c not in "\r\n\0" and not "\ud800" <= c <= "\udfff"
    ]
    assert [c for c in same if c not in found] == []
    if "\r" not in text:
        assert len(found) == len(text)
