"""What every process of a command is at, over time: for time that no profile of the GPU shows.

    TIMELINE=FOLDER PYTHONPATH=bench/sampled ragtune run RECIPE.yaml

Python imports this file when it starts. A thread looks twenty times a second where the main thread is; FOLDER
gets a file for each process, with a line for each stretch of more than 0.12 s: when it began, its seconds, the
outermost module that is being imported, ragtune's innermost functions, and in brackets where Python stood last.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType

_PAUSE, _LEAST = 0.05, 0.12
"""Seconds between two looks, and of the shortest stretch that is written."""
_SHOWN = 4
"""Functions of ragtune."""


def _seen(frame: FrameType | None) -> tuple[str, str]:
    """Of a stack what is imported and ragtune's functions, the innermost first; and the innermost of all."""
    innermost, imported, own = "", "", []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        name = f"{path.stem}.{frame.f_code.co_name}"
        innermost = innermost or name
        if frame.f_code.co_name == "_find_and_load":
            imported = f"import {frame.f_locals.get('name')}: "
        if "ragtune" in path.parts:
            own.append(name)
        frame = frame.f_back
    return imported + " < ".join(own[:_SHOWN]), innermost


def _watch(folder: Path) -> None:
    main = threading.main_thread().ident
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{os.getpid()}.txt").open("w", encoding="utf-8") as file:
        file.write(f"# {' '.join(sys.orig_argv)}\n")
        last, stood, since = "", "", time.time()
        while True:
            time.sleep(_PAUSE)
            now, (found, innermost) = time.time(), _seen(sys._current_frames().get(main or 0))  # noqa: SLF001 - no public way
            if found != last:
                if now - since > _LEAST:
                    file.write(f"{since:.2f} {now - since:6.2f} {last} [{stood}]\n")
                    file.flush()
                last, since = found, now
            stood = innermost


if _folder := os.environ.get("TIMELINE"):
    threading.Thread(target=_watch, args=(Path(_folder),), daemon=True).start()
