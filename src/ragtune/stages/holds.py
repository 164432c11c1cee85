"""Whether what lies in a run directory still holds: of this recipe, of what is there, and whole."""

from __future__ import annotations

from collections.abc import Collection

from ragtune.base.commands import command_line
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.recipe.schema import Recipe
from ragtune.stages.context import Context
from ragtune.stages.order import Stage, digests_of, made_of, place_of, stages_there
from ragtune.store.changes import Change, differing, part_of, value_of
from ragtune.store.folder import RunFolder
from ragtune.store.inputs import input_changes
from ragtune.store.proof import Proof, damage, read_proof


def changes(context: Context, *, making: bool, but: Collection[Stage] = ()) -> list[Change]:
    """What is otherwise than when the stages that are there were made, and which it makes invalid.

    Args:
        context: the run.
        making: whether the input files count as well.
        but: stages that don't count.
    """
    folder, recipe = context.folder, context.recipe
    there = {stage.name: stage for stage in stages_there(folder) if stage not in but}
    touched: dict[str, set[str]] = {}
    for name, stage in there.items():
        if name.startswith("general ") and not recipe.evaluate.general:
            continue  # none is asked now: what was asked of the same model stays
        proof = read_proof(place_of(folder, stage))
        assert proof is not None
        now = part_of(recipe, stage.reads, stage.but)
        for key in differing(proof.recipe, now):
            if key == "data.eval":  # by which the set was found, however its path is spelt
                continue
            if key == "evaluate.max_new_tokens" and not stage.asks and _same_prompts(proof, recipe):
                continue
            words = f"{key}: {value_of(proof.recipe, key)!r} there, {now[key]!r} now"
            touched.setdefault(words, set()).add(name)
        for words in input_changes(proof.inputs, recipe) if making else []:
            touched.setdefault(words, set()).add(name)
    every = list(there.values())
    return [Change(words, with_later(every, names, recipe)) for words, names in touched.items()]


def with_later(stages: list[Stage], names: set[str], recipe: Recipe) -> tuple[str, ...]:
    """The stages of these names, and those that were made from them, in the order of the road."""
    found = set(names)
    for stage in stages:  # what depends on one comes later
        if found & set(made_of(stage, recipe)):
            found.add(stage.name)
    return tuple(stage.name for stage in stages if stage.name in found)


def fits(proof: Proof, digests: dict[str, str]) -> bool:
    """Whether a stage was made of what is there; what is not there says nothing."""
    return all(proof.needs.get(name) == digest for name, digest in digests.items())


def still_fits(context: Context) -> bool:
    """Whether all that is there is of this recipe, and was made of what is there."""
    folder, recipe = context.folder, context.recipe
    proofs = {s: read_proof(place_of(folder, s)) for s in stages_there(folder)}
    fit = all(p is None or fits(p, digests_of(folder, s, recipe)) for s, p in proofs.items())
    return fit and not changes(context, making=False)


def require_unchanged(context: Context, *, making: bool, but: Collection[Stage] = ()) -> None:
    """Raise unless all that is there holds; the arguments are those of `changes`.

    Raises:
        UsageError: it says which stages are no longer valid, and why.
    """
    found = changes(context, making=making, but=but)
    if found:
        listed = [f"{one.words}: no longer valid: {', '.join(one.stages)}" for one in found]
        path = context.folder.path
        raise UsageError(
            f"{path} holds results of another recipe, or of other files:\n  " + "\n  ".join(listed),
            "With --redo (of run, prepare, train, evaluate and merge) these stages are set aside in "
            f"{path}/old-N and made again. Or give this run its own directory: name=ANOTHER "
            "on the command line, or --run-dir.",
        )


def require_whole(context: Context) -> None:
    """Raise unless every stage is as it was when it was finished; nothing is set aside.

    Raises:
        RagtuneError: one is damaged.
    """
    for stage in stages_there(context.folder):
        require_whole_stage(context, stage)


def require_whole_stage(context: Context, stage: Stage) -> None:
    """The same of one stage, if it is there.

    Raises:
        RagtuneError: it is damaged.
    """
    folder = context.folder
    place = place_of(folder, stage)
    if problem := damage(place):
        command = "merge" if place == folder.merged else "run"
        raise RagtuneError(
            f"{place} is damaged: {problem}.",
            f"`{command_line('ragtune', command, folder.path)}` sets it aside, and makes it again.",
        )


def damaged_stages(folder: RunFolder) -> dict[Stage, str]:
    """The stages that are not as they were when they were finished, and in which way."""
    found = {stage: damage(place_of(folder, stage)) for stage in stages_there(folder)}
    return {stage: problem for stage, problem in found.items() if problem}


def _same_prompts(proof: Proof, recipe: Recipe) -> bool:
    """Whether another room for answers leaves every prompt as it was: none was cut, nor would be."""
    then = proof.recipe["evaluate.max_new_tokens"]
    if "prompts" not in proof.facts or not isinstance(then, int):
        return False
    facts = proof.facts["prompts"]
    room = facts["room"] + then - recipe.evaluate.max_new_tokens
    asks_others = recipe.evaluate.questions == "all" or recipe.data.refusal is not None
    return not asks_others and facts["whole"] and facts["longest"] <= room
