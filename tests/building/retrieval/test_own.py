"""A retriever of the user's own, in every form in which it may come: the examples of docs/documents.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.building.retrieval.known import KnownPassages
from ragtune.building.retrieval.own import as_retriever
from ragtune.building.retrieval.retriever import Entry, Hit

KNOWN = KnownPassages.of(
    [
        Entry("pump.md#1", "Pump", "Close the valve\n  before you open the lid."),
        Entry("pump.md#2", "Pump", "Oil it once a year."),
        Entry("7", "", "日本一高い山は富士山である。"),
    ]
)
QUESTIONS = ["When do I oil it?", "And the lid?"]


def ids(own: object, k: int = 10) -> list[list[str]]:
    return [
        [hit.passage_id for hit in hits] for hits in as_retriever(own, KNOWN).search(QUESTIONS, k)
    ]


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    for name in ("note", "warn"):
        monkeypatch.setattr(f"ragtune.building.retrieval.own.{name}", lines.append)
    return lines


# Exactly the interfaces of langchain_core (Document, BaseRetriever) and llama_index.core.schema, as far as
# a retriever shows them. By hand they were tried with langchain-core 1.8.3 and llama-index-core 0.14.25.
@dataclass
class Document:
    page_content: str
    metadata: dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    type: str = "Document"


class LangChain:
    """invoke and batch, and no more: a Runnable can't be called."""

    def __init__(self, documents: list[Document]) -> None:
        self.documents = documents

    def invoke(
        self,
        input: str,  # noqa: A002 - its name there
        config: object = None,
        **kwargs: Any,
    ) -> list[Document]:
        return self.documents

    def batch(
        self,
        inputs: list[str],
        config: object = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[list[Document]]:
        return [self.invoke(one) for one in inputs]


@dataclass
class TextNode:
    text: str
    id_: str = "a made-up one"
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def node_id(self) -> str:
        return self.id_

    def get_content(self, metadata_mode: str = "none") -> str:
        return self.text


@dataclass
class NodeWithScore:
    node: TextNode
    score: float | None = None

    @property
    def node_id(self) -> str:
        return self.node.node_id

    def get_content(self, metadata_mode: str = "none") -> str:
        return self.node.get_content()


class LlamaIndex:
    def __init__(self, nodes: list[NodeWithScore]) -> None:
        self.nodes = nodes

    def retrieve(self, str_or_query_bundle: str) -> list[NodeWithScore]:
        return self.nodes


def of_question(question: str) -> list[str]:
    return ["pump.md#2", "7"]


def of_question_and_k(question: str, k: int) -> list[tuple[str, float]]:
    return [("pump.md#2", 3.5), ("7", 1.25), ("pump.md#1", 1.25)][:k]


def of_questions(questions: list[str]) -> list[list[str]]:
    return [["pump.md#2"], ["pump.md#1"]]


def by_annotation(asked: Sequence[str], *, k: int) -> list[list[str]]:
    return [["7", "pump.md#2"][:k] for _ in asked]


class Searching:
    def search(self, questions: Sequence[str], k: int) -> list[list[Hit]]:
        return [[Hit("pump.md#1", 2.0)][:k] for _ in questions]


class Object:
    def __call__(self, question: str, limit: int = 5) -> list[dict[str, object]]:
        return [{"passage_id": 7, "score": np.float32(0.5)}, {"text": "Oil it once a year."}]


@pytest.mark.parametrize(
    ("own", "found", "form"),
    [
        (of_question, [["pump.md#2", "7"]] * 2, "of_question(question)"),
        (of_question_and_k, [["pump.md#2", "7", "pump.md#1"]] * 2, "of_question_and_k(question, k)"),
        (of_questions, [["pump.md#2"], ["pump.md#1"]], "of_questions(questions)"),
        (by_annotation, [["7", "pump.md#2"]] * 2, "by_annotation(questions, k)"),
        (lambda q: [7], [["7"]] * 2, "<lambda>(question)"),
        (Object(), [["7", "pump.md#2"]] * 2, "Object(question)"),
        ({QUESTIONS[0]: ["7"], QUESTIONS[1]: []}.get, [["7"], []], "get(question)"),
        (Searching(), [["pump.md#1"]] * 2, "search(questions, k)"),
        (
            LangChain([Document("Oil it once a year."), Document("…", {"passage_id": "7"}),
                       Document("…", id="pump.md#1")]),
            [["pump.md#2", "7", "pump.md#1"]] * 2,
            "a retriever of LangChain: batch(questions)",
        ),
        (
            LlamaIndex([NodeWithScore(TextNode("Oil it  once a year.\n"), 0.5),
                        NodeWithScore(TextNode("…", "7"), 0.25),
                        NodeWithScore(TextNode("…", metadata={"passage_id": "pump.md#1"}), 0.125)]),
            [["pump.md#2", "7", "pump.md#1"]] * 2,
            "a retriever of LlamaIndex: retrieve(question)",
        ),
    ],
)  # fmt: skip
def test_each_form(own: object, found: list[list[str]], form: str, said: list[str]) -> None:
    assert ids(own) == found
    assert said[0].endswith(f"is asked as {form}.")


def test_scores_that_fall_are_kept() -> None:
    assert as_retriever(of_question_and_k, KNOWN).search(["q"], 2)[0] == [
        Hit("pump.md#2", 3.5),
        Hit("7", 1.25),
    ]
    nodes = LlamaIndex([NodeWithScore(TextNode("", "7"), 0.5)])
    assert as_retriever(nodes, KNOWN).search(["q"], 2) == [[Hit("7", 0.5)]]


@pytest.mark.parametrize("scores", [(0.1, 0.9), (0.5, float("nan")), (0.5, None)])
def test_distances_and_gaps_count_as_ranks(scores: tuple[float, float]) -> None:
    def own(question: str) -> list[dict[str, object]]:
        return [{"id": "7", "score": scores[0]}, {"id": "pump.md#1", "score": scores[1]}]

    assert as_retriever(own, KNOWN).search(["q"], 2)[0] == [Hit("7", 1.0), Hit("pump.md#1", 0.5)]


def test_a_passage_counts_once_and_k_are_kept() -> None:
    assert ids(lambda q: ["7", "7", "pump.md#1", "pump.md#2"], k=2) == [["7", "pump.md#1"]] * 2


def test_what_is_unknown_is_counted_and_said_once(said: list[str]) -> None:
    retriever = as_retriever(lambda q: ["7", "no.md#1"], KNOWN)
    assert [len(hits) for hits in retriever.search(QUESTIONS, 2)] == [1, 1]
    retriever.search(QUESTIONS, 2)
    assert said[1:] == [
        "retriever: 2 of what <lambda> found are no passages of this corpus, and are left out; the first: 'no.md#1'.",
        "retriever: <lambda> found at most 1 passage for a question; 2 were asked for.",
    ]


def test_a_single_one_that_is_unknown(said: list[str]) -> None:
    as_retriever(lambda q: ["7", "no.md#1"], KNOWN).search(["q"], 2)
    assert said[1] == (
        "retriever: 1 of what <lambda> found is no passage of this corpus, and is left out; the first: 'no.md#1'."
    )


def test_a_question_without_any_passage_of_ours_is_no_fault_later() -> None:
    retriever = as_retriever({"a": ["7"], "b": ["no.md#1"]}.get, KNOWN)
    assert retriever.search(["a"], 1) == [[Hit("7", 1.0)]]
    assert retriever.search(["b"], 1) == [[]]


def refusal(own: object) -> str:
    with pytest.raises(RagtuneError) as raised:
        as_retriever(own, KNOWN).search(QUESTIONS, 2)
    return str(raised.value)


def fails(question: str) -> list[str]:
    raise ConnectionError("nobody at localhost:9200")


async def later(question: str) -> list[str]:
    return ["7"]


def other(question: str, *, index: str) -> list[str]:
    return ["7"]


class VectorStore:
    def as_retriever(self) -> object: ...


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            fails,
            "fails raised ConnectionError: nobody at localhost:9200 (asked: 'When do I oil it?' and",
        ),
        (later, "later is asynchronous."),
        (other, "other takes index, which nobody gives it."),
        (lambda: ["7"], "takes no question."),
        (
            lambda q: "7",
            "<lambda>('When do I oil it?') returned str, which is no list of passages.",
        ),
        (lambda q: None, "returned NoneType, which is no list of passages."),
        (lambda q: [3.5], "<lambda>('When do I oil it?'): [0] is float, which names no passage."),
        (lambda q: [{}], "[0] is dict, which names no passage."),
        (lambda q: [("7", "good")], "[0] has a score that is no number: str."),
        (lambda questions: [["7"]], "returned 1 for 2 questions."),
        (
            lambda q: ["nowhere"],
            "of what <lambda> found (2), nothing is a passage of this corpus; the first: 'nowh",
        ),
        (LangChain, "LangChain is a class.\nGive an object of it: LangChain(…)."),
        (
            VectorStore(),
            "VectorStore is no retriever, but can make one.\nGive what its as_retriever() returns.",
        ),
        ("pump.md#1", "str can't be asked for passages."),
    ],
)
def test_what_is_wrong_is_said(own: object, message: str) -> None:
    assert message in refusal(own)


