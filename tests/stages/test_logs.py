"""Logs of lm-evaluation-harness and flexeval, compared."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.cli import main
from ragtune.stages.logs import are_logs, compare_logs

Row = dict[str, Any]
TIME = "2026-11-29T12-00-00.123456"


def harness(i: int, right: bool, **more: Any) -> Row:
    return {
        "doc_id": i, "doc": {"question": f"q{i}"}, "target": "red", "arguments": {}, "resps": [["x"]],
        "filtered_resps": ["x"], "filter": "none", "metrics": ["exact_match", "f1"], "doc_hash": f"d{i}",
        "prompt_hash": "p", "target_hash": "t", "exact_match": float(right), "f1": 0.5 + right / 2, **more,
    }  # fmt: skip


def generated(i: int, right: bool, **more: Any) -> Row:
    return {
        "lm_prompt": "p", "lm_output": "x", "finish_reason": "stop", "extra_info": {"question": f"q{i}"},
        "references": ["red"], "exact_match": right, "char_f1": 0.5 + right / 2, **more,
    }  # fmt: skip


def chosen(i: int, right: bool) -> Row:
    return {
        "prefix": "p", "choices": ["a", "b"], "answer_index": i % 2, "log_probs": [-1.0, -2.0],
        "prediction": i % 2 if right else 1 - i % 2, "byte_norm_log_probs": [-1.0, -2.0],
        "byte_norm_prediction": i % 2,
    }  # fmt: skip


def write(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def two(folder: Path, make: Any, name: str) -> list[Path]:
    """Of ten questions the first has 0 to 4 right, the second 3 to 9."""
    first = write(folder / "a" / name, [make(i, i < 5) for i in range(10)])
    return [first, write(folder / "b" / name, [make(i, i > 2) for i in range(10)])]


@pytest.mark.parametrize(
    ("make", "name", "metrics"),
    [
        (harness, f"samples_t_{TIME}.jsonl", ["exact_match,none", "f1,none"]),
        (generated, "outputs.jsonl", ["exact_match", "char_f1"]),
        (chosen, "outputs.jsonl", ["accuracy", "byte_norm_accuracy"]),
    ],
)
def test_both_tools(make: Any, name: str, metrics: list[str], tmp_path: Path) -> None:
    (compared,) = compare_logs(two(tmp_path, make, name))["comparisons"]
    (task,) = compared["tasks"]
    assert [one["metric"] for one in task["metrics"]] == metrics
    exact = task["metrics"][0]
    assert (exact["n"], exact["higher"], exact["lower"]) == (10, 5, 3)
    assert (exact["first"]["value"], exact["second"]["value"]) == (0.5, 0.7)
    assert exact["mcnemar_p"] == pytest.approx(0.7265625)
    assert task["left_out"] == 0


def test_filters_are_metrics_of_their_own(tmp_path: Path) -> None:
    name = f"samples_t_{TIME}.jsonl"
    for which in "ab":
        rows = [harness(i, which == "b") for i in range(3)]
        write(
            tmp_path / which / name, [*rows, *(harness(i, True, filter="lower") for i in range(3))]
        )
    (compared,) = compare_logs([tmp_path / "a", tmp_path / "b"])["comparisons"]
    found = {one["metric"]: one["difference"]["value"] for one in compared["tasks"][0]["metrics"]}
    assert found == {"exact_match,none": 1, "f1,none": 0.5, "exact_match,lower": 0, "f1,lower": 0}


def test_a_folder_has_a_log_a_task_and_of_several_the_newest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for which in "ab":
        for task in ("one", "two", which):
            write(tmp_path / which / "model" / f"samples_{task}_{TIME}.jsonl", [harness(0, True)])
    old = write(tmp_path / "a/model/samples_one_2025-01-01T00-00-00.jsonl", [harness(9, False)])
    (compared,) = compare_logs([tmp_path / "a", tmp_path / "b"])["comparisons"]
    assert [task["task"] for task in compared["tasks"]] == ["one", "two"]
    said = capsys.readouterr()
    assert "the newest log is taken" in " ".join((said.out + said.err).split())
    assert old.name in (said.out + said.err)
    assert "has a, b" in said.out + said.err


def test_groups_of_flexeval_are_tasks(tmp_path: Path) -> None:
    for which in "ab":
        for group in ("jnli", "mmlu"):
            write(tmp_path / which / group / "outputs.jsonl", [generated(0, True)])
    first, second = tmp_path / "a", tmp_path / "b"
    (compared,) = compare_logs([first, second])["comparisons"]
    assert [task["task"] for task in compared["tasks"]] == ["jnli", "mmlu"]


def test_two_folders_with_logs_of_a_task_are_not_chosen_from(tmp_path: Path) -> None:
    for model in ("x", "y"):
        write(tmp_path / "a" / model / f"samples_t_{TIME}.jsonl", [harness(0, True)])
    with pytest.raises(UsageError, match=r"holds logs of t in .*x and in .*y") as error:
        compare_logs([tmp_path / "a", tmp_path / "a"])
    assert "one of the two folders" in error.value.advice


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            harness(1, True, doc_hash="other"),
            "of doc_id 1 the doc_hash is d1 in the first, other in",
        ),
        (
            harness(1, True, target="blue"),
            'of doc_id 1 the target is "red" in the first, "blue" in',
        ),
    ],
)
def test_other_questions_are_refused(row: Row, problem: str, tmp_path: Path) -> None:
    name = f"samples_t_{TIME}.jsonl"
    first = write(tmp_path / "a" / name, [harness(i, True) for i in range(3)])
    second = write(tmp_path / "b" / name, [harness(0, True), row])
    with pytest.raises(UsageError, match="answer different questions") as error:
        compare_logs([first, second])
    assert problem in error.value.message


@pytest.mark.parametrize("more", [{"references": ["blue"]}, {"extra_info": {"question": "other"}}])
def test_other_questions_of_flexeval_are_refused(more: Row, tmp_path: Path) -> None:
    first = write(tmp_path / "a/outputs.jsonl", [generated(0, True)])
    second = write(tmp_path / "b/outputs.jsonl", [generated(0, True, **more)])
    with pytest.raises(UsageError, match="answer different questions: of line 1 the"):
        compare_logs([first, second])


def test_what_models_said_in_a_conversation_is_no_question(tmp_path: Path) -> None:
    paths = []
    for which in "ab":
        said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": which},
                {"role": "user", "content": "and?"}]  # fmt: skip
        extra = {"id": 1, "messages": said}
        paths.append(
            write(tmp_path / which / "outputs.jsonl", [generated(0, True, extra_info=extra)])
        )
    assert compare_logs(paths)["comparisons"][0]["tasks"][0]["metrics"][0]["n"] == 1


def test_questions_of_one_log_alone_are_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"samples_t_{TIME}.jsonl"
    first = write(tmp_path / "a" / name, [harness(i, True) for i in range(5)])
    second = write(tmp_path / "b" / name, [harness(i, False) for i in range(3, 10)])
    (task,) = compare_logs([first, second])["comparisons"][0]["tasks"]
    assert (task["left_out"], task["metrics"][0]["n"]) == (8, 2)
    said = capsys.readouterr()
    assert "the 2 that both answer" in " ".join((said.out + said.err).split())
    with pytest.raises(UsageError, match="no question in common"):
        compare_logs([first, write(tmp_path / "c" / name, [harness(8, True)])])


def test_values_that_are_no_numbers_are_said_and_missing_ones_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"samples_t_{TIME}.jsonl"
    rows = [harness(i, True, bleu=["x", "y"], metrics=["exact_match", "bleu"]) for i in range(3)]
    rows[1]["exact_match"] = float("nan")
    first = write(tmp_path / "a" / name, rows)
    (task,) = compare_logs([first, first])["comparisons"][0]["tasks"]
    assert [(one["metric"], one["n"], one["missing"]) for one in task["metrics"]] == [
        ("exact_match,none", 2, 1)
    ]
    said = capsys.readouterr()
    assert "bleu,none can't be paired" in " ".join((said.out + said.err).split())


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400, -1e308])
def test_a_value_of_which_no_mean_can_be_made_is_missing(tmp_path: Path, value: float) -> None:
    first, second = two(tmp_path, harness, f"samples_t_{TIME}.jsonl")
    rows = [json.loads(line) for line in second.read_text("utf-8").splitlines()]
    rows[3]["f1"] = value
    write(second, rows)
    found = compare_logs([first, second])
    metrics = {one["metric"]: one for one in found["comparisons"][0]["tasks"][0]["metrics"]}
    assert (metrics["f1,none"]["n"], metrics["f1,none"]["missing"]) == (9, 1)
    json.dumps(found, allow_nan=False)


def test_rows_without_hashes_and_names_of_metrics(tmp_path: Path) -> None:
    """As older versions of lm-evaluation-harness wrote them."""
    later = ("doc_hash", "prompt_hash", "target_hash", "metrics", "filter")
    rows = [{k: v for k, v in harness(i, True).items() if k not in later} for i in range(3)]
    old = write(tmp_path / "a" / f"samples_t_{TIME}.jsonl", rows)
    new = write(tmp_path / "b" / f"samples_t_{TIME}.jsonl", [harness(i, True) for i in range(3)])
    (task,) = compare_logs([old, new])["comparisons"][0]["tasks"]
    assert [one["metric"] for one in task["metrics"]] == ["exact_match,none", "f1,none"]
    rows[2]["doc"] = {"question": "another"}
    other = write(tmp_path / "c" / f"samples_t_{TIME}.jsonl", rows)
    with pytest.raises(UsageError, match="of doc_id 2 the doc is"):
        compare_logs([old, other])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", r":2: damaged line \("),
        ("[]", r":2: damaged line \(no object\)"),
        ('{"qid": "1", "prediction": "x"}', ":2: this is a row of neither"),
        (json.dumps(harness(0, True)), ":2: doc_id 0 was already answered in line 1"),
    ],
)
def test_a_damaged_line_is_named(line: str, problem: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"samples_t_{TIME}.jsonl", [harness(0, True)])
    path.write_text(path.read_text("utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(RagtuneError, match=problem) as error:
        compare_logs([path, path])
    assert str(path) in error.value.message


def test_what_is_a_log(tmp_path: Path) -> None:
    log, other = two(tmp_path, generated, "outputs.jsonl")
    assert are_logs([str(log), str(other)])
    assert are_logs([str(log.parent), str(other.parent)])
    assert not are_logs(["recipe.yaml", str(tmp_path / "nothing")])
    run = tmp_path / "run"
    shutil.copytree(log.parent, run)
    (run / "recipe.yaml").write_text("name: x\n")
    assert not are_logs([str(run)])
    with pytest.raises(UsageError, match=r"is a log of another tool, .*run is none"):
        are_logs([str(log), str(run)])
    with pytest.raises(UsageError, match="is one log alone"):
        are_logs([str(log)])
    with pytest.raises(UsageError, match=r"data\.eval=x is no change to a log"):
        are_logs([str(log), str(other)], ["data.eval=x"])
    with pytest.raises(UsageError, match="holds no log"):
        compare_logs([log, tmp_path / "nothing"])


def test_genuine_logs_of_the_harness() -> None:
    """The sides are what its own table said of these two models; BLEU has no value a question."""
    folder = Path(__file__).parents[1] / "fixtures/logs/harness"
    (compared,) = compare_logs([folder / "a", folder / "b"])["comparisons"]
    written, chosen = sorted(compared["tasks"], key=lambda task: task["task"])
    assert [one["metric"] for one in written["metrics"]] == [
        "exact_match,strict",
        "exact_match,lower",
    ]
    acc, norm = chosen["metrics"]
    assert [(one["metric"], one["n"]) for one in (acc, norm)] == [
        ("acc,none", 12),
        ("acc_norm,none", 12),
    ]
    sides = [round(one[side]["value"], 4) for one in (acc, norm) for side in ("first", "second")]
    assert sides == [0.3333, 0.3333, 0.5833, 0.75]
    assert (norm["higher"], norm["lower"], norm["mcnemar_p"]) == (3, 1, pytest.approx(0.625))


def test_genuine_logs_of_flexeval() -> None:
    """The sides are what its metrics.json said of the same two models."""
    folder = Path(__file__).parents[1] / "fixtures/logs/flexeval"
    (compared,) = compare_logs([folder / "a", folder / "b"])["comparisons"]
    written, chosen = compared["tasks"]
    assert (written["task"], chosen["task"]) == ("gen", "mc")
    sides = {
        one["metric"]: [round(one[side]["value"], 4) for side in ("first", "second")]
        for one in (*written["metrics"], *chosen["metrics"])
    }
    assert sides == {
        "exact_match": [0, 0], "char_f1": [0.0275, 0.0258], "output_length": [9.3333, 7.9167],
        "accuracy": [0.3333, 0.3333], "byte_norm_accuracy": [0.3333, 0.3333],
    }  # fmt: skip
    assert [one["rate"] for one in written["metrics"]] == [True, True, False]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = two(tmp_path, generated, "outputs.jsonl")
    for more, code in (([], 0), (["--json"], 0), (["data.eval=x"], 2)):
        with pytest.raises(SystemExit) as end:
            main(["compare", str(first), str(second), *more])
        assert (end.value.code or 0) == code
        out, err = capsys.readouterr()
        if "--json" in more:
            (compared,) = json.loads(out)["comparisons"]
            assert (compared["against"], compared["name"]) == (str(first), str(second))
            assert compared["tasks"][0]["metrics"][0]["higher"] == 5
        elif code:
            assert "data.eval=x is no change to a log." in err
        else:
            text = " ".join(out.split())
            for figure in ("50.0 (20.0…80.0)", "70.0 (40.0…100.0)", "0.73"):
                assert figure in text
