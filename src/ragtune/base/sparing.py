"""bitsandbytes is imported where it is used, or ahead of it: PEFT would import it wherever it is installed."""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_SPARED = "bitsandbytes"
_ahead: list[threading.Thread] = []


class _Spared(MetaPathFinder, Loader):
    """Finds it, and doesn't import it, while PEFT's helpers are imported: nobody calls here what needs it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        helpers = sys.modules.get("peft.helpers")
        importing = helpers is not None and getattr(helpers.__spec__, "_initializing", False)
        there = name == _SPARED and importing and PathFinder.find_spec(name, path, target)
        return ModuleSpec(name, self) if there else None

    def exec_module(self, module: ModuleType) -> None:
        raise ImportError(f"{module.__name__} is not needed yet")


def install() -> None:
    """Spare the imports of PEFT; before it is imported."""
    sys.meta_path.insert(0, _Spared())


def import_ahead() -> None:
    """Begin to import it beside everything else: it takes seconds, the more if the disk is first read.

    Whoever uses it imports it all the same. An import that fails is tried again there, and says so.
    """
    thread = threading.Thread(target=_import, name=f"importing {_SPARED}")
    thread.start()
    _ahead.append(thread)


def await_import() -> None:
    """Wait for what was begun: of parts of torch that both import, threads could find each other's halves."""
    while _ahead:
        _ahead.pop().join()


def _import() -> None:
    with contextlib.suppress(Exception):  # whatever a package raises that is broken, or not there
        importlib.import_module(f"{_SPARED}.functional")


@contextlib.contextmanager
def spared(module: ModuleType) -> Iterator[None]:
    """Let PEFT not import it to look whether a layer is one of its layers: where it isn't imported, none is.

    Args:
        module: of PEFT, which asks `is_bnb_available` before it imports it.
    """
    asked = [name for name in vars(module) if name.startswith("is_bnb_")]
    kept = {name: getattr(module, name) for name in asked}
    try:
        for name in asked if _SPARED not in sys.modules else ():
            setattr(module, name, lambda: False)
        yield
    finally:
        for name, asks in kept.items():
            setattr(module, name, asks)
