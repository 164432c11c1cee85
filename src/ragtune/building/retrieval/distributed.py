"""Past one machine: questions and shards of an index over the workers of a Ray cluster.

An index lies where all nodes see it (NFS, FSx, a mounted bucket) and is only read while it is searched. A
task that a lost node leaves unfinished is done again on another: a question's answer is the same there, as
it depends on the question and the index alone.

A corpus that is larger than a host is cut into shards by a hash of the passages' ids. What a word weighs
depends on how many passages hold it: that is counted in all shards first (`shard.py`), as shards that count
for themselves would put passages in another order, the more so the smaller they are (bench/shards.py).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import itertools
import logging
import os
import socket
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from ragtune.base.commands import install
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.screen.console import note
from ragtune.base.screen.progress import busy
from ragtune.base.text import first_line
from ragtune.building.retrieval.pieces import pieces
from ragtune.building.retrieval.retriever import Entry, Hit, Index
from ragtune.building.retrieval.shard import Counts, LexicalShard

if TYPE_CHECKING:
    from ray import ObjectRef

T = TypeVar("T")
Found = list[list[Hit]]

QUESTIONS = 256
"""Of a task, at most: seconds of work, so that what a lost node costs is little."""
AT_ONCE = 8192
"""Questions of a search, at best: with fewer, many processors would wait for the last tasks of each."""
PASSAGES = 20_000
"""Of a task that adds them."""
_AHEAD = 4
"""Tasks under way for each processor: enough that none is idle, few enough that results don't pile up."""
_PATIENCE = 10.0
"""Seconds in which a cluster must answer."""
_RETRIES = 10
"""How often a task is begun again whose node or process was lost."""


@dataclass
class OnRay:
    """An index that a Ray cluster searches: one that every worker opens, or several shards of one.

    Attributes:
        shards: each opens a shard, on a worker: `partial(LexicalShard.open, folder, "ja")`. With one
            alone, `partial(LexicalIndex.read, folder)`, only the questions are dealt out.
        address: of the cluster, host:port; auto: the one that this machine belongs to.
    """

    shards: Sequence[Callable[[], Index]]
    address: str = "auto"
    changes: int = 0
    """How often it was changed: what a worker opened before is opened again."""

    def search(self, questions: Sequence[str], k: int) -> Found:
        """At most k passages for each question, best first; equal scores in the order of their ids.

        Raises:
            UsageError: Ray is not installed, or there is no cluster.
            RagtuneError: a task failed, for another reason than a lost node.
        """
        _connect(self.address)
        parts = list(pieces(questions, _size(len(questions))))
        counts = self._counts(parts)
        tasks = (
            (shard, opener, _search, (piece, k, counts))
            for piece in parts
            for shard, opener in enumerate(self.shards)
        )
        results = self._run(tasks)
        found: Found = []
        with busy("searching on the cluster", len(questions), unit="questions") as update:
            for _ in parts:
                found += merge(list(itertools.islice(results, len(self.shards))), k)
                update(len(found))
        return found

    def index(self, passages: Iterable[Entry]) -> None:
        """Add passages, each to the shard of its id. Each shard is written by one task at a time."""
        _connect(self.address)
        count = 0
        with busy("indexing on the cluster", unit="passages") as update:
            for piece in pieces(passages, PASSAGES * len(self.shards)):
                by_shard: defaultdict[int, list[Entry]] = defaultdict(list)
                for entry in piece:
                    by_shard[shard_of(entry.passage_id, len(self.shards))].append(entry)
                self._change(_index, by_shard)
                count += len(piece)
                update(count)

    def remove(self, passage_ids: Iterable[str]) -> None:
        """Remove passages; ids that aren't there are no error."""
        _connect(self.address)
        by_shard: defaultdict[int, list[str]] = defaultdict(list)
        for one in passage_ids:
            by_shard[shard_of(one, len(self.shards))].append(one)
        self._change(_remove, by_shard)

    def _counts(self, parts: Sequence[list[str]]) -> ObjectRef | None:
        """How common the questions' terms are in all shards; None where that is no question."""
        if len(self.shards) == 1 or not parts:
            return None
        import ray  # noqa: PLC0415 - an extra

        tasks = [
            (shard, opener, _count, (piece,))
            for piece in parts
            for shard, opener in enumerate(self.shards)
        ]
        every = list(self._run(tasks))
        # A term that several pieces have is counted once for each shard.
        by_shard: list[Counts] = []
        for shard in range(len(self.shards)):
            found = [counts for counts in every[shard :: len(self.shards)] if counts is not None]
            if not found:
                return None
            holding = {term: n for counts in found for term, n in counts.holding.items()}
            by_shard.append(Counts(found[0].passages, holding))
        return ray.put(Counts.sum(by_shard))

    def _change(self, change: Callable[..., None], by_shard: dict[int, list[T]]) -> None:
        deque(
            self._run(
                (shard, self.shards[shard], change, (items,)) for shard, items in by_shard.items()
            ),
            maxlen=0,
        )
        self.changes += 1

    def _run(
        self, tasks: Iterable[tuple[int, Callable[[], Index], Callable[..., T], tuple[object, ...]]]
    ) -> Iterator[T]:
        """The results of tasks, in their order; some are under way before they are asked for."""
        import ray  # noqa: PLC0415 - an extra
        from ray import cloudpickle  # noqa: PLC0415 - the same

        nodes = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])
        ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        begun: deque[ObjectRef] = deque()
        try:
            for shard, opener, act, arguments in tasks:
                packed = cloudpickle.dumps((self.changes, opener))
                task = ray.remote(max_retries=_RETRIES, num_cpus=1)(act)
                where = self._where(nodes, shard)
                begun.append(task.options(scheduling_strategy=where).remote(packed, *arguments))
                if len(begun) >= ahead:
                    yield cast("T", _result(begun.popleft()))
            while begun:
                yield cast("T", _result(begun.popleft()))
        finally:  # Ctrl-C, too, leaves no work behind
            for ref in begun:
                ray.cancel(ref)

    def _where(self, nodes: Sequence[str], shard: int) -> object:
        """On which node a task is best done: a shard always on the same, which has read it; else anywhere."""
        from ray.util import scheduling_strategies  # noqa: PLC0415 - an extra

        if len(self.shards) == 1:
            return "SPREAD"
        return scheduling_strategies.NodeAffinitySchedulingStrategy(
            nodes[shard % len(nodes)], soft=True
        )


