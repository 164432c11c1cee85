"""What a model was asked and what it answered, kept in a file: nothing is asked twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from ragtune.base.files import appending, json_line, whole_lines
from ragtune.base.lock import require_held
from ragtune.base.screen.console import warn
from ragtune.base.text import one_or_many
from ragtune.building.synthesis.prompts import VERSION
from ragtune.data.chat import Message
from ragtune.data.example import is_text

_LONGEST_LINE = 1 << 20
"""Bytes of an answer that was kept."""
MOST = 20_000
"""Characters of an answer that are kept: a question and an answer take some hundred."""


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation that a model is to go on with."""

    key: str
    """Of the model and the conversation: what has this key has this answer."""
    name: str
    """For messages: of which passage."""
    messages: list[Message]
    """The last one is the user's, with the passage or the question; those before it are an example."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and what it took in tokens, where that is known."""

    key: str
    text: str | None
    """None: it could not be asked, which is not kept."""
    prompt_tokens: int | None
    completion_tokens: int | None


def key_of(writer: str, messages: list[Message]) -> str:
    """The key of a request.

    Args:
        writer: the model and where it is.
        messages: what it is asked.
    """
    return hashlib.sha256(json.dumps([VERSION, writer, messages]).encode()).hexdigest()


class Answers:
    """The answers in a file, and those that come: each stands there as soon as it is known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = {one.key: one for one in _read(path)}
        self._file: IO[str] | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Within, answers can be added."""
        with appending(self.path) as file:
            self._file = file
            try:
                yield
            finally:
                self._file = None

    def add(self, answer: Answer) -> None:
        """Keep an answer. Raises if another run has taken the folder over."""
        assert self._file is not None
        self.known[answer.key] = answer
        self._file.write(json_line(asdict(answer)))
        self._file.flush()
        require_held()


def _read(path: Path) -> Iterator[Answer]:
    """The whole lines of a file of answers; a half-written last one is cut off."""
    damaged = 0
    for line in whole_lines(path, _LONGEST_LINE):
        answer = _answer(line)
        damaged += answer is None
        if answer is not None:
            yield answer
    if damaged:
        warn(
            f"{path}: {one_or_many(damaged, 'damaged line; what it', 'damaged lines; what they')} answered is "
            "asked again."
        )


def _answer(line: bytes) -> Answer | None:
    try:
        row = json.loads(line)
        answer = Answer(**row)
    except (ValueError, TypeError, RecursionError):  # whatever a broken disk makes of a line
        return None
    texts = isinstance(answer.key, str) and isinstance(answer.text, str) and is_text(answer.text)
    tokens = (answer.prompt_tokens, answer.completion_tokens)
    return answer if texts and all(one is None or type(one) is int for one in tokens) else None