def test_a_single_question_that_gets_too_many_lists() -> None:
    with pytest.raises(UsageError, match=r"returned 2 for 1 question\."):
        as_retriever(lambda questions: [["7"], ["7"]], KNOWN).search(QUESTIONS[:1], 2)


def test_nothing_found_is_no_fault() -> None:
    assert ids(lambda q: []) == [[], []]
    with pytest.raises(UsageError):
        ids(lambda q: ["nowhere"])


class WildError(Exception):
    """Of somebody's own: it can't even be said."""

    def __str__(self) -> str:
        raise ValueError("no words")

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(f"\x1b[2J{name}")


@pytest.mark.parametrize(
    "item", [10**5000, WildError(), [WildError(), 1.0]], ids=["number", "object", "pair"]
)
def test_what_has_a_mind_of_its_own_is_said(item: object) -> None:
    with pytest.raises(RagtuneError, match="returned what can't be read") as raised:
        as_retriever(lambda question: [item], KNOWN).search(QUESTIONS, 3)
    assert "\x1b" not in raised.value.message


def test_an_error_without_words() -> None:
    def wild(question: str) -> list[str]:
        raise WildError

    with pytest.raises(RagtuneError, match=r"wild raised WildError \(asked"):
        as_retriever(wild, KNOWN).search(QUESTIONS, 3)
