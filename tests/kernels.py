"""Notebooks in kernels that start at once: forked from a process that has everything imported."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.ready import Ready, Started

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


class _Process:
    """What jupyter_client asks of a kernel's process."""

    stdin = stdout = stderr = None

    def __init__(self, started: Started) -> None:
        self._started = started
        self.pid, self.poll, self.wait = started.pid, started.poll, started.wait
        self.send_signal = started.send_signal

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Kernels:
    """Runs notebooks, and knows the process of the kernel that is at work."""

    def __init__(self, ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
        from jupyter_client.provisioning import local_provisioner

        self._ready = ready
        self._fault: Sequence[Any] = ()
        monkeypatch.setattr(local_provisioner, "launch_kernel", self._launch)

    def _launch(self, command: list[str], cwd: str, env: dict[str, str], **_: Any) -> _Process:
        # Its parent is another process than who asked: it must not end because of that.
        env = {k: v for k, v in env.items() if k != "JPY_PARENT_PID"}
        file = command[command.index("-f") + 1]
        faults = {0: self._fault} if self._fault else None
        started = self._ready.start(["-f", file], Path(cwd), program="kernel", faults=faults, **env)
        while os.getpgid(started.pid) != started.pid:  # signals go to its group
            time.sleep(0.001)
        return _Process(started)

    def run(self, notebook: Path, folder: Path, cell: str, fault: Sequence[Any] = ()) -> Any:
        """Execute all cells in a folder, with a cell of one's own behind that of the parameters.

        What a kernel is to suffer is a function of `tests.distributed.faults`, and what it is given.

        Raises:
            nbclient.exceptions.DeadKernelError: the kernel was killed.
            nbclient.exceptions.CellExecutionError: a cell raised.
        """
        import nbformat
        from nbclient import NotebookClient

        book = nbformat.read(notebook, as_version=4)
        tagged = [c.metadata.get("tags") == ["parameters"] for c in book.cells]
        book.cells.insert(tagged.index(True) + 1, nbformat.v4.new_code_cell(cell))
        self._fault = fault
        path = {"metadata": {"path": str(folder)}}
        NotebookClient(book, timeout=None, resources=path, store_widget_state=False).execute()
        return book


Outputs = Callable[[str], str]


def outputs(book: Any) -> Outputs:
    """All that a cell shows, by its id: HTML where there is some, else text."""
    found = {}
    for cell in book.cells:
        shown = [
            o.get("text") or o.data.get("text/html") or o.data.get("text/plain", "")
            for o in cell.get("outputs", [])
        ]
        found[cell.id] = "\n".join(shown)
    return found.__getitem__
