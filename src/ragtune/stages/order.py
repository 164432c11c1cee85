"""The road: every stage, what it needs, which keys of the recipe it reads, and its function."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from ragtune.base.errors import RagtuneError
from ragtune.base.files import sha256
from ragtune.recipe.schema import CHANGES_NOTHING, Recipe
from ragtune.store.changes import part_of
from ragtune.store.folder import RunFolder
from ragtune.store.proof import NAME, Proof, fingerprint, read_proof
from ragtune.store.seal import ASIDE, MANIFEST
from ragtune.store.sets import own_set

_DATA = ("seed", "model.id", "model.revision", "data.", "prompt.", "evaluate.max_new_tokens")
_TRAINED = (*_DATA, "tuning", "model.", "lora.", "train.")
_ANSWERED = (*_DATA, "model.", "evaluate.limit", "evaluate.questions", "evaluate.copy", "evaluate.products",
             "evaluate.refuse_below", "evaluate.orders", "evaluate.batch_size", "evaluate.engine")  # fmt: skip
_GENERAL = ("model.", "evaluate.products", "evaluate.general")
_OTHER_QUESTIONS = ("data.eval",)
LOGS = "samples_*.jsonl"
_ADAPTER = ("adapter_model.safetensors", "adapter_config.json", "model*.safetensors", "config.json")


@dataclass(frozen=True)
class Stage:
    """A folder of a run, and how it is made."""

    name: str
    title: str
    """The heading over what is printed meanwhile; also what its seconds are counted as, in `time`."""
    time: str
    place: str
    """The folder; {set} is the evaluation set's name."""
    needs: tuple[str, ...]
    """The stages that it is made from; they are made first."""
    reads: tuple[str, ...]
    """Keys of the recipe, or beginnings of keys."""
    make: str
    """MODULE:FUNCTION below ragtune.stages: it is given the context and an empty folder to fill, and
    returns what it found out beside the files."""
    but: tuple[str, ...] = ()
    """Of `reads`, what it doesn't read."""
    inputs: tuple[str, ...] = ()
    """Keys that name files on this machine which it reads itself."""
    content: tuple[str, ...] = ("predictions.jsonl",)
    """Its files that later stages depend on."""
    step: int | None = None
    """Of a checkpoint."""
    loads: Literal["base", "tuned", "either"] | None = None
    """The model that it needs; loading is told and timed by itself."""

    @property
    def asks(self) -> bool:
        """Whether its work is to answer questions."""
        return "evaluate.limit" in self.reads


ROAD = (
    Stage("data", "Data", "prepare", "data", (), _DATA, "prepare:training",
          but=_OTHER_QUESTIONS, inputs=("model.id", "data.train"), content=("train.jsonl",)),
    Stage("questions", "Data", "prepare", "eval/{set}/questions", ("data",), _DATA,
          "prepare:questions", inputs=("model.id", "data.eval"), content=("eval.jsonl",)),
    Stage("before", "Answers before tuning", "before", "eval/{set}/before", ("questions",),
          (*_ANSWERED, "evaluate.served_before"), "answer:before", loads="base"),
    Stage("general before", "General tasks before tuning", "general_before",
          "eval/{set}/general-before", ("questions",), _GENERAL, "general:before",
          inputs=("model.id", "evaluate.general_folder"), content=(LOGS,), loads="either"),
    Stage("adapter", "Training", "train", "adapter", ("data", "questions"), _TRAINED,
          "train:adapter", but=(*_OTHER_QUESTIONS, *CHANGES_NOTHING), inputs=("train.preference",),
          content=_ADAPTER, loads="base"),
    Stage("after", "Answers after tuning", "after", "eval/{set}/after", ("questions", "adapter"),
          (*_TRAINED, *_ANSWERED, "evaluate.served_after"), "answer:after", but=CHANGES_NOTHING,
          loads="tuned"),
    Stage("general after", "General tasks after tuning", "general_after",
          "eval/{set}/general-after", ("questions", "adapter"), _GENERAL, "general:after",
          inputs=("evaluate.general_folder",), content=(LOGS,), loads="tuned"),
    Stage("merged", "Merged model", "merge", "merged", ("adapter",), _TRAINED, "merge:model",
          but=(*_OTHER_QUESTIONS, *CHANGES_NOTHING, "evaluate."), content=("*.safetensors", "config.json")),
    Stage("merged answers", "Merged model", "merge", "eval/{set}/merged",
          ("questions", "after", "merged"),
          (*_TRAINED, *_ANSWERED), "merge:answers", but=CHANGES_NOTHING),
    Stage("gguf", "GGUF", "gguf", "gguf", ("data", "merged"), _TRAINED, "gguf:model",
          but=(*_OTHER_QUESTIONS, *CHANGES_NOTHING), content=("*.gguf", "Modelfile")),
    Stage("gguf answers", "GGUF", "gguf", "eval/{set}/gguf", ("questions", "after", "gguf"),
          (*_TRAINED, *_ANSWERED), "gguf:answers", but=CHANGES_NOTHING),
    Stage("controls before", "Controls before tuning", "controls_before",
          "eval/{set}/controls-before", ("questions", "before"), (*_ANSWERED, "evaluate.served_before"),
          "answer:controls_before", loads="either"),
    Stage("controls after", "Controls after tuning", "controls_after",
          "eval/{set}/controls-after", ("questions", "after"),
          (*_TRAINED, *_ANSWERED, "evaluate.served_after"), "answer:controls_after", but=CHANGES_NOTHING,
          loads="tuned"),
    Stage("checkpoint", "Answers at step {step}", "checkpoint_{step}",
          "eval/{set}/checkpoints/{step}", ("data", "questions"), (*_TRAINED, *_ANSWERED),
          "answer:checkpoint", but=CHANGES_NOTHING, loads="base"),
)  # fmt: skip
"""In the order in which a run makes them; controls and checkpoints only when they are asked for."""

