"""What the checks ask of a run directory: no other check knows how one is laid out."""

from __future__ import annotations

from pathlib import Path

from ragtune.base.disk import ReadOnlyError, require_writable
from ragtune.base.lock import refusal
from ragtune.stages.check.findings import Look
from ragtune.stages.context import Context
from ragtune.stages.holds import damaged_stages, require_unchanged
from ragtune.stages.order import checkpoints_of, place_of, proof_of
from ragtune.store.proof import damage


def place(run: Context) -> Path:
    return run.folder.path


def adapter_folder(run: Context) -> Path:
    return run.folder.adapter


def prepared(run: Context) -> bool:
    return _whole(run.folder.data) and _whole(run.folder.questions)


def answered_before(run: Context) -> bool:
    """Whether the base model has answered."""
    return run.folder.answers("before").is_dir()


def general_asked(run: Context) -> bool:
    """Whether these general tasks were asked before and after tuning."""
    for which in ("before", "after"):
        proof = proof_of(run.folder, f"general {which}")
        if proof is None or proof.recipe["evaluate.general"] != run.recipe.evaluate.general:
            return False
    return True


def trained(run: Context) -> bool:
    return _whole(run.folder.adapter)


def merged(run: Context) -> bool:
    return _whole(run.folder.merged)


def as_gguf(run: Context) -> bool:
    return _whole(run.folder.gguf)


def _whole(place: Path) -> bool:
    """Whether a stage is there, and needn't be made again."""
    return place.is_dir() and damage(place) is None


def checkpoint_bytes(run: Context) -> int:
    """What checkpoints take there already."""
    folder = checkpoints_of(run.folder, run.recipe)
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def run_directory(look: Look) -> None:
    """Who is at work there, and whether what lies there is whole and of this recipe."""
    run, folder = look.run, look.run.folder
    look.say(str(folder.path))
    if run.held:  # by the run that makes this check
        return
    folder.require_ours()
    try:
        require_writable(folder.path)
    except ReadOnlyError as error:
        if not (trained(run) and answered_before(run) and folder.answers("after").is_dir()):
            raise
        look.warn(f"{error.message} What is finished there can be read.", error.advice)
    if other := refusal(folder.path):
        raise other
    broken = damaged_stages(folder)
    for stage, problem in broken.items():
        words = f"{place_of(folder, stage)} is damaged ({problem})"
        look.warn(words, "It is set aside, and made again.")
    require_unchanged(run, making=True, but=broken)
