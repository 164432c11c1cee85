"""A run that is killed at random moments, and goes on until it is done, gives the same files.

    python -m tests.test_kill --kills 30 --seed 1

does more of them, in a process of its own, as the tests here do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest

from ragtune.store.proof import damage
from tests.faults import Faults, digests, full, last_stage, preload, wait

ROOT = Path(__file__).parents[1]
PER_RUN = 5
"""A run is killed so often at most before it may finish."""
SETTING_ASIDE = 40
"""The moments in which --redo sets everything of a run aside, and some more."""


def kills(faults: Faults, count: int) -> str:
    """Kill runs `count` times in all; each is finished then, and compared. Returns what happened."""
    done, runs = 0, 0
    stages: Counter[str] = Counter()
    while done < count:
        run = faults.folder / f"cut-{runs}"
        runs += 1
        for _ in range(min(count - done, faults.random.randint(1, PER_RUN))):
            if not faults.kill(run):
                break
            done += 1
            stages[last_stage(run)] += 1
        assert faults.run(run) == 0, faults.said()[-5000:]
        _same(faults, run)
    assert "Traceback" not in faults.said()
    return f"{done} kills in {runs} runs; the newest thing there: {dict(stages)}"


def redos(faults: Faults, count: int) -> str:
    """Kill what makes a changed recipe's stages again; nothing old is left in it."""
    done = _redos(faults, "recipe", count, "evaluate.limit=5", "evaluate.answers=first")
    return f"{done} kills in {count} changed runs"


def file_redos(faults: Faults, count: int) -> str:
    """Kill what makes the stages of a changed data file again: only their proofs know of which it was."""
    file = faults.folder / "train.jsonl"
    old = file.read_bytes()
    file.write_bytes(old.replace(b"colour", b"color"))
    try:
        done = _redos(faults, "file", count)
    finally:
        file.write_bytes(old)
    return f"{done} kills in {count} runs of a changed file"


def _redos(faults: Faults, what: str, count: int, *change: str) -> int:
    reference = faults.folder / f"changed-{what}"
    assert faults.run(reference, *change) == 0, faults.said()[-5000:]
    wanted, done = digests(reference), 0
    assert wanted != faults.digests
    undisturbed = faults.folder / f"redo-{what}"
    shutil.copytree(faults.whole, undisturbed)
    assert faults.run(undisturbed, *change, "--redo") == 0, faults.said()[-5000:]
    moments = faults.counted()
    for number in range(count):
        run = faults.folder / f"redo-{what}-{number}"
        shutil.copytree(faults.whole, run)
        # Of the moments, the first are those in which the old stages are set aside.
        moment = faults.random.randint(1, (min(SETTING_ASIDE, moments), moments)[number % 2])
        done += wait(faults.start(run, *change, "--redo", at=moment)) == -signal.SIGKILL
        assert faults.run(run, *change, "--redo") == 0, faults.said()[-5000:]
        assert digests(run) == wanted, moment
        assert not [stage for stage in faults.stages if damage(run / stage, thorough=True)], moment
        merge = [json.loads((r / "run.json").read_text("utf-8"))["merge"] for r in (run, reference)]
        assert merge[0] == merge[1], moment
    return done


def full_disks(faults: Faults, count: int) -> str:
    """Fill the disk at `count` moments; what was whole stays, and the run finishes later."""
    for number in range(count):
        run = faults.folder / f"full-{number}"
        moment = faults.random.randint(1, faults.moments)
        before = len(faults.said())
        code = wait(faults.start(run, at=moment, act=full))
        words = faults.said()[before:]
        assert "Traceback" not in words, words
        # Some of what is lost to a full disk is only a sign of life, or a removal.
        assert code == 0 or (code == 1 and "The disk is full" in words), (moment, code, words)
        _kept(faults, run)
        assert faults.run(run) == 0, faults.said()[-5000:]
        _same(faults, run)
    return f"{count} full disks"


def small_disks(faults: Faults, count: int) -> str:
    """Let a real disk run full at `count` moments, whoever writes: PyTorch's own writers, too."""
    disk = faults.folder / "disk"
    disk.mkdir()
    ended: Counter[str] = Counter()
    for _ in range(count):
        mount = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", disk], capture_output=True, check=False
        )  # fmt: skip
        if mount.returncode:
            return "no small disks: none may be mounted here"
        try:
            run, before = disk / "run", len(faults.said())
            fill = _Fill(disk / "ballast", faults.random.randrange(300) * 1024)
            code = wait(faults.start(run, at=faults.random.randint(1, faults.moments), act=fill))
            words = faults.said()[before:]
            assert "Traceback" not in words, words
            # A disk that is full before the check has looked is one of its findings.
            found = code == 2 and "will fail  disk: " in words
            assert code == 0 or found or (code == 1 and "The disk is full" in words), (code, words)
            ended[f"code {code} at {last_stage(run)}"] += 1
            _kept(faults, run)
            (disk / "ballast").unlink(missing_ok=True)
            assert faults.run(run) == 0, faults.said()[-5000:]
            _same(faults, run)
        finally:
            subprocess.run(["umount", disk], check=True)
    return f"{count} small disks: {dict(ended)}"


