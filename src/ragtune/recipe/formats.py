"""Formats of questions with answers, and what their fields mean: the names that a recipe and a corpus use."""

from __future__ import annotations

from typing import Literal

QuestionFormat = Literal[
    "auto", "records", "squad", "hotpotqa", "nq-open", "triviaqa", "msmarco", "miracl", "kilt",
    "dpr", "fid", "flashrag", "raft", "rag-fit", "messages", "sharegpt", "aio",
    "feedback",
]  # fmt: skip
"""Of questions with answers: the schema of our own records, or a public format."""

FieldOfRecord = Literal[
    "qid", "question", "answers", "passages", "text", "title", "passage_id", "positive"
]  # fmt: skip
"""What a recipe may name in its records; the last four are of a passage."""
