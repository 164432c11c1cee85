"""What a benchmark ran on, and with: the processor, the command, the versions, the commit."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from ragtune.base.versions import versions


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def made_with(*libraries: str, device: str = "") -> dict[str, object]:
    """What the file of a result begins with.

    Args:
        libraries: more of them whose versions matter.
        device: where it is another than this machine's processor.
    """
    # Where the files lie is nobody's business.
    arguments = [
        path.name if os.sep in a and ((path := Path(a)).is_absolute() or path.exists()) else a
        for a in sys.argv[1:]
    ]
    script = f"bench/{Path(sys.argv[0]).name}"
    return {
        "format": 1,
        "command": shlex.join(["python", script, *arguments]),
        "commit": _commit() or "not known: no git checkout",
        "device": device or f"{processor()}, {os.cpu_count()} cores",
        "load_before": round(os.getloadavg()[0], 1),
        "versions": versions(*libraries),
    }


def _commit() -> str:
    """The commit of this code, with -dirty where it was changed since; nothing where git doesn't know."""
    git = shutil.which("git")
    if git is None:
        return ""
    asked = [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603 - git itself
