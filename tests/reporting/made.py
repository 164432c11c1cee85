"""A small made-up run, with everything that a report can show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ragtune.building.figures import (
    BuildFigures,
    Built,
    DocumentFigures,
    Lengths,
    Nearest,
    PassageFigures,
    QuestionFigures,
    Recall,
    Synthetic,
    Twin,
    TwinFigures,
    Unfound,
    Unread,
)
from ragtune.building.retrieval.compare import DEPTHS
from ragtune.building.retrieval.compare import Comparison as Retrievers
from ragtune.data.example import Example, Passage
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.reporting.answers import AnswerRow
from ragtune.reporting.html import Report, write_report
from ragtune.reporting.judging import JudgedRun
from ragtune.scoring.compare import compare
from ragtune.scoring.judging import Agreement
from ragtune.scoring.paired import General, GeneralTask, PairedMetric
from ragtune.scoring.score import Answers, score_answers
from ragtune.scoring.statistics import Figure

SCRIPT = "<script>alert('x')</script>"
REFUSAL = "回答できません"
LOG: list[dict[str, Any]] = [
    {"step": 1, "loss": 3.0, "grad_norm": 1.0, "learning_rate": 1e-4},
    {"step": 2, "loss": 2.0, "grad_norm": 1.0, "learning_rate": 1e-4},
    {"step": 2, "eval_loss": 2.5},
    {"step": 3, "loss": float("nan")},
]


def a_recipe(**evaluate: Any) -> Recipe:
    return load_recipe(
        {
            "name": "百科",
            "model": {"id": "someone/model"},
            "data": {
                "train": "train.jsonl",
                "eval": "eval.jsonl",
                "max_passages": 3,
                "refusal": REFUSAL,
            },
            "prompt": {"preset": "aio", "system": "簡潔に <答え> を"},
            "train": {"steps": 3, "log_every": 2},
            "evaluate": {"limit": 4, "metric": "aio_em", **evaluate},
        }
    )


def rows() -> list[AnswerRow]:
    ja = Passage("東京都は日本の首都である。東京の人口は多い。", "東京")
    bad = Passage(f"Paris {SCRIPT} & more", SCRIPT)
    return [
        AnswerRow("q1", "日本の首都は？", ("東京", "東京都"), (ja,), "大阪", "東京", False, True),
        AnswerRow("q2", f"Which city? {SCRIPT}", ("Paris",), (bad,), "Paris", SCRIPT, True, False),
        AnswerRow("q3", "Both?", ("yes",), (Passage("p"),), "yes", "yes", True, True),
        AnswerRow("q4", "Neither?", ("yes",), (), " ", "no", False, False),
    ]


def unanswerable() -> AnswerRow:
    return AnswerRow(
        "q5", "Unasked?", (), (), "a", REFUSAL, False, True, selected=False, refused=True
    )


def compared(recipe: Recipe, answers: list[AnswerRow], unasked: int = 0) -> dict[str, Any]:
    """The comparison of these rows; as many questions as `unasked` says were not asked."""

    def example(row: AnswerRow) -> Example:
        more = {"selected": row.selected}
        return Example(row.qid, row.question, row.answers, row.passages, (), (), more)

    examples = [example(row) for row in answers]
    others = [
        Example(f"u{i}", "?", ("x",), (), (), (), {"selected": i == 0}) for i in range(unasked)
    ]
    old, new = ({r.qid: getattr(r, w) for r in answers} for w in ("before", "after"))
    everything = [*examples, *others]
    sure = {row.qid: (n + 1) / (len(answers) + 1) for n, row in enumerate(answers)}
    both = (Answers(one, probabilities=sure) for one in (old, new))
    return compare(*(score_answers(recipe, everything, one) for one in both))


def citation_figures() -> dict[str, Any]:
    """What the answers of one side cite."""
    figures = {
        kind: {"value": value / 100, "low": low / 100, "high": high / 100}
        for kind, (value, low, high) in {
            "recall": (75, 50, 90), "precision": (60, 40, 80), "cited": (90, 80, 100),
        }.items()
    }  # fmt: skip
    return {"n": 1234, **figures, "malformed": 2}


def quote_figures() -> dict[str, Any]:
    """What the answers of one side quote."""
    one = {"value": 0.5, "low": 0.25, "high": 0.75}
    return {"n": 1234, "quoted": one, "verbatim": one, "supporting": one, "unparsed": 617}


def _split(**changes: Any) -> dict[str, Any]:
    lengths = {"min": 2, "median": 5.5, "p95": 9.0, "max": 1234, "total": 12345}
    return {
        "source": "eval.jsonl",
        "read": 20,
        "selected": 9,
        "dropped": {"no_positive": 7, "positive_too_low": 4},
        "positives_computed": 0,
        "prompt_tokens": lengths,
        "completion_tokens": lengths,
        "truncated": {"examples": 0, "passages_dropped": 0, "characters_cut": 0, "qids": []},
        **changes,
    }


def data_report(**more: Any) -> dict[str, Any]:
    cut = {"examples": 3, "passages_dropped": 2, "characters_cut": 71, "qids": ["q7"]}
    return {
        "max_passages": 3,
        "max_prompt_tokens": 2016,
        "stop_token": "</s>",
        "train": _split(source="train.jsonl", truncated=cut, positives_computed=20),
        "eval": _split(),
        **more,
    }


def audits() -> list[dict[str, Any]]:
    examples = [{"qid": "q1", "other_qid": "t1", "text": "日本の首都は？", "detail": "東京"}]
    first = {"name": "twins", "split": "eval", "title": "Asked in training, too", "count": 1}
    second = {"name": "x", "split": "train", "title": "Odd", "count": 0, "of": 9, "examples": []}
    return [{**first, "of": 20, "note": "By the text.", "examples": examples}, second]


def a_figure(value: float) -> dict[str, dict[str, float]]:
    return {"aio_em": {"value": value, "low": value - 0.05, "high": value + 0.05}}


def controls(title: str = "As asked") -> dict[str, Any]:
    asked = {
        "name": "as_asked",
        "title": title,
        "n": 4,
        "left_out": 0,
        "before": a_figure(0.25),
        "after": a_figure(0.5),
        "difference": a_figure(0.25),
        "refused": {"before": {"value": 0.125, "low": 0.0, "high": 0.25}, "after": None},
    }
    none = dict.fromkeys(("before", "difference", "refused"))
    alone = {
        "name": "no_passages",
        "title": "No passages",
        "n": 3,
        "left_out": 2,
        "after": a_figure(0.1),
        **none,
    }
    return {
        "format": 1,
        "metric": "aio_em",
        "answers": "all",
        "conditions": [asked, alone],
        "effects": [
            {
                "name": "passages",
                "title": "what the passages add",
                "n": 3,
                "before": None,
                "after": {"value": 0.4, "low": 0.1, "high": 0.7},
            }
        ],
    }


STATE: dict[str, Any] = {
    "versions": {"ragtune": "0.1.0", "torch": "2.13.0"},
    "plan": {
        "device": "CPU, 2 threads",
        "dtype": "float32",
        "quantization": None,
        "packed": False,
        "packed_reason": "softcap",
        "samples_per_row": 1,
        "recompute": True,
        "optimizer": "adamw",
        "evaluation_batch": 10,
        "memory": {"training": 9.25, "evaluation": 4.5},
        "changes": ["step 4: out of memory, 2 samples a row"],
    },
    "times": {"prepare": 1.5, "train": 83.0},
    "peak_gib": {"train": 9.5},
    "train": {
        "steps": 3,
        "samples": 48,
        "tokens": 34567,
        "seconds": 83.0,
        "tokens_a_second": 416.5,
        "final_loss": 2.5,
        "trainable_parameters": 4884480,
    },
    "merge": {
        "asked": 4,
        "n": 4,
        "changed": 1,
        "of": 4,
        "at_most": 1,
        "metric": "aio_em",
        "answers": "all",
        "own": {"aio_em": {"value": 0.75, "low": 0.25, "high": 1.0}},
        "again": {"aio_em": {"value": 0.5, "low": 0.25, "high": 0.75}},
        "difference": {"aio_em": {"value": -0.25, "low": -0.75, "high": 0.0}},
    },
}


def a_build(text: str = "", **changes: Any) -> Built:
    """What a build found of a made-up corpus, with everything that it can find; `text` stands everywhere."""
    twin = Twin(
        f"The pump must be vented. {text}", f"pump.pdf, p. 3{text}", f"old/pump.pdf, p. 2{text}"
    )
    nearest = Nearest(
        f"Pumps{text}", f"Before the first start … {text}", f"manual.pdf, p. 12{text}"
    )
    figures = BuildFigures(
        recall=(
            Recall("answer", "real", 1200, rates(0.851, 0.947, 0.985)),
            Recall("gold", "real", 900, rates(0.75, 0.9, 0.96)),
            Recall("answer", "synthetic", 100, rates(0.97, 1.0, 1.0)),
        ),
        documents=DocumentFigures(
            41, {".pdf": 30, f".md{text}": 11}, 2, 1, (Unread(f"scan.pdf{text}", f"it has no text{text}"),),
            7, tuple(f"notes/{i}.md{text}" for i in range(7)),
        ),
        passages=PassageFigures(12345, Lengths(20, 371.5, 400, 400, 4_500_000), TwinFigures(12345, 12, 30, (twin,))),
        questions=QuestionFigures(
            1100, 200, {f"have no answer{text}": 9}, 800, 500, 3,
            (
                Unfound(f"q7{text}", f"Who made it? {text}", (f"Grundig{text}", "G"), nearest, elsewhere=True),
                Unfound("q8", "日本の首都は？", ("東京",), nearest, elsewhere=False),
                Unfound("q9", "Why?", ("because",), None),
            ),
            Synthetic(f"gemma{text}", 100, 0, {f"have an answer that isn’t in the passage{text}": 31}, 90_000, 8_000),
        ),
        trained=TwinFigures(200, 0, 1, (twin,)),
    )  # fmt: skip
    values: dict[str, Any] = {
        "name": "manuals",
        "seal": {"train.jsonl": "ab" * 32, "eval.jsonl": "cd" * 32},
        "language": "en",
        "retriever": f"lexical{text}",
        "figures": figures,
        "license": f"CC BY 4.0{text}",
        "attribution": f"The Pump Works, https://example.org/manuals{text}",
        **changes,
    }
    return Built(**values)


def a_comparison(text: str = "") -> Retrievers:
    """Three made-up retrievers on the same questions."""
    names = [f"lexical{text}", f"dense{text}", f"hybrid{text}"]
    recall = {name: at_depths(0.8, 0.9, 0.95) for name in names}
    less = {f"{name} - {names[0]}": at_depths(-0.06, 0.0, 0.05) for name in names[1:]}
    return Retrievers(1200, 9, recall, less)


def at_depths(*values: float) -> dict[str, Figure]:
    return {f"recall_at_{k}": figure for k, figure in rates(*values).items()}


def rates(*values: float) -> dict[int, Figure]:
    """Recall among the first 1, 3 and 10."""
    return {
        k: {"value": v, "low": v - 0.02, "high": min(1.0, v + 0.02)}
        for k, v in zip(DEPTHS, values, strict=True)
    }


def render(folder: Path, **changes: Any) -> Path:
    """Write a report of the made-up run, with changes to what is in it; return its path."""
    recipe = changes.get("recipe") or a_recipe()
    answers = changes.get("answers", rows())
    whole = all(r.before is not None and r.after is not None for r in answers) and answers
    values: dict[str, Any] = {
        "recipe": recipe,
        "summary": STATE,
        "data": data_report(),
        "controls": None,
        "log": LOG,
        "answers": answers,
        **changes,
    }
    values.setdefault("comparison", compared(recipe, answers, unasked=1) if whole else None)
    write_report(folder / "report.html", Report(**values))
    return folder / "report.html"


def general(text: str = "") -> General:
    """General tasks: one alone, a group, one that gives a document no figure; `text` in every name."""

    def metric(name: str, *, rate: bool = True) -> PairedMetric:
        first, second = ({"value": v, "low": v - 0.05, "high": v + 0.05} for v in (0.5, 0.25))
        difference = {"value": -0.25, "low": -0.3, "high": -0.2}
        return PairedMetric(
            metric=f"{name}{text}", n=1200, first=first, second=second, difference=difference,
            higher=1, lower=4, mcnemar_p=None, missing=0, rate=rate,
        )  # fmt: skip

    tasks: list[GeneralTask] = [
        {"task": f"arc{text}", "parts": 1, "metrics": [metric("acc"), metric("bits", rate=False)]},
        {"task": f"mmlu{text}", "parts": 57, "metrics": [metric("acc")]},
        {"task": f"bleu{text}", "parts": 1, "metrics": []},
    ]
    return {"lm_eval": [f"0.4.13{text}"], "limit": 200, "tasks": tasks}


def judged_run(text: str = "", **changes: Any) -> JudgedRun:
    """What a judge made of answers; `text` in every name."""
    figure: Figure = {"value": 0.75, "low": 0.7, "high": 0.8}
    agreement: Agreement = {
        "n": 40, "agree": figure, "kappa": 0.5, "judge_alone": 3, "other_alone": 7,
    }  # fmt: skip
    values: dict[str, Any] = {
        "n": 180, "failed": 12, "refused": 8, "correct": figure, "supported": figure,
        "citation_recall": None, "citation_precision": None, "with_metric": agreement, "again": agreement,
        "again_failed": 0, "requests": 250, "kept": 50, "prompt_tokens": 1000, "completion_tokens": 200,
        "which": "after", "endpoint": f"http://localhost/v1{text}", "model": f"judge-7b{text}", "prompt": f"1{text}",
        "metric": "aio_em", "sha256": "ab" * 32, **changes,
    }  # fmt: skip
    return JudgedRun(**values)
