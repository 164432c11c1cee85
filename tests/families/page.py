"""The record of a sweep, bench/results/families.json, and docs/models.md, which is made from it.

    python -m tests.families.page

writes the tables of docs/models.md again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from bench.machine import processor

from ragtune.base.versions import versions
from tests.families.measure import CLOSE, Result

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "bench/results/families.json"
PAGE = ROOT / "docs/models.md"
_ROWS = {"packed": "packed", "single": "one sample a row"}
_LONG = 160
BEGIN, END = "<!-- families -->", "<!-- /families -->"


def record(results: list[Result]) -> None:
    """Write what a whole sweep found."""
    found = {
        "format": 1,
        "command": "make families",
        "device": f"{processor()}, {os.cpu_count()} cores",
        "versions": versions("peft"),
        "close": CLOSE,
        "families": [_row(result) for result in results],
    }
    RECORD.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _row(result: Result) -> dict[str, Any]:
    """A result with its differences to two digits: those behind them are noise."""
    row = dataclasses.asdict(result)
    del row["losses"]
    return {k: float(f"{v:.2g}") if isinstance(v, float) else v for k, v in row.items()}


def read() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORD.read_text("utf-8"))
    return found


def with_tables(text: str) -> str:
    """docs/models.md with fresh tables."""
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    return f"{head}{BEGIN}\n{tables(read())}\n{END}{tail}"


def tables(found: dict[str, Any]) -> str:
    """What a sweep found, in Markdown."""
    rows = found["families"]
    sound = [r for r in rows if not r["faults"] and r["rows"] in _ROWS]
    faulty = [r for r in rows if r["faults"]]
    refused = [r for r in rows if r["rows"].startswith("refused") and not r["faults"]]
    named = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    worst = max((r["loss_difference"] for r in sound), default=0.0)
    differ = max((r["merged_difference"] for r in sound), default=0.0)
    out = [
        "",
        f"{len(rows)} families, {named}.",
        "",
        f"### Equal to plain transformers ({len(sound)})",
        "",
        f"All answers are the same; losses differ by at most {worst:.1g}, merged logits by {differ:.1g}.",
        "",
        "| family | class on the Hub | training rows | answers | layers with an adapter | matrices without |",
        "|---|---|---|---|---|---|",
        *(
            _line(r["family"], f"`{r['hub_class']}`", _ROWS[r["rows"]], r["answers"],
                  ", ".join(f"`{a}`" for a in r["adapted"]), _without(r))
            for r in sound
        ),
        *_section(
            f"Not equal, or not trained as it should be ({len(faulty)})",
            ["family", "what", "details"],
            [(r["family"], "; ".join(r["faults"]), _details(r)) for r in faulty],
        ),
        *_section(
            f"Refused ({len(refused)})",
            ["family", "class on the Hub", "when", "reason"],
            [
                (r["family"], f"`{r['hub_class']}`",
                 "by `ragtune check`" if r["rows"] == "refused" else "when it is loaded or trained",
                 r["rows_reason"])
                for r in refused
            ],
        ),
        *_section(
            "Why not packed",
            ["reason", "families"],
            [(why, ", ".join(names)) for why, names in _reasons(rows).items()],
        ),
    ]  # fmt: skip
    return "\n".join([*out, ""])


def _section(title: str, heads: list[str], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    rule = f"|{'---|' * len(heads)}"
    return ["", f"### {title}", "", _line(*heads), rule, *(_line(*row) for row in rows)]


def _line(*cells: str) -> str:
    return f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells)} |"


def _without(row: dict[str, Any]) -> str:
    """The kinds of matrices that have no adapter: not embeddings, output and norms, which none has."""
    every = row["without_adapter"]
    kinds = [k for k in every if k != "embeddings and output" and "norm" not in k]
    return ", ".join(kinds) or "-"


def _details(row: dict[str, Any]) -> str:
    told = [
        *(f"no gradient: `{name}`" for name in row["without_gradient"][:1]),
        *([f"{len(row['answers_different'])} answers"] if row["answers_different"] else []),
        *(line if len(line) < _LONG else f"{line[:_LONG]} …" for line in row["said"]),
    ]
    return "; ".join(told)


def _reasons(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["rows"] == "single":
            # By how much logits differ says nothing here: the weights are random.
            why = re.sub(r" by [\d.e-]+$", "", row["rows_reason"])
            found.setdefault(why, []).append(row["family"])
    return dict(sorted(found.items(), key=lambda one: -len(one[1])))


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} is written.\n")
