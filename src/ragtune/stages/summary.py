"""run.json: what the stages' proofs say, in one place."""

from __future__ import annotations

from typing import Literal

from ragtune.answering.prediction import read_predictions
from ragtune.base.files import read_if_whole, write_json
from ragtune.base.versions import versions
from ragtune.reporting.summary import Summary
from ragtune.scoring.reasked import Reasked, reasked
from ragtune.scoring.score import Answers
from ragtune.stages.context import Context
from ragtune.stages.order import place_of, stages_there
from ragtune.store.proof import Proof, read_proof
from ragtune.store.sets import sets_there


def summary_of(context: Context) -> Summary:
    """Everything that is known of a run, by what lies in its directory."""
    folder = context.folder
    proofs: dict[str, Proof] = {}
    for stage in stages_there(folder):
        proof = read_proof(place_of(folder, stage))
        assert proof is not None
        proofs[stage.name] = proof
    found: Summary = {
        "recipe": context.recipe.model_dump(mode="json"),
        "versions": _versions(proofs),
        "date": context.day.isoformat(),
        "times": {},
        "peak_gib": {},
        "asked": {},
        "data": _fingerprints(proofs),
    }
    _measure(proofs, found)
    commit = next((proof.commit for proof in proofs.values() if proof.commit), None)
    if commit:
        found["commit"] = commit
    if "adapter" in proofs:
        found["plan"] = proofs["adapter"].facts["plan"]
    elif plan := read_if_whole(folder.plan).get("plan"):
        found["plan"] = plan
    if "adapter" in proofs:
        found["train"] = proofs["adapter"].facts["train"]
    if (merged := reasked_of(context, "merged")) is not None:
        found["merge"] = merged
    if (gguf := reasked_of(context, "gguf")) is not None:
        found["gguf"] = gguf
    if pushed := read_if_whole(folder.published):
        found["push"] = pushed
    found["sets"] = sets_there(folder.path)
    return found


def _measure(proofs: dict[str, Proof], found: Summary) -> None:
    """Put in seconds and memory (of what several call by one name together), and how questions were asked."""
    times, peaks, asked = found["times"], found["peak_gib"], found["asked"]
    for proof in proofs.values():
        for name, seconds in proof.times.items():
            times[name] = round(times.get(name, 0.0) + seconds, 2)
        for name, peak in proof.peak_gib.items():
            peaks[name] = max(peaks.get(name, 0.0), peak)
        if "asked" in proof.facts:
            *_, own = proof.times  # the last one; before it may stand the loading of a model
            asked[own] = proof.facts["asked"]


def _fingerprints(proofs: dict[str, Proof]) -> dict[str, str]:
    files = {"train": ("data", "train.jsonl"), "eval": ("questions", "eval.jsonl")}
    return {
        split: proofs[stage].files[name]["sha256"]
        for split, (stage, name) in files.items()
        if stage in proofs
    }


def _versions(proofs: dict[str, Proof]) -> dict[str, str]:
    """Those that trained, or else the latest that did anything, or else these."""
    made = [proofs["adapter"]] if "adapter" in proofs else list(proofs.values())
    return made[-1].versions if made else versions()


def write_summary(context: Context) -> None:
    """Write run.json; of a set that is not the run's own only that it is there."""
    folder = context.folder
    kept = {} if folder.is_own else read_if_whole(folder.summary)
    if kept:
        write_json(folder.summary, kept | {"sets": sets_there(folder.path)})
    else:
        write_json(folder.summary, summary_of(context))


def reasked_of(context: Context, which: Literal["merged", "gguf"]) -> Reasked | None:
    """The merged model's answers, or llama.cpp's, against the adapter's; None if it wasn't asked."""
    folder = context.folder
    places = [folder.answers(name) for name in ("after", which)]
    if not all(place.is_dir() for place in (folder.questions, *places)):
        return None
    own, again = (
        Answers.of(read_predictions(place / "predictions.jsonl"), str(place)) for place in places
    )
    freely = which == "gguf"  # llama.cpp is confined by nobody
    return reasked(context.recipe, context.questions, own, again, freely=freely)
