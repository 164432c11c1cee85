"""Whether it is known under which licences the data are, before anything is published."""

from __future__ import annotations

from ragtune.base.errors import UsageError
from ragtune.building.figures import Built
from ragtune.data.counts import SplitName
from ragtune.publish.licences import data_origins, without_licence
from ragtune.stages.built import builds_of, built_of
from ragtune.stages.check.directory import prepared
from ragtune.stages.check.findings import Level, Look

_SPLITS: tuple[SplitName, SplitName] = ("train", "eval")
_ADVICE = (
    "The card will say so. Of documents: state documents.license and documents.attribution in the corpus, and "
    "run `ragtune build` again: what was tuned stays. Of other data ask whoever made them."
)


def of_data(look: Look) -> None:
    """Under which licence training examples and evaluation questions are."""
    run = look.run
    origins = data_origins(run.recipe.data, _builds(look))
    if missing := without_licence(origins):
        level: Level = "warning" if run.recipe.publish.repo else "ok"
        look.say(missing, level, _ADVICE)
        return
    known = {f"{origin.name}: {origin.licence}" for origin in origins.values()}
    look.say("; ".join(sorted(known)))


def _builds(look: Look) -> dict[SplitName, Built]:
    if prepared(look.run):
        return builds_of(look.run)
    found = {split: _built(look, split) for split in _SPLITS}
    return {split: built for split, built in found.items() if built is not None}


def _built(look: Look, split: SplitName) -> Built | None:
    try:
        return built_of(look.run.recipe.data, split, look.fingerprints.get(split))
    except UsageError as error:
        look.warn(error.message, error.advice)
        return None
