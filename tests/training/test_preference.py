"""Preference tuning: pairs in packed rows, by DPO."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from ragtune.base import stopping
from ragtune.base.errors import UsageError
from ragtune.data.encode import Sample
from ragtune.data.example import Example, Passage
from ragtune.model.fast.attention import NAME, using_packed
from ragtune.model.lora import attach, load_adapter
from ragtune.recipe.load import load_recipe
from ragtune.recipe.lora import Lora
from ragtune.stages.context import Context
from ragtune.stages.preference import wrong_answers
from ragtune.training import preference as preference_module
from ragtune.training import trainer as trainer_module
from ragtune.training.pairs import Pair, PairCollator, divisor, margins, trained_tokens
from ragtune.training.preference import referenced
from ragtune.training.rows import RowCollator, read_row, rows_of
from tests.conftest import make_records, tiny_model, write_records
from tests.training.test_train import losses, same, train, weights

REFUSAL = "not said"


def pair(number: int, lengths: tuple[int, int, int] = (9, 3, 5)) -> Pair:
    draw = torch.Generator().manual_seed(number)
    prompt, chosen, rejected = (
        torch.randint(5, 200, (length,), generator=draw).tolist() for length in lengths
    )
    return Pair(f"q{number}", prompt, chosen, number, rejected)


PAIRS = [pair(1), pair(2, (14, 2, 1)), pair(3, (5, 4, 4))]


def packed_model() -> Any:
    model = tiny_model("llama")
    with using_packed(model):
        tuned = attach(model, Lora(rank=4, dropout=0.0), 1)
    model.set_attn_implementation(NAME)
    return tuned


def log_probability(model: Any, prompt: list[int], completion: list[int]) -> float:
    """Of an answer on its own, by the plain model."""
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        logits = model.eval()(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    every = functional.log_softmax(logits.double(), -1)
    return float(every[torch.arange(len(completion)), completion].sum())


def plain_margin(model: Any, one: Pair) -> float:
    return log_probability(model, one.prompt_ids, one.completion_ids) - log_probability(
        model, one.prompt_ids, one.rejected_ids
    )


def test_margins_in_a_packed_row_are_those_of_each_answer_alone() -> None:
    row = PairCollator(packed=True)([{"index": 0, "samples": PAIRS}])
    tuned = packed_model().eval()
    with torch.no_grad():
        _, logits = read_row(tuned, row)
    expected = torch.tensor([plain_margin(tiny_model("llama"), one) for one in PAIRS])
    torch.testing.assert_close(margins(logits, row), expected, atol=1e-4, rtol=1e-4)
    found = referenced(tuned, [*PAIRS], {})
    assert [p.reference for p in found] == pytest.approx(expected.tolist(), abs=1e-4)  # type: ignore[attr-defined]


def test_a_row_that_is_too_long_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = referenced(packed_model().eval(), [*PAIRS], {})
    original, sizes = preference_module.read_row, []

    def small(model: Any, row: dict[str, Any]) -> Any:
        sizes.append(len(row["reference"]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(model, row)

    monkeypatch.setattr(preference_module, "read_row", small)
    dropped = list[bool]()
    monkeypatch.setattr(preference_module, "drop_waiting", lambda _: dropped.append(True))
    found = referenced(packed_model().eval(), [*PAIRS], {})
    assert len(dropped) == 2
    assert sizes == [3, 1, 2, 1, 1]
    for one, other in zip(found, whole, strict=True):
        assert one.reference == pytest.approx(other.reference, abs=1e-4)  # type: ignore[attr-defined]


def test_each_pair_is_read_once_however_many_epochs_there_are(
    preferring: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, read = preference_module.read_row, []

    def counting(model: Any, row: dict[str, Any]) -> Any:
        read.append(len(row["reference"]))
        return original(model, row)

    monkeypatch.setattr(preference_module, "read_row", counting)
    one = train(preferring, tmp_path / "run", "train.steps=null", "train.epochs=3")
    pairs = [pair for step in one.steps for pair in step]
    assert (len(pairs), sum(read)) == (36, 12)


def test_pairs_that_differ_in_anything_that_is_read_are_read_each() -> None:
    one, known = PAIRS[0], dict[str, float]()
    others = [
        dataclasses.replace(one, **{field: [*getattr(one, field), 7]})
        for field in ("prompt_ids", "completion_ids", "rejected_ids")
    ]
    again = dataclasses.replace(one, qid="other", number=9)
    nothing = Sample("n", [3], [])
    row = referenced(packed_model().eval(), [one, nothing, *others, again], known)
    assert len(known) == 4
    assert row[1] is nothing
    margins_found = [pair.reference for pair in row if isinstance(pair, Pair)]
    assert margins_found[0] == margins_found[-1]
    assert len(set(margins_found)) == 4


def test_a_stop_is_heard_while_pairs_are_read(
    preferring: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, read = preference_module.read_row, []

    def signalled(model: Any, row: dict[str, Any]) -> Any:
        read.append(True)
        stopping.ask()
        return original(model, row)

    monkeypatch.setattr(preference_module, "read_row", signalled)
    try:
        with pytest.raises(stopping.Stopped):
            train(preferring, tmp_path / "run")
        assert stopping.last_words()[2].startswith("The pairs were being read")
    finally:
        stopping.uninstall()
    assert len(read) == 1


def test_a_row_without_pairs_is_what_it_was() -> None:
    samples = [Sample("q", [3, 4, 5], [6, 7]), Sample("r", [3], [])]
    found = PairCollator(packed=True)([{"index": 4, "samples": samples}])
    expected = RowCollator(packed=True)([{"index": 4, "samples": samples}])
    assert found.keys() == expected.keys()
    assert torch.equal(found["targets"], expected["targets"])
    assert divisor(samples) == 2
    assert divisor(PAIRS) == 3
    assert [trained_tokens(one) for one in (*samples, *PAIRS)] == [2, 0, 8, 3, 8]


def test_pairs_stay_together_however_they_are_dealt() -> None:
    dealt = [s for rank in (0, 1) for row in rows_of([PAIRS], 2, rank, 2) for s in row]
    pairs = [one for one in dealt if isinstance(one, Pair)]
    assert sorted(one.qid for one in pairs) == ["q1", "q2", "q3"]
    assert all(not one.completion_ids for one in dealt if not isinstance(one, Pair))
    chosen, rejected = PAIRS[0].answers()
    assert len(PAIRS[0]) == len(chosen) + len(rejected)
    assert chosen.number == rejected.number == 1


@pytest.fixture
def preferring(tiny_recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Twelve of 24 answers are wrong, and four of these should have been refused."""
    records = make_records(24)
    for record in records[:4]:
        record["answers"] = []
        record["positive_passage_indices"] = []
        record["negative_passage_indices"] = [0, 1, 2]
    write_records(Path(tiny_recipe["data"]["train"]), records)
    texts = ["pink"] * 10 + [REFUSAL] * 2
    rows = [
        {"qid": r["qid"], "prediction": texts[i] if i < 12 else r["answers"][0]}
        for i, r in enumerate(records[:20])
    ]
    rows.append({"qid": "another", "prediction": "x"})
    path = write_records(tmp_path / "given.jsonl", rows)
    tiny_recipe["data"] |= {
        "refusal": REFUSAL, "unanswerable": 0.15, "unanswerable_from": "real",
    }  # fmt: skip
    tiny_recipe["train"] |= {"preference": str(path), "learning_rate": 0.003}
    return tiny_recipe


