"""The loss curves of a side_by_side.py file without dropout, one over the other, as an SVG file.

python bench/curves.py bench/results/side-by-side-h100.json docs/loss-curves.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

SHOWN = {
    "ragtune, train_step_dropout0": ("ragtune: 16 packed", "#1f6fb5", "-", 5),
    "notebook, train_step_dropout0": ("the notebook's way: 2 padded", "#d1495b", "--", 2.2),
    "trl, train_step_dropout0, padding-free, ragtune_packed, 8 a batch, activations kept": (
        "TRL: 8 packed", "#2a9d5c", ":", 2.2,
    ),
    "unsloth, train_step_dropout0": ("Unsloth: 8 padded", "#b07d12", "-.", 1.4),
}  # fmt: skip


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    losses = json.loads(source.read_text("utf-8"))["losses"]
    with mpl.rc_context(
        {"svg.hashsalt": "ragtune curves", "font.size": 10, "text.color": "#808080"}
    ):
        figure = Figure(figsize=(7.5, 3.2))
        axes = figure.add_axes((0.08, 0.15, 0.9, 0.8))
        for name, (label, colour, style, width) in SHOWN.items():
            values = losses[name]
            axes.plot(
                range(1, len(values) + 1), values, style, color=colour, linewidth=width, label=label,
                alpha=0.45 if width > 4 else 1,  # noqa: PLR2004 - the broad one lies below
            )  # fmt: skip
        axes.set_xlabel("step", color="#808080")
        axes.set_ylabel("loss", color="#808080")
        axes.tick_params(colors="#808080", length=0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("bottom", "left"):
            axes.spines[side].set_color("#808080")
        axes.legend(frameon=False)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(target, format="svg", transparent=True, metadata=nothing)


if __name__ == "__main__":
    main()
