"""What launchers leave in the environment, as it was seen of each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ragtune.base.errors import UsageError
from ragtune.distributed.place import Place, take_place

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RUN_ID": "job",
    "TORCHELASTIC_RESTART_COUNT": "2",
}
SRUN = {
    "SLURM_PROCID": "1",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
}
KNOWN = (*TORCHRUN, *SRUN, "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Nothing of a launcher's, and nothing remembered."""
    for name in KNOWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    take_place.cache_clear()
    yield monkeypatch
    take_place.cache_clear()


def given(environment: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)


def test_torchrun_says_where_a_process_stands_and_the_libraries_do_not_see_it(
    environment: pytest.MonkeyPatch,
) -> None:
    given(environment, TORCHRUN)
    place = take_place()
    assert place == Place(3, 4, 1, "node0", 29500, hosted=True, attempt="job-2")
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} & set(os.environ)
    assert take_place() is place
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"


@pytest.mark.parametrize(
    ("variables", "attempt"),
    [
        ({**SRUN, **TORCHRUN}, "job-2"),
        ({**SRUN, **Place(1, 2, 1, "127.0.0.1", 4242).environment()}, ""),
        ({"TORCHELASTIC_RUN_ID": "job", **Place(1, 2, 1, "127.0.0.1", 4242).environment()}, ""),
    ],
    ids=["torchrun in a job", "ragtune in a job", "ragtune under torchrun"],
)
def test_what_another_launcher_said_around_it_sets_nothing_apart(
    environment: pytest.MonkeyPatch, variables: dict[str, str], attempt: str
) -> None:
    """In a job of Slurm a rank that ragtune starts has its variables, too: rank 0 looks at none of them."""
    given(environment, variables)
    place = take_place()
    assert place is not None
    assert place.attempt == attempt


def test_a_rank_that_sees_one_gpu_takes_it(environment: pytest.MonkeyPatch) -> None:
    """As Slurm's --gpus-per-task has it; without the variable every GPU is seen."""
    for seen, expected in (("7", "7"), ("", "")):
        take_place.cache_clear()
        given(environment, {**TORCHRUN, "CUDA_VISIBLE_DEVICES": seen})
        take_place()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


def test_srun_says_it_in_words_of_its_own(environment: pytest.MonkeyPatch) -> None:
    given(environment, SRUN)
    assert take_place() == Place(1, 2, 0, "node0", 29500, attempt="77-0")


def test_srun_may_speak_of_mpi_as_well(environment: pytest.MonkeyPatch) -> None:
    given(environment, {**SRUN, "PMI_SIZE": "2"})
    assert take_place() is not None
    assert "PMI_SIZE" not in os.environ


def test_another_process_reads_the_same_place(environment: pytest.MonkeyPatch) -> None:
    place = Place(1, 3, 2, "127.0.0.1", 4242)
    given(environment, place.environment())
    assert take_place() == place


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "-1", "MASTER_ADDR": "localhost"},
        {**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"},
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0"},
        {"OMPI_COMM_WORLD_SIZE": "1"},
    ],
)
def test_one_process_is_alone(environment: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    given(environment, variables)
    assert take_place() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORLD_SIZE", "2"),
        ("WORLD_SIZE", ""),
        ("WORLD_SIZE", "two"),
        ("LOCAL_RANK", "0"),
        ("RANK", "1"),
        ("OMPI_COMM_WORLD_SIZE", "4"),
        ("PMI_SIZE", "2"),
    ],
)
def test_a_part_of_it_is_refused(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(UsageError) as raised:
        take_place()
    assert f"{name}={value}." in raised.value.message
    assert f"unset {name}" in raised.value.advice


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({**TORCHRUN, "RANK": "4"}, "RANK=4 and WORLD_SIZE=4: ranks are counted from 0"),
        ({**TORCHRUN, "MASTER_PORT": "http"}, "MASTER_PORT=http"),
        ({n: v for n, v in SRUN.items() if "MASTER" not in n}, "MASTER_ADDR and MASTER_PORT"),
        ({n: v for n, v in TORCHRUN.items() if n != "LOCAL_RANK"}, "but not LOCAL_RANK"),
    ],
)
def test_what_makes_no_sense_is_named(
    environment: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    given(environment, variables)
    with pytest.raises(UsageError, match=words):
        take_place()
