"""How many threads compute on a CPU, and how they wait for each other; read before torch is imported."""

from __future__ import annotations

import math
import os

from ragtune.base.memory import read_system

_COUNT = "OMP_NUM_THREADS"
_SPINS = ("GOMP_SPINCOUNT", "1000")
"""Looks that a thread takes before it sleeps, some 50 µs; GNU's OpenMP, torch's on Linux, takes 300,000."""
_FEW = 8
"""Processors of which one that only waits is missed."""


def settle_threads() -> None:
    """Let threads that wait for others sleep soon, and be no more than may run; what the user has set stays.

    A computation is as many parts as there are threads, and each waits for the last one. Where processors are
    few and another program has one, or a container may use fewer than it sees, a thread that only looks whether
    the others are ready keeps them from it.
    """
    if cores() <= _FEW and not {_SPINS[0], "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ.update([_SPINS])
    if _COUNT not in os.environ and cores() < _seen():
        os.environ[_COUNT] = str(cores())


def cores() -> int:
    """Processors that this process may use: a container's share of them counts, too."""
    return max(1, min(_seen(), _share()))


def are_chosen() -> bool:
    """Whether another number of threads than that of all cores was set, which stays as it is."""
    return os.environ.get(_COUNT, str(cores())) != str(cores())


def _seen() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _share() -> int:
    """Of the time of how many processors a control group may have; as many as there are without a limit."""
    quota, _, period = read_system("/sys/fs/cgroup/cpu.max").partition(" ")
    if not quota:  # the first version of control groups
        names = ("quota", "period")
        quota, period = (read_system(f"/sys/fs/cgroup/cpu/cpu.cfs_{n}_us") for n in names)
    if quota.strip().isdigit() and period.strip().isdigit() and int(period):
        return math.ceil(int(quota) / int(period))
    return _seen()
