"""The report says what was measured, shows any text as text, and needs nothing from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ragtune.data.example import Passage
from ragtune.evaluation.compare import compare
from ragtune.recipe import Recipe
from ragtune.recipe_file import load_recipe
from ragtune.reporting.html import (
    AnswerRow,
    count,
    duration,
    outcomes,
    pieces,
    points,
    write_report,
)
from ragtune.reporting.plots import loss_curve

SCRIPT = "<script>alert('x')</script>"
LOG: list[dict[str, Any]] = [
    {"step": 1, "loss": 3.0, "grad_norm": 1.0, "learning_rate": 1e-4},
    {"step": 2, "loss": 2.0, "grad_norm": 1.0, "learning_rate": 1e-4},
    {"step": 2, "eval_loss": 2.5},
    {"step": 3, "loss": float("nan")},
]


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(
        {
            "name": "百科",
            "model": {"id": "someone/model"},
            "data": {"train": "train.jsonl", "eval": "eval.jsonl", "max_passages": 3},
            "prompt": {"preset": "aio", "system": "簡潔に <答え> を"},
            "train": {"steps": 3, "log_every": 2},
            "evaluate": {"limit": 4, "metric": "aio_em"},
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


def comparison() -> dict[str, Any]:
    before, after = [0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]
    names = ("strict_em", "squad_em", "aio_em", "contains")
    changed = dict.fromkeys(names, after) | {"contains": [1.0, 1.0, 1.0, 1.0]}
    texts = [(r.before or "", r.after or "") for r in rows()]
    return compare(dict.fromkeys(names, before), changed, texts, metric="aio_em", seed=1)


def split_report(**changes: Any) -> dict[str, Any]:
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


def data_report() -> dict[str, Any]:
    cut = {"examples": 3, "passages_dropped": 2, "characters_cut": 71, "qids": ["q7"]}
    return {
        "max_passages": 3,
        "max_prompt_tokens": 2016,
        "stop_token": "</s>",
        "train": split_report(source="train.jsonl", truncated=cut, positives_computed=20),
        "eval": split_report(),
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
        "changes": ["step 4: out of memory, 2 samples a row"],
    },
    "times": {"prepare": 1.5, "train": 83.0},
    "train": {
        "steps": 3,
        "samples": 48,
        "tokens": 34567,
        "seconds": 83.0,
        "tokens_a_second": 416.5,
        "final_loss": 2.5,
        "trainable_parameters": 4884480,
    },
    "merge": {"asked": 4, "n": 4, "changed": 1, "metrics": {"aio_em": 0.5}},
}


def render(folder: Path, recipe: Recipe, **changes: Any) -> str:
    values: dict[str, Any] = {
        "state": STATE,
        "data_report": data_report(),
        "comparison": comparison(),
        "log": LOG,
        "answers": rows(),
        **changes,
    }
    write_report(folder / "report.html", recipe=recipe, **values)
    return (folder / "report.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """The visible text, and the tags: opened and closed in order."""

    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def read(page: str) -> tuple[str, set[str]]:
    """The text, white space collapsed, and the names of the elements; every one is closed."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return " ".join("".join(reader.text).split()), reader.tags


def test_headline_and_figures(tmp_path: Path, recipe: Recipe) -> None:
    text, _ = read(render(tmp_path, recipe))
    found = comparison()["difference"]["contains"]
    assert "Exact match, AI王’s rule aio_em 50.0 %before tuning → 50.0 %after tuning" in text
    assert "Difference 0.0 points, 95 % interval" in text
    assert "n = 4 questions. The interval includes 0." in text
    assert f"+50.0{points(found['low'])} … {points(found['high'])}" in text
    assert "1 right both times 1 fixed 1 broken 1 wrong both times" in text
    assert "The text of 3 of 4 answers changed." in text
    for name in ("strict_em", "squad_em", "aio_em", "contains"):
        assert text.count(name) >= 2  # in the table and defined


def test_what_the_figures_are_over(tmp_path: Path, recipe: Recipe) -> None:
    text, _ = read(render(tmp_path, recipe))
    assert (
        "Figures are over the 4 selected questions that were asked. Of 20 evaluation questions 9 "
        "are selected: those with a passage among the first 3 that holds an accepted answer. "
        "4 of these 9 were asked (evaluate.limit: 4)." in text
    )
    assert "Asked besides" not in text
    extra = AnswerRow("q5", "?", (), (), "a", "b", before_right=False, after_right=False)
    text, _ = read(render(tmp_path, recipe, answers=[*rows(), extra]))
    assert "Asked besides, without being selected: 1. They count in no figure." in text


def test_answers_are_marked(tmp_path: Path, recipe: Recipe) -> None:
    page = render(tmp_path, recipe)
    text, _ = read(page)
    assert "日本の首都は？ accepted東京 東京都 before ✗ wrong 大阪 after ✓ right 東京" in text
    assert "before ✗ wrong (empty)" in text
    assert re.findall(r'<li class="card (\w+)"', page) == ["fixed", "broken", "right", "wrong"]
    assert page.count('lang="ja"') == 1
    assert "<mark>東京都</mark>は日本の首都である。<mark>東京</mark>の人口" in page


