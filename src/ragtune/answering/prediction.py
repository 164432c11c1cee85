"""An answer, the files that hold answers, and going on from those that an earlier run left."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from ragtune.base.files import appending, json_line, read_jsonl, whole_lines, write_jsonl
from ragtune.base.lock import require_held
from ragtune.base.screen.activity import Update
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.progress import progress
from ragtune.base.text import one_or_many
from ragtune.data.spans import Source


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer: its text, its token ids without the stop token, and whether it stopped by itself."""

    qid: str
    prediction: str
    token_ids: list[int]
    """None of a server's answer: it doesn't say them."""
    stopped: bool
    probability: float | None = None
    """Of these tokens and the stop token, if the model might write anything; None of a server's answer."""
    source: Source | None = None
    """Where it was copied from (`evaluate.copy`); None of a refusal, and of what was written freely."""
    unsure: bool = False
    """Whether `evaluate.refuse_below` refused, in the place of what the model wrote: without a probability."""

    @staticmethod
    def of(row: Mapping[str, Any]) -> Prediction:
        """What a line of a file says; those of older versions say less."""
        source = row.get("source")
        return Prediction(**{**row, "source": Source(**source) if source else None})


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a predictions.jsonl."""
    write_jsonl(path, map(asdict, predictions))


def read_predictions(path: Path) -> list[Prediction]:
    """The answers in a predictions.jsonl.

    Raises:
        RagtuneError: a line is damaged.
    """
    return [Prediction.of(row) for row in read_jsonl(path)]


@dataclass
class Kept:
    """Answers, each of which stands in an unfinished predictions file as soon as it is there."""

    qids: Sequence[str]
    """The questions, in order."""
    done: dict[str, Prediction]
    file: IO[str]
    update: Update

    def add(self, predictions: Iterable[Prediction]) -> None:
        """Keep answers. Raises if another run has taken the directory over."""
        for one in predictions:
            self.done[one.qid] = one
            self.file.write(partial_line(one))
        self.file.flush()
        self.update(len(self.done))
        require_held()

    def in_words(self) -> str:
        """How many are kept."""
        return _in_words(len(self.done), len(self.qids))

    def in_order(self) -> list[Prediction]:
        return [self.done[qid] for qid in self.qids]


@contextlib.contextmanager
def keeping(partial: Path, qids: Sequence[str], title: str) -> Iterator[Kept]:
    """Go on with the answers to some questions, as far as an earlier run came; with a progress bar."""
    wanted = set(qids)
    done = {p.qid: p for p in read_partial(partial) if p.qid in wanted}
    if done:
        note(f"Going on: {_in_words(len(done), len(wanted))}")
    with (
        progress(title, len(qids), done=len(done), unit="questions") as update,
        appending(partial) as file,
    ):
        yield Kept(qids, done, file, update)


def _in_words(done: int, of: int) -> str:
    return f"{done:,} of {of:,} answers {'is' if done == 1 else 'are'} kept."


def read_partial(path: Path) -> Iterator[Prediction]:
    """The whole lines of an unfinished predictions file; a half-written last one is cut off."""
    damaged = 0
    for line in whole_lines(path):
        one = _read_line(line.decode("utf-8", "replace"))
        damaged += one is None
        if one is not None:
            yield one
    if damaged:
        again = "that question is" if damaged == 1 else "those questions are"
        warn(f"{path}: {one_or_many(damaged, 'damaged line')}; {again} asked again.")


def _read_line(line: str) -> Prediction | None:
    try:
        row = json.loads(line)
        check = row.pop("check", None)  # older versions wrote none
        return Prediction.of(row) if check in (None, _check(row)) else None
    except (ValueError, TypeError, AttributeError):  # whatever a broken disk makes of a line
        return None


def partial_line(prediction: Prediction) -> str:
    """A line of an unfinished predictions file, with a checksum."""
    row = asdict(prediction)
    return json_line({**row, "check": _check(row)})


def _check(row: dict[str, Any]) -> int:
    return zlib.crc32(json_line(row).encode())
