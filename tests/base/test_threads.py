"""Threads that compute on a CPU sleep soon when they wait, and are no more than may run at a time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ragtune.base import threads

SHOWN = """
import os
from ragtune.base.threads import settle_threads
settle_threads()
import torch
print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"), torch.get_num_threads())
"""
SPINS = "1000" if threads.cores() <= 8 else None
NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "RAGTUNE_THREADS")
FIRST, SECOND, GROUP = (
    "/sys/fs/cgroup/cpu/cpu.cfs_{}_us",
    "/sys/fs/cgroup/{}/cpu.max",
    "/proc/self/cgroup",
)


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


def test_the_command_line_settles_them_before_torch_is_imported() -> None:
    program = """
import os, sys
from ragtune.__main__ import main
sys.argv = ["ragtune", "--version"]
try:
    main()
except SystemExit:
    print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == f"{SPINS} False", done.stderr


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", found)
    return found


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 16),
        ({SECOND.format("/"): "max 100000\n"}, 16),
        ({SECOND.format("/"): "200000 100000\n"}, 2),
        ({SECOND.format("/"): "150000 100000\n"}, 2),
        ({SECOND.format("/"): "5000 100000\n"}, 1),
        ({SECOND.format("/"): "6400000 100000\n"}, 16),
        ({SECOND.format("/"): "200000 0\n"}, 16),
        (
            {GROUP: "0::/a/b\n", SECOND.format("/a/b"): "max 100000\n", SECOND.format("/a"): "300000 100000\n"},
            3,
        ),
        ({FIRST.format("quota"): "-1\n", FIRST.format("period"): "100000\n"}, 16),
        ({FIRST.format("quota"): "400000\n", FIRST.format("period"): "100000\n"}, 4),
    ],
)  # fmt: skip
def test_what_a_control_group_may_have_counts(
    files: dict[str, str], count: int, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_seen", lambda: 16)
    monkeypatch.setattr(threads, "read_system", lambda path: files.get(path, ""))
    assert threads.cores() == count
    threads.settle_threads()
    limited = count < 16
    assert environment.get("GOMP_SPINCOUNT") == ("1000" if limited else None)
    assert environment.get("OMP_NUM_THREADS") == (str(count) if limited else None)
    assert not threads.are_chosen()  # of ranks each has its part of them
    assert "OMP_NUM_THREADS" not in threads.as_chosen(environment)  # of a server that counts itself


def test_what_the_user_chose_is_kept_also_where_it_is_all_of_them(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_seen", lambda: 2)
    environment["OMP_NUM_THREADS"] = "2"
    threads.settle_threads()
    assert environment["OMP_NUM_THREADS"] == "2"
    assert threads.are_chosen()
    assert threads.as_chosen(environment)["OMP_NUM_THREADS"] == "2"
