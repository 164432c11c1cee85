"""Runs that are cut off: in processes forked from one that has everything imported.

A fork starts in milliseconds; the import of torch and transformers alone would take longer than a run.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import importlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

DETERMINED = ("data", "adapter", "eval", "merged")
"""Folders that a recipe determines, byte for byte, but for their proofs, which hold times."""
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link"}
"""What counts as a moment: an operation on the file system, below the run directory."""


def digests(run: Path) -> dict[str, str]:
    """sha256 of what a run made, by path; what was set aside is no part of it."""
    files = [
        p.relative_to(run)
        for name in DETERMINED
        for p in (run / name).rglob("*")
        if p.is_file() and p.name != "stage.json"
    ]
    return {
        str(p): hashlib.sha256((run / p).read_bytes()).hexdigest()
        for p in files
        if not any(part.startswith("damaged-") for part in p.parts)
    }


def preload() -> None:
    """Import everything that a run imports; nothing is computed, for a fork loses torch's threads.

    What is imported is frozen: else each garbage collection of a run looks through all of it.
    """
    import matplotlib.figure
    import peft
    import scipy.stats
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, Trainer

    import ragtune

    _ = (AutoModelForCausalLM, Trainer, matplotlib, peft, scipy, torch, transformers)
    _ = (transformers.LlamaForCausalLM, transformers.PreTrainedTokenizerFast)
    folder = Path(ragtune.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        name = ".".join(("ragtune", *path.relative_to(folder).with_suffix("").parts))
        if path.name not in ("__init__.py", "__main__.py", "kernels.py"):  # kernels need Triton
            importlib.import_module(name)
    gc.collect()
    gc.freeze()


def forked(work: Callable[[], Any], log: Path) -> int:
    """Do something in a fork, its words in `log`; returns its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:  # noqa: BLE001 - it must not reach the parent's code
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    """The exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Moments:
    """Counts operations below a folder in this process, and does something at one of them."""

    def __init__(self, folder: Path, at: int | None, act: Callable[[str], None]) -> None:
        self.folder, self.at, self.act = str(folder), at, act
        self.count = 0
        sys.addaudithook(self.see)

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in EVENTS or not str(arguments[0]).startswith(self.folder):
            return
        if event == "open" and not _writes(arguments):
            return
        self.count += 1
        if self.at is not None and self.count >= self.at:
            self.act(event)


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return any(sign in mode for sign in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def die(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full(event: str) -> None:
    if event in ("open", "os.mkdir"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Faults:
    """A recipe, the run that nobody disturbs, and others that are disturbed.

    Args:
        folder: for everything.
        seed: chooses the moments.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.log = folder / "log.txt"
        self.recipe = folder / "recipe.yaml"
        assert wait(forked(self._make, self.log)) == 0, self.log.read_text("utf-8")
        self.whole = folder / "whole"
        start = time.monotonic()
        assert self.run(self.whole) == 0, self.log.read_text("utf-8")
        self.seconds = time.monotonic() - start
        self.digests = digests(self.whole)
        self.stages = {
            str(p.relative_to(self.whole).parent) for p in self.whole.rglob("stage.json")
        }
        self.moments = self.counted()

    def _make(self) -> None:
        from tests.conftest import CHATML, build_tokenizer, make_records, tiny_model, write_records

        names = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "start": "<|im_start|>"}
        tokenizer = build_tokenizer(specials=names, template=CHATML)
        model = tiny_model("llama", eos_token_id=tokenizer.eos_token_id, initializer_range=0.2)
        model.save_pretrained(self.folder / "tiny")
        tokenizer.save_pretrained(self.folder / "tiny")
        train = write_records(self.folder / "train.jsonl", make_records(24))
        evaluation = write_records(self.folder / "eval.jsonl", make_records(10, "e"))
        recipe = {
            "name": "tiny",
            "seed": 7,
            "model": {"id": str(self.folder / "tiny"), "dtype": "float32"},
            "data": {"train": str(train), "eval": str(evaluation), "max_passages": 2},
            "prompt": {"preset": "english"},
            "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
            "train": {"steps": 8, "batch_size": 4, "learning_rate": 0.01, "save_every": 2},
            "evaluate": {"max_new_tokens": 6, "metric": "squad_em", "batch_size": 2},
        }
        self.recipe.write_text(yaml.safe_dump(recipe), "utf-8")

    def command(self, run: Path, *more: str) -> list[str]:
        return ["run", str(self.recipe), *more, "--run-dir", str(run)]

    def start(
        self, run: Path, *more: str, at: int | None = None, act: Callable[[str], None] = die
    ) -> int:
        """Begin a run in a fork, with something that happens at a moment; returns the pid."""

        def work() -> None:
            from ragtune.cli import main

            moments = Moments(run, at, act)
            try:
                main(self.command(run, *more))
            finally:
                if at is None:
                    (self.folder / "moments.json").write_text(str(moments.count), "utf-8")

        return forked(work, self.log)

    def run(self, run: Path, *more: str) -> int:
        """A run that nobody disturbs; returns its exit code."""
        return wait(self.start(run, *more))

    def kill(self, run: Path) -> bool:
        """Kill a run at a moment, or after a time; whether that came before its end."""
        if self.random.random() < 0.7:
            pid = self.start(run, at=self.random.randint(1, self.moments))
            return wait(pid) == -signal.SIGKILL
        pid = self.start(run, at=10**9)
        time.sleep(self.random.uniform(0, self.seconds))
        os.kill(pid, signal.SIGKILL)
        return wait(pid) == -signal.SIGKILL

    def counted(self) -> int:
        """The moments of the last run that nobody disturbed."""
        return int((self.folder / "moments.json").read_text("utf-8"))

    def said(self) -> str:
        return self.log.read_text("utf-8", errors="replace")


REACHED = {
    "the merged model": "merged",
    "the comparison": "eval/*/comparison.json",
    "answers after": "eval/*/after",
    "the adapter": "adapter",
    "a checkpoint": "work/adapter-*/checkpoint-*",
    "answers before": "eval/*/before",
    "questions": "eval/*/questions",
    "data": "data",
}


def last_stage(run: Path) -> str:
    """How far a run has come, by what lies there."""
    return next((name for name, path in REACHED.items() if any(run.glob(path))), "nothing")
