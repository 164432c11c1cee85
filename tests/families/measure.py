"""What is measured of a family: ragtune's run of it against plain transformers."""

from __future__ import annotations

import contextlib
import re
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file

from ragtune.answering.engine import encode_prompts
from ragtune.base.errors import RagtuneError
from ragtune.base.files import read_json, read_jsonl
from ragtune.base.screen.console import console
from ragtune.model.hardware import free_gpu
from ragtune.model.quiet import quiet
from ragtune.model.skeleton import stays_float32
from ragtune.stages.check.checks import look
from ragtune.stages.context import Context
from ragtune.stages.road import make, working
from ragtune.training import train as training
from tests.conftest import make_records, write_records
from tests.families import reference
from tests.families.build import build
from tests.families.table import Family

LEARNING_RATE = 0.01
NEW_TOKENS = 8
CLOSE = 1e-4
"""Losses, and logits relative to their norm, in float32."""

REFUSED_LATER = "refused after the check"
EXPECTED = ("One sample a row", "Answers through")
"""Warnings that stand in the result in another place."""
SLOWER = "Answers through transformers' generate, which is slower: "
ASKED = " Questions are asked "


@dataclass
class Result:
    """What was seen of a family. Shares are of the parameters that ragtune's model has."""

    family: str
    config: str
    outcome: str = ""
    hub_class: str = ""
    loaded_class: str = ""
    rows: str = ""
    """packed, or single; with the reason behind it."""
    rows_reason: str = ""
    answers: str = ""
    """packed; or, through `generate`, in what batches; with the reason behind it."""
    answers_reason: str = ""
    losses: list[float] = field(default_factory=list)
    loss_difference: float | None = None
    answers_different: list[str] = field(default_factory=list)
    merged_difference: float | None = None
    hub_difference: float | None = None
    """Of the logits: ragtune's tuned model against the Hub's class with the saved adapter."""
    adapter_effect: float | None = None
    trained: int = 0
    adapted: list[str] = field(default_factory=list)
    """The ends of the names of the layers with an adapter."""
    unreached: list[str] = field(default_factory=list)
    """Layers that were left out, since they get no gradient."""
    without_gradient: list[str] = field(default_factory=list)
    without_adapter: dict[str, float] = field(default_factory=dict)
    """The matrices that have none, by kind, with their share."""
    faults: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """Warnings, and the messages of what failed."""
    seconds: float = 0.0


def measure(family: Family, folder: Path) -> Result:
    """Run a family through ragtune, and compare it with plain transformers.

    What fails becomes part of the result: the other families are to be seen, too.
    """
    start = time.monotonic()
    result = Result(family.name, family.config)
    with quiet(), console.capture() as screen, part("it fails", result):
        _measure(family, folder, result)
    warnings = [line[2:].strip() for line in screen.get().splitlines() if line.startswith("! ")]
    result.said += [line for line in dict.fromkeys(warnings) if not line.startswith(EXPECTED)]
    for line in warnings:
        if line.startswith(SLOWER):
            result.answers_reason, _, how = line.removeprefix(SLOWER).partition(ASKED)
            result.answers = how.partition(":")[0] or "in padded batches"
    result.said = [line.replace(str(folder), "FOLDER") for line in result.said]
    result.rows_reason = result.rows_reason.replace(str(folder), "FOLDER")
    result.outcome = "; ".join(filter(None, [result.rows, *dict.fromkeys(result.faults)]))
    result.seconds = round(time.monotonic() - start, 1)
    free_gpu()
    return result


