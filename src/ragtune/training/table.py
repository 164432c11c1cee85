"""The table of the loss that grows while an adapter is trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from ragtune.base.screen.console import console, note
from ragtune.training.questions import Questions

_WIDTHS = {"step": 6, "loss": 8, "learning rate": 15, "eval loss": 11, "answers": 21}
"""Cells of each column, the blanks before it included."""


@dataclass
class LossTable:
    """Prints a line every few steps, and for each look at the evaluation set; its heading first."""

    every: int
    """How many steps a line speaks of."""
    last: int
    """The last step."""
    looks: int | None
    """The steps between two looks at the evaluation set; None where there are none."""
    asking: Questions | None
    recent: list[float] = field(default_factory=list)
    row: dict[str, str] = field(default_factory=dict)
    """A line that waits for the rest of its step."""
    headed: bool = False

    def add(self, entry: dict[str, float]) -> None:
        """Take what Trainer logs of a step."""
        step = int(entry["step"])
        if self.row.get("step") != str(step):
            self._print()
        if "loss" in entry:
            self.recent.append(entry["loss"])
            if step % self.every == 0 or step == self.last:
                mean = sum(self.recent) / len(self.recent)
                rate = f"{entry['learning_rate']:.2e}"
                self.row = {"step": str(step), "loss": f"{mean:.4f}", "learning rate": rate}
                self.recent.clear()
        if "eval_loss" in entry:
            self.row |= {"step": str(step), "eval loss": f"{entry['eval_loss']:.4f}"}
        if self.asking and self.asking.key in entry:
            key = self.asking.key
            value, low, high = (100 * entry[name] for name in (key, f"{key}_low", f"{key}_high"))
            answers = f"{value:.1f} ({low:.1f}…{high:.1f})"
            self.row |= {"step": str(step), "answers": answers}
        if not ("loss" in entry and self.looks and step % self.looks == 0):
            self._print()

    def _print(self) -> None:
        if not self.row:
            return
        widths = {k: w for k, w in _WIDTHS.items() if k in self._columns()}
        if sum(widths.values()) > console.width:
            del widths["learning rate"]
        if not self.headed:
            heads = {name: name for name in widths}
            if self.asking:
                heads["answers"] = f"{self.asking.short} %, n = {self.asking.count}"
            note("".join(f"{heads[name]:>{width}}" for name, width in widths.items()))
            self.headed = True
        line = "".join(f"{self.row.get(name, ''):>{width}}" for name, width in widths.items())
        note(line.rstrip())
        self.row = {}

    def _columns(self) -> set[str]:
        absent = {"eval loss": not self.looks, "answers": not self.asking}
        return {name for name in _WIDTHS if not absent.get(name)}
