"""A server with OpenAI's interface answers: several questions at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ragtune.answering.client import KEY, Client, Conversation, Usage, wait_for
from ragtune.answering.endpoint import served_name
from ragtune.answering.engine import fitting
from ragtune.answering.prediction import Prediction, keeping
from ragtune.base.screen.console import note, warn
from ragtune.data.encode import Encoder
from ragtune.data.example import Example
from ragtune.recipe.schema import Recipe


@dataclass(frozen=True)
class Server:
    """The recipe's server (`Engine`). A busy or failing one is asked again, with growing pauses."""

    recipe: Recipe
    which: str
    """The model `before` or `after` tuning."""
    advice: str = ""
    """How to serve it, for when it isn't (`how_to_serve`)."""
    key_from: str = KEY
    """The environment variable with its key, if it has one."""
    usage: dict[str, Usage] = field(default_factory=dict)
    """What each question took, by its qid, where the server says it."""
    way: None = None

    def answer(
        self, encoder: Encoder, examples: Sequence[Example], partial: Path, title: str
    ) -> list[Prediction]:
        """The answers, without token ids; see `Engine.answer`.

        Raises:
            UsageError: the server does not know the model or refuses the key.
            RagtuneError: the server can't be reached, or fails at a question again and again.
        """
        found = [*fitting(encoder, examples)]
        asked = [(e.qid, encoder.messages(e, prompt)) for e, prompt in found]
        shown = self.recipe.data.max_passages
        written = [encoder.control.written_out(e, shown) for e in examples]
        if broken := sum(bool(one.keys() - {"an answer"}) for one in written):
            note(
                f"{broken:,} of {len(found):,} questions write out tokens of the chat template: the server "
                "gets them broken by a blank (< |im_end|>), as it would read them as these tokens"
            )
        return self.converse(asked, partial, title)

    def converse(
        self, conversations: Sequence[Conversation], partial: Path, title: str
    ) -> list[Prediction]:
        """The answers to conversations that are cut as their prompts are."""
        evaluate = self.recipe.evaluate
        endpoint, name = evaluate.endpoint or "", served_name(self.recipe, self.which)
        client = Client(
            endpoint,
            name,
            self.advice,
            evaluate.max_new_tokens,
            self.recipe.prompt.template_arguments,
            usage=self.usage,
            key_from=self.key_from,
        )
        note(f"Asking {endpoint} for {name}")
        with keeping(partial, [qid for qid, _ in conversations], title) as kept:
            pending = [one for one in conversations if one[0] not in kept.done]
            if pending:
                wait_for(lambda: client.ask_all(pending, evaluate.concurrency, kept.add))
        found = kept.in_order()
        if empty := sum(not one.prediction for one in found):
            warn(
                f"{empty} of {len(found)} answers of {endpoint} are empty, and count as such. A model "
                "that thinks before it answers may need more evaluate.max_new_tokens."
            )
        return found
