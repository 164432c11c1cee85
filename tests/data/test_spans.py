"""What can be copied: whatever tokens are chosen, they write a span of one passage, or the refusal."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from ragtune.base.errors import UsageError
from ragtune.data.spans import Paths, Source, Spans
from ragtune.data.tokenizer import special_ids
from ragtune.data.turn import Turn
from ragtune.data.words import stands
from tests.asking.test_pieces import byte_level, sentence_piece

LETTERS = "ab Pé\n.,13富士がか\u3099🗼👩\u200d🚀Ａ"
texts = st.lists(
    st.one_of(
        st.text(LETTERS, max_size=12),
        st.sampled_from(["the capital of France is Paris.", "富士山は3776 mの山である。", " ", "🗼🗼", "</s>"]),
    ),
    max_size=3,
)  # fmt: skip
MAKE = {"byte_level": byte_level, "sentence_piece": sentence_piece}


@cache
def tokenizer(kind: str) -> Any:
    return MAKE[kind]()


@cache
def spans(kind: str, refusal: str | None, lead: str = "", closing: str = "") -> Spans:
    made = tokenizer(kind)
    return Spans(
        made, Turn(0, lead, closing, "", (False, False)), frozenset(special_ids(made)), refusal
    )


def steps(paths: Paths, alive: set[int]) -> dict[int, set[int]]:
    """What may follow, and where it leads."""
    found: dict[int, set[int]] = {}
    for start, token, end in zip(paths.starts, paths.tokens, paths.ends, strict=True):
        if start in alive:
            found.setdefault(token, set()).add(end)
    return found


def leads_to_an_end(paths: Paths, ids: Sequence[int]) -> bool:
    alive = {*paths.first}
    for i in ids:
        alive = steps(paths, alive).get(i, set())
    return bool(alive & {*paths.last})


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize(("lead", "closing"), [("", ""), (" ", " "), ("\n", ".\n")])
@given(texts=texts, refusal=st.sampled_from([None, "No answer", "答えはない"]), data=st.data())
def test_every_way_writes_a_span_of_one_passage_or_the_refusal(
    kind: str, lead: str, closing: str, texts: list[str], refusal: str | None, data: Any
) -> None:
    one = spans(kind, refusal, lead, closing)
    paths = one.paths(texts)
    alive, ids = {*paths.first}, list[int]()
    shown = [*enumerate(texts)]
    stopped = False
    for _ in range(40):
        following = steps(paths, alive)
        may_stop = bool(alive & {*paths.last})
        assert following or may_stop  # no way ends where nothing may follow
        choices = sorted(following) + ["stop"] * may_stop
        choice = data.draw(st.sampled_from(choices))
        if choice == "stop":
            stopped = True
            break
        ids.append(choice)
        alive = following[choice]
    text, source = one.read(ids, shown, stopped=stopped)
    if source is None:
        assert text in ("", refusal)
        assert text or not stopped or not any(map(str.strip, texts))
    else:
        assert texts[source.passage][source.start : source.end] == text == text.strip() != ""
        assert all(text not in other for other in texts[: source.passage]) or stopped
    if stopped and text:  # what the tokenizer itself says of these tokens
        whole = tokenizer(kind).decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert whole.strip() == (text + closing).strip()


@pytest.mark.parametrize("kind", MAKE)
@given(texts=texts, data=st.data())
@example(texts=["It is 3.5 km to Paris."], data=None)
def test_every_answer_that_stands_in_a_passage_can_be_given(
    kind: str, texts: list[str], data: Any
) -> None:
    one, made = spans(kind, None), tokenizer(kind)
    assume(any(map(str.strip, texts)))
    if data is None:
        answer, place = "3.5 km", 0
    else:
        place = data.draw(st.sampled_from([i for i, text in enumerate(texts) if text.strip()]))
        first = data.draw(st.integers(0, len(texts[place]) - 1))
        last = data.draw(st.integers(first + 1, len(texts[place])))
        answer = texts[place][first:last].strip()
    assume(answer and stands(texts[place], answer))
    paths = one.paths(texts)
    ids = made.encode(answer, add_special_tokens=False, split_special_tokens=True)
    assert leads_to_an_end(paths, ids)
    text, source = one.read(ids, [*enumerate(texts)], stopped=True)
    assert text == answer
    assert source is not None


ACROSS = (
    ".",
    "\n",
    "▁▁",
    "▁a",
    "▁ab",
    "\n▁",
    "\n▁a",
    "\na",
    "ab",
    "b▁a",
    "a▁",
    "▁a▁b",
    "b.",
    ".▁",
    ".\n",
    "▁.",
)
"""Tokens that hold a blank and what stands behind it, or before it."""


def allowed(texts: Sequence[str], leads: set[str], refusal: str | None) -> set[str]:
    """What may be written before the closing: by looking at every span of every text."""
    found = {refusal} if refusal else set[str]()
    for text in texts:
        for start, end in itertools.combinations(range(len(text) + 1), 2):
            span, borders = text[start:end], (i for i in (start, end) if 0 < i < len(text))
            inside = any(text[i - 1 : i + 1].isalpha() for i in borders)
            if span == span.strip() and not inside:
                found.add(span)
    return {lead + span for lead in leads for span in found}


def cuts(text: str, tokens: Mapping[str, int]) -> Iterator[tuple[int, ...]]:
    """Every way to write a text by tokens."""
    if not text:
        yield ()
    for token, i in tokens.items():
        if text.startswith(token):
            yield from ((i, *rest) for rest in cuts(text[len(token) :], tokens))


def ways(paths: Paths, node: int, tokens: Collection[int]) -> Iterator[tuple[int, ...]]:
    """Every way of these tokens from a node to an end."""
    if node in paths.last:
        yield ()
    for start, token, end in zip(paths.starts, paths.tokens, paths.ends, strict=True):
        if start == node and token in tokens:
            yield from ((token, *rest) for rest in ways(paths, end, tokens))


@pytest.mark.parametrize("refusal", [None, "b a"])
@pytest.mark.parametrize(
    ("lead", "closing"),
    [("", ""), (" ", "."), ("\n ", ""), ("  ", ".\n"), (" \n", "?"), ("b ", "")],
)
def test_the_ways_are_those_to_write_what_may_be_said_and_no_others(
    lead: str, closing: str, refusal: str | None
) -> None:
    made = sentence_piece(*ACROSS)
    ids = {token.replace("▁", " "): i for token, i in made.get_vocab().items()}
    # No token is a "b" alone, so that not every place goes on.
    control = frozenset(special_ids(made)) | {ids.pop("b"), ids["<0x62>"]}
    one = Spans(made, Turn(0, lead, closing, "", (False, False)), control, refusal)
    # Of the tokens that are bytes one alone is looked at: by all of them there would be too many ways.
    tokens = {token: i for token, i in ids.items() if {*token} <= {*"ab.\n "}} | {
        "?": ids["<0x3F>"]
    }
    for texts in ([], [" "], ["ab"], ["a b.", "a"], [" ab a\nb"]):
        paths = one.paths(texts)
        assert {*paths.first, *paths.ends} <= {*paths.last, *paths.starts}  # each goes on
        found = {way for node in paths.first for way in ways(paths, node, tokens.values())}
        said, ends = allowed(texts, {"", " ", lead}, refusal), [*cuts(closing, tokens)]
        expected = {(*cut, *end) for text in said for cut in cuts(text, tokens) for end in ends}
        assert found == (expected or {()})


def test_neither_a_part_of_a_word_nor_one_of_a_number() -> None:
    one = spans("byte_level", None)
    paths, encode = one.paths(["the year 2016, 3.5 km"]), tokenizer("byte_level").encode
    for answer, may in (("year", True), ("ear", False), ("yea", False), ("3.5", True), ("3", False),
                        ("2016", True), ("20", False), ("2016,", True), (" year", True)):  # fmt: skip
        assert leads_to_an_end(paths, encode(answer, add_special_tokens=False)) is may, answer


def test_the_source_is_the_first_passage_of_the_prompt_in_which_it_stands() -> None:
    one, encode = spans("byte_level", "No answer"), tokenizer("byte_level").encode
    shown = [(4, "an island, and land"), (0, "land")]
    ids = encode("land", add_special_tokens=False)
    assert one.read(ids, shown, stopped=True) == ("land", Source(4, 15, 19))
    refusal = encode("No answer", add_special_tokens=False)
    assert one.read(refusal, [(0, "No answer")], stopped=True) == ("No answer", None)
    # It was cut off, and could only have become the refusal.
    assert one.read(refusal[:-1], shown, stopped=False) == ("No answer", None)


def test_with_nothing_to_copy_the_answer_is_empty() -> None:
    one = spans("byte_level", None)
    for nothing in ([], [""], [" \n"]):
        paths = one.paths(nothing)
        assert not steps(paths, {*paths.first})
        assert {*paths.first} & {*paths.last}
        assert one.read([], [*enumerate(nothing)], stopped=True) == ("", None)


def test_a_control_token_that_a_passage_writes_out_is_never_the_token() -> None:
    paths = spans("byte_level", None).paths(["a </s> b"])
    assert tokenizer("byte_level").eos_token_id not in paths.tokens


def test_tokens_of_unknown_text_are_refused() -> None:
    from tokenizers import Tokenizer, decoders, models

    inner = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    inner.decoder = decoders.WordPiece()
    odd = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")
    with pytest.raises(UsageError, match="its decoder is of the kind WordPiece") as error:
        Spans(odd, Turn(0, "", "", "", (False, False)), (), None)
    assert "evaluate.copy=false" in error.value.advice
