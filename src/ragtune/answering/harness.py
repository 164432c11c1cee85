"""General tasks, asked of a model of this machine as lm-evaluation-harness asks them: its tasks and its way."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ragtune.answering.harnessed import SEED, drawing, harness, keeping, silent
from ragtune.base.commands import install, known_only
from ragtune.base.disk import full_disk
from ragtune.base.errors import RagtuneError, UsageError, is_out_of_memory
from ragtune.base.files import write_json, write_jsonl
from ragtune.base.screen.progress import busy
from ragtune.base.stopping import stop_if_asked
from ragtune.base.text import first_line, nearest
from ragtune.model.fast.rope import lengths_forgotten
from ragtune.recipe.schema import Evaluate

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks.manager import TaskDict

TASKS = "tasks.json"
"""What was asked, beside the logs."""
_NAME = re.compile(r"\w[\w.+-]*")
"""What names a log: a task's name is its author's."""
_TIME = "T00-00-00"
"""Behind the date in a log's name: lm-evaluation-harness has a time there."""


def is_installed() -> bool:
    """Whether lm-evaluation-harness is there."""
    return importlib.util.find_spec("lm_eval") is not None


def require_tasks(settings: Evaluate) -> dict[str, TaskDict]:
    """The tasks of `evaluate.general`, with their data, each with those that it consists of.

    Raises:
        UsageError: lm-eval isn't installed, there is no such task, or it is none for a reader of text.
        RagtuneError: a task, or its data, can't be loaded.
    """
    if not is_installed():
        raise UsageError("evaluate.general needs lm-eval.", install("lm-eval"))
    with silent(), drawing():
        manager = _manager(settings)
        found = {name: _loaded(manager, name) for name in settings.general}
    for name, tasks in found.items():
        for leaf, task in tasks["tasks"].items():
            _require_text(name, leaf, task)
    return found


def ask_tasks(
    settings: Evaluate,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    day: str,
    out: Path,
) -> None:
    """Ask a model the tasks of `evaluate.general`: a log for each task, and `tasks.json`.

    What it says is kept beside `out`, so that a run that goes on asks only the rest.

    Raises:
        RagtuneError: as `require_tasks`; or a task fails.
    """
    from lm_eval.evaluator import evaluate  # noqa: PLC0415 - an extra
    from lm_eval.utils import handle_non_serializable  # noqa: PLC0415 - an extra

    parts: dict[str, dict[str, str]] = {}
    with silent(), drawing(), lengths_forgotten(model):
        lm = harness(model, tokenizer)
        for name, tasks in require_tasks(settings).items():
            _with_examples(tasks)
            with keeping(lm, out.with_name("said.jsonl"), name) as asked, _told(name, out):
                found = evaluate(
                    lm=asked, task_dict=tasks, limit=settings.general_limit, bootstrap_iters=0
                )
            parts[name] = {leaf: f"samples_{leaf}_{day}{_TIME}.jsonl" for leaf in found["samples"]}
            for leaf, rows in found["samples"].items():
                plain = (
                    json.loads(json.dumps(_lean(row), default=handle_non_serializable))
                    for row in rows
                )
                write_jsonl(out / parts[name][leaf], plain)
    version = importlib.metadata.version("lm-eval")
    write_json(out / TASKS, {"tasks": parts, "limit": settings.general_limit, "lm_eval": version})


def _lean(row: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """A log's row without the prompts: with their examples they are most of it, and their hash tells them."""
    return {key: value for key, value in row.items() if key != "arguments"}


def _manager(settings: Evaluate) -> TaskManager:
    """Knows the tasks of the user's folder and, unless these are all, lm-evaluation-harness' thousands."""
    from lm_eval.tasks import TaskManager  # noqa: PLC0415 - an extra

    folder = settings.general_folder
    if folder is not None and not Path(folder).expanduser().is_dir():
        raise UsageError(
            f"evaluate.general_folder: {folder} is no folder.",
            "Name the folder of your own tasks' YAML files.",
        )
    own = str(Path(folder).expanduser()) if folder else None
    wanted = set(settings.general)
    try:
        if own:
            manager = TaskManager(include_path=own, include_defaults=False)
            if wanted <= {*manager.all_tasks}:
                return manager
        with busy("looking through the tasks of lm-eval"):
            manager = TaskManager(include_path=own)
    except Exception as error:  # a user's YAML file, which may even bring code
        raise RagtuneError(
            f"evaluate.general_folder: the tasks of {own} can't be read: {_words(error)}.",
            "Write them as lm-evaluation-harness' guide to new tasks says.",
        ) from error
    for name in settings.general:
        if name not in manager.task_index:
            near = nearest(name, manager.all_tasks)
            raise UsageError(
                f"evaluate.general: lm-eval has no task {name}."
                + (f" Did you mean {near}?" if near else ""),
                "`lm-eval ls tasks` lists its tasks; those of your own lie in evaluate.general_folder.",
            )
    return manager


def _loaded(manager: TaskManager, name: str) -> TaskDict:
    import datasets  # noqa: PLC0415 - what asking and answering do without

    cache = Path(datasets.config.HF_DATASETS_CACHE)
    with busy(f"loading the task {name} with its data"), _told(name, cache):
        return manager.load([name])


@contextmanager
def _told(name: str, place: Path) -> Iterator[None]:
    """What fails within is told as the task's, but for a full disk at a place, and too little memory."""
    try:
        with full_disk(place):
            yield
    except RagtuneError:
        raise
    except Exception as error:  # a task's own code, or its data, may raise anything
        stop_if_asked()  # Ctrl-C in the middle of an import looks like one that fails
        if is_out_of_memory(error):
            raise
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> RagtuneError:
    """What the failure of a task means."""
    if isinstance(error, ImportError):
        advice = known_only(first_line(error))
        return RagtuneError(f"evaluate.general: {name} needs what is not installed: {advice}.")
    if isinstance(
        error, OSError
    ):  # the Hub can't be reached, or has no such data, or a file isn't there
        return RagtuneError(
            f"evaluate.general: the data of {name} can't be had: {_words(error)}.",
            "They come from where the task's YAML file says, mostly the Hub. Load them once where that can be "
            "reached, with the same cache (HF_HOME); or name tasks whose data lie here "
            "(evaluate.general_folder), or none.",
        )
    return RagtuneError(
        f"evaluate.general: {name} fails: {_words(error)}.",
        "That is the task's, or lm-eval's: leave it out, or try another.",
    )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}".rstrip(".")


def _require_text(name: str, leaf: str, task: Task) -> None:
    """Raise UsageError if a task isn't one that a reader of text answers, without luck and without harm."""
    part = f"{name} ({leaf})" if name != leaf else name
    generation = getattr(task.config, "generation_kwargs", None) or {}
    problems = {
        "shows pictures or sounds": getattr(task, "MULTIMODAL", False),
        "runs the code that a model writes": getattr(task, "UNSAFE_CODE", False),
        "draws its answers by lot": generation.get("do_sample", False),
        "has a name that is none of a file": not _NAME.fullmatch(leaf),
    }
    for words, holds in problems.items():
        if holds:
            raise UsageError(f"evaluate.general: {part} {words}.", "Name another task.")


def _with_examples(tasks: TaskDict) -> None:
    """Settle how many solved examples a task shows, and which: as `simple_evaluate` does it."""
    for task in tasks["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=SEED)
