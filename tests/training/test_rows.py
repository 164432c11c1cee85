from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DataCollatorWithFlattening

from ragtune.data.encode import IGNORE, Sample
from ragtune.training.rows import RowCollator, draw_steps, split_rows

counts = st.integers(1, 40)


def sample(prompt: int, completion: int, name: str = "q") -> Sample:
    return Sample(name, list(range(10, 10 + prompt)), list(range(100, 100 + completion)))


@given(examples=counts, batch=counts, steps=st.integers(1, 12), seed=st.integers(0, 5))
def test_steps_are_full_and_each_epoch_holds_every_example_once(
    examples: int, batch: int, steps: int, seed: int
) -> None:
    drawn = draw_steps(examples, batch, steps=steps, epochs=None, seed=seed)
    assert [len(s) for s in drawn] == [batch] * steps
    order = [i for step in drawn for i in step]
    for start in range(0, len(order) - examples + 1, examples):
        assert sorted(order[start : start + examples]) == list(range(examples))
    assert drawn == draw_steps(examples, batch, steps=steps, epochs=None, seed=seed)


@given(examples=counts, batch=counts, epochs=st.integers(1, 4))
def test_epochs_use_every_example_equally_often(examples: int, batch: int, epochs: int) -> None:
    drawn = draw_steps(examples, batch, steps=None, epochs=epochs, seed=1)
    assert set(Counter(i for step in drawn for i in step).values()) == {epochs}
    assert all(len(s) == batch for s in drawn[:-1])


def test_half_an_epoch() -> None:
    drawn = draw_steps(10, 4, steps=None, epochs=0.5, seed=1)
    assert [len(s) for s in drawn] == [4, 1]


def test_another_seed_gives_another_order() -> None:
    one, other = (draw_steps(50, 50, steps=1, epochs=None, seed=s) for s in (1, 2))
    assert one != other


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=20), rows=st.integers(1, 8))
def test_rows_hold_every_sample_and_are_never_too_many_or_too_full(
    lengths: list[int], rows: int
) -> None:
    step = [sample(n, 1, str(i)) for i, n in enumerate(lengths)]
    split = split_rows(step, rows)
    assert len(split) == min(rows, len(step))
    assert sorted(s.qid for row in split for s in row) == sorted(s.qid for s in step)
    assert max(map(len, split)) <= -(-len(step) // min(rows, len(step)))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=1, max_size=5))
def test_a_packed_row_trains_exactly_the_completions(lengths: list[tuple[int, int]]) -> None:
    samples = [sample(p, c) for p, c in lengths]
    batch = RowCollator(packed=True)([{"index": 3, "samples": samples}])
    tokens = sum(map(len, samples))
    assert batch["input_ids"].shape == batch["labels"].shape == (1, tokens)
    assert batch["cu_seq_lens_q"].tolist() == [
        0,
        *torch.tensor([len(s) for s in samples]).cumsum(0).tolist(),
    ]
    assert batch["position_ids"][0].tolist() == [i for s in samples for i in range(len(s))]
    assert batch["targets"].tolist() == [t for s in samples for t in s.completion_ids]
    # A logit is kept where the next token is trained, and nowhere else.
    assert batch["input_ids"][0][batch["logits_to_keep"] + 1].tolist() == batch["targets"].tolist()
    assert int((batch["labels"] != IGNORE).sum()) == len(batch["targets"])
    assert int(batch["row"]) == 3


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), min_size=1, max_size=5))
def test_a_packed_row_is_that_of_transformers(lengths: list[tuple[int, int]]) -> None:
    samples = [sample(p, c) for p, c in lengths]
    found = RowCollator(packed=True)([{"index": 3, "samples": samples}])
    flatten = DataCollatorWithFlattening(return_flash_attn_kwargs=True)
    for name, expected in flatten([s.features() for s in samples]).items():
        if isinstance(expected, torch.Tensor):
            assert found[name].dtype == expected.dtype
            assert torch.equal(found[name], expected)
        else:
            assert found[name] == expected


def test_a_single_row_has_no_borders() -> None:
    batch = RowCollator(packed=False)([{"index": 0, "samples": [sample(4, 2)]}])
    assert set(batch) == {"input_ids", "labels", "logits_to_keep", "targets", "places", "row"}
