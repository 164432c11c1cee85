"""When garbage is looked for: a run looks through what it made itself, and frees what was there before."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from ragtune.base import garbage
from ragtune.base.garbage import begin, importing, sparing_the_old


class Cycle:
    def __init__(self) -> None:
        self.own = self


@pytest.fixture
def thawed() -> Iterator[None]:
    """As in a program of one's own: the tests freeze what they have imported."""
    count = gc.get_freeze_count()
    gc.unfreeze()
    yield
    if count:
        gc.freeze()


def test_what_was_garbage_before_is_freed(thawed: None) -> None:
    old = weakref.ref(Cycle())
    with sparing_the_old():
        assert old() is None
        new = weakref.ref(Cycle())
        gc.collect()
        assert new() is None


def test_what_was_there_is_not_looked_through_until_the_end(thawed: None) -> None:
    there = Cycle()
    seen = weakref.ref(there)
    with sparing_the_old():
        with sparing_the_old():  # a stage within a run
            del there
        gc.collect()
        assert seen() is not None
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("ours", [True, False], ids=["a program of ours", "a notebook"])
def test_what_a_program_of_ours_imports_is_never_looked_through(
    thawed: None, monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    monkeypatch.setattr(garbage, "_OURS", threading.Event())
    if ours:
        begin()
    with importing():
        seen = weakref.ref(Cycle())
    with sparing_the_old():
        assert (seen() is not None) == ours
    gc.unfreeze()
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize(
    "main",
    [
        "from ragtune import cli, __main__ as it; cli.main = said",
        "from ragtune.stages import begin as it; it._imported = said",
    ],
    ids=["command", "rank"],
)
def test_a_program_of_ours_says_so_before_it_imports(main: str) -> None:
    script = (
        "import sys\nfrom ragtune.base import garbage\n"
        "def said():\n    print(garbage._OURS.is_set())\n    sys.exit()\n"
        f"{main}\nit.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, input="1\n"
    )
    assert done.stdout.split() == ["True"]


def test_what_python_keeps_from_being_looked_through_itself_does_not_count() -> None:
    """Python 3.12 does so with a few hundred objects as it starts: libraries were looked through each time."""
    code = (
        "import gc; gc.freeze(); from ragtune.base.garbage import sparing_the_old\n"
        "before = gc.get_freeze_count()\n"
        "kept = [[] for _ in range(9999)]\n"
        "with sparing_the_old(): print(gc.get_freeze_count() - before > 9999)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert told.stdout == "True\n"


def test_importing_leaves_collecting_as_it_was() -> None:
    assert gc.isenabled()
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with importing():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("first", "then"),
    [("import ragtune", "ragtune.run"), ("from ragtune.stages import begin", "begin._imported()")],
    ids=["command", "rank"],
)
def test_it_imports_without_it(first: str, then: str) -> None:
    """Counted: each collection of the oldest objects looks through all of what was imported so far."""
    script = (
        f"import gc\n{first}\n"
        "before = gc.get_stats()[2]['collections']\n"
        f"{then}\n"
        "assert gc.isenabled()\n"
        "print(gc.get_stats()[2]['collections'] - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["0"]


def test_a_program_ends_without_looking_again() -> None:
    ends = (
        "import atexit, gc, sys; from ragtune.__main__ import main; "
        "atexit.register(lambda: print(gc.get_freeze_count() > 0)); "
        "sys.argv[1:] = ['--version']; main()"
    )
    done = subprocess.run([sys.executable, "-c", ends], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "True"