def shard_of(passage_id: str, count: int) -> int:
    """The shard, from 0, of a passage: by a hash, so that shards are alike and nothing has to be remembered."""
    return int.from_bytes(hashlib.sha256(passage_id.encode()).digest()[:8], "big") % count


def merge(every: Sequence[Found], k: int) -> Found:
    """The best k of what several shards found for the same questions, by score, then id."""
    return [
        sorted(itertools.chain(*lists), key=lambda hit: (-hit.score, hit.passage_id))[:k]
        for lists in zip(*every, strict=True)
    ]


@functools.lru_cache(maxsize=8)
def _opened(packed: bytes) -> Index:
    """An index as this worker opened it once; what is unpacked is what the cluster's driver sent."""
    from ray import cloudpickle  # noqa: PLC0415 - an extra

    _, opener = cloudpickle.loads(packed)
    index: Index = opener()
    return index


def _count(packed: bytes, questions: Sequence[str]) -> Counts | None:
    """None of an index that counts no words: scores of vectors mean the same in every shard."""
    index = _opened(packed)
    return index.counts(questions) if isinstance(index, LexicalShard) else None


def _search(packed: bytes, questions: Sequence[str], k: int, counts: Counts | None) -> Found:
    index = _opened(packed)
    if counts is not None and isinstance(index, LexicalShard):
        return index.search_with(questions, k, counts)
    return index.search(questions, k)


def _index(packed: bytes, passages: Sequence[Entry]) -> None:
    _opened(packed).index(passages)


def _remove(packed: bytes, passage_ids: Sequence[str]) -> None:
    _opened(packed).remove(passage_ids)


def _connect(address: str) -> None:
    """Connect to a cluster, if that is not done.

    Raises:
        UsageError: Ray is not installed, or there is no cluster.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "Searching on a cluster needs the package ray, which is not installed.",
            f"Run, on every node: {install('ray>=2.50')}",
        )
    import ray  # noqa: PLC0415 - an extra

    if ray.is_initialized():
        return
    _require_answer(address)
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # said once, and not for each task
    try:
        ray.init(
            address=address, log_to_driver=False, logging_level=logging.ERROR, namespace="ragtune"
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(address, error) from error
    resources = ray.cluster_resources()
    alive = sum(node["Alive"] for node in ray.nodes())
    note(f"Ray: {alive} nodes, {resources.get('CPU', 0):.0f} processors.")


def _require_answer(address: str) -> None:
    """Require that somebody answers at host:port: Ray would try for minutes.

    Raises:
        UsageError: nobody does.
    """
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdecimal()) or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except OSError as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> UsageError:
    return UsageError(
        f"There is no Ray cluster at {address}: {first_line(error)}",
        "Start one: ray start --head on one machine, and what that prints on the others.",
    )


def _result(ref: ObjectRef) -> object:
    import ray  # noqa: PLC0415 - an extra

    try:
        found: object = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RagtuneError):
            raise error.cause from None
        raise RagtuneError(
            f"A task on the cluster failed: {first_line(error.cause)}",
            "If a module or a file is missing: every node needs ragtune with the same extras, and sees "
            "the index under the same path.",
        ) from error
    except ray.exceptions.RayError as error:
        raise RagtuneError(
            f"The cluster lost a task {_RETRIES + 1} times: {first_line(error)}",
            "See that a node is left which has memory enough (ray status), and run it again.",
        ) from error
    return found


def _size(questions: int) -> int:
    """Questions of a task: few where there are few, so that all workers have some."""
    import ray  # noqa: PLC0415 - an extra

    workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
    return min(QUESTIONS, max(1, -(-questions // (workers * _AHEAD))))