def test_data_recipe_and_machine(tmp_path: Path, recipe: Recipe) -> None:
    text, _ = read(render(tmp_path, recipe))
    assert "Dropped: no passage contains an answer7" in text
    assert "prompt25.591,23412,345" in text
    assert "3 prompts were too long and lost 2 passages and 71 characters (q7, …)." in text
    assert "20 records had no positive_passage_indices" in text
    assert "system: 簡潔に <答え> を" in text
    assert "training1 min 23 s" in text
    assert "4,884,480" in text
    assert "one sample each: softcap" in text
    assert "step 4: out of memory, 2 samples a row" in text
    assert "gives 1 of 4 answers otherwise than the adapter; aio_em 50.0 % (n = 4)." in text


def test_script_shows_as_text(tmp_path: Path, recipe: Recipe) -> None:
    page = render(tmp_path, recipe)
    text, tags = read(page)
    assert "<script" not in page
    assert "script" not in tags
    assert text.count(SCRIPT) == 4  # question, answer, title, passage


def test_nothing_is_fetched(tmp_path: Path, recipe: Recipe) -> None:
    page = render(tmp_path, recipe)
    for sign in ("http://", "https://", "src=", "@import", "url(", "<link", "javascript:"):
        assert sign not in page
    assert set(re.findall(r'href="([^"]*)"', page)) <= {
        *(f"#{s}" for s in ("results", "training", "answers", "data", "recipe", "machine")),
        *re.findall(r'"(#m[0-9a-f]+)"', page),  # markers within the drawing
    }


def test_same_values_give_the_same_bytes(tmp_path: Path, recipe: Recipe) -> None:
    assert render(tmp_path, recipe) == render(tmp_path, recipe)


def test_before_alone(tmp_path: Path, recipe: Recipe) -> None:
    alone = [
        AnswerRow(r.qid, r.question, r.answers, r.passages, r.before, None, r.before_right, False)
        for r in rows()
    ]
    page = render(tmp_path, recipe, comparison=None, log=[], answers=alone, state={})
    text, tags = read(page)
    assert "There is no comparison yet" in text
    assert "2 of 4 answers before tuning are right." in text
    assert "answers after tuning are right" not in text
    assert "after not asked" in text
    assert "There is no training log yet." in text
    assert "svg" not in tags


def test_nothing_yet(tmp_path: Path, recipe: Recipe) -> None:
    text, _ = read(render(tmp_path, recipe, comparison=None, log=[], answers=[], state={}))
    assert "No question has been asked yet." in text


@pytest.mark.parametrize("key", ["versions", "plan", "times", "train", "merge"])
def test_any_part_of_the_state_may_be_missing(tmp_path: Path, recipe: Recipe, key: str) -> None:
    read(render(tmp_path, recipe, state={k: v for k, v in STATE.items() if k != key}))
    read(render(tmp_path, recipe, state={key: STATE[key]}))
    read(render(tmp_path, recipe, state={key: {}}))


def test_loss_curve() -> None:
    svg = loss_curve(LOG, window=2, width=7.0)
    assert svg is not None
    assert svg == loss_curve(LOG, window=2, width=7.0)
    assert "nan" not in svg
    assert not re.search(r"#[0-9a-f]{6}\b", svg)  # only the page's colours
    assert loss_curve([], window=2, width=7.0) is None
    assert loss_curve([{"step": 1, "loss": float("inf")}], window=2, width=7.0) is None
    assert loss_curve([{"step": 1, "loss": 2.0}], window=2, width=7.0) is not None
    assert loss_curve([{"step": 1, "eval_loss": 2.0}], window=2, width=7.0) is not None


def test_outcomes_add_up() -> None:
    found = outcomes({**comparison(), "n": 3, "before": {"aio_em": 2 / 3}, "fixed": 0})
    assert found == {"right": 1, "fixed": 0, "broken": 1, "wrong": 1}


def test_pieces_keep_the_text() -> None:
    assert list(pieces("a東京都b", ("東京", "東京都"))) == [
        ("a", False),
        ("東京都", True),
        ("b", False),
    ]
    assert list(pieces("1+1", ("+", ""))) == [("1", False), ("+", True), ("1", False)]
    assert list(pieces("text", ("", " "))) == [("text", False)]


def test_figures_in_words() -> None:
    assert [points(v) for v in (0.125, -0.02, 0.0, -0.0001)] == ["+12.5", "−2.0", "0.0", "0.0"]
    assert [count(v) for v in (12345, 301.29999, 213.0)] == ["12,345", "301.3", "213"]
    assert [duration(v) for v in (1.09, 59.97, 83, 3725)] == [
        "1.1 s",
        "60.0 s",
        "1 min 23 s",
        "1 h 2 min",
    ]
