"""A real Ray cluster of two nodes on this machine, of which one is removed in the middle."""

from __future__ import annotations

import functools
import importlib.util
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.building.retrieval import distributed
from ragtune.building.retrieval.distributed import OnRay, merge, shard_of
from ragtune.building.retrieval.known import KnownPassages
from ragtune.building.retrieval.lexical import LexicalIndex
from ragtune.building.retrieval.own import as_retriever
from ragtune.building.retrieval.retriever import Entry, Hit
from ragtune.building.retrieval.shard import Counts, LexicalShard

WORDS = [
    "pump", "valve", "oil", "lid", "filter", "hose", "motor", "fuse", "cable", "switch", "gauge", "tank",
    "wheel", "gear", "belt", "seal",
]  # fmt: skip
ENTRIES = [
    Entry(
        f"p{n:03d}", f"Part {n % 7}", " ".join(WORDS[(n * step) % 16] for step in (1, 3, 5, 7, 11))
    )
    for n in range(200)
]
QUESTIONS = [f"{WORDS[n % 16]} {WORDS[n * 3 % 16]} {WORDS[n // 16 % 16]}" for n in range(240)]


class Slow:
    """A real index that takes its time, so that a node can go while it is searched."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.inner, self.seconds = LexicalIndex.read(folder), seconds

    def search(self, questions: Sequence[str], k: int) -> list[list[Hit]]:
        time.sleep(self.seconds * len(questions))
        return self.inner.search(questions, k)


def fails() -> Any:
    raise UsageError("There is no index at this place.", "Build one.")


def breaks() -> Any:
    raise ModuleNotFoundError("No module named 'tantivy'")


@st.composite
def lists(draw: st.DrawFn) -> list[list[Hit]]:
    ids = draw(st.lists(st.integers(0, 99), unique=True, max_size=30))
    hits = [Hit(f"p{n}", draw(st.sampled_from([0.5, 1.0, 2.0]))) for n in ids]
    cut = draw(st.integers(0, len(hits)))
    return [
        sorted(part, key=lambda h: (-h.score, h.passage_id)) for part in (hits[:cut], hits[cut:])
    ]


@given(lists(), st.integers(1, 12))
def test_merged_shards_are_the_best_of_all(parts: list[list[Hit]], k: int) -> None:
    every = sorted((hit for part in parts for hit in part), key=lambda h: (-h.score, h.passage_id))
    assert merge([[part[:k]] for part in parts], k) == [every[:k]]


def test_shards_are_of_like_size() -> None:
    shards = [shard_of(f"manual.pdf#{n}", 4) for n in range(4000)]
    assert all(900 < shards.count(one) < 1100 for one in range(4))
    assert shards[:4] == [shard_of(f"manual.pdf#{n}", 4) for n in range(4)]


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package ray") as raised:
        OnRay([fails]).search(["q"], 1)
    assert raised.value.advice == "Run, on every node: pip install 'ray>=2.50'"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    import ray
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 1, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    cluster.add_node(**options)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_the_answer_is_the_single_machines(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = LexicalIndex.open(tmp_path / "index", "en")
    alone.index(ENTRIES)
    expected = alone.search(QUESTIONS, 5)
    assert all(expected)

    slow = OnRay([functools.partial(Slow, tmp_path / "index", 0.05)], cluster.address)
    monkeypatch.setattr(distributed, "QUESTIONS", 8)
    leaving = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    cluster.wait_for_nodes()
    begun = time.monotonic()
    removed: list[float] = []

    def remove() -> None:
        cluster.remove_node(leaving, allow_graceful=False)
        removed.append(time.monotonic() - begun)

    timer = threading.Timer(2.0, remove)
    timer.start()
    assert slow.search(QUESTIONS, 5) == expected
    took = time.monotonic() - begun
    timer.join()
    assert removed, "the node was there to the end"
    assert removed[0] < took

    sharded = OnRay(
        [functools.partial(LexicalShard.open, tmp_path / f"shard-{n}", "en") for n in range(2)],
        cluster.address,
    )
    sharded.index(ENTRIES)
    parts = [LexicalShard.read(tmp_path / f"shard-{n}") for n in range(2)]
    assert [len(part) for part in parts] == [
        sum(shard_of(e.passage_id, 2) == n for e in ENTRIES) for n in range(2)
    ]
    found = sharded.search(QUESTIONS, 5)
    counts = Counts.sum([part.counts(QUESTIONS) for part in parts])
    assert found == merge([part.search_with(QUESTIONS, 5, counts) for part in parts], 5)
    sharded.remove([e.passage_id for e in ENTRIES[10:]])
    left = {hit.passage_id for hits in sharded.search(QUESTIONS, 20) for hit in hits}
    assert left <= {e.passage_id for e in ENTRIES[:10]}
    assert left

    read = OnRay([functools.partial(LexicalIndex.read, tmp_path / "index")], cluster.address)
    assert as_retriever(read, KnownPassages.of(ENTRIES)).search(QUESTIONS[:20], 5) == expected[:20]

    with pytest.raises(UsageError, match="There is no index at this place") as raised:
        OnRay([fails], cluster.address).search(QUESTIONS, 1)
    assert raised.value.advice == "Build one."
    with pytest.raises(
        RagtuneError, match="A task on the cluster failed: No module named 'tantivy'"
    ):
        OnRay([breaks], cluster.address).search(QUESTIONS, 1)


@pytest.mark.slow
def test_no_cluster() -> None:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    ray.shutdown()
    with pytest.raises(UsageError, match=r"There is no Ray cluster at 127\.0\.0\.1:1: "):
        OnRay([fails], "127.0.0.1:1").search(["q"], 1)
