"""Who writes questions: a server with OpenAI's interface, or a model of this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

from ragtune.building.synthesis.answers import Answers, Request
from ragtune.data.example import Passage
from ragtune.recipe.corpus import Generate

SECTION = "questions.generate"
"""Of the corpus's configuration."""


def how(settings: Generate) -> str:
    """How a model is asked, as far as its answers depend on it."""
    return f"{settings.max_new_tokens} tokens, {json.dumps(settings.template_arguments, sort_keys=True)}"


class Writer(Protocol):
    """Answers requests, each with what is likeliest."""

    @property
    def name(self) -> str:
        """The model and where it is: what another one answered doesn't count."""
        ...

    def announce(self, passages: Sequence[Passage]) -> None:
        """Say which passages will go where, before the first one goes.

        Raises:
            UsageError: they can't go there.
        """
        ...

    def ask(self, requests: Sequence[Request], answers: Answers, title: str) -> None:
        """Ask all of them, and keep each answer as soon as it is known.

        One that the model can't be asked gets an answer without text, for this run alone.

        Args:
            requests: none of which has an answer yet.
            answers: where they are kept.
            title: of the progress bar.

        Raises:
            RagtuneError: the model can't be reached, loaded or asked. What is answered is kept.
        """
        ...