_BY_NAME = {stage.name: stage for stage in ROAD}


def stage_named(name: str, step: int | None = None) -> Stage:
    """A stage of the road; `step` for the answers of a checkpoint."""
    stage = _BY_NAME[name]
    if step is None:
        return stage
    filled = {
        k: getattr(stage, k).format(set="{set}", step=step) for k in ("title", "time", "place")
    }
    return dataclasses.replace(stage, name=f"checkpoint {step}", step=step, **filled)


def place_of(folder: RunFolder, stage: Stage) -> Path:
    return folder.path / stage.place.format(set=folder.evaluation.name)


def stages_there(folder: RunFolder) -> list[Stage]:
    """The stages that were made with the recipe's evaluation set, in the order of the road."""
    steps = [p.name for p in folder.evaluation.glob("checkpoints/*") if p.name.isdigit()]
    every = [stage for stage in ROAD if "{step}" not in stage.place]
    every += [stage_named("checkpoint", step) for step in sorted(map(int, steps))]
    return [stage for stage in every if place_of(folder, stage).is_dir()]


def proof_of(folder: RunFolder, name: str) -> Proof | None:
    """The proof of a stage, or None where it isn't there. Raises as `read_proof` does."""
    return read_proof(place_of(folder, stage_named(name)))


def made_of(stage: Stage, recipe: Recipe) -> tuple[str, ...]:
    """The stages whose content a stage depends on: all that it needs, but for a training's questions.

    Those are only looked at while it goes on, unless a checkpoint is chosen by them. For general tasks they
    are there for the plan alone.
    """
    if stage.name.startswith("general"):
        return tuple(name for name in stage.needs if name != "questions")
    if stage.name != "adapter" or recipe.train.keep == "best":
        return stage.needs
    return ("data",)


def digests_of(folder: RunFolder, stage: Stage, recipe: Recipe) -> dict[str, str]:
    """The digests of what a stage is made of, as far as that is there, and not damaged."""
    found = {}
    for name in made_of(stage, recipe):
        place = place_of(folder, stage_named(name))
        with suppress(RagtuneError):  # a check looks at what is damaged, too
            if stage.name == "adapter" and name == "questions":
                place = _chosen_by(folder) or place
            if (proof := read_proof(place)) is not None:
                found[name] = proof.digest(stage_named(name).content)
    if stage.step is not None:
        manifest = checkpoints_of(folder, recipe) / f"checkpoint-{stage.step}" / MANIFEST
        if manifest.exists():
            found["the checkpoint"] = sha256(manifest)
    return found


def _chosen_by(folder: RunFolder) -> Path | None:
    """The questions by which the adapter's checkpoint was chosen: other ones may be asked now."""
    name = own_set(folder.path)
    return folder.path / "eval" / name / "questions" if name else None


def reads_of(folder: RunFolder, stage: Stage, recipe: Recipe) -> dict[str, JsonValue]:
    """The values of the recipe's keys that a stage reads.

    Of the room for answers a training knows only what the data were made with: where another one leaves
    every prompt as it is, the data stay, and so does what was begun with them.
    """
    reads = part_of(recipe, stage.reads, stage.but)
    if stage.name == "adapter":
        with suppress(RagtuneError):
            if (data := proof_of(folder, "data")) is not None:
                key = "evaluate.max_new_tokens"
                reads[key] = data.recipe[key]
    return reads


def work_of(folder: RunFolder, stage: Stage, recipe: Recipe) -> Path:
    """Where a stage's unfinished work lies: named by all that it depends on, so that nothing mixes."""
    return _work(folder, stage, reads_of(folder, stage, recipe), digests_of(folder, stage, recipe))


def _work(
    folder: RunFolder, stage: Stage, reads: dict[str, JsonValue], needs: dict[str, str]
) -> Path:
    key = fingerprint([reads, needs])
    return folder.work / f"{stage.name.replace(' ', '-')}-{key[:10]}"


def checkpoints_of(folder: RunFolder, recipe: Recipe) -> Path:
    """Where checkpoints lie: of the training that made the adapter or, without one, of the recipe's.

    An adapter can stay where the recipe has changed: where no prompt depends on the change.
    """
    stage = stage_named("adapter")
    with suppress(RagtuneError):
        if (proof := proof_of(folder, stage.name)) is not None:
            return _work(folder, stage, proof.recipe, proof.needs)
    return work_of(folder, stage, recipe)


def proofs_of(folder: RunFolder) -> Iterator[Proof]:
    """What is there says on which day and with which commit it was made; damaged ones say nothing."""
    folders = [folder.data, folder.adapter, folder.merged, folder.gguf]
    folders += [path.parent for path in sorted(folder.path.glob(f"eval/*/*/{NAME}"))]
    for one in folders:
        if one.name.startswith(ASIDE):
            continue
        with suppress(RagtuneError):
            proof = read_proof(one)
            if proof is not None:
                yield proof
