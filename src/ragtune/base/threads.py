"""How many threads compute on a CPU, and how they wait for each other; read before torch is imported."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from ragtune.base.memory import read_system

_COUNT, _OURS = "OMP_NUM_THREADS", "RAGTUNE_THREADS"
"""Of the threads; and their number if ragtune has set it, for the processes that it starts."""
_SPINS = ("GOMP_SPINCOUNT", "1000")
"""Looks that a thread takes before it sleeps, some 50 µs; GNU's OpenMP, torch's on Linux, takes 300,000."""
_FEW = 8
"""Processors of which one that only waits is missed."""
_GROUPS = "/sys/fs/cgroup"


def settle_threads() -> None:
    """Let threads that wait for others sleep soon, and be no more than may run; what the user has set stays.

    A computation is as many parts as there are threads, and each waits for the last one. Where processors are
    few and another program has one, or a container may use fewer than it sees, a thread that only looks whether
    the others are ready keeps them from it.
    """
    if cores() <= _FEW and not {_SPINS[0], "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ.update([_SPINS])
    if _COUNT not in os.environ and cores() < _seen():
        os.environ[_COUNT] = os.environ[_OURS] = str(cores())


def are_chosen() -> bool:
    """Whether the user has said how many threads compute."""
    return os.environ.get(_COUNT) != os.environ.get(_OURS)


def as_chosen(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a program that counts its threads itself: with the user's number of them, or none."""
    ours = (_COUNT, _OURS) if environment.get(_COUNT) == environment.get(_OURS) else ()
    return {name: value for name, value in environment.items() if name not in ours}


def cores() -> int:
    """Processors that this process may use: what its control group may have of their time counts, too."""
    return max(1, min([_seen(), *map(math.ceil, _shares())]))


def _seen() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shares() -> Iterator[float]:
    """The time of how many processors a control group may have: this process's, and each that holds it."""
    lines = read_system("/proc/self/cgroup").splitlines()
    own = PurePosixPath(next((line[3:] for line in lines if line.startswith("0::")), "/"))
    limits = [read_system(f"{_GROUPS}/{group}/cpu.max").split() for group in (own, *own.parents)]
    # The first version of control groups; in a container its own is at the root.
    limits.append(
        [read_system(f"{_GROUPS}/cpu/cpu.cfs_{n}_us").strip() for n in ("quota", "period")]
    )
    for limit in limits:
        if len(limit) == 2 and all(map(str.isdigit, limit)) and int(limit[1]):  # noqa: PLR2004 - quota, period
            yield int(limit[0]) / int(limit[1])
