"""Logs of other tools, of a row a question: lm-evaluation-harness's samples and flexeval's outputs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from ragtune.base.errors import UsageError
from ragtune.base.files import read_jsonl
from ragtune.base.screen.console import note
from ragtune.base.text import named, one_or_many, shortened
from ragtune.scoring.paired import Logs, PairedTask, paired

_SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<time>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d[.\d]*)\.jsonl")
"""How lm-evaluation-harness names a log (loggers/evaluation_tracker.py)."""
_OUTPUTS = "outputs.jsonl"
"""How flexeval does (core/result_recorder/local_recorder.py)."""

# What else stands in a row, version 0.4.13 and 0.18.3 (older rows of the harness lack `metrics`).
_HARNESS = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash",
    "prompt_hash", "target_hash",
}  # fmt: skip
_FLEXEVAL = {
    "lm_prompt", "lm_output", "finish_reason", "extra_info", "references", "raw_lm_output",
    "reasoning_text", "tool_calls", "tool_call_validation_result",
}  # fmt: skip

_LARGEST = 1e100
"""What a row's value may be: sums of larger ones have no end, as Infinity has none."""

Row = dict[str, JsonValue]


class _Read(NamedTuple):
    """What a row says."""

    question: str
    """Its id within the log."""
    asked: dict[str, str]
    """What tells whether another log's question of this id is the same."""
    filter: str
    values: Row


@dataclass
class Log:
    """A log of one task."""

    path: Path
    task: str
    asked: dict[str, dict[str, str]] = field(default_factory=dict)
    """By the question's id: what was asked."""
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    """By metric, then by question; NaN where a row holds no number."""
    unscored: set[str] = field(default_factory=set)
    """Metrics that are no number of a question."""


def are_logs(targets: Sequence[str], changes: Sequence[str] = ()) -> bool:
    """Whether what `compare` is given is logs of other tools.

    Raises:
        UsageError: only some of it is; or it is one alone, or has changes behind it.
    """
    logs = [target for target in targets if _is_log(Path(target))]
    if not logs:
        return False
    if len(logs) < len(targets):
        other = next(target for target in targets if target not in logs)
        raise UsageError(
            f"{logs[0]} is a log of another tool, {other} is none.",
            "Runs are compared with runs, and logs of lm-evaluation-harness or flexeval with logs.",
        )
    if len(logs) == 1 or changes:
        problem = (
            f"{changes[0]} is no change to a log" if changes else f"{logs[0]} is one log alone"
        )
        raise UsageError(f"{problem}.", "Name two logs, or folders of them: FIRST SECOND.")
    return True


def _is_log(path: Path) -> bool:
    if path.is_file():
        return path.suffix == ".jsonl"
    own = (path / "recipe.yaml", path / "predictions.jsonl")
    return path.is_dir() and not any(map(Path.is_file, own)) and bool(_files(path))


def compare_logs(paths: Sequence[Path]) -> Logs:
    """Logs, or folders of them, each against the first, task by task.

    Raises:
        RagtuneError: a damaged line, no task in common, or logs that answer different questions.
    """
    first, *others = [(path, _logs(path)) for path in paths]
    return {
        "comparisons": [
            {
                "name": str(path),
                "against": str(first[0]),
                "tasks": [_pair(*both) for both in _in_common(first, (path, logs))],
            }
            for path, logs in others
        ]
    }


def _files(folder: Path) -> list[Path]:
    harness = [p for p in folder.rglob("samples_*.jsonl") if _SAMPLES.fullmatch(p.name)]
    return sorted([*harness, *folder.rglob(_OUTPUTS)])


def _task(path: Path, folder: Path) -> str:
    if match := _SAMPLES.fullmatch(path.name):
        return match["task"]
    inner = path.parent.relative_to(folder).as_posix()
    return path.parent.resolve().name if inner == "." else inner


def _logs(path: Path) -> dict[str, Path]:
    """The logs that a path stands for, by their tasks; of several of a task the newest.

    Raises:
        UsageError: it isn't there, or two folders hold logs of a task.
    """
    if path.is_file():
        return {_task(path, path.parent): path}
    found: dict[str, Path] = {}
    for one in _files(path):
        task = _task(one, path)
        if (other := found.get(task)) is None:
            found[task] = one
            continue
        if one.parent != other.parent:
            raise UsageError(
                f"{path} holds logs of {task} in {other.parent} and in {one.parent}.",
                "Name one of the two folders.",
            )
        found[task] = one  # the names end in a time, and are sorted
        note(f"Of {task} the newest log is taken: {one.name}, not {other.name}.")
    if not found:
        raise UsageError(
            f"{path} holds no log.",
            "Name a samples_TASK_TIME.jsonl of lm-evaluation-harness (--log_samples), an outputs.jsonl of "
            "flexeval, or a folder of such files.",
        )
    return found


def _in_common(
    first: tuple[Path, dict[str, Path]], other: tuple[Path, dict[str, Path]]
) -> Iterator[tuple[Log, Log]]:
    """The logs of the tasks that both have; two single ones whatever their tasks are called."""
    (mine, own), (theirs, others) = first, other
    if len(own) == len(others) == 1:
        both = [*zip(own, others, strict=True)]
    else:
        both = [(task, task) for task in own if task in others]
        if alone := sorted(own.keys() ^ others.keys()):
            note(f"Only one of {mine} and {theirs} has {named(alone)}.")
    if not both:
        raise UsageError(
            f"{mine} and {theirs} have no task in common: {named(list(own))}; {named(list(others))}.",
            "Name logs of the same tasks.",
        )
    for task, other_task in both:
        logs = read_log(own[task], task), read_log(others[other_task], other_task)
        for log in logs:
            if log.unscored:
                names = named(sorted(log.unscored))
                note(f"{log.path}: {names} can't be paired: a question has no number there.")
        yield logs


