"""Controls, checkpoints, predictions from elsewhere, and runs against each other."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import write_json
from ragtune.cli import main
from ragtune.data.example import Example, Passage
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.scoring.controls import (
    AS_ASKED,
    conditions,
    control_examples,
    control_figures,
    key,
)
from ragtune.scoring.metrics import METRICS
from ragtune.stages.context import Context
from ragtune.store.proof import NAME, read_proof
from ragtune.store.seal import checksums
from tests.conftest import make_records, write_records

SET = "eval/eval"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A run with a checkpoint at step 4, of which the tests change nothing."""
    return _finished(tmp_path_factory.getbasetemp() / "measured", tiny_folder)


@functools.cache
def _finished(folder: Path, tiny_folder: Path) -> Path:
    folder.mkdir()
    data = {
        split: str(write_records(folder / f"{split}.jsonl", make_records(count, prefix)))
        for split, count, prefix in (("train", 24, "t"), ("eval", 10, "e"))
    }
    recipe = {
        "name": "tiny",
        "model": {"id": str(tiny_folder)},
        "data": {**data, "max_passages": 3},
        "prompt": {"preset": "english"},
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.0},
        "train": {"steps": 8, "batch_size": 4, "learning_rate": 0.01, "save_every": 4},
        "evaluate": {"max_new_tokens": 4},
        "publish": {"format": "adapter"},
    }  # fmt: skip
    ragtune.run(recipe, run_dir=folder / "run")
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def example(positive: int, count: int = 6) -> Example:
    passages = tuple(
        Passage("gold" if i == positive else "also gold" if i == 5 else f"text {i}")
        for i in range(count)
    )
    return Example("q", "?", ("gold",), passages, (positive,), (), {"selected": True})


def passages(shown: int, **data: Any) -> Recipe:
    return load_recipe(
        {
            "name": "x",
            "model": {"id": "m"},
            "data": {"train": "a", "eval": "b", "max_passages": shown, **data},
            "prompt": {"preset": "english"},
            "train": {"steps": 1},
        }
    )


def test_what_each_control_shows() -> None:
    shown = {name: show(example(1)) for name, (_, show) in conditions(passages(3)).items()}
    texts = {n: None if p is None else [x.text for x in p] for n, p in shown.items()}
    assert texts == {
        "no_passages": [],
        "positive_alone": ["gold"],
        "distractors_alone": ["text 0", "text 2", "text 3"],  # one that holds the answer is none
        "positive_first": ["gold", "text 0", "text 2"],
        "positive_middle": ["text 0", "gold", "text 2"],
        "positive_last": ["text 0", "text 2", "gold"],
        "k1": ["text 0"],
        "k5": ["text 0", "gold", "text 2", "text 3", "text 4"],
        "k10": None,
    }
    assert set(conditions(passages(1))) == {
        "no_passages", "positive_alone", "distractors_alone", "k3", "k5", "k10",
    }  # fmt: skip
    assert "positive_middle" not in conditions(passages(2))
    copying = passages(3)
    copying.evaluate.copy = True
    assert "no_passages" not in conditions(copying)  # nothing could be copied
    titled = dataclasses.replace(
        example(1),
        passages=(Passage("text 0", "gold"), *example(1).passages[1:]),
        extra={"selected": True, "also": "text 2"},
    )
    show = conditions(passages(3, alternatives="also"))["distractors_alone"][1]
    assert [p.text for p in show(titled) or ()] == ["text 3", "text 4"]  # titles, alternatives
    few = example(0, count=2)
    assert conditions(passages(3))["positive_last"][1](few) is None


def test_the_figures_of_controls_by_hand() -> None:
    recipe = passages(3, refusal="no idea")
    examples = [
        Example(f"q{i}", "?", ("gold",), (), (0,), (), {"selected": True}) for i in range(4)
    ]

    def answers(asked: str, without: str) -> dict[str, str]:
        words = {"g": "gold", "x": "other", "n": "No idea."}
        both = ((AS_ASKED, asked), ("no_passages", without))
        return {key(c, f"q{i}"): words[w] for c, text in both for i, w in enumerate(text)}

    both = {"before": answers("gxxx", "gxxx"), "after": answers("gggx", "gxn")}
    found = control_figures(recipe, examples, both, {"no_passages": 2})
    rows = {one["name"]: one for one in found["conditions"]}
    assert list(rows) == [AS_ASKED, "no_passages"]
    assert rows[AS_ASKED]["n"] == 4
    assert rows[AS_ASKED]["difference"]["strict_em"]["value"] == 0.5
    assert set(rows[AS_ASKED]["after"]) == set(METRICS)
    assert rows["no_passages"]["n"] == 3  # those that both were asked
    assert rows["no_passages"]["left_out"] == 2
    assert rows["no_passages"]["refused"]["before"]["value"] == 0
    assert rows["no_passages"]["refused"]["after"]["value"] == pytest.approx(1 / 3)
    (effect,) = found["effects"]
    assert (effect["name"], effect["n"]) == ("passages", 3)
    assert effect["before"]["value"] == 0
    assert effect["after"]["value"] == pytest.approx(2 / 3)


