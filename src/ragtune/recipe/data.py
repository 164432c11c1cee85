"""The recipe's sections about what is asked: questions with their passages, and the prompt."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ragtune.recipe.formats import FieldOfRecord, QuestionFormat
from ragtune.recipe.section import Scalar, Section


class Data(Section):
    """Questions, their passages and answers."""

    source: Literal["aio"] | None = Field(
        None, description="aio: the data of llm-book/aio-retriever, downloaded (640 MB) and cached"
    )
    train: str | None = Field(
        None,
        description="a file (.jsonl, .json, .parquet, .csv, .tsv, .xlsx; * for several), a folder of "
        "save_to_disk, a Hub dataset (owner/name or owner/name:configuration:split), or sample:NAME",
    )
    eval: str | None = Field(None, description="the same, for the questions that are asked")
    format: QuestionFormat = Field(
        "auto", description="a public format, read as it is; auto: found by looking, and said"
    )
    fields: dict[FieldOfRecord, str] = Field(
        {}, description="fields that are called otherwise: {question: 質問, passages: ctxs}"
    )
    max_passages: int = Field(3, ge=1, description="passages shown with a question")
    shuffle_passages: bool = Field(False, description="shuffle the shown passages by the seed")
    redraw_negatives: int | None = Field(
        None,
        ge=2,
        description="in each epoch draw a training example's negatives anew from the first N passages of its "
        "record, the rank's reciprocal as their weight",
    )
    target: Literal["first", "random"] = Field(
        "first", description="which of several accepted answers is trained"
    )
    alternatives: str | None = Field(
        None,
        description="a field of the records with more accepted answers, separated by `, `; by default "
        "original_additional_info, where `competition` names a round of AI王",
    )
    cut_positives: Literal["drop", "refuse", "keep"] = Field(
        "drop",
        description="examples of which prompt.max_tokens (or the context) cuts all answers away. drop: neither "
        "trained nor counted as answerable; refuse: trained with the refusal; keep: as if nothing were lost",
    )
    refusal: str | None = Field(
        None,
        min_length=1,
        description="the answer to a question that the passages don't answer; without it such "
        "questions are left out",
    )
    unanswerable: float = Field(
        0.0, ge=0, lt=1, description="share of the training examples that are to be refused"
    )
    unanswerable_from: Literal["removed", "real"] = Field(
        "removed",
        description="removed: examples lose every passage with an answer; real: those with "
        "`answers: []`",
    )

    without_oracle: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training examples that lose every passage with an answer, and keep it",
    )

    @property
    def kept_passages(self) -> int:
        """How many of a training example's passages are kept: those that it may show."""
        return self.redraw_negatives or self.max_passages

    @model_validator(mode="after")
    def _complete(self) -> Data:
        if self.source is None and (self.train is None or self.eval is None):
            missing = " and ".join(k for k in ("train", "eval") if getattr(self, k) is None)
            raise ValueError(f"{missing} must be given, unless source is aio")
        if self.fields and self.format not in ("auto", "records"):
            raise ValueError("a format has its own fields: give format or fields")
        if self.refusal is not None and not any(map(str.isalnum, self.refusal)):
            raise ValueError(
                "refusal needs a letter: answers are compared without signs and spaces"
            )
        if self.kept_passages < self.max_passages or self.redraw_negatives == self.max_passages:
            raise ValueError("redraw_negatives needs more passages than max_passages shows")
        if self.without_oracle + self.unanswerable >= 1:
            raise ValueError(
                "without_oracle and unanswerable are shares of all examples: together below 1"
            )
        if self.unanswerable and self.refusal is None:
            raise ValueError("unanswerable needs refusal, the text that is to be answered then")
        if self.cut_positives == "refuse" and self.refusal is None:
            raise ValueError("cut_positives: refuse needs refusal, the text that is trained then")
        return self


class Prompt(Section):
    """How a question and its passages become the text that the model reads."""

    preset: Literal["aio", "english"] | None = Field(
        None, description="aio: the notebook's Japanese prompt; english: the same in English"
    )
    template: str | None = Field(
        None,
        description="your own Jinja template over `question` and `passages` (each has title and "
        "text), or the path of a .jinja file",
    )
    system: str | None = Field(None, description="a system message before the prompt")
    chat_template: str | None = Field(
        None,
        description="for a tokenizer without one: aio (the book's), plain (User:/Assistant:), or "
        "the path of a .jinja file; overrides the tokenizer's own",
    )
    template_arguments: dict[str, Scalar] = Field(
        {},
        description="variables that the chat template reads, such as {enable_thinking: false}; a server "
        "gets them as chat_template_kwargs",
    )
    citations: bool = Field(
        False,
        description="number the passages, and train answers that name those which support them: Paris [2]",
    )
    quote: bool = Field(
        False,
        description="train answers behind the sentence of a positive that they stand in: a line `> In Paris.` "
        "before `Paris`; it needs a larger evaluate.max_new_tokens",
    )
    max_tokens: int | None = Field(
        None,
        ge=16,
        description="a longer prompt loses passages from the end, then text; default: what the "
        "model can read less what it may write",
    )

    @model_validator(mode="after")
    def _one(self) -> Prompt:
        if (self.preset is None) == (self.template is None):
            raise ValueError("give either preset or template")
        return self
