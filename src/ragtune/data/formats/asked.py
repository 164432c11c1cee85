"""Formats of questions without passages: Natural Questions, TriviaQA, KILT, AI王, conversations, feedback."""

from __future__ import annotations

from collections.abc import Iterator

from ragtune.base.errors import UsageError
from ragtune.data.formats.format import (
    Fields,
    Format,
    Record,
    is_list_of,
    is_rows,
    kept,
    passage,
    words,
)
from ragtune.data.words import stands


def _nq(fields: Fields) -> Iterator[Record]:
    yield {
        "qid": fields.maybe("id"),
        "question": fields.text("question"),
        "answers": fields.words("answer"),
    }


def _trivia_row(fields: Fields) -> Iterator[Record]:
    """A row of the Hub; in the configuration `rc` it brings whole pages."""
    answer = fields.inner("answer")
    found: Record = {
        "qid": fields.maybe("question_id"),
        "question": fields.text("question"),
        "answers": words([answer.have("value"), *(answer.maybe("aliases") or [])], fields.where),
        **kept(fields, "question_source"),
    }
    pages = _pages(fields, "entity_pages", "wiki_context")
    pages += _pages(fields, "search_results", "search_context")
    titles = [row.maybe("title") for row in fields.maybe_rows("entity_pages")]
    if pages:
        found["passages"] = pages
    yield found | _documents(titles)


def _trivia_file(fields: Fields) -> Iterator[Record]:
    """A question of the original files."""
    answer = fields.inner("Answer")
    titles = [row.maybe("Title") for row in fields.maybe_rows("EntityPages")]
    yield {
        "qid": fields.maybe("QuestionId"),
        "question": fields.text("Question"),
        "answers": words([answer.have("Value"), *(answer.maybe("Aliases") or [])], fields.where),
    } | _documents(titles)


def _pages(fields: Fields, name: str, text: str) -> list[Record]:
    rows = [row for row in fields.maybe_rows(name) if row.maybe(text)]
    return [passage(row.text(text), row.maybe("title")) for row in rows]


def _documents(titles: list[object]) -> Record:
    named = [title for title in dict.fromkeys(titles) if isinstance(title, str) and title]
    return {"documents": named} if named else {}


def _kilt(fields: Fields) -> Iterator[Record]:
    """KILT names the pages that hold the answer, and brings none."""
    outputs = fields.rows("output")
    sources = [source for output in outputs for source in output.maybe_rows("provenance")]
    yield {
        "qid": fields.maybe("id"),
        "question": fields.text("input"),
        "answers": words([output.maybe("answer") for output in outputs], fields.where),
    } | _documents([source.maybe("title") for source in sources])


def _aio(fields: Fields) -> Iterator[Record]:
    """AI王's TSV; its JSONL has `question` and `answers`, too."""
    asked = "question" if fields.maybe("question") else "original_question"
    answered = "answers" if fields.maybe("answers") else "original_answer"
    yield {
        "qid": fields.maybe("qid"),
        "question": fields.text(asked),
        "answers": fields.words(answered),
        **kept(fields, "competition", "timestamp", "section", "number", "original_question",
               "original_answer", "original_additional_info"),
    }  # fmt: skip


def _messages(fields: Fields) -> Iterator[Record]:
    yield _exchange(
        fields, "messages", "role", "content", {"user": "user", "assistant": "assistant"}
    )


def _sharegpt(fields: Fields) -> Iterator[Record]:
    roles = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
    yield _exchange(fields, "conversations", "from", "value", roles)


def _exchange(fields: Fields, name: str, by: str, what: str, roles: dict[str, str]) -> Record:
    """The first question and its answer: what comes later may mean nothing by itself."""
    question = None
    for turn in fields.rows(name):
        role = roles.get(str(turn.have(by)))
        if role == "user":
            question = _content(turn, what)
        elif role == "assistant" and question is not None:
            return {
                "qid": fields.maybe("id"),
                "question": question,
                "answers": words([_content(turn, what)], turn.where),
            }
    raise UsageError(
        f"{fields.where}: no {fields.title}: there is no question with an answer behind it.",
        f"{fields.title} has {fields.wanted}.",
    )


def _content(turn: Fields, name: str) -> str:
    """What is said; the text of it, where it is in parts."""
    value = turn.have(name)
    if is_list_of(dict, value):
        return "".join(part.text("text") for part in turn.rows(name) if part.maybe("text"))
    return turn.text(name)


def _feedback(fields: Fields) -> Iterator[Record]:
    """What `ragtune demo` keeps; a thumb by which no right answer is known is no question."""
    right, unanswerable = fields.words("right"), fields.maybe("unanswerable") is True
    if not right and not unanswerable:
        return
    found: Record = {"question": fields.text("question"), "answers": [] if unanswerable else right}
    rows = fields.maybe_rows("passages")
    if rows:  # pasted by the user, so that no index has them
        found["passages"] = [passage(row.text("text"), row.maybe("title")) for row in rows]
        found["positive_passage_indices"] = [
            i
            for i, row in enumerate(rows)
            if any(stands(row.text("text"), a) for a in found["answers"])
        ]
    yield found | kept(fields, "model", "at")


def _is_feedback(record: Record) -> bool:
    return record.get("thumb") in ("up", "down") and "right" in record


def _is_nq(record: Record) -> bool:
    if not isinstance(record.get("question"), str) or not is_list_of(str, record.get("answer")):
        return False
    return not {"answers", "context", "passages", "ctxs"} & record.keys()


def _is_trivia_row(record: Record) -> bool:
    answer = record.get("answer")
    return isinstance(answer, dict) and "value" in answer and "aliases" in answer


def _is_aio(record: Record) -> bool:
    return {"original_question", "original_answer"} <= record.keys() and "passages" not in record


def _is_kilt(record: Record) -> bool:
    return isinstance(record.get("input"), str) and (
        is_list_of(dict, record.get("output")) or is_rows(record.get("output"), "answer")
    )


ASKED = (
    Format("nq-open", "Natural Questions (open)", "question, answer (a list)", _is_nq, _nq),
    Format(
        "triviaqa", "TriviaQA", "question, question_id, answer (value, aliases)", _is_trivia_row,
        _trivia_row,
    ),
    Format(
        "triviaqa", "TriviaQA", "Question, QuestionId, Answer (Value, Aliases)",
        lambda r: "Question" in r and isinstance(r.get("Answer"), dict), _trivia_file,
    ),
    Format("kilt", "KILT", "input, output (answer, provenance)", _is_kilt, _kilt),
    Format("aio", "AI王", "original_question, original_answer", _is_aio, _aio),
    Format(
        "messages", "messages", "messages (role, content)",
        lambda r: is_rows(r.get("messages"), "role", "content"), _messages,
    ),
    Format(
        "sharegpt", "ShareGPT", "conversations (from, value)",
        lambda r: is_rows(r.get("conversations"), "from", "value"), _sharegpt,
    ),
    Format("feedback", "feedback of ragtune demo", "question, thumb, right (a list)", _is_feedback, _feedback),
)  # fmt: skip