def test_controls_of_a_finished_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = ragtune.controls(run)
    stored = json.loads((run / SET / "controls.json").read_text("utf-8"))
    assert stored == {"format": 1, **found}
    names = [one["name"] for one in found["conditions"]]
    assert names == [
        AS_ASKED, "no_passages", "positive_alone", "distractors_alone", "positive_first",
        "positive_middle", "positive_last", "k1",
    ]  # fmt: skip
    comparison = json.loads((run / SET / "comparison.json").read_text("utf-8"))
    for which in ("before", "after"):
        assert found["conditions"][0][which] == comparison["intervals"][which]
    # The first place is where these records have their positive.
    rows = {one["name"]: one for one in found["conditions"]}
    assert rows["positive_first"]["after"] == rows[AS_ASKED]["after"]
    again = (run / SET / "controls-after" / "predictions.jsonl").stat().st_mtime_ns
    ragtune.controls(run)
    assert (run / SET / "controls-after" / "predictions.jsonl").stat().st_mtime_ns == again
    assert "no passages" not in capsys.readouterr().err


def test_controls_before_are_those_of_the_base_alone(run: Path, tmp_path: Path) -> None:
    """With the adapter switched off, a tuned model answers as the base does."""
    ragtune.controls(run)
    other = tmp_path / "base"
    recipe = load_recipe(run / "recipe.yaml")
    alone = ragtune.controls(recipe, run_dir=other)
    assert not (other / "adapter").exists()
    assert all(one["after"] is None for one in alone["conditions"])
    files = [p / SET / "controls-before" / "predictions.jsonl" for p in (run, other)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_checkpoint_is_evaluated_and_compared(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = ragtune.evaluate(run, checkpoint=4)
    assert metrics["n"] == 10
    folder = run / SET / "checkpoints" / "4"
    assert (folder / "predictions.jsonl").exists()
    with pytest.raises(UsageError, match="no checkpoint of step 5") as error:
        ragtune.evaluate(run, checkpoint=5)
    assert "There are: 4" in error.value.advice
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["compare", str(folder), str(run), "--json"])
    assert end.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 10
    assert found["runs"][0]["metrics"] == metrics["metrics"]
    (one,) = found["comparisons"]
    assert one["difference"]["aio_em"]["value"] == pytest.approx(
        found["runs"][1]["metrics"]["aio_em"] - found["runs"][0]["metrics"]["aio_em"]
    )
    assert 0 <= one["mcnemar_p"] <= 1
    # Longer answers make no other adapter: it stays, and so do its checkpoints.
    longer = ragtune.evaluate(run, "evaluate.max_new_tokens=5", checkpoint=4, redo=True)
    assert longer["n"] == 10
    assert not (run / "old-1" / "adapter").exists()


def test_two_sides_of_a_run_compare_as_the_run_says(run: Path) -> None:
    found = ragtune.compare_runs(run / SET / "before", run)
    comparison = json.loads((run / SET / "comparison.json").read_text("utf-8"))
    (one,) = found["comparisons"]
    del one["name"], one["against"]
    assert {"format": 1, **one} == comparison


def test_runs_over_other_questions_are_not_compared(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    path = other / SET / "questions" / "eval.jsonl"
    path.write_text(path.read_text("utf-8").replace("house 3?", "house three?"), "utf-8")
    with pytest.raises(RagtuneError, match="questions is damaged"):
        ragtune.compare_runs(run, other)
    proof = read_proof(path.parent)
    assert proof
    proof.files.update(checksums(path))
    write_json(path.parent / NAME, proof.model_dump(mode="json"))
    with pytest.raises(UsageError, match="differ in the question e3"):
        ragtune.compare_runs(run, other)
    with pytest.raises(UsageError, match="holds no answers after tuning"):
        ragtune.compare_runs(run, tmp_path)
    with pytest.raises(UsageError, match=r"othre does not exist\. Did you mean .*/other\?"):
        ragtune.compare_runs(run, tmp_path / "othre")


@pytest.fixture(scope="session")
def refusing(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A run with questions that have no answer, and with some whose answer is not retrieved."""
    return _refusing(tmp_path_factory.getbasetemp() / "refusing", tiny_folder)


@functools.cache
def _refusing(folder: Path, tiny_folder: Path) -> Path:
    folder.mkdir()
    records = make_records(14, "e")
    for record in records[6:10]:
        record |= {"answers": [], "positive_passage_indices": []}
    for record in records[10:]:
        record |= {"positive_passage_indices": [2]}
    train = make_records(20, "t")
    for record in train[12:]:
        record |= {"answers": [], "positive_passage_indices": []}
    recipe = {
        "name": "refusing",
        "model": {"id": str(tiny_folder)},
        "data": {
            "train": str(write_records(folder / "train.jsonl", train)),
            "eval": str(write_records(folder / "eval.jsonl", records)),
            "max_passages": 2, "refusal": "No answer", "unanswerable": 0.25, "unanswerable_from": "real",
        },
        "prompt": {"preset": "english"},
        "lora": {"rank": 4, "alpha": 8},
        "train": {"steps": 4, "batch_size": 4, "learning_rate": 0.01},
        "evaluate": {"max_new_tokens": 4},
        "publish": {"format": "adapter"},
    }  # fmt: skip
    ragtune.run(recipe, run_dir=folder / "run")
    return folder / "run"


def test_a_run_that_learns_to_refuse(refusing: Path) -> None:
    comparison = json.loads((refusing / SET / "comparison.json").read_text("utf-8"))
    assert comparison["denominators"] == {"answerable": 6, "all": 14}
    whole = comparison["all"]
    assert (whole["asked"], whole["lower_bound"]) == (10, True)
    assert whole["ceiling"]["value"] == pytest.approx(6 / 14)
    assert whole["reachable"] == pytest.approx(10 / 14)
    after = comparison["refusals"]["after"]
    assert {kind: figure["n"] for kind, figure in after.items()} == {
        "unanswerable": 4, "answerable": 6, "crag": 10,
    }  # fmt: skip
    report = json.loads((refusing / "data" / "report.json").read_text("utf-8"))
    assert (report["train"]["selected"], report["train"]["unanswerable"]) == (16, 4)
    page = (refusing / "report.html").read_text("utf-8")
    assert "No answer" in page


def test_runs_that_refuse_are_compared_over_all_that_they_asked(
    refusing: Path, tmp_path: Path
) -> None:
    found = ragtune.compare_runs(refusing / SET / "before", refusing)
    (one,) = found["comparisons"]
    comparison = json.loads((refusing / SET / "comparison.json").read_text("utf-8"))
    for name in ("all", "denominators", "refusals", "gain"):
        assert one[name] == comparison[name]
    other = shutil.copytree(refusing, tmp_path / "other")
    proof = other / SET / "after" / "stage.json"  # what counts is what the answers were made with
    proof.write_text(proof.read_text("utf-8").replace("No answer", "Nobody knows"), "utf-8")
    with pytest.raises(UsageError, match="refuses with 'No answer'"):
        ragtune.compare_runs(refusing, other)


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "RUN", "--controls", "--predictions", "x.jsonl"],
        ["evaluate", "RUN", "--base", "--checkpoint", "4"],
        ["compare", "RUN", "RUN/eval/eval/before", "evaluate.metric=aio_em"],
        ["compare", "RUN", "RUN/eval/eval/before", "--run-dir", "x"],
    ],
)
def test_what_does_not_go_together_is_refused(
    finished: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([a.replace("RUN", str(finished)) for a in arguments])
    assert end.value.code == 2
    assert "don't go together" in capsys.readouterr().err


def test_a_prompt_that_would_be_cut_shows_no_condition(run: Path) -> None:
    """The positive is what a cut takes when it stands last."""
    one = Context(run)
    questions = one.selected
    one.encoder.max_prompt = max(len(p.ids) for p in one.encoder.prompts(questions)) - 1
    made, left_out = control_examples(one.encoder, questions)
    assert left_out["positive_last"] > 0
    for example in made:
        prompt = one.encoder.showing_all().prompt(example)
        assert prompt is not None
        assert not prompt.passages_dropped
