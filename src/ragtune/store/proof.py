"""A stage's proof: stage.json in its folder says what it was made of, and what it holds.

It is written last into the unfinished folder, which then gets its name. So a folder and its proof
appear in one step, and whether a stage still holds is computed from the two alone.
"""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
import json
import os
from fnmatch import fnmatch
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic wants this one, before Python 3.12

from ragtune.base.disk import disk_errors
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import FORMAT, read_json, remove, write_json
from ragtune.base.screen.progress import busy
from ragtune.base.windows import rename
from ragtune.recipe.schema import Recipe
from ragtune.store.inputs import Input, input_changes
from ragtune.store.seal import FileFacts, checksums, difference

NAME = "stage.json"
_UMASK = os.umask(0)
os.umask(_UMASK)


class Prompts(TypedDict):
    """What tells whether another `evaluate.max_new_tokens` would leave every prompt as it is."""

    room: int
    """Tokens that a prompt may have."""
    longest: int
    whole: bool
    """Whether none was cut or left out for its length."""


@with_config(ConfigDict(extra="forbid"))  # else a fact without a place here were lost
class Facts(TypedDict, total=False):
    """What a stage found out beside its files."""

    prompts: Prompts
    asked: dict[str, str]
    """How questions were asked, and why so."""
    train: dict[str, JsonValue]
    """What a training gave (`TrainResult`)."""
    plan: dict[str, JsonValue]
    """By which it was trained."""
    base: str | None
    """What people call the base of a training, if others have it."""
    chosen_by: str
    """The evaluation set with which the adapter was trained, and by which `train.keep` chose a checkpoint."""
    answered_on: dict[str, JsonValue]
    """What answers may depend on beside model, questions and versions: device, dtype, questions at a time."""
    gguf: dict[str, JsonValue]
    """llama.cpp's name of the pre-tokenizer, and what trying the file gave."""
    taken_from: str
    """The run whose answers these are: it had asked the same."""


class Proof(BaseModel):
    """What stage.json says."""

    model_config = ConfigDict(frozen=True)

    stage: str
    recipe: dict[str, JsonValue]
    """The values of the recipe's keys that the stage read."""
    needs: dict[str, str]
    """Digests of the stages that it was made from, by name."""
    inputs: dict[str, Input] = {}
    """The files of this machine that it was made from, by the recipe's key."""
    files: dict[str, FileFacts] = {}
    """Size, time and sha256 of what the folder holds."""
    date: dt.date
    """What chat templates write as today's date."""
    commit: str | None = None
    """Of a model from the Hub."""
    versions: dict[str, str] = {}
    """Of what it was made with."""
    times: dict[str, float] = {}
    """Seconds, by what took them."""
    peak_gib: dict[str, float] = {}
    """GPU memory, by the same names."""
    facts: Facts = {}

    def digest(self, content: tuple[str, ...]) -> str:
        """What later stages depend on: the files named like `content`, the model, and the date."""
        files = {
            n: f["sha256"] for n, f in self.files.items() if any(fnmatch(n, c) for c in content)
        }
        model = self.inputs.get("model.id")
        weights = {n: f["sha256"] for n, f in model["files"].items()} if model else {}
        return fingerprint([files, weights, self.commit, self.date.isoformat()])


def fingerprint(value: object) -> str:
    """Hex digest of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_proof(folder: Path) -> Proof | None:
    """The proof in a stage's folder; None where there is no folder.

    Raises:
        RagtuneError: the folder has no proof, or a damaged one.
    """
    if not folder.is_dir():
        return None
    path = folder / NAME
    if not path.exists():
        raise RagtuneError(f"{folder} has no {NAME}.", "Move it away: ragtune did not finish it.")
    values = read_json(path)
    if isinstance(made_by := values.get("format"), int) and made_by > FORMAT:
        raise UsageError(
            f"{path} was made by a newer ragtune.", "Use that one here, or another run directory."
        )
    try:
        return Proof.model_validate(values)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise RagtuneError(
            f"{path} is damaged: {where} is none of its values.",
            "Run the same command again: the stage is set aside then, and made again.",
        ) from None


def damage(folder: Path, *, thorough: bool = False, renew: bool = False) -> str | None:
    """In which way a finished folder is not as it was, or None.

    Args:
        folder: of a stage.
        thorough: read large files, too.
        renew: write new times of files whose content is the same into the proof, so that large ones
            are not read again.
    """
    try:
        proof = read_proof(folder)
    except UsageError:
        raise
    except RagtuneError as error:
        return error.message.rstrip(".")
    if proof is None:
        return None
    known = copy.deepcopy(proof.files)
    problem = difference(folder, proof.files, thorough=thorough)
    if renew and problem is None and proof.files != known:
        _write(folder, proof)
    return problem


def renew_inputs(folder: Path, recipe: Recipe) -> list[str]:
    """What of a stage's input files differs, as `input_changes` says it; new times go into the proof."""
    proof = read_proof(folder)
    assert proof is not None
    known = copy.deepcopy(proof.inputs)
    found = input_changes(proof.inputs, recipe)
    if not found and proof.inputs != known:
        _write(folder, proof)
    return found


def _write(folder: Path, proof: Proof) -> None:
    with disk_errors(folder):
        write_json(folder / NAME, proof.model_dump(mode="json", exclude_defaults=True))


def close(made: Path, proof: Proof, place: Path) -> Proof:
    """Write the proof into a folder that was made, and give the folder its name.

    Args:
        made: the unfinished folder.
        proof: all of it but the files.
        place: where the stage's folder belongs; what is there goes.
    """
    with disk_errors(place):
        for file in made.rglob("*"):
            if file.is_file():  # safetensors makes its files readable for their owner alone
                file.chmod(0o666 & ~_UMASK)
        with busy(f"checksums of {place.name}"):
            whole = proof.model_copy(update={"files": checksums(made)})
        _write(made, whole)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():  # whatever else is there stays, and is told
            remove(place)
        rename(made, place)
    return whole
