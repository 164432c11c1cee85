"""Time a report of many questions in headless Chromium: until it is drawn, until a search is.

Made-up questions with three passages of 500 characters each and their prompts, half of them Japanese.
Each time is the median of several openings of the file, each in a fresh browser context.

python bench/report.py --out bench/results/report-1000.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from machine import processor
from ragtune.data.example import Example, Passage
from ragtune.data.prompt import PromptBuilder
from ragtune.recipe.load import load_recipe
from ragtune.reporting.answers import AnswerRow
from ragtune.reporting.html import Report, write_report
from ragtune.scoring.compare import compare
from ragtune.scoring.score import Answers, score_answers

CHARACTERS = 500
PASSAGES = 3
KANA = "".join(chr(c) for c in range(0x3042, 0x3094)) + "東京都日本国会図書館"
LATIN = "abcdefghijklmnopqrstuvwxyz      "
DRAWN = "(() => { const p = performance; return p.getEntriesByType('paint')[0].startTime; })()"
SEARCH = """(text) => {
  const field = document.getElementById('search');
  const start = performance.now();
  field.value = text;
  field.dispatchEvent(new Event('input'));
  document.body.offsetHeight;  // lays out what changed
  return performance.now() - start;
}"""
OPEN = """() => {
  const start = performance.now();
  document.querySelector('.question').click();
  document.body.offsetHeight;
  return performance.now() - start;
}"""


def text(draw: random.Random, letters: str, length: int) -> str:
    return "".join(draw.choices(letters, k=length))


def write(path: Path, questions: int) -> float:
    """Write a report of made-up questions; return the seconds that took."""
    recipe = load_recipe(
        {
            "name": f"report-{questions}",
            "model": {"id": "someone/model"},
            "data": {"train": "train.jsonl", "eval": "eval.jsonl"},
            "prompt": {"preset": "aio"},
            "train": {"steps": 100},
        }
    )
    draw = random.Random(0)
    builder = PromptBuilder.of(recipe.prompt)
    examples, rows = [], []
    for i in range(questions):
        letters = KANA if i % 2 else LATIN
        answer = text(draw, letters, 6).strip() or "x"
        passages = tuple(
            Passage(text(draw, letters, CHARACTERS - 6) + answer, text(draw, letters, 8))
            for _ in range(PASSAGES)
        )
        question = text(draw, letters, 40)
        prompt = builder.text(question, passages)
        before, after = (answer if draw.random() < p else "no" for p in (0.2, 0.6))
        right = (before == answer, after == answer)
        examples.append(
            Example(str(i), question, (answer,), passages, (0,), (), {"selected": True})
        )
        rows.append(
            AnswerRow(str(i), question, (answer,), passages, before, after, *right, prompt=prompt)
        )
    old, new = ({r.qid: a for r, a in zip(rows, side, strict=True)} for side in answers(rows))
    split: dict[str, Any] = {
        "source": "eval.jsonl",
        "read": questions,
        "selected": questions,
        "dropped": {},
        "positives_computed": 0,
        "prompt_tokens": None,
        "completion_tokens": None,
        "truncated": {"examples": 0},
    }
    comparison = compare(*(score_answers(recipe, examples, Answers(one)) for one in (old, new)))
    start = time.perf_counter()
    report = Report(
        recipe=recipe,
        summary={},
        data={"max_passages": PASSAGES, "train": split, "eval": split},
        comparison=comparison,
        controls=None,
        log=[{"step": s, "loss": 1 + 1 / s} for s in range(1, 101)],
        answers=rows,
    )
    write_report(path, report)
    return time.perf_counter() - start


def answers(rows: list[AnswerRow]) -> tuple[list[str], list[str]]:
    return [r.before or "" for r in rows], [r.after or "" for r in rows]


def measure(path: Path, times: int) -> tuple[str, list[dict[str, float]]]:
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(times):
            context = browser.new_context(viewport={"width": 1200, "height": 900})
            page = context.new_page()
            start = time.perf_counter()
            page.goto(path.as_uri(), wait_until="load")
            page.wait_for_selector("table.answers tbody")
            loaded = time.perf_counter() - start
            found.append(
                {
                    "open_s": loaded,
                    "first_paint_ms": page.evaluate(DRAWN),
                    "search_ms": page.evaluate(SEARCH, "東京"),
                    "clear_ms": page.evaluate(SEARCH, ""),
                    "open_row_ms": page.evaluate(OPEN),
                }
            )
            context.close()
        name = browser.version
        browser.close()
    return name, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--times", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        written = write(path, options.questions)
        size = path.stat().st_size
        chromium, runs = measure(path, options.times)
    result = {
        "format": 1,
        "command": "python bench/report.py --out bench/results/report-1000.json",
        "questions": options.questions,
        "passages": PASSAGES,
        "characters_a_passage": CHARACTERS,
        "bytes": size,
        "write_s": round(written, 2),
        "openings": options.times,
        "median": {k: round(statistics.median(r[k] for r in runs), 3) for k in runs[0]},
        "slowest": {k: round(max(r[k] for r in runs), 3) for k in runs[0]},
        "device": f"{processor()}, {os.cpu_count()} cores",
        "versions": {"chromium": chromium, **{n: version(n) for n in ("ragtune", "playwright")}},
    }
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
