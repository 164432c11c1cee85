"""A model tuned on synthetic questions alone, asked real ones of the same documents; its writer is tuned, too.

    python bench/synthetic.py --data FOLDER --out bench/results/NAME.json [--model ID] [--writer-steps N]
        [--questions N] [--steps N] [--most N] [--work FOLDER] [SECTION.KEY=VALUE ...]

FOLDER holds jaquad_rag.train.jsonl.gz and jaquad_rag.dev.jsonl.gz, which have no article in common. From
the base a writer is tuned on the real questions of the training articles, by the very prompts that `ragtune
build` sends: to write a question and its answer, to answer with the passage, and to answer from memory.
`ragtune build` then lets it write questions for the articles of dev, of which it has seen none, and keeps
those that stand up. The base is tuned on these alone, and asked the real questions of the same articles;
beside it, tuned for as many steps on real questions of the training articles, another reader.

Changes of recipes/quickstart-ja.yaml come last, and hold for all three. What is known is written at once;
with --work, a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import ragtune
from built import NOTEBOOK, RECIPE, device, given, records, write, write_documents
from machine import made_with
from ragtune.base.errors import UsageError
from ragtune.base.files import write_json
from ragtune.building.synthesis.prompts import Prompts, prompts_for
from ragtune.building.synthesis.reply import Reply, points, read_reply
from ragtune.data.example import Passage
from ragtune.data.prompt import CHAT_TEMPLATES
from ragtune.data.words import stands, stands_by_rule

LANGUAGE = "ja"
BATCH = 32
"""Of the writer's training."""
WRITER = (f"train.batch_size={BATCH}", "train.learning_rate=3e-4", "prompt.preset=null",
          "prompt.template={{ question }}", "evaluate.limit=32")  # fmt: skip
REPLY = 128
"""Tokens of a question and its answer, as JSON."""
SHOWN = 12


def main() -> None:
    options = _options()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(options, options.work or Path(name))
        bench.tune_writer()
        if bench.build():
            bench.tune_readers()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", help="the base; default: the recipe's")
    parser.add_argument("--writer-steps", type=int, default=300, help=f"of {BATCH} lessons")
    parser.add_argument("--questions", type=int, default=3000, help="that are written, at most")
    parser.add_argument("--steps", type=int, default=100, help="of each reader's training")
    parser.add_argument("--most", type=int, help="records of each split, to try it out")
    parser.add_argument("--work", type=Path, help="keeps what is made")
    parser.add_argument("changes", nargs="*", help="changes to the recipe")
    return parser.parse_args()


