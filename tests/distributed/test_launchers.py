"""Ranks that a launcher started: each has the same command, and rank 0 alone does it."""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch._C._distributed_c10d import TCPStore

from tests.ports import free_port
from tests.ready import Ready, Started


@pytest.fixture
def recipe(tiny_recipe: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe), "utf-8")
    return path


def launch(
    ready: Ready,
    *arguments: str,
    size: int = 2,
    rank0: Sequence[Any] = (),
    rank1: Sequence[Any] = (),
    **more: str,
) -> list[Started]:
    """The same command on every rank, the last first, as torchrun or srun begins it; with faults on two."""
    faults = {0: rank0, 1: rank1}
    where = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    where |= {"GLOO_SOCKET_IFNAME": "lo", **more}
    started = [
        ready.start(
            [*arguments],
            faults={0: faults[rank]} if faults.get(rank) else None,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            **where,
        )
        for rank in reversed(range(size))
    ]
    return started[::-1]


def test_a_run_is_done_once_and_the_others_say_and_write_nothing(
    ready: Ready, recipe: Path, tmp_path: Path
) -> None:
    run, notes = tmp_path / "run", tmp_path / "notes"
    written = ("note_writes", str(run), str(notes))
    first, second = launch(ready, "run", str(recipe), "--run-dir", str(run), rank1=written)
    out, errors = first.communicate()
    assert first.wait() == 0, errors
    assert "2 ranks share the work." in out
    assert (run / "report.html").is_file()
    assert not notes.exists(), notes.read_text()
    assert second.communicate() == ("", "")
    assert second.wait() == 0


def test_a_stop_ends_rank_0_first_which_writes_the_checkpoint(
    ready: Ready, recipe: Path, tmp_path: Path
) -> None:
    """A launcher whose other rank is gone would end rank 0, too; by its exit code the other one waited."""
    train = ("train", str(recipe), "--run-dir", str(tmp_path / "run"))
    first, second = launch(ready, *train, rank0=("signal_at_step", 3, signal.SIGINT))
    codes = first.wait(), second.wait()
    assert codes == (130, 130), (first.communicate(), second.communicate())
    assert "Training stopped after step 3 of 8: its checkpoint is kept." in first.communicate()[1]
    assert second.communicate() == ("", "")


def test_rank_0_that_is_killed_ends_the_others(ready: Ready, recipe: Path, tmp_path: Path) -> None:
    train = ("train", str(recipe), "--run-dir", str(tmp_path / "run"))
    first, second = launch(ready, *train, rank0=("signal_at_step", 3, signal.SIGKILL))
    assert first.wait() == -signal.SIGKILL
    assert second.wait() == 1
    assert "Traceback" not in second.communicate()[1]


def test_what_nccl_says_on_the_others_is_seen_if_it_is_asked_for(
    ready: Ready, recipe: Path, tmp_path: Path
) -> None:
    train = ("train", str(recipe), "--run-dir", str(tmp_path / "run"))
    words = ("write_at_step", 2, "host:1:1 [1] NCCL INFO Channel 00/02\n")
    first, second = launch(ready, *train, rank1=words, NCCL_DEBUG="INFO")
    assert first.wait() == 0
    assert second.communicate() == ("", 2 * words[2])  # to both descriptors, past Python


def test_the_ranks_may_meet_in_a_store_of_the_launcher(ready: Ready) -> None:
    """As torchrun and accelerate have one; another launch with the same name is not taken for this one."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    hosted = {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    hosted |= {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0"}
    first, second = launch(ready, "--help", **hosted)
    assert (first.wait(), second.wait()) == (0, 0)
    assert store.check(["ragtune/none-0/bye/1"])
    again, other = launch(ready, "--help", **hosted)
    assert (again.wait(), other.wait()) == (0, 2)
    said = other.communicate()[1]
    assert f"Rank 1 on {socket.gethostname()} has come already: another run uses port" in said


def test_a_part_of_a_launcher_s_variables_ends_in_a_message(ready: Ready, recipe: Path) -> None:
    done = ready.run(["run", str(recipe)], recipe.parent, WORLD_SIZE="2")
    assert done.returncode == 2
    assert "WORLD_SIZE is set, without a launcher's others: WORLD_SIZE=2." in done.stderr
    assert "unset WORLD_SIZE" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["check", "nothing.yaml"], 1), (["nothing"], 2)]
)
def test_a_command_that_makes_nothing_lets_the_others_go(
    ready: Ready, arguments: list[str], code: int
) -> None:
    first, second = launch(ready, *arguments)
    assert (first.wait(), second.wait()) == (code, code)
    assert second.communicate() == ("", "")


def test_a_port_that_is_taken_is_named_by_rank_0(ready: Ready, recipe: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        started = ready.start(
            ["train", str(recipe), "--run-dir", str(recipe.parent / "run")],
            RANK="0", LOCAL_RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )  # fmt: skip
        assert started.wait() == 2
    said = started.communicate()[1]
    assert f"Rank 0 on {socket.gethostname()}: port {port} of 127.0.0.1 can't be had" in said
    assert "choose another MASTER_PORT" in said
