"""Batches that are asked one after the other share memory and a graph, and nothing else."""

from __future__ import annotations

import os
import random
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from ragtune.answering import ragged
from ragtune.answering.cut import Cut
from ragtune.answering.ragged import Ragged
from ragtune.model.fast import attention, cache
from ragtune.model.fast.cache import RaggedCache, Room
from tests.answering.test_generate import ask, prompts
from tests.conftest import tiny_model

CPU = torch.device("cpu")


class Graph:
    """A step that is repeated with what lies where it lay when it was captured."""

    def __init__(self, work: Any, device: torch.device) -> None:
        assert device == CPU
        self.work, self.replays = work, 0
        self.out = work().clone()
        self.where = self._where()

    def _where(self) -> list[int]:
        _, there, *more = self.work.args
        every = [*there.keys_QGD.values(), *there.values_QGD.values(), there.starts_S, *more[:2]]
        return [tensor.data_ptr() for tensor in every]

    def replay(self) -> None:
        assert self._where() == self.where
        self.replays += 1
        self.out.copy_(self.work())


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Answers on this machine as on a GPU with Triton; the graphs that were captured."""
    made: list[Graph] = []

    with_graphs(monkeypatch, made)
    monkeypatch.setattr(cache, "is_flat", lambda _: True)
    room = RaggedCache._made
    monkeypatch.setattr(
        RaggedCache, "_made", lambda self, new: room(self, new).fill_(float("nan"))
    )  # what isn't written is never read
    if os.environ.get("TRITON_INTERPRET") != "1":  # which takes minutes
        without_kernels(monkeypatch)
    return made


PLAIN = Ragged.__init__


def with_graphs(monkeypatch: pytest.MonkeyPatch, made: list[Graph]) -> None:
    def capture(work: Any, device: torch.device, **_: Any) -> tuple[Graph, torch.Tensor]:
        made.append(Graph(work, device))
        return made[-1], made[-1].out

    def init(self: Any, *args: Any) -> None:
        PLAIN(self, *args)
        self.graphs = True

    monkeypatch.setattr(Ragged, "__init__", init)
    monkeypatch.setattr(ragged, "capture", capture)
    monkeypatch.setattr(ragged, "_CAPTURED", set())


def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def store(self: Any, room_QGD: torch.Tensor, new: torch.Tensor) -> None:
        new_NGD = new.transpose(1, 2).reshape(-1, *room_QGD.shape[1:])
        which_N = slice(None) if self._which_N is None else self._which_N
        room_QGD[self._slots_N] = new_NGD[which_N]

    plain = attention._to_cache

    def to_cache(
        q: Any, k: Any, v: Any, scale: float, window: Any, lengths: Any, starts: Any
    ) -> Any:
        if starts is None:
            return plain(q, k, v, scale, window, lengths, None)
        places = torch.arange(int(lengths.max()) + 1)
        slots = torch.where(places <= lengths[:, None], starts[:, None] + places, starts[:, None])
        k, v = (torch.stack([t[0][:, at] for at in slots]) for t in (k, v))
        return plain(q, k, v, scale, window, lengths, None)

    monkeypatch.setattr(RaggedCache, "_store", store)
    monkeypatch.setattr(attention, "_to_cache", to_cache)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_one_graph_and_one_cache_do_for_all_batches(
    tmp_path: Path, chatml_tokenizer: Any, family: str, graphs: list[Graph]
) -> None:
    """Of unlike size; answers end at unlike steps; what the batch before left is not seen."""
    model = tiny_model(family)
    model.generation_config.eos_token_id = list(range(0, 512, 30))
    asked = prompts(17)
    options: dict[str, Any] = {"max_new_tokens": 12}
    found = ask(model, chatml_tokenizer, asked, tmp_path / "a", batch_size=6, **options)
    assert len(graphs) == 1
    assert graphs[0].replays > 12
    alone = ask(model, chatml_tokenizer, asked, tmp_path / "b", batch_size=1, **options)
    assert found == alone
    assert len({len(one.token_ids) for one in found}) > 2


@pytest.mark.parametrize("missing", ["graphs", "kernels"])
def test_each_does_without_the_other(
    tmp_path: Path,
    chatml_tokenizer: Any,
    graphs: list[Graph],
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
) -> None:
    """Spread weights have no graphs, and some machines with a GPU no Triton."""
    if missing == "graphs":
        monkeypatch.setattr(Ragged, "__init__", PLAIN)
    else:
        monkeypatch.undo()
        with_graphs(monkeypatch, graphs)
    model = tiny_model("qwen3")
    model.generation_config.eos_token_id = list(range(0, 512, 30))
    asked = prompts(17)
    options: dict[str, Any] = {"max_new_tokens": 12}
    found = ask(model, chatml_tokenizer, asked, tmp_path / "a", batch_size=6, **options)
    assert len(graphs) == (0 if missing == "graphs" else 3)
    assert found == ask(model, chatml_tokenizer, asked, tmp_path / "b", batch_size=1, **options)


def test_later_batches_with_more_room_than_the_first_take_no_other(
    tmp_path: Path, chatml_tokenizer: Any, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Room] = []
    plain = RaggedCache.__init__

    def init(self: Any, *args: Any) -> None:
        plain(self, *args)
        made.append(Room(self.width, self.slots))

    monkeypatch.setattr(RaggedCache, "__init__", init)
    # Two of 65 take less than five of 29.
    options: dict[str, Any] = {"batch_size": 5, "max_new_tokens": 12, "cache_tokens": 145}
    model, asked = tiny_model("llama"), prompts(17)
    found = ask(model, chatml_tokenizer, asked, tmp_path / "a", **options)
    assert made[2:] == [Room(5, 145)]  # behind those of the trial
    assert len(graphs) == 1
    assert found == ask(
        model, chatml_tokenizer, asked, tmp_path / "b", **options | {"batch_size": 1}
    )


def test_after_a_batch_was_halved_nothing_of_it_is_left(
    tmp_path: Path, chatml_tokenizer: Any, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = tiny_model("llama"), prompts(16)
    expected = ask(model, chatml_tokenizer, asked, tmp_path / "a", batch_size=1)
    kept: list[Any] = []
    work = ragged.next_logits

    def small(model: Any, there: Any, token_N: Any, *args: Any) -> Any:
        if len(token_N) > 4:
            raise torch.OutOfMemoryError("no")
        return work(model, there, token_N, *args)

    monkeypatch.setattr(ragged, "next_logits", small)
    free = Ragged.forget
    monkeypatch.setattr(
        Ragged, "forget", lambda self: (free(self), kept.append((self._cache, self._step)))[0]
    )
    graphs.clear()
    assert ask(model, chatml_tokenizer, asked, tmp_path / "b", batch_size=8) == expected
    assert kept == [(None, None)]
    assert len(graphs) == 1


def test_a_batch_without_an_answer_that_goes_on_ends(
    tmp_path: Path, chatml_tokenizer: Any, graphs: list[Graph]
) -> None:
    model = tiny_model("llama")
    model.generation_config.eos_token_id = list(range(512))
    found = ask(model, chatml_tokenizer, prompts(5), tmp_path / "a", max_new_tokens=30)
    assert all(one.stopped and not one.token_ids for one in found)
    assert [graph.replays for graph in graphs] == [
        1
    ]  # of the second batch: the host looks a step later


def test_ranks_get_as_many_batches_of_like_size() -> None:
    numbers = random.Random(0)
    sizes = sorted((numbers.randint(400, 1_300) for _ in range(637)), reverse=True)
    order = [(str(i), [0] * size) for i, size in enumerate(sizes)]
    for ranks in (2, 3, 8):
        cut = Cut(256, 230_000, 32, ranks, equal=False)
        batches = cut.batches(order)
        assert [*chain.from_iterable(batches)] == order
        assert len(batches) % ranks == 0
        tokens = [sum(len(ids) for _, ids in batch) for batch in batches]
        assert max(tokens) - min(tokens) <= 2 * max(sizes)
        room = cut.room(batches)
        assert room.samples == max(map(len, batches)) <= 256
        assert room.slots <= 230_000
    assert len(Cut(256, 230_000, 32, 2, equal=False).batches(order)) == 4
    # Where memory does for few long ones, the others still get their share.
    long = [("a", [0] * 9_000), ("b", [0] * 8_000), *order]
    batches = Cut(256, 9_500, 32, 2, equal=False).batches(long)
    assert len(batches) % 2 == 0
    assert all(len(b) == 1 or len(b) * (len(b[0][1]) + 32) <= 9_500 for b in batches)


def test_one_alone_fills_its_batches() -> None:
    order = [(str(i), [0] * (30 - i)) for i in range(20)]
    assert [len(b) for b in Cut(8, None, 5, 1, equal=False).batches(order)] == [8, 8, 4]


def test_where_a_graph_was_before_the_first_step_is_one(
    tmp_path: Path, chatml_tokenizer: Any, graphs: list[Graph]
) -> None:
    """Its kernels are there; if not, after a step they are."""
    model = tiny_model("llama")
    model.generation_config.eos_token_id = 511
    options: dict[str, Any] = {"max_new_tokens": 6}
    expected = ask(model, chatml_tokenizer, prompts(4), tmp_path / "a", **options)
    found = ask(model, chatml_tokenizer, prompts(4), tmp_path / "b", **options)
    assert [graph.replays for graph in graphs] == [4, 5]
    assert found == expected


def test_a_kernel_that_is_not_there_is_after_a_step(
    tmp_path: Path, chatml_tokenizer: Any, graphs: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    model.generation_config.eos_token_id = 511
    options: dict[str, Any] = {"max_new_tokens": 6}
    expected = ask(model, chatml_tokenizer, prompts(4), tmp_path / "a", **options)
    own, failed = ragged.capture, []

    def capture(*args: Any, **given: Any) -> Any:
        if not failed:
            failed.append(args)
            raise RuntimeError("operation not permitted when stream is capturing")
        return own(*args, **given)

    monkeypatch.setattr(ragged, "capture", capture)
    assert ask(model, chatml_tokenizer, prompts(4), tmp_path / "b", **options) == expected
    assert [graph.replays for graph in graphs] == [4, 4]
