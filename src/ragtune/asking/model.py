"""The model that a reader asks: a run's, or what was published; in memory once, tuned and as it was before."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel

from ragtune.answering.client import GOES_ON
from ragtune.answering.endpoint import how_to_serve
from ragtune.answering.engine import PACKED, Engine, Way
from ragtune.answering.local import Local
from ragtune.answering.orders import answer_in_orders
from ragtune.answering.prediction import Prediction
from ragtune.answering.ragged import Heard
from ragtune.answering.server import Server
from ragtune.asking.answer import Which
from ragtune.asking.pieces import in_pieces
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.versions import versions
from ragtune.data.example import Example
from ragtune.distributed.pulse import LostError
from ragtune.model.fast.lora import fuse
from ragtune.model.hardware import answering_alone
from ragtune.model.load import multiply_in_8_bits
from ragtune.model.lora import load_adapter
from ragtune.model.plan import Plan, bare_plan, plan_answers
from ragtune.stages.answer import sharing
from ragtune.stages.context import Context
from ragtune.stages.ranks import Ranks
from ragtune.stages.weights import load_weights
from ragtune.store.proof import read_proof

_FEW = 201
"""Of fewer questions the prompts are encoded again in no time."""
_AGAIN = "Then ask again."
_SIDES = {"tuned": "after", "base": "before"}


@dataclass(eq=False)
class Model:
    """Answers examples as the evaluation of a run does; one question, or batch of them, at a time."""

    context: Context
    """Of the run; of what was published one with its settings."""
    name: str
    adapter: Path | None
    """None where it was merged into the model, there was none (tuning: full), or a server has it."""
    _model: PreTrainedModel | PeftModel | None = field(default=None, repr=False)
    _engines: dict[Which, Local] = field(default_factory=dict, repr=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def compares(self) -> bool:
        """Whether the model before tuning can be asked, too."""
        if self.context.remote:
            return self.context.recipe.evaluate.served_before is not None
        return self.adapter is not None

    @cached_property
    def _plan(self) -> Plan | None:
        """That of the evaluation, if it was done on hardware like this."""
        return self.context.kept_plan

    def require(self, which: Which) -> None:
        """Raise unless that model can be asked.

        Raises:
            UsageError: there is only the tuned one, or none of that name.
        """
        if which not in _SIDES:
            raise UsageError(f"There is no model {which!r}.", f"Ask one of {', '.join(_SIDES)}.")
        if which == "tuned" or self.compares:
            return
        if self.context.remote:
            raise UsageError(
                "The base can't be asked: evaluate.served_before is not set.",
                "Set it to the name under which the server has the model before tuning.",
            )
        raise UsageError(
            f"The base of {self.name} can't be asked: what was trained is in its weights.",
            "Ask without the comparison; or name the run, or a model that was published with "
            "publish.format=adapter: there the adapter can be switched off.",
        )

    def load(self) -> None:
        """Have the weights in memory, if it is no server that answers."""
        context = self.context
        if context.remote or self._model is not None:
            return
        nf4 = context.recipe.model.quantization == "nf4"
        fp8 = context.recipe.evaluate.products == "fp8"
        kept = self._plan
        base = load_weights(
            context,
            context.source,
            context.hardware,
            nf4=nf4,
            dequantized=fp8 or (kept is not None and kept.dequantized),
        )
        if fp8:
            multiply_in_8_bits(base, "evaluate.products")
        if self.adapter is None:
            self._model = base.eval()
            return
        tuned = load_adapter(base, self.adapter).eval()
        fuse(tuned)
        self._model = tuned

    @property
    def sharers(self) -> int:
        """See `Reader.sharers`."""
        context = self.context
        own = self.adapter in (None, context.folder.adapter)
        return context.rank_count if own and not context.remote else 1

    @contextlib.contextmanager
    def sharing(self) -> Iterator[None]:
        """Within, all GPUs of the run answer; it is entered before the model is loaded."""
        context = self.context
        try:
            with Ranks(context.recipe) as context.ranks:
                context.ranks.start()
                context.hardware = context.hardware_for(answering_alone(context.recipe))
                if self._plan is None:
                    context.plan = bare_plan(context.recipe, context.hardware, context.ranks.size)
                yield
        except LostError as error:
            raise RagtuneError(error.message, _AGAIN) from error
        finally:
            context.ranks = None

    def answer(
        self, examples: Sequence[Example], which: Which, heard: Heard | None = None
    ) -> tuple[list[Prediction], float]:
        """The answers, in the order of the examples, and the seconds that they took.

        `heard` is told the tokens of a single one, with `evaluate.orders` those of one order or of each; not of
        one that a server writes.
        """
        with self._turn, tempfile.TemporaryDirectory(prefix="ragtune-ask-") as folder:
            start = time.monotonic()
            with self._asking(examples, which, heard) as engine:
                partial = Path(folder) / "answers.jsonl"
                found = answer_in_orders(
                    engine, self.context.encoder, examples, partial, "answering"
                )
            return found, time.monotonic() - start

    def stream(self, example: Example, which: Which) -> Generator[str, None, Prediction]:
        """The answer to one question, piece by piece; it returns the whole."""
        encoder = self.context.encoder

        return (
            yield from in_pieces(lambda heard: self.answer([example], which, heard)[0][0], encoder)
        )

    @contextlib.contextmanager
    def _asking(
        self, examples: Sequence[Example], which: Which, heard: Heard | None
    ) -> Iterator[Engine]:
        context = self.context
        if context.remote:
            side = _SIDES[which]
            advice = how_to_serve(context.recipe, side, context.source.path, context.folder.path)
            try:
                yield Server(context.recipe, side, advice)
            except RagtuneError as error:  # here no answer is kept
                raise type(error)(error.message, error.advice.replace(GOES_ON, _AGAIN)) from error
            return
        engine = self._engine(which)
        engine.heard = heard
        whole = context.recipe.full and not context.remote  # which `which` is: it has no base
        engine.share = sharing(context, _SIDES[which] if self.adapter or whole else "before")
        self._size(engine, examples)
        with contextlib.ExitStack() as within:
            if which == "base" and isinstance(self._model, PeftModel):
                within.enter_context(self._model.disable_adapter())
            yield engine

    def _engine(self, which: Which) -> Local:
        self.load()
        assert self._model is not None
        if which not in self._engines:
            longest = self.context.recipe.evaluate.max_new_tokens
            engine = self._engines[which] = Local(self._model, longest, 1)
            if (way := self._way_then(which)) is not None:
                engine.know(way, self.context.prompt_lengths)
        return self._engines[which]

    def _way_then(self, which: Which) -> Way | None:
        """How the run's evaluation asked, if that was tried on hardware and with versions like these.

        Then the first answer needs no trial, unless its prompt is longer or shorter than any then.
        """
        context = self.context
        if self._plan is None or context.recipe.evaluate.limit not in range(1, _FEW):
            return None
        with contextlib.suppress(RagtuneError):
            proof = read_proof(context.folder.answers(_SIDES[which]))
            asked = proof.facts.get("asked") if proof and proof.versions == versions() else None
            if asked is not None and asked["how"] == PACKED:
                return Way(**asked)
        return None

    def _size(self, engine: Local, examples: Sequence[Example]) -> None:
        """Let as many questions be asked at a time as in the evaluation or, on other hardware, as fit."""
        context = self.context
        if (plan := self._plan) is not None:
            engine.batch_size, engine.cache_tokens = plan.evaluation_batch, plan.cache_tokens
            return
        prompts = context.encoder.prompts(examples)
        lengths = [len(prompt.ids) for prompt in prompts if prompt]
        engine.batch_size, engine.cache_tokens = plan_answers(
            context.recipe, context.hardware, context.config, lengths, dequantized=False
        )
