"""Rows, notes and losses of the side-by-side benchmark, as JSON and as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from machine import made_with

WORKS = (
    "run", "train_step", "train_step_dropout0", "train_step_12gib", "evaluate_before", "evaluate_after",
)  # fmt: skip
EQUAL = "train_step_as_"
"""Begins the name of ragtune's step within a peer's memory."""


class Results:
    """Rows, notes and losses as they come; each is printed and the file written anew."""

    def __init__(self, out: Path, *, add: bool) -> None:
        self.out = out
        self.values: dict[str, Any] = {
            **made_with("trl", "unsloth", "unsloth_zoo"),
            "tokens_per_sample": None,
            "rows": [],
            "ratios": {},
            "equal_memory": {},
            "notes": [],
            "losses": {},
        }
        if add and out.exists():
            old = json.loads(out.read_text("utf-8"))
            old["versions"] |= self.values["versions"]
            old["command"] += f" && {self.values['command']}"
            self.values = old

    def take(self, event: dict[str, Any]) -> None:
        """Something that a worker reported."""
        kind = event.pop("kind")
        if kind == "row" and event["work"] not in WORKS:
            self.equal(event)
        elif kind == "row":
            self.row(event)
        elif kind == "note":
            self.note(**event)
        elif kind == "losses":
            self.values["losses"][event["name"]] = event["values"]
        elif kind == "device":
            self.values["device"] = event["name"]
        self.write()

    def row(self, one: dict[str, Any]) -> None:
        """Put a row in; a better one of the same system and work takes its place."""
        key = (one["system"], one["work"])
        rows = [r for r in self.values["rows"] if (r["system"], r["work"]) != key]
        self.values["rows"] = [*rows, one]
        self.values["ratios"] = ratios(self.values["rows"])
        print(describe(one), flush=True)

    def equal(self, one: dict[str, Any]) -> None:
        """A step of ragtune with a peer's memory, beside the peer's."""
        peer = one["work"].removeprefix(EQUAL)
        theirs = next(
            r for r in self.values["rows"] if (r["system"], r["work"]) == (peer, "train_step")
        )
        ratio = round(theirs["seconds"] / one["seconds"], 2)
        found = {k: v for k, v in one.items() if k not in ("system", "work")}
        self.values["equal_memory"][peer] = {**found, "ratio": ratio}
        print(f"{describe(one)}: {ratio}× ahead", flush=True)

    def note(self, system: str, text: str) -> None:
        self.values["notes"].append({"system": system, "text": text})
        print(f"{system}: {text}", flush=True)

    def write(self) -> None:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        partial = self.out.with_suffix(".partial")
        partial.write_text(json.dumps(self.values, indent=1, ensure_ascii=False) + "\n", "utf-8")
        partial.replace(self.out)


def ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How many times as long as ragtune each peer takes, by work."""
    ours = {r["work"]: r["seconds"] for r in rows if r["system"] == "ragtune"}
    found: dict[str, dict[str, float]] = {}
    for one in rows:
        if one["system"] != "ragtune" and ours.get(one["work"]):
            ratio = one["seconds"] / ours[one["work"]]
            found.setdefault(one["work"], {})[one["system"]] = round(ratio, 2)
    return found


def describe(one: dict[str, Any]) -> str:
    memory = f", {one['peak_gib']} GiB" if one["peak_gib"] is not None else ""
    how = " (projected)" if one.get("projected") else ""
    variant = f"  [{one['variant']}]" if one.get("variant") else ""
    return f"{one['system']:9} {one['work']:20} {one['seconds']:10} s{memory}{how}{variant}"


def table(rows: list[dict[str, Any]], systems: list[str]) -> str:
    """The rows as Markdown: seconds, memory, and how many times ragtune's time a peer takes."""
    by = {(r["system"], r["work"]): r for r in rows}
    shown = [s for s in systems if any(r["system"] == s for r in rows)]
    times = ratios(rows)
    lines = ["| work | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for work in WORKS:
        cells = []
        for system in shown:
            one = by.get((system, work))
            if one is None:
                cells.append("–")
                continue
            cell = f"{one['seconds']:,} s{'*' if one.get('projected') else ''}"
            if one["peak_gib"] is not None:
                cell += f", {one['peak_gib']} GiB"
            if system in times.get(work, {}):
                cell += f" ({times[work][system]}×)"
            cells.append(cell)
        lines.append(f"| {work} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "* projected from what was measured"])
