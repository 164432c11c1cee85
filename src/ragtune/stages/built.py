"""What `ragtune build` found of the data of a run: kept with them, and told by report, card and check."""

from __future__ import annotations

from pathlib import Path

from ragtune.base.errors import UsageError
from ragtune.base.files import sha256
from ragtune.base.screen.console import warn
from ragtune.building.figures import NAME, Built, built_beside, read_built, write_built
from ragtune.data.counts import SplitName
from ragtune.data.read import locate
from ragtune.recipe.data import Data
from ragtune.stages.context import Context
from ragtune.stages.order import proof_of


def keep_built(data: Data, split: SplitName, out: Path) -> None:
    """Copy what build wrote beside a split's file into the folder of the stage that read it.

    Where that is of another file, or damaged, it is said, and the run goes on without.
    """
    try:
        built = built_of(data, split)
    except UsageError as error:
        warn(f"{error.message} {error.advice}")
        return
    if built is not None:
        write_built(out, built)


def built_of(data: Data, split: SplitName, digest: str | None = None) -> Built | None:
    """What build wrote beside the file of a split, if that is there.

    Args:
        data: the recipe's section.
        split: of which.
        digest: the file's sha256, where it is known already.

    Raises:
        UsageError: it is of another file, or damaged.
    """
    source = data.train if split == "train" else data.eval
    files = locate(source) if source and not source.startswith("sample:") else []
    if len(files) != 1 or not files[0].with_name(NAME).exists():
        return None
    return built_beside(files[0], digest or sha256(files[0]))


def builds_of(context: Context) -> dict[SplitName, Built]:
    """What is known of each split that a run has read; it has the keys of those that were built.

    Of the same examples, what lies beside them now counts before what the run keeps: a licence may have been
    stated since.
    """
    folder = context.folder
    found: dict[SplitName, Built] = {}
    places: tuple[tuple[SplitName, str, Path], ...] = (
        ("train", "data", folder.data),
        ("eval", "questions", folder.questions),
    )
    for split, stage, place in places:
        kept = read_built(place / NAME)
        if kept is not None:
            found[split] = _renewed(context, split, stage) or kept
    return found


def _renewed(context: Context, split: SplitName, stage: str) -> Built | None:
    proof = proof_of(context.folder, stage)
    read = proof.inputs.get(f"data.{split}") if proof else None
    if read is None:
        return None
    (facts,) = read["files"].values()
    try:
        return built_of(context.recipe.data, split, facts["sha256"])
    except UsageError:  # gone, or of other examples: what the run keeps is of those that it read
        return None
