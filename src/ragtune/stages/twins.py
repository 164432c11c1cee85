"""Answers before tuning that another run has already, and in a sweep prepared data: runs ask and read the same.

They are taken only where nothing differs that an answer could depend on, and copied: each run stays whole by
itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from ragtune.base.errors import RagtuneError
from ragtune.base.screen.console import note
from ragtune.base.versions import versions
from ragtune.stages.context import Context
from ragtune.stages.order import Stage, reads_of, stage_named
from ragtune.store.inputs import input_changes
from ragtune.store.proof import NAME, Facts, Proof, damage, read_proof
from ragtune.store.seal import checksums

SWEEP = "sweep.json"
"""Lies above the folder of a sweep's runs."""
_SHARED = ("before", "controls before")
_OF_SWEEP = ("data", "questions")
"""What the runs of one sweep share besides: nobody changes their files meanwhile."""


@dataclass(frozen=True)
class Twin:
    """A stage of another run that is what this one would be."""

    place: Path
    proof: Proof

    @property
    def run(self) -> str:
        return run_of(self.place, self.proof.stage).name

    def take(self, made: Path) -> Facts:
        """Copy its files into an empty folder; returns its facts, and whose they are.

        Raises:
            RagtuneError: they changed while they were copied.
        """
        for name in self.proof.files:
            shutil.copyfile(self.place / name, made / name)
        copied = {name: facts["sha256"] for name, facts in checksums(made).items()}
        if copied != {name: facts["sha256"] for name, facts in self.proof.files.items()}:
            raise RagtuneError(
                f"{self.place} changed while its answers were copied.",
                "Run the same command again.",
            )
        words = (
            "Not prepared again: {} has these data, of the same files, prompts and versions."
            if self.proof.stage in _OF_SWEEP
            else "Not asked again: {} has these answers, of the same model, questions, prompts, versions "
            "and device."
        )
        note(f"{words.format(self.run)} They are copied.")
        return {**self.proof.facts, "taken_from": self.run}


def find_twin(context: Context, stage: Stage, digests: Mapping[str, str]) -> Twin | None:
    """A whole stage of a run beside this one that nothing tells from what would be made; None without one.

    Args:
        context: the run. A server's model is not known well enough.
        stage: to be made.
        digests: of what it is made of: model, questions and date are in them.
    """
    in_sweep = (context.folder.path.resolve().parent.parent / SWEEP).is_file()
    if stage.name not in (*_SHARED, *_OF_SWEEP * in_sweep) or context.remote:
        return None
    reads, now = reads_of(context.folder, stage, context.recipe), versions()
    for place, proof in _beside(context, stage):
        if (proof.stage, proof.recipe, proof.needs) != (stage.name, reads, digests):
            continue
        if (proof.commit, proof.versions) != (context.pin(), now):
            continue
        if stage.asks and proof.facts.get("answered_on") != answered_on(context):
            continue
        if input_changes(proof.inputs, context.recipe):
            continue
        plain = all(
            Path(name).name == name for name in proof.files
        )  # a stranger's could lead elsewhere
        if plain and damage(place, thorough=True) is None:
            return Twin(place, proof)
    return None


def run_of(place: Path, stage: str) -> Path:
    """The directory of the run that a stage's folder lies in."""
    return place.parents[stage_named(stage).place.count("/")]


def answered_on(context: Context) -> dict[str, JsonValue]:
    """What answers may depend on beside model, questions and versions."""
    plan = context.plan
    return {
        "device": plan.device,
        "dtype": plan.dtype,
        "at_a_time": plan.evaluation_batch,
        "cached_tokens": plan.cache_tokens,
        "dequantized": plan.dequantized,
    }


def _beside(context: Context, stage: Stage) -> Iterator[tuple[Path, Proof]]:
    """The same stage of the runs of one owner in the folder of this one, with its proof.

    Damaged ones are no matter.
    """
    own = context.folder.path.resolve()
    for path in sorted(own.parent.glob(f"*/{stage.place.format(set='*')}/{NAME}")):
        place = path.parent
        run = run_of(place, stage.name)
        with suppress(RagtuneError, FileNotFoundError):  # one may be renamed
            # Proofs of another user, of a folder that both may write to, are no more than claims.
            if run.name == own.name or run.stat().st_uid != own.stat().st_uid:
                continue
            if (proof := read_proof(place)) is not None:
                yield place, proof
