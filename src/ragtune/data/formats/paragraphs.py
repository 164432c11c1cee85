"""Formats whose questions are asked of paragraphs that they bring: SQuAD, HotpotQA, RAFT."""

from __future__ import annotations

from collections.abc import Iterator

from ragtune.data.formats.format import (
    Fields,
    Format,
    Record,
    is_list_of,
    is_rows,
    kept,
    one_level,
    passage,
    words,
)

_JSQUAD = " [SEP] "
"""What stands in JSQuAD between the title and the text of a paragraph."""
_ANSWER = "<ANSWER>:"
"""What RAFT's script asks a model to write before the answer."""


def _squad(fields: Fields) -> Iterator[Record]:
    """A row of the Hub: one question."""
    yield _asked(fields, _paragraph(fields.text("context"), fields.maybe("title")))


def _article(fields: Fields) -> Iterator[Record]:
    """An article of the file: paragraphs, each with its questions."""
    for paragraph in fields.rows("paragraphs"):
        text = _paragraph(paragraph.text("context"), fields.maybe("title"))
        for question in paragraph.rows("qas"):
            yield _asked(question, text)


def _asked(question: Fields, paragraph: Record) -> Record:
    answers = [answer.maybe("text") for answer in question.rows("answers")]
    found = [] if question.maybe("is_impossible") is True else words(answers, question.where)
    return {
        "qid": question.maybe("id"),
        "question": question.text("question"),
        "answers": found,
        "passages": [paragraph],
        "positive_passage_indices": [0] if found else [],
        **kept(question, "question_type"),
    }


def _paragraph(text: str, title: object) -> Record:
    named, separator, rest = text.partition(_JSQUAD)
    if separator and named == title:
        return passage(rest, title)
    return passage(text, title)


def _hotpotqa(fields: Fields) -> Iterator[Record]:
    """HotpotQA's file, or a row of the Hub; 2WikiMultihopQA's are alike."""
    context = _pairs(fields, "context", "title", "sentences")
    gold = {title for title, _ in _pairs(fields, "supporting_facts", "title", "sent_id")}
    passages = [passage(_joined(sentences, fields), title) for title, sentences in context]
    yield {
        "qid": fields.maybe("_id") or fields.maybe("id"),
        "question": fields.text("question"),
        "answers": fields.words("answer"),
        "passages": passages,
        "positive_passage_indices": [i for i, p in enumerate(passages) if p["title"] in gold],
        **kept(fields, "type", "level"),
    }


def _pairs(fields: Fields, name: str, *keys: str) -> list[tuple[object, object]]:
    """A list of pairs, or of objects, or an object of lists."""
    value = fields.have(name)
    if not isinstance(value, list) or not any(isinstance(one, list) for one in value):
        return [(row.have(keys[0]), row.have(keys[1])) for row in fields.rows(name)]
    for number, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != len(keys):
            raise fields.wrong(f"{name}[{number}]", f"a pair: {', '.join(keys)}", pair)
    return [(pair[0], pair[1]) for pair in value]


def _joined(sentences: object, fields: Fields) -> str:
    """Sentences as one text; most begin with the space that parts them."""
    text = ""
    for sentence in _texts(sentences, fields):
        part = text and sentence and not text[-1].isspace() and not sentence[0].isspace()
        text += f" {sentence}" if part and sentence[0].isascii() else sentence
    return text.strip()


def _texts(value: object, fields: Fields) -> list[str]:
    if not isinstance(value, list) or not is_list_of(str, value):
        raise fields.wrong("context", "lists of texts", value)
    return value


def _raft(fields: Fields) -> Iterator[Record]:
    """What RAFT's script writes: some records have the oracle among their documents, some don't."""
    context = fields.inner("context")
    texts = _texts(one_level(context.have("sentences")), context)
    oracle = fields.text("oracle_context")
    reasoned = fields.text("cot_answer")
    _, marked, answer = reasoned.rpartition(_ANSWER)
    yield {
        "qid": fields.maybe("id"),
        "question": fields.text("question"),
        "answers": words([(answer if marked else reasoned).strip()], fields.where),
        "passages": [passage(text) for text in texts],
        "positive_passage_indices": [i for i, text in enumerate(texts) if text == oracle],
        **kept(fields, "type", "cot_answer"),
    }


def _is_squad(record: Record) -> bool:
    return isinstance(record.get("context"), str) and is_rows(record.get("answers"), "text")


def _is_article(record: Record, *, impossible: bool) -> bool:
    paragraphs = record.get("paragraphs")
    if not is_rows(paragraphs, "context", "qas") or not isinstance(paragraphs, list):
        return False
    asked = [q for p in paragraphs if isinstance(p["qas"], list) for q in p["qas"]]
    return any(isinstance(q, dict) and "is_impossible" in q for q in asked) == impossible


_ARTICLE = "articles: title, paragraphs, each with context and qas (id, question, answers)"
_ROW = "id, title, context (text), question, answers (text, answer_start)"

PARAGRAPHS = (
    Format("squad", "SQuAD 2", _ARTICLE, lambda r: _is_article(r, impossible=True), _article),
    Format("squad", "SQuAD", _ARTICLE, lambda r: _is_article(r, impossible=False), _article),
    Format("squad", "SQuAD 2", _ROW, lambda r: _is_squad(r) and "is_impossible" in r, _squad),
    Format("squad", "SQuAD", _ROW, lambda r: _is_squad(r) and "is_impossible" not in r, _squad),
    Format(
        "hotpotqa", "HotpotQA", "question, answer, context (title and sentences), supporting_facts",
        lambda r: "supporting_facts" in r and "context" in r and "question" in r, _hotpotqa,
    ),
    Format(
        "raft", "RAFT", "question, context (sentences), oracle_context, cot_answer",
        lambda r: "oracle_context" in r and "cot_answer" in r, _raft,
    ),
)  # fmt: skip
