"""Asking a retriever many questions: in batches, to disk, and going on after a break."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ragtune.base.disk import disk_errors
from ragtune.base.files import appending, json_line, read_jsonl, remove, truncate
from ragtune.base.reading import open_plain
from ragtune.base.screen.progress import progress
from ragtune.base.stopping import stop_if_asked
from ragtune.building.questions import Question
from ragtune.building.retrieval.distributed import AT_ONCE as ON_RAY
from ragtune.building.retrieval.distributed import OnRay
from ragtune.building.retrieval.retrieved import Retrieved
from ragtune.building.retrieval.retriever import Hit, Retriever
from ragtune.store.proof import fingerprint

_AT_ONCE = 128
"""Questions that a retriever is asked at a time; what is in flight is what a kill costs."""
_PAIR = 2
"""A hit is a passage's id and its score."""
DEEPEST = 10_000
"""Passages of one search, at most."""


def search_all(retriever: Retriever, questions: Sequence[Question], k: int, path: Path) -> None:
    """Write what is found for each question to a file, in their order, after what it holds already.

    Args:
        retriever: who is asked.
        questions: which; their texts and order are those of whoever began the file.
        k: passages for each.
        path: the file; named by everything that the answers depend on.
    """
    done = _done(path, questions)
    if done >= len(questions):
        return
    if isinstance(retriever, Retrieved):
        retriever.tell([(q.qid, q.question) for q in questions])
    at_once = ON_RAY if isinstance(retriever, OnRay) else _AT_ONCE
    with (
        progress("Retrieving", len(questions), done=done, unit="questions") as update,
        appending(path) as file,
    ):
        for start in range(done, len(questions), at_once):
            stop_if_asked()
            some = questions[start : start + at_once]
            for one, hits in zip(some, _ask(retriever, some, k), strict=True):
                row = {"qid": one.qid, "hits": [[h.passage_id, h.score] for h in hits]}
                file.write(json_line(row))
            file.flush()
            update(start + len(some))


@contextmanager
def kept_while(key: object | None, work: Path) -> Iterator[Path]:
    """The file of what is retrieved: what a stopped build found is used where nothing changed since.

    Args:
        key: everything that the answers depend on; None of a caller's own retriever, which may answer
            otherwise today and is asked anew.
        work: the folder in which it lies.
    """
    path = work / f"found-{'own' if key is None else fingerprint(key)[:10]}.jsonl"
    for other in work.glob("found-*.jsonl"):
        if key is None or other != path:
            remove(other)
    yield path
    if key is None:
        remove(path)


def _ask(retriever: Retriever, questions: Sequence[Question], k: int) -> list[list[Hit]]:
    """A file of what was retrieved may know questions by their qids alone."""
    if isinstance(retriever, Retrieved):
        return retriever.of([(q.qid, q.question) for q in questions], k)
    return retriever.search([q.question for q in questions], k)


def read_found(path: Path) -> Iterator[list[Hit]]:
    """What was found for each question, in their order, best first."""
    for row in read_jsonl(path):
        yield [Hit(name, score) for name, score in row["hits"]]


def _done(path: Path, questions: Sequence[Question]) -> int:
    """For how many questions a file has what was found; from the first damaged line on it is cut off."""
    count = whole = 0
    with disk_errors(path):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            remove(path)
        if not path.exists():
            return 0
        with open_plain(path) as file:
            for one, line in zip(questions, file, strict=False):
                if not (line.endswith(b"\n") and _is_of(one.qid, line)):
                    break
                count += 1
                whole += len(line)
    truncate(path, whole)
    return count


def _is_of(qid: str, line: bytes) -> bool:
    """Whether a line says what was found for a question."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return False
    if not isinstance(row, dict) or row.get("qid") != qid or not isinstance(row.get("hits"), list):
        return False
    return all(
        isinstance(hit, list)
        and len(hit) == _PAIR
        and isinstance(hit[0], str)
        and isinstance(hit[1], int | float)
        for hit in row["hits"]
    )


def search_within(
    retriever: Retriever,
    questions: Sequence[Question],
    k: int,
    allowed: Callable[[Sequence[Hit]], list[Hit]],
    first: Sequence[Sequence[Hit]],
) -> list[list[Hit]]:
    """The k best allowed passages for each question: it is searched deeper until there are so many.

    Args:
        retriever: who is asked.
        questions: which.
        k: passages for each.
        allowed: those of some passages that may be shown.
        first: what was found for each without that limit.
    """
    found = [allowed(hits) for hits in first]
    depth = max((len(hits) for hits in first), default=0)
    short = [i for i, hits in enumerate(found) if len(hits) < k <= depth]
    while short and depth < DEEPEST:
        depth = min(4 * depth, DEEPEST)
        deeper = _ask(retriever, [questions[i] for i in short], depth)
        for i, hits in zip(short, deeper, strict=True):
            found[i] = allowed(hits)
        short = [
            i
            for i, hits in zip(short, deeper, strict=True)
            if len(found[i]) < k and len(hits) == depth  # else there are no more
        ]
    return [hits[:k] for hits in found]
