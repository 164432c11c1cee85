"""Threads that compute on a CPU sleep soon when they wait, and are no more than may run at a time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ragtune.base import threads

SHOWN = (
    "import os, ragtune, torch; "
    "print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'), torch.get_num_threads())"
)
SPINS = "1000" if threads.cores() <= 8 else None
NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
FIRST, SECOND = "/sys/fs/cgroup/cpu/cpu.cfs_{}_us", "/sys/fs/cgroup/cpu.max"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"OMP_NUM_THREADS": "1"}, f"{SPINS} None 1"),
        ({"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "7"}, "7 None 1"),
        ({"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "active"}, "None active 1"),
    ],
)
def test_what_torch_is_imported_with_is_the_users_if_there_is_any(
    given: dict[str, str], found: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", SHOWN]
    done = subprocess.run(
        command, env=environment | given, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == found, done.stderr


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 16),
        ({SECOND: "max 100000\n"}, 16),
        ({SECOND: "200000 100000\n"}, 2),
        ({SECOND: "150000 100000\n"}, 2),
        ({SECOND: "5000 100000\n"}, 1),
        ({SECOND: "6400000 100000\n"}, 16),
        ({FIRST.format("quota"): "-1\n", FIRST.format("period"): "100000\n"}, 16),
        ({FIRST.format("quota"): "400000\n", FIRST.format("period"): "100000\n"}, 4),
    ],
)
def test_a_container_has_its_share_of_the_processors(
    files: dict[str, str], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_seen", lambda: 16)
    monkeypatch.setattr(threads, "read_system", lambda path: files.get(path, ""))
    assert threads.cores() == count
    assert not threads.are_chosen()
    threads.settle_threads()
    assert os.environ.get("GOMP_SPINCOUNT") == ("1000" if count < 16 else None)
    assert os.environ.get("OMP_NUM_THREADS") == (str(count) if count < 16 else None)
    assert not threads.are_chosen()  # of ranks each has its part of them
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    threads.settle_threads()
    assert os.environ["OMP_NUM_THREADS"] == "5"
    assert threads.are_chosen()
