"""The plan that a run keeps: what it is of, and what changes where a run goes on with another."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pydantic import JsonValue

from ragtune.base.errors import RagtuneError
from ragtune.base.files import read_if_whole, sha256, write_json
from ragtune.model.plan import Plan
from ragtune.recipe.schema import CHANGES_NOTHING, Recipe
from ragtune.stages.order import proofs_of
from ragtune.store.changes import part_of
from ragtune.store.folder import RunFolder
from ragtune.store.proof import read_proof


def read_plan(folder: RunFolder, recipe: Recipe) -> Plan | None:
    """The plan that was made for this recipe, these data and questions, if there is one."""
    kept = read_if_whole(folder.plan)
    if not kept or not all(file.is_file() for file in _planned(folder)):
        return None
    return Plan.from_dict(kept["plan"]) if kept.get("of") == _plan_of(folder, recipe) else None


def write_plan(folder: RunFolder, recipe: Recipe, plan: Plan) -> None:
    """Keep a plan for after a break."""
    write_json(folder.plan, {"plan": plan.to_dict(), "of": _plan_of(folder, recipe)})


def begun_as(folder: RunFolder, recipe: Recipe) -> str | None:
    """The dtype that a run has on a CPU where its recipe leaves it to be measured; None before it began."""
    kept = read_if_whole(folder.plan)
    found = [(kept.get("of", {}), kept.get("plan", {}))]
    for proof in proofs_of(folder):
        found += [(proof.recipe, proof.facts.get(name)) for name in ("plan", "answered_on")]
    now = {"model.id": recipe.model.id, "model.dtype": "auto"}
    for of, made in found:
        on_cpu = isinstance(made, dict) and str(made.get("device")).startswith("CPU")
        if on_cpu and now.items() <= of.items():
            return str(made["dtype"])
    return None


def what_changed(folder: RunFolder, old: Plan, plan: Plan) -> str | None:
    """How a run that was begun by an old plan goes on; None if nothing was begun by it."""
    begun = ("eval/*/before", "adapter", "work/adapter-*/checkpoint-*")
    if not any(found for one in begun for found in folder.path.glob(one)):
        return None
    return f"continued on {_named(plan)}, begun on {_named(old)}"


def _planned(folder: RunFolder) -> tuple[Path, Path]:
    return folder.data / "train.jsonl", folder.questions / "eval.jsonl"


def _plan_of(folder: RunFolder, recipe: Recipe) -> dict[str, JsonValue]:
    """What a plan depends on: the recipe but for what changes no work, the data and the questions."""
    reads = ("seed", "tuning", "model.", "data.", "prompt.", "lora.", "train.", "evaluate.")
    but = (*CHANGES_NOTHING, "evaluate.served_")
    files = {file.name: _digest(file) for file in _planned(folder)}
    return part_of(recipe, reads, but) | files


def _digest(file: Path) -> str:
    """Of a stage's file, as its proof has it, if size and time are the same: what is damaged others look at."""
    known = None
    with suppress(RagtuneError):  # without a proof that can be read nothing is known
        proof = read_proof(file.parent)
        known = proof.files.get(file.name) if proof else None
    stat = file.stat()
    if known and (stat.st_size, stat.st_mtime_ns) == (known["size"], known.get("mtime_ns")):
        return known["sha256"]
    return sha256(file)


def _named(plan: Plan) -> str:
    ranks = f"{plan.ranks} ranks, each " if plan.ranks > 1 else ""
    return f"{ranks}{plan.device} as {plan.dtype}"