@contextlib.contextmanager
def part(fault: str, result: Result) -> Iterator[None]:
    """A part of the measuring: what it raises is a fault of this name, and the next part begins."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever a family's own code raises is the finding
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:300]
        result.faults.append(fault)
        result.said.append(
            f"{fault}: {type(error).__name__}: {text} ({Path(where.filename).name}:{where.lineno})"
        )


def _measure(family: Family, folder: Path, result: Result) -> None:
    model = folder / "model"
    build(family, model)
    result.hub_class = read_json(model / "config.json")["architectures"][0]
    run = Context(recipe(family, model, folder), [], folder / "run")
    found = look(run)
    if found.error:
        result.rows = "refused"
        result.rows_reason = " ".join(
            f"{f.message} {f.advice}" for f in found.findings if f.level == "fail"
        )
        if "fault of ragtune" in result.rows_reason:
            result.faults.append("the check fails")
        return
    _compare(model, run, result)


def recipe(family: Family, model: Path, folder: Path) -> dict[str, Any]:
    """Few short steps without dropout; nothing is said of the targets."""
    folder.mkdir(exist_ok=True)
    return {
        "name": "family",
        "seed": 7,
        "model": {"id": str(model), "dtype": "float32"},
        "data": {
            "train": str(write_records(folder / "train.jsonl", records(16, "t"))),
            "eval": str(write_records(folder / "eval.jsonl", records(10, "e"))),
            "max_passages": 5,
        },
        "prompt": {"template": "{% for p in passages %}{{ p.text }}\n{% endfor %}{{ question }}"},
        "lora": {"rank": 4, "alpha": 8, "dropout": 0.0, "experts": family.experts},
        "train": {
            "steps": 4,
            "batch_size": 4,
            "learning_rate": LEARNING_RATE,
            "scheduler": "constant",
            "warmup": 0,
            "samples_per_row": 2,
        },
        "evaluate": {"max_new_tokens": NEW_TOKENS, "metric": "squad_em"},
    }


def records(count: int, prefix: str) -> list[dict[str, Any]]:
    """Of very unlike lengths: one to five passages."""
    made = make_records(count, prefix)
    for number, record in enumerate(made):
        record["question"] = record["question"].replace("house", f"{prefix} house")
        more = [
            {"passage_id": 1000 + k, "title": "", "text": f"Tree {k} stands at {prefix}{number}."}
            for k in range(number % 4)
        ]
        record["passages"] = [
            {**record["passages"][0], "text": f"{prefix}. {record['passages'][0]['text']}"},
            *more,
        ]
        record["negative_passage_indices"] = list(range(1, len(more) + 1))
    return made


def _compare(model: Path, run: Context, result: Result) -> None:
    attached: list[Any] = []
    attach = training.attach_reached

    def keep(*args: Any, **named: Any) -> Any:
        tuned, unreached = attach(*args, **named)
        weights = get_peft_model_state_dict(tuned)
        attached.append({k: v.detach().clone() for k, v in weights.items()})
        result.unreached = sorted({re.sub(r"\d+", "*", name) for name in unreached})
        return tuned, unreached

    try:
        with mock.patch.object(training, "attach_reached", keep), working(run):
            make(run, "adapter")
    except RagtuneError as error:  # the check said ok of what it could test
        result.rows, result.rows_reason = REFUSED_LATER, str(error)
        return
    (initial,) = attached
    plan = read_json(run.folder.summary)["plan"]
    result.rows = "packed" if plan["packed"] else "single"
    result.rows_reason = plan["packed_reason"]
    result.losses = [
        row["loss"] for row in read_jsonl(run.folder.adapter / "train_log.jsonl") if "loss" in row
    ]
    tuned = run.tuned()
    result.loaded_class = type(tuned.get_base_model()).__name__
    with part("trained layers not seen", result):
        see_trained(tuned, run.folder.adapter, result)
    with part("the Hub's class fails", result):
        see_class(tuned, model, run, result)
    with part("losses not compared", result):
        see_losses(model, run, initial, result)
    with part("answering fails", result):
        with working(run):
            make(run, "after")
        result.answers = "packed"  # unless generate is spoken of
        see_answers(model, run, result)
    with part("merging fails", result):
        with working(run):
            make(run, "merged answers")
        see_merged(model, run, result)


def see_trained(tuned: Any, adapter: Path, result: Result) -> None:
    """What has an adapter, whether all of it was trained, and what has none."""
    weights = load_file(adapter / "adapter_model.safetensors")
    result.trained = sum(w.numel() for w in weights.values())
    prefix = "base_model.model."
    layers = {k.split(".lora_")[0].removeprefix(prefix) for k in weights if ".lora_" in k}
    result.adapted = sorted({_end(layer) for layer in layers})
    # B begins at zero: one that still is zero never had a gradient.
    result.without_gradient = sorted(
        {
            re.sub(r"\d+", "*", key.removeprefix(prefix))
            for key, weight in weights.items()
            if "lora_B" in key and not weight.any()
        }
    )
    if result.without_gradient:
        result.faults.append("layers without gradient")
    total = sum(p.numel() for n, p in tuned.named_parameters() if ".lora_" not in n)
    left: dict[str, int] = {}
    clean = {layer.replace(".base_layer", "") for layer in layers}
    for name, weight in tuned.named_parameters():
        module = name.replace(".base_layer", "").removeprefix(prefix).rpartition(".")[0]
        if ".lora_" not in name and weight.ndim > 1 and module not in clean:
            kind = _kind(module, weight, tuned)
            left[kind] = left.get(kind, 0) + weight.numel()
    result.without_adapter = {k: round(v / total, 4) for k, v in sorted(left.items())}


def _end(layer: str) -> str:
    """The end of a layer's name that says what it is: a number alone does not."""
    parts = [p for p in layer.replace(".base_layer", "").split(".") if not p.isdigit()]
    return parts[-1]


