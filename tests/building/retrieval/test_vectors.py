"""Exact search by vectors: the same as sorting all of them, whatever was added, replaced and removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragtune.base.errors import RagtuneError
from ragtune.building.retrieval import vectors
from ragtune.building.retrieval.retriever import Hit
from ragtune.building.retrieval.vectors import Matrix, Vectors

DIMENSION = 8


def drawn(count: int, seed: int = 0) -> Matrix:
    found = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def names(count: int) -> list[str]:
    return [f"p{n:04d}" for n in range(count)]


def fill(index: Vectors, there: dict[str, np.ndarray]) -> None:
    index.add(list(there), ["d"] * len(there), np.stack(list(there.values())))


def by_sorting(there: dict[str, np.ndarray], question: np.ndarray, k: int) -> list[Hit]:
    hits = [
        Hit(one, round(float((v.astype(np.float64) * question.astype(np.float64)).sum()), 6))
        for one, v in there.items()
    ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.passage_id))[:k]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "ROWS", 8)
    monkeypatch.setattr(vectors, "_FEW", 3)
    monkeypatch.setattr(vectors, "_QUESTIONS", 2)


def test_the_best_of_many_blocks(tmp_path: Path, small_blocks: None) -> None:
    there = dict(zip(names(50), drawn(50), strict=True))
    index = Vectors(tmp_path)
    fill(index, there)
    questions = drawn(5, seed=1)
    assert index.nearest(questions, 10) == [by_sorting(there, q, 10) for q in questions]
    assert len(index.nearest(questions, 100)[0]) == 50
    assert len(index) == 50


def test_equal_vectors_come_in_the_order_of_their_ids(tmp_path: Path, small_blocks: None) -> None:
    there = dict.fromkeys(reversed(names(40)), drawn(1)[0])
    index = Vectors(tmp_path)
    fill(index, there)
    found = index.nearest(drawn(3, seed=1), 5)
    assert [[hit.passage_id for hit in hits] for hits in found] == [names(5)] * 3


@settings(max_examples=12, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.booleans(), st.lists(st.integers(0, 30), max_size=12, unique=True), st.integers(0, 5)
        ),
        max_size=12,
    )
)
def test_what_is_added_replaced_and_removed_is_what_is_found(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, list[int], int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "ROWS", 8)
        patch.setattr(vectors, "_FEW", 2)
        folder = tmp_path_factory.mktemp("vectors")
        index, there = Vectors(folder), {}
        for add, numbers, seed in steps:
            ids = [f"p{n}" for n in numbers]
            if add and ids:
                new = dict(zip(ids, drawn(len(ids), seed), strict=True))
                there |= new
                fill(index, new)
            else:
                there = {one: v for one, v in there.items() if one not in ids}
                index.remove(ids)
        index.close()
        again = Vectors(folder)
        questions = drawn(3, seed=9)
        assert again.nearest(questions, 7) == [by_sorting(there, q, 7) for q in questions]
        assert len(again) == len(there)
        blocks = again._blocks()
        assert {int(path.stem) for path in folder.glob("*.safetensors")} == set(blocks)
        small = [b for b in blocks if len(again._read(b)[0]) < 4]
        assert len(small) <= 3
        again.close()


KILLED = """
    import sys
    from pathlib import Path
    import numpy as np
    from ragtune.building.retrieval import vectors
    vectors.ROWS = 8
    index = vectors.Vectors(Path(sys.argv[1]))
    generator = np.random.default_rng(0)
    for start in range(0, 10**6, 8):
        index.add([f"p{n}" for n in range(start, start + 8)], ["d"] * 8,
                  generator.normal(size=(8, 4)).astype(np.float32))
        print(start + 8, flush=True)
"""


def test_a_kill_leaves_what_was_there(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert process.stdout is not None
    said = 0
    while said < 80:
        said = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / "999999.safetensors").write_bytes(b"what a kill left of a block")
    index = Vectors(tmp_path)
    assert len(index) >= 80
    assert len(index) % 8 == 0
    found = index.nearest(np.ones((1, 4), np.float32), 10**6)[0]
    assert len({hit.passage_id for hit in found}) == len(index)
    index.remove([])  # any change removes what nothing names
    assert not (tmp_path / "999999.safetensors").exists()


@pytest.mark.parametrize("damage", ["rows.sqlite", "000001.safetensors", "gone"])
def test_a_damaged_index_is_said(tmp_path: Path, damage: str) -> None:
    index = Vectors(tmp_path)
    index.add(names(3), ["d"] * 3, drawn(3))
    index.close()
    if damage == "gone":
        (tmp_path / "000001.safetensors").unlink()
    else:
        (tmp_path / damage).write_bytes(b"nonsense" * 100)
    with pytest.raises(RagtuneError, match="is damaged") as raised:
        Vectors(tmp_path).nearest(drawn(1), 2)
    assert "Delete this folder" in raised.value.advice
