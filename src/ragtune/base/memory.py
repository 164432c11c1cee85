"""How much memory this machine has to give."""

from __future__ import annotations

from pathlib import Path


def available_memory() -> int | None:
    """Bytes of host memory that a new program can have, or None where it isn't known.

    In a container the control group's limit counts as well as the machine's memory.
    """
    known = [
        int(line.split()[1]) * 1024
        for line in read_system("/proc/meminfo").splitlines()
        if line.startswith("MemAvailable:")
    ]
    limit, used = (read_system(f"/sys/fs/cgroup/memory.{n}").strip() for n in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        known.append(int(limit) - int(used))
    return min(known, default=None)


def read_system(path: str) -> str:
    """A file in which the system tells of itself, or nothing where there is none."""
    try:
        return Path(path).read_text(encoding="ascii")
    except OSError:
        return ""
