"""Fuzz the readers for as long as one likes.

    python -m tests.fuzz.run --minutes 10
    python -m tests.fuzz.run --minutes 1 --engine atheris --reader recipe

Half of the time goes to Hypothesis, half to atheris where it is installed. What fails is written to
tests/fuzz/corpus/failed.jsonl, which the tests read from then on. The exit code is 1 if anything did.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.inputs import FAILED, FAILED_DOCUMENTS, Input, corpus, keep
from tests.fuzz.readers import DOCUMENTS, KINDS

ROOT = Path(__file__).parents[2]
LONGEST = 8192
"""Bytes of the longest input that atheris makes."""
SLOWEST, MOST_MEMORY = 20, 3000
"""Seconds and MiB that one input may take under atheris."""


@dataclass(frozen=True)
class Outcome:
    """How often a reader was called, and an input that failed, if one did."""

    calls: int
    seconds: float
    failed: Input | None = None
    why: str = ""


def with_hypothesis(kind: str, seconds: float, *, seed: int | None = None) -> Outcome:
    """Call a reader with what Hypothesis makes, and make a failing input as small as it can be."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    from tests.fuzz.strategies import changed, contents

    known = _known(kind)
    made = contents(kind, known) if kind in KINDS else changed(known) | st.binary(max_size=200)
    start, calls, last = time.monotonic(), 0, b""
    with tempfile.TemporaryDirectory() as folder:
        reader = _reader(kind, Path(folder))

        @settings(
            max_examples=300,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(made)
        def once(content: bytes) -> None:
            nonlocal calls, last
            calls += 1
            last = content
            with contextlib.redirect_stdout(io.StringIO()):
                reader(content)

        number = seed if seed is not None else int(time.time())
        while calls == 0 or time.monotonic() - start < seconds:
            try:
                seeded(number)(once)()
            except Exception as error:  # noqa: BLE001 - whatever it is, it was found
                found = Input(kind, f"Hypothesis: {type(error).__name__}", last)
                return Outcome(calls, time.monotonic() - start, found, repr(error)[:300])
            number += 1
    return Outcome(calls, time.monotonic() - start)


def with_atheris(
    kinds: Sequence[str], seconds: float, *, seed: int | None = None
) -> Iterator[tuple[str, Outcome]]:
    """Call one reader after the other with what atheris makes, watching time and memory.

    Each has a process of its own, forked from one that has imported and instrumented all of them.

    Yields:
        Each kind, once it was called for these seconds.

    Raises:
        RuntimeError: atheris could not run.
    """
    limits = [
        f"-max_total_time={max(1, int(seconds))}",
        f"-max_len={LONGEST}",
        f"-timeout={SLOWEST}",
        f"-rss_limit_mb={MOST_MEMORY}",
        "-print_final_stats=1",
        *([f"-seed={seed}"] if seed is not None else []),
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in kinds:
            inputs = folder / kind / "inputs"
            inputs.mkdir(parents=True)
            (folder / kind / "files").mkdir()
            for number, known in enumerate(i for i in _known(kind) if i.kind == kind):
                if len(known.content) <= LONGEST:
                    (inputs / str(number)).write_bytes(known.content)
        command = [sys.executable, "-m", "tests.fuzz.run", "--child", name, ",".join(kinds)]
        with (
            (folder / "said").open("wb") as said,
            subprocess.Popen(
                [*command, *limits], cwd=ROOT, stdout=subprocess.PIPE, stderr=said, text=True
            ) as process,
        ):
            assert process.stdout
            for kind in kinds:
                code, _, spent = process.stdout.readline().partition(" ")
                if not spent:
                    raise RuntimeError(f"atheris could not run:\n{_last(folder / 'said')}")
                yield kind, _outcome(kind, folder / kind, int(code), float(spent))


def _outcome(kind: str, folder: Path, code: int, seconds: float) -> Outcome:
    why = _last(folder / "said")
    count = re.search(r"number_of_executed_units:\s*(\d+)", why)
    calls = int(count[1]) if count else 0
    if found := next(iter(folder.glob("found-*")), None):
        made = Input(kind, f"atheris: {found.name[6:14]}", found.read_bytes())
        return Outcome(calls, seconds, made, why)
    if code or not calls:
        raise RuntimeError(f"atheris could not run:\n{why}")
    return Outcome(calls, seconds)


def _last(said: Path) -> str:
    return "\n".join(said.read_text("utf-8", errors="replace").strip().splitlines()[-25:])


def _children(folder: Path, kinds: list[str], options: list[str]) -> None:
    """A process for each kind, one after the other; tells how each ended, and after how many seconds."""
    import atheris

    with atheris.instrument_imports(include=["ragtune", "yaml", "json"]):
        from tests.fuzz import readers  # noqa: F401 - they are instrumented while they are imported
    for kind in kinds:
        start = time.monotonic()
        pid = os.fork()
        if not pid:
            _child(kind, folder / kind, options)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, time.monotonic() - start, flush=True)


def _child(kind: str, folder: Path, options: list[str]) -> None:
    """What runs under atheris; it ends the process itself."""
    import atheris

    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT, 0o600)
    for output in (1, 2):
        os.dup2(said, output)
    reader = _reader(kind, folder / "files")

    def once(content: bytes) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            reader(content)

    own = [f"-artifact_prefix={folder}/found-", str(folder / "inputs")]
    atheris.Setup([sys.argv[0], *options, *own], once)
    atheris.Fuzz()


def _known(kind: str) -> list[Input]:
    if kind in KINDS:
        return corpus()
    from tests.fuzz import documents

    return [known for known in documents.corpus() if known.kind == kind]


def _reader(kind: str, folder: Path) -> Callable[[bytes], str | None]:
    if kind in KINDS:
        from tests.fuzz.readers import Reader

        return Reader(kind, folder)
    from tests.fuzz.documents import DocumentReader

    return DocumentReader(kind, folder)


def _each_with_hypothesis(kinds: Sequence[str], seconds: float) -> Iterator[tuple[str, Outcome]]:
    return ((kind, with_hypothesis(kind, seconds)) for kind in kinds)


ENGINES: dict[str, Callable[[Sequence[str], float], Iterator[tuple[str, Outcome]]]] = {
    "hypothesis": _each_with_hypothesis,
    "atheris": with_atheris,
}


def main(arguments: list[str]) -> int:
    """Fuzz, say what was done, and return the exit code."""
    if arguments[:1] == ["--child"]:
        _children(Path(arguments[1]), arguments[2].split(","), arguments[3:])
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--engine", choices=ENGINES)
    parser.add_argument("--reader", choices=[*KINDS, *DOCUMENTS])
    chosen = parser.parse_args(arguments)
    engines = [chosen.engine] if chosen.engine else list(ENGINES)
    if not chosen.engine and importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: Hypothesis alone.")
        engines.remove("atheris")
    kinds = [chosen.reader] if chosen.reader else [*KINDS, *DOCUMENTS]
    seconds = chosen.minutes * 60 / len(engines) / len(kinds)
    failed = 0
    for engine in engines:
        for kind, outcome in ENGINES[engine](kinds, seconds):
            rate = outcome.calls / outcome.seconds
            print(
                f"{engine:10} {kind:11} {outcome.calls:9,} inputs, {rate:7,.0f} a second",
                flush=True,
            )
            if outcome.failed:
                failed += 1
                keep(outcome.failed, FAILED if kind in KINDS else FAILED_DOCUMENTS)
                print(f"  FAILED: {outcome.why}\n  {outcome.failed.content[:200]!r}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
