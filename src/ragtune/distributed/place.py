"""Where a process stands among those of a run, as its launcher left it in the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

from ragtune.base.errors import UsageError

_ADVICE = (
    "If {name} is left over from another program: unset {name}. ragtune starts its processes itself on one "
    "machine; on several, start it with torchrun, accelerate launch or srun (docs/gpus.md)."
)
_NUMBERS = ("RANK", "WORLD_SIZE", "MASTER_PORT")
_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets, and through it accelerate launch; all of it, or there was no launcher."""
_SLURM = {
    "RANK": "SLURM_PROCID",
    "WORLD_SIZE": "SLURM_STEP_NUM_TASKS",
    "LOCAL_RANK": "SLURM_LOCALID",
}
"""The same as srun sets it in each of its processes."""
_MPI = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""How many processes there are, as three kinds of MPI say it: Accelerate would wait for them."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
_HOSTED = "TORCHELASTIC_USE_AGENT_STORE"
_STEP = ("SLURM_JOB_ID", "SLURM_STEP_ID")
_ELASTIC = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
"""What tells an attempt from others that use the same port: by srun, and by torchrun."""


@dataclass(frozen=True)
class Place:
    """Where a process stands among those of a run, and where their store is."""

    rank: int
    size: int
    local_rank: int
    """Of those on this machine: its GPU."""
    address: str
    port: int
    hosted: bool = False
    """Whether the launcher keeps the store, and not rank 0."""
    attempt: str = ""
    """Sets apart what another one left in the same store."""

    def environment(self) -> dict[str, str]:
        """What `take_place` reads again in another process."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.size),
            "LOCAL_RANK": str(self.local_rank),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


@cache
def take_place() -> Place | None:
    """This process's place, or None if it is alone; taken out of the environment.

    transformers' Trainer and Accelerate would read the same variables, and wrap the model and share out
    the rows in their own way.

    Raises:
        UsageError: there is a part of what a launcher sets, or it makes no sense.
    """
    found = {name: os.environ[name].strip() for name in _LAUNCHED if name in os.environ}
    # What another launcher, around this one, has said may be something else on each machine.
    attempt = _ELASTIC if _HOSTED in os.environ else ()
    if "RANK" not in found and _many(os.environ.get(_SLURM["WORLD_SIZE"], "1")):
        attempt = _STEP
        found |= {name: os.environ.get(theirs, "") for name, theirs in _SLURM.items()}
    if found.get("LOCAL_RANK") == "-1":
        del found["LOCAL_RANK"]
    whole = found.keys() >= {"RANK", "WORLD_SIZE"}
    several = next((name for name in _MPI if _many(os.environ.get(name, "1"))), None)
    if not whole and (several or not _alone(found)):
        name = several or next(n for n in ("WORLD_SIZE", "RANK", "LOCAL_RANK") if n in found)
        raise UsageError(
            f"The environment variable {name} is set, without a launcher's others: "
            f"{name}={os.environ.get(name, '')}.",
            _ADVICE.format(name=name),
        )
    if _alone(found):
        return None
    if missing := [name for name in _LAUNCHED if name not in found]:
        raise UsageError(
            f"A launcher set RANK and WORLD_SIZE, but not {' and '.join(missing)}.",
            "Slurm: export MASTER_ADDR and MASTER_PORT before srun, as recipes/slurm.sbatch does. "
            + _ADVICE.format(name="RANK"),
        )
    place = _read(found, attempt)
    os.environ[VISIBLE] = seen(place.local_rank)
    for name in (*_LAUNCHED, *_MPI, _HOSTED):
        os.environ.pop(name, None)
    return place if place.size > 1 else None


def seen(number: int) -> str:
    """The only GPU that a rank is to see, for VISIBLE: Trainer, and other libraries, take the first one.

    Of those that this process sees; where that is one, that; where they are hidden, none.
    """
    names = os.environ.get(VISIBLE)
    if names is None:
        return str(number)
    given = [name for name in names.split(",") if name]
    return given[number % len(given)] if given else ""


def asked_to_tell() -> bool:
    """Whether NCCL is to say on every rank what it does: it writes past Python."""
    return bool(os.environ.get("NCCL_DEBUG"))


def _many(value: str) -> bool:
    return not (value.strip().isdecimal() and int(value) <= 1)


def _alone(found: dict[str, str]) -> bool:
    """Whether there is only what a single process has, or nothing."""
    size, rank = found.get("WORLD_SIZE", "1"), found.get("RANK", "0")
    return not _many(size) and rank in ("0", "-1") and "LOCAL_RANK" not in found


def _read(found: dict[str, str], attempt: tuple[str, ...]) -> Place:
    for name in (*_NUMBERS, "LOCAL_RANK"):
        if not found[name].isdecimal():
            raise UsageError(
                f"The environment variable {name} is no number: {name}={found[name]}.",
                _ADVICE.format(name=name),
            )
    place = Place(
        rank=int(found["RANK"]),
        size=int(found["WORLD_SIZE"]),
        local_rank=int(found["LOCAL_RANK"]),
        address=found["MASTER_ADDR"],
        port=int(found["MASTER_PORT"]),
        hosted=os.environ.get(_HOSTED) == "True",
        attempt="-".join(os.environ[name] for name in attempt if name in os.environ),
    )
    if place.rank >= place.size:
        raise UsageError(
            f"RANK={place.rank} and WORLD_SIZE={place.size}: ranks are counted from 0.",
            _ADVICE.format(name="RANK"),
        )
    return place
