"""Work grows with the text: what takes n² steps somewhere would not end here, and is killed.

Nothing is timed. Each text is so long that the square of its length is hours, and its own length a second.
"""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import UsageError
from ragtune.base.screen.visible import in_line, named, visible
from ragtune.base.secrets import HIDDEN, hide, kind_of, scan
from ragtune.base.text import nearest
from ragtune.data.example import MAX_ANSWERS, MAX_PASSAGES, parse_example
from ragtune.data.overlap import TrainingText, question_key
from ragtune.data.select import nearly_positive
from ragtune.data.words import LONG, aio_undeleted, find_answer, nfkc, stands_by_rule
from ragtune.recipe.yaml import dump_yaml
from ragtune.reporting.answers import AnswerRow, islands, pieces
from ragtune.scoring.metrics import METRICS

pytestmark = pytest.mark.timeout(60)

N = 200_000


def long(piece: str) -> str:
    return (piece * N)[:N]


@pytest.mark.parametrize("piece", ["\x1b[2J", "a.", "eyJ-", "hf_", "sk-", "a://b@"])
def test_texts_that_are_told_and_searched_for_secrets(piece: str) -> None:
    text = long(piece)
    for work in (
        hide,
        kind_of,
        visible,
        in_line,
        named,
        lambda t: list(scan({"a": {"b": t}})),
        nearest_of,
    ):
        work(text)


def nearest_of(text: str) -> None:
    assert nearest(text, ["model.id", "train.steps"]) is None


@pytest.mark.parametrize(
    "piece", ["「", "『「」", "\u0301\u0323", "\uff9e\u0323", "・", "ab ", "。", "a an the ", "!"]
)
def test_texts_by_every_rule(piece: str) -> None:
    text = long(piece)
    question_key(text)
    example = parse_example(record(question=text, passages=[text], answers=[text, "b", "ab a"]), "")
    assert example.positive_passage_indices == (0,)
    nearly_positive(example, 1)
    for metric in METRICS.values():
        assert 0 <= metric(example, text + "x") <= 1


@pytest.mark.parametrize("piece", ["a", "ab ", "1,", "」"])
@pytest.mark.parametrize(
    "answer", ["a", "ab a", "ab " * 60 + "a", "a" * 150, "a" * (N // 2), "1,1", "」"]
)
def test_answers_are_looked_for_in_one_pass(piece: str, answer: str) -> None:
    text = long(piece)
    find_answer(text, answer)
    stands_by_rule(text, answer)
    assert "".join(pieces(text, [answer, "zzz", "b"])) == text


def record(**changes: Any) -> dict[str, Any]:
    found = {"question": "?", "answers": ["b"], "passages": ["b"], **changes}
    return {**found, "passages": [{"text": text} for text in found["passages"]]}


@pytest.mark.parametrize("piece", ["<&\u2028", "a."])
def test_rows_and_recipes(piece: str) -> None:
    text = long(piece)
    example = parse_example(record(passages=[text]), "")
    row = AnswerRow("q", text, ("a", "b"), example.passages, text, text, True, False, prompt=text)
    listed, _ = islands([row])
    assert json.loads(listed)[0]["before"] == named(text)
    assert dump_yaml({"prompt": {"template": text}})


@pytest.mark.parametrize(
    ("train", "text"),
    [
        ("a" * 64, "a" * N),
        ("abcdefg " * 8, ("abcdefg " * 8 + "#") * (N // 65)),
        ("abc " * (N // 4), "d" + "abc " * (N // 4)),
        (
            "".join(chr(0x4E00 + i) for i in range(6400)) * 100,
            "#".join("".join(chr(0x4E00 + 64 * i + k) for k in range(64)) for i in range(100)) * 100,
        ),
    ],
)  # fmt: skip
def test_text_that_training_holds_again_and_again(tmp_path: Path, train: str, text: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"passages": [{"text": train}]}) + "\n")
    training = TrainingText(path)
    training.add(0, [train])
    training.shared(text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"passages": ["b"] * 300_000}, "passages has 300,000 entries; at most 10,000 are taken"),
        ({"answers": ["b"] * 300_000}, "answers has 300,000 entries; at most 1,000 are taken"),
    ],
)
def test_a_record_of_very_many(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=f"^a:1: {words}"):
        parse_example(record(**changes), "a:1")


def test_a_record_of_as_many_as_are_taken() -> None:
    many = record(
        passages=["x"] * MAX_PASSAGES, answers=["b"] * MAX_ANSWERS,
        positive_passage_indices=[0] * N, original="c, " * N,
    )  # fmt: skip
    example = parse_example(many, "a:1")
    assert example.positive_passage_indices == (0,)
    with pytest.raises(UsageError, match=r"original has 200,001 answers.*at most 1,000"):
        example.alternatives("original")


# What was made quick says what it said before.


def test_accents_are_put_in_order_as_unicode_does() -> None:
    for written in (
        "が",
        "Å",
        "e\u0301\u0323" * 100,
        "ｶﾞ" * 200,
        "a" + "\u0301\u0323" * 10,
        "・" * 300 + "が" + "─" * 300,
    ):
        assert nfkc(written) == unicodedata.normalize("NFKC", written)
    assert nfkc("a" + "\u0301\u0323" * 1000).count("\u0301") == 1000


@pytest.mark.parametrize("answer", ["ab", "1", "1,1", "ab a", "b", "ﾞ", "é", "a.", "."])
@pytest.mark.parametrize("piece", ["cab ", "1,1", "xab-", "ab ab a", "1.1 ", "éab", "a.b.c"])
def test_many_places_are_looked_at_as_one(piece: str, answer: str) -> None:
    """Among very many places the first that is a whole word is found: what a single look says of it."""
    text = piece * 50 + " " + answer + " " + piece * 50
    places = [i for i in range(len(text)) if text.startswith(answer, i)]
    whole = [i for i in places if one_place(text, i, answer)]
    assert find_answer(text, answer) == (whole[0] if whole else -1)
    assert find_answer(text, answer, 60) == next((i for i in whole if i >= 60), -1)


def one_place(text: str, start: int, answer: str) -> bool:
    """Whether it stands there, asked with nothing but what is around."""
    left, right = max(0, start - 2), start + len(answer) + 2
    return find_answer(text[left:right], answer) >= 0 and find_answer(text[left:right], answer, start - left) == start - left  # fmt: skip


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("「a」", "a"), ("「a「b」", "a「b"), ("「a\n」", "「a\n」"), ("『「x」』", "x"), ("「「」」", "「」"),
        ("a」「b", "a」「b"), ("「", "「"), ("「」", ""),
    ],
)  # fmt: skip
def test_brackets_go_as_the_rule_says(text: str, plain: str) -> None:
    assert aio_undeleted(text) == plain


def test_a_long_answer_stands_at_any_place() -> None:
    answer = "word " * LONG
    assert find_answer(f"x{answer}", answer) == 1
    assert stands_by_rule(f"X{answer}x".upper(), answer)
    assert not stands_by_rule("word " * 10, answer)


@pytest.mark.parametrize(
    "token",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc-_1",
        "xeyJ" + "a" * 900 + ".eyJ0123456789.a",
    ],
)
def test_tokens_are_still_hidden(token: str) -> None:
    token = token.removeprefix("x")
    assert hide(f"Bearer {token}, and more") == f"Bearer {HIDDEN}, and more"
    assert hide("git+ssh://me:secret@host/x") == f"git+ssh://{HIDDEN}@host/x"
