"""A model as lm-evaluation-harness asks it: what it says is kept, and nothing else is changed or printed."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import torch
from pydantic import JsonValue
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ragtune.base.errors import is_out_of_memory
from ragtune.base.files import appending, json_line, whole_lines
from ragtune.base.lock import require_held
from ragtune.base.screen.activity import Update
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.progress import progress
from ragtune.base.stopping import finishing, stop_if_asked
from ragtune.base.text import one_or_many
from ragtune.model.hardware import free_gpu
from ragtune.model.quiet import quiet

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

SEED = 1234
"""Of what a task draws, its examples say; that of lm-evaluation-harness."""
_AT_ONCE = 8
"""Texts at a time: the probabilities of every token of each are in memory, unlike those of an answer."""
_ASKING = ("loglikelihood", "loglikelihood_rolling", "generate_until")

Result = float | str | tuple[float, bool]


def harness(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> HFLM:
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
        stop_if_asked(f"{one_or_many(len(self._known), 'result is', 'results are')} kept.")

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
            note(
                f"Going on: {self._done:,} of {total:,} results {'is' if self._done == 1 else 'are'} kept."
            )
        with (
            progress(self._title, total, done=self._done, unit="texts") as self._update,
            finishing("this batch of texts is read first"),
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
def keeping(lm: HFLM, path: Path, name: str) -> Iterator[_Kept]:
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
def drawing() -> Iterator[None]:
    """What tasks draw is the same each time, and changes nothing that is drawn afterwards."""
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 - what tasks draw from
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        random.seed(SEED)
        np.random.seed(SEED)  # noqa: NPY002 - as above
        torch.manual_seed(SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)  # noqa: NPY002 - as above


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without the bars and warnings of lm-evaluation-harness; ours say what matters."""
    import datasets  # noqa: PLC0415 - what asking and answering do without
    from lm_eval.api import model, task  # noqa: PLC0415 - an extra
    from lm_eval.models import huggingface  # noqa: PLC0415 - an extra

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
