"""A last look before a push: what would be sent, and whether it is what was measured."""

from __future__ import annotations

from pathlib import Path

from ragtune.base.errors import RagtuneError
from ragtune.base.text import size_of
from ragtune.publish.hub import files_to_send
from ragtune.publish.settings import SETTINGS
from ragtune.recipe.schema import Publish
from ragtune.reporting.summary import Merging
from ragtune.scoring.reasked import Reasked, in_words
from ragtune.scoring.score import Metrics

CARD = "README.md"
_SHOWN = 30
"""Lines of the card that a preview shows."""
_WHAT = {
    "merged": "the merged model",
    "adapter": "the adapter",
    "gguf": "the merged model as GGUF",
}
_NOT_ASKED = (
    "Nobody was asked what lies there. Of an earlier push by ragtune a push removes what would be loaded "
    "instead of these files or besides them."
)


def preview_text(publish: Publish, folder: Path, card: str, settings: str) -> str:
    """What a push would send and how its card begins, in words; nobody is asked.

    Args:
        publish: the recipe's section; its `repo` is set.
        folder: the merged model, its GGUF files, or the adapter.
        card: the text of the model card.
        settings: that of the recipe beside it.
    """
    what = _WHAT[publish.format]
    visible = "private" if publish.private else "public"
    written = {CARD: len(card.encode()), SETTINGS: len(settings.encode())}
    files = {**files_to_send(folder), **written}
    lines = card.splitlines()
    more = len(lines) - _SHOWN
    return "\n".join(
        (
            f"Would push {what} to {publish.repo}, {visible} if it is made:",
            *(f"  {size_of(size):>9}  {name}" for name, size in sorted(files.items())),
            f"  {size_of(sum(files.values())):>9}  in {len(files)} files",
            _NOT_ASKED,
            f"\nThe card ({CARD}) begins:\n",
            *(f"  {line}".rstrip() for line in lines[:_SHOWN]),
            *([f"  … and {more} more lines"] if more > 0 else []),
        )
    )


def require_same_score(merged: Merging, adapter: Metrics, metric: str, command: str) -> None:
    """Stop a push if merging moved the score out of the interval of the adapter's own.

    Args:
        merged: the merged model's figures, as `merge` in run.json.
        adapter: the adapter's, as in after/metrics.json.
        metric: the headline.
        command: the push that is stopped.

    Raises:
        RagtuneError: the merged model's score lies outside.
    """
    value, own = merged["metrics"].get(metric), adapter["intervals"].get(metric)
    if value is None or own is None or own["low"] <= value <= own["high"]:
        return
    raise RagtuneError(
        f"The merged model is not what was measured: {metric} {value:.1%}, and the adapter has "
        f"{own['value']:.1%} (95 % interval {own['low']:.1%} … {own['high']:.1%}); "
        f"{merged['changed']} of {merged['asked']} answers changed. Nothing was sent.",
        f"Publish the adapter, which is what was measured: {command} publish.format=adapter",
    )


def require_same_answers(found: Reasked, metric: str, command: str) -> None:
    """Stop a push if llama.cpp's answers are surely better or worse than the adapter's, to the same questions.

    Args:
        found: as `gguf` in run.json.
        metric: the headline.
        command: the push that is stopped.

    Raises:
        RagtuneError: the paired interval of the difference doesn't hold zero.
    """
    difference = found["difference"].get(metric)
    if difference is None or difference["low"] <= 0 <= difference["high"]:
        return
    raise RagtuneError(
        f"The GGUF file is not what was measured: llama.cpp gives {in_words(found, metric)}. Nothing was "
        "sent.",
        f"Publish the adapter, which is what was measured: {command} publish.format=adapter",
    )