def test_wrong_answers_are_rejected_for_the_trained_ones(
    preferring: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = train(preferring, tmp_path / "run", "lora.dropout=0")
    out = " ".join(capsys.readouterr().out.split())
    assert "of 24 training examples 12 were answered wrongly, which makes the pairs" in out
    assert "4 to be refused, 2 refused though answerable, 6 with another answer" in out
    assert "8 were right, 4 have no answer there" in out
    decode = one.encoder.tokenizer.decode
    pairs = [p for step in one.steps for p in step]
    seen = {}
    for p in pairs:
        assert isinstance(p, Pair)
        seen[p.qid] = tuple(
            decode(ids, skip_special_tokens=True) for ids in (p.completion_ids, p.rejected_ids)
        )
        assert p.rejected_ids[-1] == one.encoder.stop_id
    assert seen["q0"] == (REFUSAL, "pink")
    assert seen["q5"] == ("red", "pink")
    assert seen["q10"] == ("red", REFUSAL)
    # It begins at no difference to the reference, and the margins grow.
    found = losses(one)
    assert found[0] == pytest.approx(math.log(2), abs=0.05)
    assert found[-1] < 0.9 * found[0]
    base, tuned = one.base(), load_adapter(tiny_copy(one), one.folder.adapter)
    grown = [plain_margin(tuned, p) - plain_margin(base, p) for p in pairs[:6]]
    assert sum(grown) / len(grown) > 0.5


def tiny_copy(one: Context) -> Any:
    return Context(one.recipe.model_dump(mode="json"), [], one.folder.path).base()


def test_the_loss_is_dpos(preferring: dict[str, Any], tmp_path: Path) -> None:
    """After some steps, by answers that are read one by one."""
    seen: list[float] = []
    one = train(
        preferring, tmp_path / "run", "lora.dropout=0", "train.steps=3", "train.save_every=2",
        "train.log_every=1", "train.scheduler=constant", "train.warmup=0", "train.preference_beta=0.5",
    )  # fmt: skip
    base = one.base()
    tuned = load_adapter(tiny_copy(one), next((one.folder.work).glob("adapter-*/checkpoint-2")))
    for p in one.steps[2]:
        assert isinstance(p, Pair)
        seen.append(0.5 * (plain_margin(tuned, p) - plain_margin(base, p)))
    expected = -functional.logsigmoid(torch.tensor(seen)).mean()
    assert losses(one)[2] == pytest.approx(float(expected), abs=1e-3)


def test_goes_on_after_a_break_bit_for_bit(
    preferring: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(preferring, tmp_path / "whole")
    original = trainer_module.PackedTrainer.compute_loss

    def broken(self: Any, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        if self.state.global_step == 5:
            raise OSError("broken")
        return original(self, model, inputs, *rest, **named)

    monkeypatch.setattr(trainer_module.PackedTrainer, "compute_loss", broken)
    with pytest.raises(OSError, match="broken"):
        train(preferring, tmp_path / "broken")
    monkeypatch.undo()
    assert same(weights(train(preferring, tmp_path / "broken")), weights(whole))


def test_with_full_tuning_and_looks_at_the_evaluation_set(
    preferring: dict[str, Any], tmp_path: Path
) -> None:
    one = train(
        preferring, tmp_path / "run", "tuning=full", "train.learning_rate=1e-3",
        "train.eval_every=4",
    )  # fmt: skip
    found = losses(one)
    assert found[0] == pytest.approx(math.log(2), abs=0.2)
    assert found[-1] < found[0]
    log = (one.folder.adapter / "train_log.jsonl").read_text("utf-8").splitlines()
    looks = [e["eval_loss"] for e in map(json.loads, log) if "eval_loss" in e]
    assert len(looks) == 2
    assert min(looks) > 1  # of the answers' tokens, as ever


def test_rows_that_cannot_be_packed_are_refused(
    preferring: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragtune.training.packing.probe_texts", lambda *_, **__: "it looks ahead")
    with pytest.raises(UsageError, match="needs rows of several samples: it looks ahead"):
        train(preferring, tmp_path / "run")


def test_nothing_wrong_is_an_error(preferring: dict[str, Any], tmp_path: Path) -> None:
    one = Example("q1", "?", ("red",), (Passage("red"),), (0,), ())
    recipe = load_recipe(preferring)
    path = write_records(tmp_path / "right.jsonl", [{"qid": "q1", "prediction": "Red."}])
    said = r"has no wrong answer to one of the 1 training examples \(1 of them is answered there\)"
    with pytest.raises(UsageError, match=said):
        wrong_answers(recipe, [one], str(path))
    other = dataclasses.replace(one, answers=())
    assert wrong_answers(recipe, [other], str(path)) == {"q1": "Red."}
    path = write_records(tmp_path / "bad.jsonl", [{"qid": "q1"}])
    with pytest.raises(UsageError, match="prediction is missing"):
        wrong_answers(recipe, [one], str(path))
