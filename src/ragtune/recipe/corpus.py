"""The corpus: how documents and questions become examples, typed.

A file of its own beside the recipe: one corpus serves many recipes (another model, another prompt), and
building it needs no model's name.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ragtune.recipe.formats import QuestionFormat
from ragtune.recipe.names import Endpoint, Name
from ragtune.recipe.section import Scalar, Section


class Documents(Section):
    """What is read."""

    files: list[str] = Field(
        [],
        description="files, folders, globs, archives (.zip, .tar.gz), or datasets of the Hub "
        "(owner/name, owner/name:split, owner/name:configuration:split)",
    )
    fields: dict[Literal["id", "title", "text"], str] = Field(
        {}, description="columns of tables and records that are called otherwise: {text: 本文}"
    )
    encoding: str | None = Field(
        None, description="of text files, such as cp932; default: found by looking, and said"
    )
    reader: Literal["auto", "docling"] = Field(
        "auto",
        description="docling: for scans and hard layouts (slow; it recognises letters in pictures)",
    )
    license: str | None = Field(
        None,
        description="the licence of the documents, as you state it: stands in the model's card",
    )
    attribution: str | None = Field(
        None, description="where the documents come from: stands in the model's card"
    )


_PRESETS = {"book": (400, 100), "aio": (400, 0)}
"""Size and overlap. The book's own chunks; and those of AI王's passages (jawiki-…-c400: whole sentences of
one section, as many as fit in 400 characters, none twice)."""


class Passages(Section):
    """How documents are cut into passages: by headings, then sentences."""

    preset: Literal["book", "aio"] | None = Field(
        "book", description="book: 400 characters with an overlap of 100; aio: 400 without"
    )
    size: int | None = Field(None, ge=20, description="longest passage; overrides the preset's")
    overlap: int | None = Field(
        None,
        ge=0,
        description="how much of the one before a passage repeats, in whole sentences; overrides the preset's",
    )
    unit: Literal["characters", "tokens"] = Field(
        "characters", description="what size and overlap count"
    )
    tokenizer: str | None = Field(
        None, min_length=1, description="the model whose tokens are counted: Hub id or folder"
    )
    language: str = Field(
        "auto",
        pattern=r"^(auto|[a-z]{2,3})$",
        description="of documents and questions: ja, en, …; auto: found by looking, and said",
    )

    @model_validator(mode="after")
    def _counted(self) -> Passages:
        if self.unit == "tokens" and self.tokenizer is None:
            raise ValueError("unit: tokens needs tokenizer, the model whose tokens are counted")
        if self.unit != "tokens" and self.tokenizer is not None:
            raise ValueError("tokenizer is given, but characters are counted: set unit: tokens")
        if self.preset is None and self.size is None:
            raise ValueError("give either preset or size")
        if 2 * self.shared >= self.longest:
            raise ValueError(
                f"overlap ({self.shared}) must be less than half of size ({self.longest})"
            )
        return self

    @property
    def longest(self) -> int:
        """Of a passage, in units."""
        return self.size or _PRESETS[self.preset or "book"][0]

    @property
    def shared(self) -> int:
        """The overlap, in units; of a size of one's own the preset's share."""
        if self.overlap is not None:
            return self.overlap
        size, overlap = _PRESETS[self.preset] if self.preset else (1, 0)
        return overlap * self.longest // size


class Generate(Section):
    """Questions written by a model, for those who have documents only."""

    model: str = Field(
        min_length=1,
        description="who writes them: the name that a server has for it, or a local model",
    )
    endpoint: Endpoint | None = Field(
        None,
        description="the server's address, such as http://localhost:8000/v1; default: a local model",
    )
    count: int = Field(
        100, ge=1, description="passages that a question is written for; not all are kept"
    )
    max_new_tokens: int = Field(
        200, ge=16, description="longest reply, in tokens; a model that thinks first needs more"
    )
    template_arguments: dict[str, Scalar] = Field(
        {},
        description="variables that the model's chat template reads, such as {enable_thinking: false}; a "
        "server gets them as chat_template_kwargs",
    )
    evaluate: bool = Field(
        False, description="use some of them for evaluation, too, where there are real ones"
    )
    concurrency: int = Field(8, ge=1, description="requests to a server at a time")


class Questions(Section):
    """What is asked, with the right answers."""

    files: list[str] = Field(
        [], description="CSV, TSV, Excel, JSONL, JSON or Parquet files, or datasets of the Hub"
    )
    eval: list[str] = Field(
        [], description="questions that are only for evaluation; without them, some of files are"
    )
    format: QuestionFormat = Field(
        "auto", description="a public format, read as it is; auto: found by looking, and said"
    )
    fields: dict[Literal["qid", "question", "answers", "document", "passage", "title"], str] = (
        Field(
            {},
            description="columns that are called otherwise: {question: 質問, answers: 正解}; document and "
            "passage name where the answer stands",
        )
    )
    separator: str | None = Field(
        None, min_length=1, description="between several answers in one cell, such as ;"
    )
    eval_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="share of the documents whose questions are for evaluation"
    )
    generate: Generate | None = Field(None, description="let a model write questions")

    @model_validator(mode="after")
    def _some(self) -> Questions:
        if not self.files and self.generate is None:
            raise ValueError("name files with questions, or let a model write some: generate")
        if not self.files and not self.eval and self.generate and not self.generate.evaluate:
            raise ValueError(
                "generate alone leaves no questions to evaluate with: give eval, or generate.evaluate: true"
            )
        if self.eval and self.generate and self.generate.evaluate:
            raise ValueError(
                "eval names the questions to evaluate with, and generate.evaluate would add others: leave one "
                "of the two away"
            )
        return self


class Retrieval(Section):
    """How passages are found."""

    retriever: Literal["lexical", "dense", "hybrid", "file"] = Field(
        "lexical",
        description="lexical: BM25; dense: by a model's embeddings; hybrid: both, by reciprocal rank fusion; "
        "file: ids that were retrieved elsewhere",
    )
    passages: int = Field(10, ge=1, le=1000, description="passages retrieved for a question")
    model: str | None = Field(
        None, description="of sentence-transformers, for dense and hybrid: Hub id or folder"
    )
    reranker: str | None = Field(
        None, description="a cross-encoder that puts what was found in order: Hub id or folder"
    )
    ray: str | None = Field(
        None,
        description="a Ray cluster that searches the index of words (host:port, or auto): all its nodes see "
        "the corpus's folder",
    )
    shards: int = Field(
        1,
        ge=1,
        le=1000,
        description="parts of that index on the cluster, for more than one machine holds",
    )
    retrieved: str | None = Field(
        None, description="for file: JSONL with {qid, passage_ids} a line, best first"
    )

    @model_validator(mode="after")
    def _whole(self) -> Retrieval:
        if self.retriever in ("dense", "hybrid") and self.model is None:
            raise ValueError(f"retriever: {self.retriever} needs model")
        if (self.retriever == "file") != (self.retrieved is not None):
            raise ValueError("retriever: file and retrieved go together")
        if self.retriever == "file" and self.reranker is not None:
            raise ValueError("retriever: file has its order; leave reranker away")
        if self.ray is not None and self.retriever in ("dense", "file"):
            raise ValueError(f"ray searches the index of words, and retriever is {self.retriever}")
        if self.shards > 1 and self.ray is None:
            raise ValueError("shards needs ray, the cluster's address")
        return self


class Corpus(Section):
    """Documents and questions, and how they become examples."""

    format: Literal[1] = Field(1, description="version of this file's format")
    name: Name = Field(description="names the folder: corpora/NAME (letters, digits, . _ -)")
    seed: int = Field(42, ge=0, lt=2**32, description="seeds everything that is drawn")
    documents: Documents
    passages: Passages = Passages()
    questions: Questions
    retrieval: Retrieval = Retrieval()