def _pair(first: Log, second: Log) -> PairedTask:
    """A task of two logs. Raises UsageError if they answer different questions."""
    common = first.asked.keys() & second.asked.keys()
    require_same(first, second)
    if not common:
        raise UsageError(
            f"{first.path} and {second.path} have no question in common.",
            "Compare logs of the same questions.",
        )
    left_out = len(first.asked.keys() ^ second.asked.keys())
    if left_out:
        note(
            f"{one_or_many(left_out, 'question is', 'questions are')} in one of {first.path} and "
            f"{second.path} alone; "
            f"the figures are over the {len(common):,} that both answer."
        )
    return {
        "task": first.task if first.task == second.task else f"{first.task} / {second.task}",
        "first": str(first.path),
        "second": str(second.path),
        "left_out": left_out,
        "metrics": paired(_of(first, common), _of(second, common)),
    }


def _of(log: Log, questions: set[str]) -> dict[str, dict[str, float]]:
    return {
        metric: {q: value for q, value in column.items() if q in questions}
        for metric, column in log.values.items()
    }


def require_same(first: Log, second: Log) -> None:
    """Raise UsageError if two logs mean different questions by one id."""
    for question in [one for one in first.asked if one in second.asked]:
        mine, theirs = first.asked[question], second.asked[question]
        for key in mine:
            if mine[key] != theirs.get(key, mine[key]):
                raise UsageError(
                    f"{first.path} and {second.path} answer different questions: of {question} the {key} is "
                    f"{shortened(mine[key])} in the first, {shortened(theirs[key])} in the second.",
                    "Only logs of the same questions can be compared: the same task, version and split.",
                )


def read_log(path: Path, task: str) -> Log:
    """A log. Raises RagtuneError: a line is damaged, of neither tool, or answers a question again."""
    log = Log(path, task)
    lines: dict[tuple[str, str], int] = {}
    unscored = log.unscored
    for number, row in enumerate(read_jsonl(path, "Write the log again."), 1):
        where = f"{path}:{number}"
        one = _harness_row(row) if "doc_id" in row else _flexeval_row(row, number)
        if one is None:
            raise UsageError(
                f"{where}: this is a row of neither lm-evaluation-harness nor flexeval.",
                "Name a samples_TASK_TIME.jsonl or an outputs.jsonl. For answers of a run name its folder.",
            )
        before = lines.setdefault((one.question, one.filter), number)
        if before != number:
            raise UsageError(
                f"{where}: {one.question} was already answered in line {before}.",
                "A log has a row for each question and filter: name one that wasn't put together.",
            )
        log.asked[one.question] = one.asked
        for name, value in one.values.items():
            metric = f"{name},{one.filter}" if one.filter else name
            if isinstance(value, list | dict | str):
                unscored.add(metric)
            else:
                log.values.setdefault(metric, {})[one.question] = _number(value)
    if not lines:
        raise UsageError(f"{path} is empty.", "Name a log with rows.")
    unscored |= {
        name for name, column in log.values.items() if all(map(math.isnan, column.values()))
    }
    return log


def _number(value: float | None) -> float:
    """A row's value; NaN where it has none (a judge that failed, say), or one of which no mean can be made."""
    return float(value) if value is not None and -_LARGEST < value < _LARGEST else math.nan


def _harness_row(row: Row) -> _Read:
    """A row of lm-evaluation-harness: one question, under one of the task's filters."""
    # Old ones have no hashes.
    doc = (
        {"doc_hash": str(row["doc_hash"])} if "doc_hash" in row else {"doc": _shown(row.get("doc"))}
    )
    asked = {**doc, "target": _shown(row.get("target"))}
    names = row.get("metrics")
    known = names if isinstance(names, list) else [k for k in row if k not in _HARNESS]
    values = {str(name): row.get(str(name)) for name in known}
    return _Read(f"doc_id {row['doc_id']}", asked, str(row.get("filter", "none")), values)


def _flexeval_row(row: Row, number: int) -> _Read | None:
    """A row of flexeval: what it generated, or chose. It has no id: rows are paired in their order."""
    if "choices" in row and "answer_index" in row:
        right = row["answer_index"]
        asked = {"choices": _shown(row["choices"]), "answer_index": _shown(right)}
        chosen = {"accuracy": "prediction", "byte_norm_accuracy": "byte_norm_prediction"}
        values: Row = {name: row[key] == right for name, key in chosen.items() if key in row}
        return _Read(f"line {number}", asked, "", values)
    if "lm_output" not in row:
        return None
    asked = {"references": _shown(row.get("references")), "input": _shown(_input(row))}
    values = {
        k: v for k, v in row.items() if k not in _FLEXEVAL and not isinstance(v, str | list | dict)
    }
    return _Read(f"line {number}", asked, "", values)


def _input(row: Row) -> list[JsonValue]:
    """What the data say of a question, and the user's last words: not what models said in between."""
    extra = row.get("extra_info")
    known = extra if isinstance(extra, dict) else {}
    messages = known.get("messages")
    said = [m.get("content") for m in messages if isinstance(m, dict) and m.get("role") == "user"] if (
        isinstance(messages, list)
    ) else []  # fmt: skip
    return [{k: v for k, v in known.items() if k not in ("messages", "tools")}, *said[-1:]]


def _shown(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
