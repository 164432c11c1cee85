"""General tasks, asked of a model of this machine as lm-evaluation-harness asks them: its tasks and its way."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import importlib.util
import json
import logging
import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import torch
from pydantic import JsonValue
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ragtune.base.commands import install, known_only
from ragtune.base.errors import RagtuneError, UsageError, is_out_of_memory
from ragtune.base.files import appending, json_line, whole_lines, write_json, write_jsonl
from ragtune.base.lock import require_held
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.progress import Update, busy, progress
from ragtune.base.stopping import finishing, stop_if_asked
from ragtune.base.text import first_line, nearest
from ragtune.model.fast.rope import lengths_forgotten
from ragtune.model.hardware import free_gpu
from ragtune.model.quiet import quiet
from ragtune.recipe.schema import Evaluate

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks.manager import TaskDict

TASKS = "tasks.json"
"""What was asked, beside the logs."""
_AT_ONCE = 8
"""Texts at a time: the probabilities of every token of each are in memory, unlike those of an answer."""
_NAME = re.compile(r"\w[\w.+-]*")
"""What names a log: a task's name is its author's."""
_SEED = 1234
"""Of what a task draws, its examples say; that of lm-evaluation-harness."""
_ASKING = ("loglikelihood", "loglikelihood_rolling", "generate_until")
_TIME = "T00-00-00"
"""Behind the date in a log's name: lm-evaluation-harness has a time there."""

Result = float | str | tuple[float, bool]


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
    with _silent(), _drawing():
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
    from lm_eval.utils import handle_non_serializable  # noqa: PLC0415

    parts: dict[str, dict[str, str]] = {}
    with _silent(), _drawing(), lengths_forgotten(model):
        lm = _harness(model, tokenizer)
        for name, tasks in require_tasks(settings).items():
            _with_examples(tasks)
            with _kept(lm, out.with_name("said.jsonl"), name) as asked:
                try:
                    found = evaluate(
                        lm=asked, task_dict=tasks, limit=settings.general_limit, bootstrap_iters=0
                    )
                except (RagtuneError, KeyboardInterrupt):
                    raise
                except Exception as error:  # a task's own code may raise anything
                    if is_out_of_memory(error):
                        raise
                    raise _failed(name, error) from error
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
    with busy(f"loading the task {name} with its data"):
        try:
            return manager.load([name])
        except Exception as error:  # what a library, a task's own code or its data raise
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
        task.set_fewshot_seed(seed=_SEED)


def _harness(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> HFLM:
    """The model as lm-evaluation-harness asks it."""
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415 - an extra

    # It ties weights, which a model whose file has both must not have tied; the tokenizer it changes.
    model.tie_weights = lambda *_, **__: None
    try:
        return HFLM(
            pretrained=model,
            tokenizer=copy.deepcopy(tokenizer),
            batch_size=_AT_ONCE,
            softmax_dtype=torch.float32,
        )
    finally:
        del model.tie_weights


class _Kept:
    """Asks for what is not known yet, and keeps each result as soon as it is there."""

    def __init__(self, lm: HFLM, file: IO[str], known: dict[str, Result], title: str) -> None:
        from lm_eval.api.model import hash_args  # noqa: PLC0415 - an extra

        self._lm, self._file, self._known, self._title = lm, file, known, title
        self._key: Callable[[str, Sequence[JsonValue]], str] = hash_args
        self._update: Update | None = None
        self._done = 0
        lm.set_cache_hook(self)

    def __getattr__(self, name: str) -> object:
        return partial(self._ask, name) if name in _ASKING else getattr(self._lm, name)

    def add_partial(self, kind: str, request: Sequence[JsonValue], result: Result) -> None:
        """Keep a result: lm-evaluation-harness calls this for each (its CacheHook)."""
        self._keep(self._key(kind, request), result)
        stop_if_asked(f"{len(self._known):,} results are kept.")

    def _keep(self, key: str, result: Result) -> None:
        if key in self._known:
            return
        self._known[key] = result
        self._file.write(json_line({"key": key, "result": result}))
        self._file.flush()
        self._done += 1
        if self._update:
            self._update(self._done)
        require_held()

    def _ask(self, kind: str, requests: Sequence[Instance]) -> list[Result]:
        keys = [self._key(kind, request.args) for request in requests]
        total = len({*keys})
        self._done = len({*keys} & self._known.keys())
        if self._done:
            note(f"Going on: {self._done:,} of {total:,} results are kept.")
        with (
            progress(self._title, total, done=self._done, unit="texts") as self._update,
            finishing(),
        ):
            while left := [
                r for key, r in zip(keys, requests, strict=True) if key not in self._known
            ]:
                self._some(kind, left)
        return [self._known[key] for key in keys]

    def _some(self, kind: str, requests: Sequence[Instance]) -> None:
        """Ask for results; if memory runs out, for half as many at a time from then on."""
        try:
            results = getattr(self._lm, kind)(requests)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or self._lm.batch_size_per_gpu == 1:
                raise
            self._lm.batch_size_per_gpu //= 2
            warn(f"Out of memory: {self._lm.batch_size_per_gpu} texts at a time.")
            free_gpu()
            return
        for request, result in zip(requests, results, strict=True):
            self._keep(self._key(kind, request.args), result)


@contextlib.contextmanager
def _kept(lm: HFLM, path: Path, name: str) -> Iterator[_Kept]:
    """The model, with what an earlier run heard of it."""
    known: dict[str, Result] = {}
    for line in whole_lines(path):
        with contextlib.suppress(
            ValueError, TypeError, KeyError
        ):  # a broken disk's line is asked again
            row = json.loads(line)
            result = row["result"]
            known[row["key"]] = tuple(result) if isinstance(result, list) else result
    with appending(path) as file:
        yield _Kept(lm, file, known, f"general task {name}")


@contextlib.contextmanager
def _drawing() -> Iterator[None]:
    """What tasks draw is the same each time, and changes nothing that is drawn afterwards."""
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - what tasks draw from
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        random.seed(_SEED)
        np.random.seed(_SEED)  # noqa: NPY002
        torch.manual_seed(_SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)  # noqa: NPY002


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the bars and warnings of lm-evaluation-harness; ours say what matters."""
    import datasets  # noqa: PLC0415 - what asking and answering do without
    from lm_eval.api import model, task  # noqa: PLC0415 - an extra
    from lm_eval.models import huggingface  # noqa: PLC0415

    logger, modules = logging.getLogger("lm_eval"), (model, task, huggingface)
    level, bars, shown = logger.level, model.tqdm, datasets.are_progress_bars_disabled()

    def hidden(*given: object, **more: object) -> object:
        return bars(*given, **(more | {"disable": True}))

    logger.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    for module in modules:
        module.tqdm = hidden
    try:
        with quiet():
            yield
    finally:
        logger.setLevel(level)
        for module in modules:
            module.tqdm = bars
        if not shown:
            datasets.enable_progress_bars()