class _Fill:
    """Fills a disk with one file, but for some bytes."""

    def __init__(self, path: Path, left: int) -> None:
        self.path, self.left, self.done = path, left, False

    def __call__(self, _: str) -> None:
        if not self.done:
            self.done = True
            free = shutil.disk_usage(self.path.parent).free
            with self.path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(1, free - self.left))


def stops(faults: Faults, count: int) -> str:
    """Stop runs by SIGTERM and SIGINT: a last line with the command, its exit code, no traceback."""
    for number in range(count):
        run = faults.folder / f"stopped-{number}"
        how, code = (
            (signal.SIGTERM, 143),
            (signal.SIGINT, 130),
        )[number % 2]
        before = len(faults.said())
        moment = faults.random.randint(1, faults.moments - 1)
        got = wait(faults.start(run, at=moment, act=_Once(how)))
        words = faults.said()[before:]
        assert "Traceback" not in words, words
        # A stop that comes in the last writes of all may find nothing left to stop.
        assert got in (code, 0), (moment, got, words)
        if got:
            last = words.strip().splitlines()[-1]
            assert last.endswith(f"goes on: ragtune {' '.join(faults.command(run))}"), words
        assert not (run / "run.lock").exists()
        _kept(faults, run)
        assert faults.run(run) == 0, faults.said()[-5000:]
        _same(faults, run)
    return f"{count} stops"


class _Once:
    def __init__(self, how: int) -> None:
        self.how, self.sent = how, False

    def __call__(self, _: str) -> None:
        if not self.sent:
            self.sent = True
            os.kill(os.getpid(), self.how)


def _kept(faults: Faults, run: Path) -> None:
    """What has its name is whole, its proof included."""
    for stage in faults.stages:
        assert damage(run / stage, thorough=True) is None, stage
    found = digests(run)
    assert found.items() <= faults.digests.items(), {
        k for k, v in found.items() if faults.digests.get(k) != v
    }


def _same(faults: Faults, run: Path) -> None:
    found = digests(run)
    assert found == faults.digests, {
        k for k in found.keys() | faults.digests.keys() if found.get(k) != faults.digests.get(k)
    }
    odd = (".", "lock", "damaged", "old", "made", "new")
    names = (p.relative_to(run) for p in run.rglob("*") if p.name.startswith(odd))
    left = {str(p) for p in names if p.parts[0] != "work"}  # there lie damaged checkpoints
    assert not left, left
    whole = {stage: damage(run / stage, thorough=True) for stage in faults.stages}
    assert whole == dict.fromkeys(faults.stages), whole
    read = {str(p.relative_to(run).parent) for p in run.rglob("stage.json")}
    assert read == faults.stages, read


FAULTS = {
    "kills": (kills, 6),
    "redos": (redos, 3),
    "file-redos": (file_redos, 4),
    "full-disks": (full_disks, 4),
    "small-disks": (small_disks, 4),
    "stops": (stops, 4),
}
"""Each with the count of the short version."""


@pytest.fixture(scope="module")
def done() -> subprocess.CompletedProcess[str]:
    """The short version of all; a process of its own, because a fork of one that has computed may hang."""
    counts = [word for name, (_, count) in FAULTS.items() for word in (f"--{name}", str(count))]
    return subprocess.run(
        [sys.executable, "-m", "tests.test_kill", *counts, "--seed", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_that_is_cut_off_gives_the_same_files(
    fault: str, done: subprocess.CompletedProcess[str]
) -> None:
    said = dict(line.partition(": ")[::2] for line in done.stdout.splitlines())
    if "no small disks" in said.get(fault, ""):
        pytest.skip("no disk may be mounted here: a container may lack the right")
    assert fault in said, done.stdout[-3000:] + done.stderr[-6000:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in FAULTS:
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    chosen = vars(parser.parse_args())
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"
    preload()
    start, failed = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAGTUNE_CACHE"] = f"{folder}/cache"
        faults = Faults(Path(folder).resolve(), chosen["seed"])
        sys.stdout.write(f"one run: {faults.seconds:.1f} s, {faults.moments} moments\n")
        for name, (work, _) in FAULTS.items():
            if count := chosen[name.replace("-", "_")]:
                try:
                    sys.stdout.write(f"{name}: {work(faults, count)}\n")
                except AssertionError:  # the others are worth having
                    failed.append(name)
                    traceback.print_exc()
    sys.stdout.write(f"{time.monotonic() - start:.0f} s\n")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
