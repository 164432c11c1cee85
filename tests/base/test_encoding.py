"""A text's encoding is found by looking; what is named counts; what is no text is said."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragtune.base.encoding import decode
from ragtune.data.read import read_examples

JAPANESE = "質問,正解\n日本で一番高い山は何?,富士山\n"


@pytest.mark.parametrize(
    ("text", "written", "expected"),
    [
        (JAPANESE, "utf-8", "utf-8"),
        (JAPANESE, "utf-8-sig", "utf-8"),
        (JAPANESE, "cp932", "cp932"),
        (JAPANESE, "euc_jp", "euc_jp"),
        (JAPANESE, "iso2022_jp", "iso2022_jp"),
        (JAPANESE, "utf-16", "utf-16"),
        (JAPANESE, "utf-32", "utf-32"),
        (JAPANESE, "utf-16-le", "utf-16-le"),
        (JAPANESE, "utf-16-be", "utf-16-be"),
        ("plain,text\n", "utf-16-le", "utf-16-le"),
        ("①,Ⅲ,㈱髙島屋\n何階ですか,三階\n", "cp932", "cp932"),
        ("Où est né l'écrivain français? À Besançon, près de la forêt.\n", "cp1252", "cp1252"),
        ("Frage;Antwort\nWie heißt die größte Stadt Österreichs?;Wien\n", "cp1252", "cp1252"),
        ("Who’s the author? It’s “Jane”.\n", "cp1252", "cp1252"),
        ("Gdzie leży Łódź? W środkowej Polsce.\n", "cp1250", "cp1250"),
        ("Где находится Эрмитаж? В Санкт-Петербурге на берегу Невы.\n", "cp1251", "cp1251"),
        ("问题,答案\n中国的首都是哪里？,北京\n长江有多长？,六千三百公里\n", "gb18030", "gb18030"),
        ("問題,答案\n臺灣最高的山是什麼？,玉山\n台北在哪裡？,北部\n", "big5", "big5"),
        ("질문,답\n한국의 수도는 어디입니까?,서울\n", "cp949", "cp949"),
        ("", "utf-8", "utf-8"),
    ],
)
def test_the_encoding_is_found(text: str, written: str, expected: str) -> None:
    assert decode(text.encode(written)) == (text, expected)


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp"])
def test_japanese_paragraphs_are_told_apart(encoding: str) -> None:
    examples = list(read_examples("sample:jaquad.dev", ""))[:40]
    texts = [f"{e.question}\n{e.passages[0].text}\n" for e in examples]
    found = [decode(text.encode(encoding, "ignore")) for text in texts]
    assert {name for _, name in found} == {encoding}


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1b\ufeff")))
def test_what_is_named_or_marked_survives(text: str) -> None:
    assert decode(text.encode("utf-8")) == (text, "utf-8")
    assert decode(text.encode("utf-8-sig"))[0] == text
    assert decode(text.encode("utf-8-sig"), "utf-8")[0] == text
    assert decode(text.encode("utf-16"))[0] == text


def test_what_is_named_counts() -> None:
    content = "表,十\n".encode("cp932")
    assert decode(content, "Shift_JIS") == ("表,十\n", "shift_jis")
    with pytest.raises(ValueError, match=r"^not utf-8 \(byte 0\)$"):
        decode(content, "utf-8")
    with pytest.raises(ValueError, match=r"^'cp9322' is no encoding; perhaps cp9\d\d was meant$"):
        decode(content, "cp9322")
    with pytest.raises(ValueError, match="is no encoding"):
        decode(content, "base64")


@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"x" * 5000), bytes(range(256)) * 8, b"PK\x03\x04" + bytes(range(256)) * 3, b"\xff\xfe\x00\xd8"],
    ids=["gzip", "all bytes", "zip", "half a pair"],
)  # fmt: skip
def test_what_is_no_text_is_said(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(no text|not utf)"):
        decode(content)
