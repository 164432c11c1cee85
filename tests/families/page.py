"""The record of a sweep, bench/results/families.json, and docs/models.md, which is made from it.

    python -m tests.families.page

writes the tables of docs/models.md and docs/ja/models.md again. Their words in Japanese stand in
docs/ja/models.yaml, by the English ones; what a program said stays as it is.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import processor

from ragtune.base.versions import versions
from tests.families.measure import CLOSE, Result
from tests.reference import Say, Words

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "bench/results/families.json"
PAGE = ROOT / "docs/models.md"
JAPANESE_PAGE = ROOT / "docs/ja/models.md"
JAPANESE = ROOT / "docs/ja/models.yaml"
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


def with_tables(text: str, say: Say = str) -> str:
    """A page with fresh tables, in its language."""
    head, tail = text.partition(BEGIN)[0], text.partition(END)[2]
    return f"{head}{BEGIN}\n{tables(read(), say)}\n{END}{tail}"


def tables(found: dict[str, Any], say: Say) -> str:
    """What a sweep found, in Markdown."""
    rows = found["families"]
    sound = [r for r in rows if not r["faults"] and r["rows"] in _ROWS]
    faulty = [r for r in rows if r["faults"]]
    refused = [r for r in rows if r["rows"].startswith("refused") and not r["faults"]]
    named = say(", ").join(f"{k} {v}" for k, v in found["versions"].items())
    worst = max((r["loss_difference"] for r in sound), default=0.0)
    differ = max((r["merged_difference"] for r in sound), default=0.0)
    same = say("All answers are the same; losses differ by at most {}, merged logits by {}.")
    out = [
        "",
        say("{} families, {}.").format(len(rows), named),
        *_section(
            say("Equal to plain transformers ({})").format(len(sound)),
            ["family", "class on the Hub", "training rows", "answers",
             "layers with an adapter", "matrices without"],
            [
                (r["family"], f"`{r['hub_class']}`", say(_ROWS[r["rows"]]), say(r["answers"]),
                 ", ".join(f"`{a}`" for a in r["adapted"]), _without(r, say))
                for r in sound
            ],
            say,
            ["", same.format(f"{worst:.1g}", f"{differ:.1g}")],
        ),
        *_section(
            say("Not equal, or not trained as it should be ({})").format(len(faulty)),
            ["family", "what", "details"],
            [(r["family"], say("; ").join(map(say, r["faults"])), _details(r, say)) for r in faulty],
            say,
        ),
        *_section(
            say("Refused ({})").format(len(refused)),
            ["family", "class on the Hub", "when", "reason"],
            [
                (r["family"], f"`{r['hub_class']}`",
                 say("by `ragtune check`" if r["rows"] == "refused" else "when it is loaded or trained"),
                 _code(r["rows_reason"]))
                for r in refused
            ],
            say,
        ),
        *_section(
            say("Why not packed"),
            ["reason", "families"],
            [(_reason(why, say), say(", ").join(names)) for why, names in _reasons(rows).items()],
            say,
        ),
    ]  # fmt: skip
    return "\n".join([*out, ""])


def _section(
    title: str, heads: list[str], rows: list[tuple[str, ...]], say: Say, before: Sequence[str] = ()
) -> list[str]:
    if not rows:
        return []
    rule = f"|{'---|' * len(heads)}"
    table = [_line(*map(say, heads)), rule, *(_line(*row) for row in rows)]
    return ["", f"### {title}", *before, "", *table]


def _line(*cells: str) -> str:
    return f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells)} |"


def _code(said: str) -> str:
    """What a program said, the same in every language."""
    return f"`{said.replace('`', '')}`"


def _without(row: dict[str, Any], say: Say) -> str:
    """The kinds of matrices that have no adapter: not embeddings, output and norms, which none has."""
    every = row["without_adapter"]
    kinds = [k for k in every if k != "embeddings and output" and "norm" not in k]
    for word in ("experts", "eyes and ears", "shared experts: "):
        kinds = [re.sub(f"^{word}(?=$|\\w+$)", say(word), kind) for kind in kinds]
    return say(", ").join(kinds) or "-"


def _details(row: dict[str, Any], say: Say) -> str:
    told = [
        *(say("no gradient: {}").format(f"`{name}`") for name in row["without_gradient"][:1]),
        *([say("{} answers").format(n)] if (n := len(row["answers_different"])) else []),
        *(_code(line if len(line) < _LONG else f"{line[:_LONG]} …") for line in row["said"]),
    ]
    return say("; ").join(told)


def _reasons(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        if row["rows"] == "single":
            # By how much logits differ says nothing here: the weights are random.
            why = re.sub(r" by [\d.e-]+$", "", row["rows_reason"])
            found.setdefault(why, []).append(row["family"])
    return dict(sorted(found.items(), key=lambda one: -len(one[1])))


def _reason(why: str, say: Say) -> str:
    """With the names of classes and what a program said as code."""
    if said := re.fullmatch(r"it fails on packed rows \((.+)\)", why):
        return say("it fails on packed rows: {}").format(_code(said[1]))
    if lacks := re.fullmatch(r"(\w+) (asks for .+, which packed attention lacks)", why):
        return f"`{lacks[1]}` {say(lacks[2])}"
    return say(why)


def main() -> None:
    words = Words(JAPANESE.read_text("utf-8"))
    for page, say in ((PAGE, str), (JAPANESE_PAGE, words)):
        page.write_text(with_tables(page.read_text("utf-8"), say), "utf-8")
        sys.stdout.write(f"{page.relative_to(ROOT)} is written.\n")
    if words.missing:
        sys.exit("\n".join(["docs/ja/models.yaml has no Japanese for:", *words.missing]))


if __name__ == "__main__":
    main()
