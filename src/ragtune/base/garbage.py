"""When Python looks for garbage: not while libraries are imported, and not among what they brought."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_OURS = threading.Event()
"""Set in a program that is ragtune's own."""
_PYTHONS = 10_000
"""More objects than Python 3.12 keeps from being looked through itself, as it starts."""


def begin() -> None:
    """Say, as a program begins, that it is ragtune's own: what it imports is never looked through.

    In a notebook a model of an earlier cell may be garbage by then. Here there is none worth finding.
    """
    _OURS.set()


@contextmanager
def importing() -> Iterator[None]:
    """Import without it: modules stay, and a fifth of the time of importing torch was looking through them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _OURS.is_set():
            gc.freeze()
        if was_on:
            gc.enable()


@contextmanager
def sparing_the_old() -> Iterator[None]:
    """Within, look only at what is new: a million objects of libraries take half a second, each time.

    What is garbage before is collected first: a notebook's model of an earlier cell gives its memory back.
    """
    if gc.get_freeze_count() > _PYTHONS:  # somebody sees to it already
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def leave() -> None:
    """Look no more, as the program ends: looking through what libraries brought took it a second."""
    gc.freeze()
