"""A last look before a push: what would be sent."""

from __future__ import annotations

from pathlib import Path

from ragtune.base.text import one_or_many, size_of
from ragtune.publish.hub import files_to_send
from ragtune.publish.settings import SETTINGS
from ragtune.recipe.schema import Publish

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
            f"  {size_of(sum(files.values())):>9}  in {one_or_many(len(files), 'file')}",
            _NOT_ASKED,
            f"\nThe card ({CARD}) begins:\n",
            *(f"  {line}".rstrip() for line in lines[:_SHOWN]),
            *([f"  … and {one_or_many(more, 'more line')}"] if more > 0 else []),
        )
    )
