"""Formats whose questions bring what was retrieved for them: MS MARCO, MIRACL, DPR, FiD, RAG-FiT, FlashRAG."""

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

_NO_ANSWER = "No Answer Present."
"""What MS MARCO writes for an answer where there is none."""


def _msmarco(fields: Fields) -> Iterator[Record]:
    rows = fields.rows("passages")
    answers = [answer for answer in fields.words("answers") if answer != _NO_ANSWER]
    selected = [i for i, row in enumerate(rows) if row.have("is_selected") in (1, True)]
    found = {
        "qid": fields.maybe("query_id"),
        "question": fields.text("query"),
        "answers": answers,
        "passages": [passage(row.text("passage_text"), None, row.maybe("passage_id")) for row in rows],
        **kept(fields, "query_type", "wellFormedAnswers"),
    }  # fmt: skip
    if selected or not answers:  # an answer whose passage nobody selected may still stand in one
        found["positive_passage_indices"] = selected if answers else []
    yield found


def _miracl(fields: Fields) -> Iterator[Record]:
    """MIRACL's; Tevatron's data are alike, and bring answers."""
    gold = [_ranked(row, "docid") for row in fields.rows("positive_passages")]
    others = fields.maybe_rows("negative_passages")
    yield {
        "qid": fields.maybe("query_id"),
        "question": fields.text("query"),
        "answers": fields.words("answers") if fields.maybe("answers") else [],
        "passages": [*gold, *(_ranked(row, "docid") for row in others)],
        "positive_passage_indices": list(range(len(gold))),
    }


def _dpr(fields: Fields) -> Iterator[Record]:
    """DPR's training data: gold passages, then hard negatives, then the others."""
    gold = [_ranked(row, "passage_id", "psg_id") for row in fields.rows("positive_ctxs")]
    others = [
        _ranked(row, "passage_id", "psg_id")
        for name in ("hard_negative_ctxs", "negative_ctxs")
        for row in fields.maybe_rows(name)
    ]
    yield {
        "qid": fields.maybe("id"),
        "question": fields.text("question"),
        "answers": fields.words("answers"),
        "passages": [*gold, *others],
        "positive_passage_indices": list(range(len(gold))),
        **kept(fields, "dataset"),
    }


def _fid(fields: Fields) -> Iterator[Record]:
    """FiD's data, and what DPR's retriever writes. `has_answer` is found by text, as ours is."""
    target = fields.maybe("target")
    answers = fields.words("answers") if fields.maybe("answers") or target is None else []
    yield {
        "qid": fields.maybe("id"),
        "question": fields.text("question"),
        "answers": words([*([] if target is None else [target]), *answers], fields.where),
        "passages": [_ranked(row, "id") for row in fields.rows("ctxs")],
    }


def _flashrag(fields: Fields) -> Iterator[Record]:
    """FlashRAG's data, and what its pipelines save, with what was retrieved."""
    found = {
        "qid": fields.maybe("id"),
        "question": fields.text("question"),
        "answers": fields.words("golden_answers"),
    }
    output, metadata = fields.maybe("output"), fields.maybe("metadata")
    if isinstance(output, dict) and is_rows(output.get("retrieval_result"), "contents"):
        found["passages"] = [
            _contents(row) for row in fields.inner("output").rows("retrieval_result")
        ]
    elif isinstance(metadata, dict) and is_rows(metadata.get("context"), "title"):
        found |= _of_metadata(fields.inner("metadata"))
    yield found


def _of_metadata(metadata: Fields) -> Record:
    """The paragraphs that FlashRAG keeps of HotpotQA and 2WikiMultihopQA."""
    rows = metadata.rows("context")
    gold = {row.maybe("title") for row in metadata.maybe_rows("supporting_facts")}
    passages = []
    for row in rows:
        sentences = row.maybe("sentences") or row.maybe("content") or []
        if not is_list_of(str, sentences):
            raise row.wrong("sentences", "a list of texts", sentences)
        passages.append(passage("".join(sentences).strip(), row.text("title")))
    found: Record = {"passages": passages}
    if gold:
        found["positive_passage_indices"] = [
            i for i, row in enumerate(rows) if row.maybe("title") in gold
        ]
    return found


def _contents(row: Fields) -> Record:
    """A document of FlashRAG's: its title in the first line, in quotation marks."""
    title, newline, text = row.text("contents").partition("\n")
    if not newline:
        return passage(title, None, row.maybe("id"))
    return passage(text, title.strip('"'), row.maybe("id"))


def _ragfit(fields: Fields) -> Iterator[Record]:
    """What RAG-FiT's processing writes. Its `positive_passages` are what was retrieved: none is gold."""
    passages = []
    for name in ("positive_passages", "negative_passages"):
        # Its sampler makes lists of lists, its joiner one text.
        for one in one_level(fields.maybe(name) or []):
            if isinstance(one, dict) and isinstance(one.get("content"), str):
                passages.append(passage(one["content"], one.get("title")))
            elif isinstance(one, str):
                passages.append(passage(one))
            else:
                raise fields.wrong(name, "texts, or objects with content", one)
    yield {
        "qid": fields.maybe("id"),
        "question": fields.text("query"),
        "answers": fields.words("answers"),
        "passages": passages,
    }


def _ranked(row: Fields, *ids: str) -> Record:
    named = next((row.maybe(name) for name in ids if row.maybe(name) is not None), None)
    return passage(row.text("text"), row.maybe("title"), named)


def _is_miracl(record: Record) -> bool:
    both = [record.get(name) for name in ("positive_passages", "negative_passages")]
    return "query" in record and both[0] is not None and all(
        value is None or is_rows(value, "docid", "text") for value in both
    )  # fmt: skip


def _is_ragfit(record: Record) -> bool:
    return {"query", "answers", "positive_passages"} <= record.keys() and not _is_miracl(record)


RETRIEVED = (
    Format(
        "msmarco", "MS MARCO", "query, answers, passages (is_selected, passage_text)",
        lambda r: "query" in r and is_rows(r.get("passages"), "is_selected", "passage_text"), _msmarco,
    ),
    Format(
        "miracl", "MIRACL", "query, positive_passages and negative_passages (docid, title, text)",
        _is_miracl, _miracl, first=True,
    ),
    Format(
        "dpr", "DPR", "question, answers, positive_ctxs, negative_ctxs, hard_negative_ctxs (title, text)",
        lambda r: "question" in r and "positive_ctxs" in r, _dpr, first=True,
    ),
    Format(
        "fid", "FiD", "question, answers or target, ctxs (title, text)",
        lambda r: "question" in r and "ctxs" in r and not {"positive_ctxs", "passages"} & r.keys(), _fid,
    ),
    Format(
        "flashrag", "FlashRAG", "question, golden_answers (a list), metadata",
        lambda r: "question" in r and "golden_answers" in r, _flashrag,
    ),
    Format("rag-fit", "RAG-FiT", "query, answers, positive_passages", _is_ragfit, _ragfit),
)  # fmt: skip