class Bench:
    """The three parts, and what is found."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.work = options, work
        work.mkdir(parents=True, exist_ok=True)
        self.given = given(options.data, work, options.most)
        base = [f"model.id={options.model}"] if options.model else []
        self.more = [*NOTEBOOK, f"train.steps={options.steps}", *base]
        self.result: dict[str, Any] = {**made_with("tantivy", device=device()), "seconds": {}}

    def keep(self, **values: object) -> None:
        self.result.update(values)
        write_json(self.options.out, self.result)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.result["seconds"][name] = round(time.monotonic() - start, 1)

    def tune_writer(self) -> None:
        """Tune the writer, and merge it into one model."""
        options, prompts = self.options, prompts_for(LANGUAGE)
        every = [*lessons(records(self.given["train"]), prompts)]
        random.Random(0).shuffle(every)
        drawn = every[: options.writer_steps * BATCH]
        write(self.work / "lessons.jsonl", drawn)
        write(
            self.work / "asked.jsonl", [*lessons(islice(records(self.given["dev"]), 30), prompts)]
        )
        template = self.work / "writer.jinja"
        template.write_text(showing_examples(prompts), "utf-8")
        run = [  # what is asked is for `merge`, which compares answers
            *self.more, "name=writer", f"data.train={self.work}/lessons.jsonl",
            f"data.eval={self.work}/asked.jsonl", *WRITER, f"train.steps={options.writer_steps}",
            f"prompt.chat_template={template}", *options.changes,
        ]  # fmt: skip
        with self.timed("writer"):
            ragtune.train(RECIPE, *run, run_dir=self.work / "writer")
            ragtune.merge(self.work / "writer")
        self.keep(writer={"lessons": len(every), "trained": len(drawn)})

    def build(self) -> bool:
        """Let the writer write questions for the articles of dev; whether any was kept."""
        dev = [*records(self.given["dev"])]
        write_documents(self.work / "documents.jsonl", dev)
        asked = [{key: one[key] for key in ("qid", "question", "answers")} for one in dev]
        write(self.work / "questions.jsonl", asked)
        merged = self.work / "writer" / "merged"
        corpus: dict[str, object] = {
            "name": "synthetic",
            "documents": {"files": [str(self.work / "documents.jsonl")]},
            "passages": {"language": LANGUAGE},
            "questions": {
                "eval": [str(self.work / "questions.jsonl")],
                "generate": {
                    "model": str(merged),
                    "count": self.options.questions,
                    "max_new_tokens": REPLY,
                },
            },
            "retrieval": {"passages": 10},
        }
        try:
            with self.timed("build"):
                built = ragtune.build(corpus, folder=self.work / "corpus")
        except UsageError as error:  # none of what was written was kept
            self.keep(build={"kept": 0, "stopped": error.message})
            return False
        synthetic = built.figures.questions.synthetic
        assert synthetic is not None
        kept = [json.loads(line) for line in (self.work / "corpus/train.jsonl").open("rb")]
        self.keep(
            build={
                "passages": built.figures.passages.n,
                "written": synthetic.train + sum(synthetic.dropped.values()),
                **asdict(synthetic),
                "model": "the writer",
                "recall": [asdict(one) for one in built.figures.recall],
            },
            kept=[{key: one[key] for key in ("question", "answers")} for one in kept[:SHOWN]],
        )
        return True

    def tune_readers(self) -> None:
        """Tune a reader on what was kept, and another one on real questions; ask both the same."""
        corpus, folders = self.work / "corpus", {n: self.work / n for n in ("real", "synthetic")}
        sets = {"synthetic": corpus / "train.jsonl", "real": self.given["train"]}
        for name, train in sets.items():
            run = [f"name={name}", f"data.train={train}", f"data.eval={corpus}/eval.jsonl"]
            run += [*self.more, *self.options.changes]
            folder = folders[name]
            with self.timed(name):
                ragtune.train(RECIPE, *run, run_dir=folder)
                if name == "synthetic":
                    ragtune.evaluate(folder, base=True)
                ragtune.evaluate(folder)
            if name == "synthetic":
                self.keep(synthetic=ragtune.compare(folder))
        (compared,) = ragtune.compare_runs(*folders.values())["comparisons"]
        self.keep(synthetic_against_real={**compared, "name": "synthetic", "against": "real"})


def lessons(found: Iterable[dict[str, Any]], prompts: Prompts) -> Iterator[dict[str, Any]]:
    """What a writer is to learn of each record: the three prompts, with what is to be said to them.

    Those are left out whose passage in first place doesn't hold the answer, or of which a build would not
    keep the question. Passages that the prompt's text holds already are not shown by the template.
    """
    for record in found:
        question, answer = record["question"], record["answers"][0]
        first = record["passages"][0]
        reply = json.dumps({"question": question, "answer": answer}, ensure_ascii=False)
        kept = read_reply(reply) == Reply(question, answer) and not points(question)
        if not (kept and stands(first["text"], answer)) or stands_by_rule(question, answer):
            continue
        passage = Passage(first["text"], first["title"])
        tasks = {
            "write": (prompts.to_write(passage), reply),
            "within": (prompts.to_answer(question, passage), answer),
            "without": (prompts.to_remember(question), answer),
        }
        for name, (messages, target) in tasks.items():
            yield {
                "qid": f"{record['qid']}-{name}",
                "question": messages[-1]["content"],
                "answers": [target],
                "passages": [first],
                "positive_passage_indices": [0],
            }


def showing_examples(prompts: Prompts) -> str:
    """The book's chat template, which puts before a prompt that stands alone the example that belongs to it.

    A build shows the writer an example with each prompt; a training record has one turn. So both read alike.
    """
    marks = (
        prompts.write.rpartition("\n")[2],
        prompts.within.partition("<passage>")[2].partition("<question>")[0],
        prompts.without.partition("<question>")[0],
    )
    shown = json.dumps([*zip(marks, prompts.examples, strict=True)], ensure_ascii=False)
    return (
        f"{{% set shown = {shown} %}}{{% set said = messages[0]['content'] %}}"
        "{% set before = shown[0][1] if shown[0][0] in said else shown[1][1] if shown[1][0] in said "
        "else shown[2][1] if shown[2][0] in said else [] %}"
        "{% set messages = messages if messages | length > 2 else before + messages %}"
    ) + CHAT_TEMPLATES["aio"]


if __name__ == "__main__":
    main()