def _kind(module: str, weight: torch.Tensor, tuned: Any) -> str:
    """Which part of a model a matrix without an adapter belongs to."""
    base = tuned.get_base_model()
    ends = {id(e.weight) for e in (base.get_input_embeddings(), base.get_output_embeddings()) if e}
    parts = re.sub(r"\.\d+(?=\.|$)", "", module)
    if id(weight) in ends or "embed" in parts:
        return "embeddings and output"
    if re.search(r"vision|visual|projector|connector|audio", parts):
        return "eyes and ears"
    if "shared_expert" in parts or "shared_mlp" in parts:
        return f"shared experts: {_end(parts)}"
    if "experts" in parts or (weight.ndim == 3 and re.search(r"moe|mlp|ffn", parts)):
        return "experts"
    return parts.split("layers.")[-1]


def see_losses(model: Path, run: Context, initial: dict[str, torch.Tensor], result: Result) -> None:
    """Each step's loss against one sample at a time, from the same adapter."""
    # Of the class that ragtune loads: whether the Hub's is served as well, `see_class` asks.
    base = reference.load(model, result.loaded_class)
    tuned = reference.with_weights(base, run.folder.adapter, initial)
    expected = list(
        reference.losses(tuned, run.steps, LEARNING_RATE, run.recipe.train.max_grad_norm)
    )
    pairs = zip(result.losses, expected, strict=True)
    result.loss_difference = max(abs(a - b) for a, b in pairs)
    if not result.loss_difference <= CLOSE:
        result.faults.append("losses differ")


def see_class(tuned: Any, model: Path, run: Context, result: Result) -> None:
    """The saved adapter on the Hub's class, by PEFT, against ragtune's model after training."""
    samples = run.steps[0]
    mine = reference.logits(tuned, samples)
    theirs = reference.with_adapter(reference.load(model, result.hub_class), run.folder.adapter)
    result.hub_difference = reference.difference(mine, reference.logits(theirs, samples))
    with theirs.disable_adapter():
        result.adapter_effect = reference.difference(mine, reference.logits(theirs, samples))
    if not result.hub_difference <= CLOSE:
        result.faults.append("other on the Hub's class")


def see_answers(model: Path, run: Context, result: Result) -> None:
    """Every answer against `generate` of that prompt alone."""
    given = {
        row["qid"]: row["token_ids"]
        for row in read_jsonl(run.folder.answers("after") / "predictions.jsonl")
    }
    tuned = reference.with_adapter(reference.load(model, result.loaded_class), run.folder.adapter)
    tokenizer = run.encoder.tokenizer
    own = tuned.generation_config.eos_token_id
    own = [] if own is None else own if isinstance(own, list) else [own]
    stops = sorted({run.encoder.stop_id, *own})
    for qid, prompt in encode_prompts(run.encoder, run.asked):
        alone = reference.answer(tuned, prompt, stops, tokenizer.pad_token_id, NEW_TOKENS)
        if alone != given[qid]:
            result.answers_different.append(f"{qid}: {given[qid]} for {alone}")
    if result.answers_different:
        result.faults.append("answers differ")


def see_merged(model: Path, run: Context, result: Result) -> None:
    """The merged model, of the Hub's class and rounded to bfloat16, against the adapter."""
    samples = run.steps[0]
    kind = read_json(run.folder.merged / "config.json")["architectures"][0]
    if kind != result.hub_class:
        result.faults.append(f"merged is a {kind}")
    base = reference.load(model, result.loaded_class)
    adapter = reference.with_adapter(base, run.folder.adapter)
    tuned = reference.logits(adapter, samples)
    merged = adapter.merge_and_unload()
    exact = reference.difference(reference.logits(merged, samples), tuned)
    single = stays_float32(merged)
    for (
        name,
        weight,
    ) in merged.state_dict().items():  # not what is computed anew, as frequencies are
        if weight.is_floating_point() and not single(name):
            weight.copy_(weight.to(torch.bfloat16))
    rounded = reference.logits(merged, samples)
    written = reference.logits(reference.load(run.folder.merged, kind), samples)
    result.merged_difference = max(exact, reference.difference(written, rounded))
    if not result.merged_difference <= CLOSE:
        result.faults.append("merged differs")


def explain(result: Result, family: Family) -> str:
    """How a family differs from its row, with what was said on the way."""
    told = [
        f"{family.name}: expected {family.expected!r}, found {result.outcome!r}.",
        f"Rows: {result.rows_reason}",
        f"Answers: {result.answers} {result.answers_reason}",
        f"Losses differ by {result.loss_difference}, merged by {result.merged_difference},",
        f"on {result.hub_class} by {result.hub_difference} (ragtune has {result.loaded_class}).",
        *(f"No gradient: {name}" for name in result.without_gradient),
        *(f"Answer to {one}" for one in result.answers_different),
        *result.said,
    ]
    return "\n".join(told)
