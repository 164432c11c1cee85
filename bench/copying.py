"""Answers that are only copied (evaluate.copy) beside free ones: exact match before and after tuning, and time.

    python bench/copying.py recipes/quickstart.yaml --out bench/results/copying-cpu.json [KEY=VALUE ...]
    python bench/copying.py recipes/quickstart.yaml --out bench/results/copying-cpu.json --reach [--data FILE]

The recipe is trained, and the same questions are asked freely and with evaluate.copy, by the base and by the
tuned model; a run that is there (`--run`) is taken as it is. `--reach` is of all records of the samples,
or of `--data`: of those with an answer in a shown passage, how often the one that is trained can be written,
and any.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ragtune
from machine import made_with
from ragtune.answering.copying import Copies
from ragtune.answering.prediction import read_predictions
from ragtune.base.files import write_json
from ragtune.data.example import Example
from ragtune.data.prepare import how_of, source_of
from ragtune.data.read import read_examples
from ragtune.data.select import accepted, rejection
from ragtune.data.spans import Paths
from ragtune.data.words import stands
from ragtune.scoring.compare import compare_answers
from ragtune.scoring.score import Answers, score_answers
from ragtune.stages.answer import ANSWERS, ask
from ragtune.stages.context import Context

SAMPLES = ("squad2.train", "squad2.dev", "jaquad.train", "jaquad.dev")


def writes(paths: Paths, ids: Sequence[int]) -> bool:
    """Whether tokens are a way from a first node to a last one."""
    leads: dict[tuple[int, int], list[int]] = {}
    for start, token, end in zip(paths.starts, paths.tokens, paths.ends, strict=True):
        leads.setdefault((start, token), []).append(end)
    alive = {*paths.first}
    for i in ids:
        alive = {end for node in alive for end in leads.get((node, i), ())}
    return bool(alive & {*paths.last})


def reach(context: Context) -> dict[str, Any]:
    """How many answers of `data.train` can be copied, of the records in whose shown passages one stands."""
    recipe, encoder = context.recipe, context.encoder
    copies, most = Copies.of(encoder), recipe.data.max_passages
    source, how = source_of(recipe.data, "train"), how_of(recipe.data, "train")
    examples = [*read_examples(source, "train", how=how)]
    chosen = [e for e in examples if rejection(e, most) is None]
    if not chosen:
        raise SystemExit(f"{recipe.data.train} has no record with an answer in a shown passage.")
    seconds, first, any_one = 0.0, 0, 0
    targets = encoder.targets([replace(e, answers=e.answers[:1]) for e in chosen])
    for example, target in zip(chosen, targets, strict=True):
        texts = [p.text for p in example.passages[:most]]
        start = time.process_time()
        paths = copies.spans.paths(texts)
        seconds += time.process_time() - start
        first += writes(paths, target[:-1])
        any_one += any(stands(text, a) for a in accepted(example, recipe) for text in texts)
    return {
        "records": len(examples),
        "with_an_answer_in_what_is_shown": len(chosen),
        "trained_answer_can_be_written": first / len(chosen),
        "an_accepted_answer_can_be_written": any_one / len(chosen),
        "model": recipe.model.id,
        "milliseconds_to_prepare_a_question": round(1000 * seconds / len(chosen), 2),
    }


def answered(
    context: Context, which: Any, examples: Sequence[Example], copy: bool
) -> tuple[Answers, dict[str, float]]:
    """The answers of one side, and what they took."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "answers"
        out.mkdir()
        with context.answering(which):
            pass  # the model is in memory: that takes as long either way
        start, cpu = time.monotonic(), time.process_time()
        ask(context, which, context.encoder, examples, out)
        took = time.monotonic() - start, time.process_time() - cpu
        found = read_predictions(out / ANSWERS)
    seconds, used = (round(one / len(examples), 3) for one in took)
    return Answers.of(found, f"copy={copy}"), {
        "seconds_a_question": seconds,
        "cpu_a_question": used,
    }


def side(context: Context, copying: Context, which: Any, examples: Sequence[Example]) -> Any:
    """One side, freely and copied."""
    recipe, metric = context.recipe, context.recipe.evaluate.metric
    (free, free_took), (copied, copied_took) = (
        answered(one, which, examples, one.recipe.evaluate.copy) for one in (context, copying)
    )
    found = compare_answers(recipe, context.questions, free, copied)

    def figures(answers: Answers, took: dict[str, float], key: str) -> dict[str, Any]:
        scored = score_answers(recipe, context.questions, answers)
        sure = scored.confidence
        assert sure is not None
        texts = {e.qid: [p.text for p in e.passages] for e in examples}
        held = sum(any(t in text for text in texts[q]) for q, t in answers.texts.items() if t)
        return {
            **took,
            "metrics": found["intervals"][key],
            "stand_in_a_passage": held / len(examples),
            "cut": scored.cut,
            "ece": sure["ece"],
            "coverages": sure["coverages"],
        }

    return {
        "n": found["n"],
        "free": figures(free, free_took, "before"),
        "copied": figures(copied, copied_took, "after"),
        "difference": found["difference"],
        "fixed": found["fixed"],
        "broken": found["broken"],
        "mcnemar_p": found["mcnemar_p"],
        "headline": metric,
    }


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Both sides of a run."""
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or Path(folder) / "run"
        if not (run / "adapter").is_dir():
            ragtune.train(options.recipe, *options.changes, run_dir=run)
        asked = [*options.changes, f"evaluate.limit={options.questions}"]
        context, copying = Context(run, asked), Context(run, [*asked, "evaluate.copy=true"])
        sides = {w: side(context, copying, w, context.asked) for w in ("before", "after")}
        recipe, hardware = context.recipe, context.hardware
        return {
            **made_with(device=hardware.name if hardware.device.type == "cuda" else ""),
            "trained": {"steps": recipe.train.steps, "batch_size": recipe.train.batch_size},
            "model": recipe.model.id,
            **sides,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--run", type=Path, help="keep the run here, or take the one that is there")
    parser.add_argument("--reach", action="store_true", help="nothing is asked")
    parser.add_argument(
        "--data",
        action="append",
        metavar="FILE",
        help="with --reach: records, as data.train takes them, instead of the samples",
    )
    parser.add_argument("changes", nargs="*", help="changes to the recipe")
    options = parser.parse_intermixed_args()
    if options.data and not options.reach:
        parser.error("--data is for --reach; the questions of a run are those of its recipe")
    found = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {"runs": {}}
    name = Path(options.recipe).stem
    if options.reach:
        sources = options.data or [f"sample:{one}" for one in SAMPLES]
        names = [Path(source).name for source in sources]
        if len({*names}) < len(names):
            parser.error("two of --data have the same name")
        every = (
            Context(options.recipe, [*options.changes, f"data.train={one}"]) for one in sources
        )
        each = {s: reach(context) for s, context in zip(names, every, strict=True)}
        found.setdefault("reach", {})[name] = {**made_with(), "samples": each}
    else:
        found["runs"][name] = measured(options)
    write_json(options.out, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
