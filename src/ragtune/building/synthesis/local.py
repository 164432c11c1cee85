"""A model of this machine writes, in batches; torch is loaded with this file."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import PreTrainedModel

from ragtune.answering.local import Local as Engine
from ragtune.base.errors import UsageError
from ragtune.base.files import remove, sha256
from ragtune.base.screen.console import note
from ragtune.base.screen.progress import busy
from ragtune.base.text import one_or_many
from ragtune.building.synthesis.answers import MOST, Answer, Answers, Request
from ragtune.building.synthesis.writer import SECTION, how
from ragtune.data.chat import Message
from ragtune.data.encode import Encoder
from ragtune.data.example import Example, Passage
from ragtune.data.prompt import PromptBuilder
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.model.causal import require_causal
from ragtune.model.generation import stop_generation_at
from ragtune.model.hardware import Hardware, choose_hardware
from ragtune.model.hub_cache import commit_of, folder_of, to_download
from ragtune.model.load import context_length, load_config, load_model, load_tokenizer
from ragtune.model.plan import plan_answers
from ragtune.model.source import ModelSource, resolve
from ragtune.recipe.corpus import Generate
from ragtune.recipe.data import Data, Prompt
from ragtune.recipe.schema import Evaluate, Model, Recipe, Train
from ragtune.store.seal import SMALL

_ASKING = "synthetic.asking.jsonl"
"""In the work folder: the answers of the batches so far."""


@dataclass(frozen=True)
class _Behind(PromptBuilder):
    """Puts the user's message behind other turns."""

    turns: list[Message]

    def messages(self, question: str, passages: Sequence[Passage]) -> list[Message]:
        return [*self.turns, *super().messages(question, passages)]


@dataclass(frozen=True)
class _Loaded:
    """A model with what asks it."""

    recipe: Recipe
    hardware: Hardware
    model: PreTrainedModel
    encoder: Encoder

    def encoder_behind(self, turns: list[Message]) -> Encoder:
        """What encodes a user's text that stands behind other turns."""
        encoder = copy.copy(self.encoder)
        encoder.builder = _Behind(**vars(encoder.builder), turns=turns)
        return encoder

    def engine(self, lengths: Sequence[int]) -> Engine:
        """What asks prompts of these lengths, in tokens."""
        batch, cache = plan_answers(
            self.recipe, self.hardware, self.model.config, lengths, dequantized=False
        )
        return Engine(self.model, self.recipe.evaluate.max_new_tokens, batch, cache)


@dataclass
class Local:
    """A model of this machine (`Writer`), loaded when it is first asked."""

    settings: Generate
    work: Path

    @cached_property
    def _source(self) -> ModelSource:
        with self._named():
            return resolve(Model(id=self.settings.model))

    @cached_property
    def name(self) -> str:
        """The model, its commit or a fingerprint of its files, and how much it may write."""
        folder = folder_of(self._source)
        if folder is None:  # of the Hub, and not here yet: its commit is not known
            with self._named():
                load_config(self._source)
            folder = folder_of(self._source)
        which = commit_of(self._source) or (_fingerprint(folder) if folder else "")
        return f"{self.settings.model} ({which}), {how(self.settings)}"

    def announce(self, passages: Sequence[Passage]) -> None:
        """See `Writer.announce`."""
        note(
            f"{self.settings.model} writes questions for {one_or_many(len(passages), 'passage')} on this "
            "machine: "
            "no passage is sent anywhere."
        )

    def ask(self, requests: Sequence[Request], answers: Answers, title: str) -> None:
        """See `Writer.ask`.

        Raises:
            UsageError: there is no such model, or none that follows instructions.
            RagtuneError: there is too little memory.
        """
        loaded = self._loaded
        encoder = loaded.encoder_behind(requests[0].messages[:-1])
        # All of it is data: what looks like a control token in a passage stays text.
        examples = [Example(r.key, r.messages[-1]["content"], (), (), (), ()) for r in requests]
        prompts = encoder.prompts(examples)
        lengths = {e.qid: len(p.ids) for e, p in zip(examples, prompts, strict=True) if p}
        for request in requests:
            if request.key not in lengths:
                answers.known[request.key] = Answer(request.key, None, 0, 0)
        partial = self.work / _ASKING
        found = loaded.engine([*lengths.values()]).answer(
            encoder, [e for e in examples if e.qid in lengths], partial, title
        )
        with answers.open():
            for one in found:
                written = len(one.token_ids) + one.stopped
                answers.add(Answer(one.qid, one.prediction[:MOST], lengths[one.qid], written))
        remove(partial)

    @cached_property
    def _loaded(self) -> _Loaded:
        settings, source = self.settings, self._source
        recipe = Recipe(
            name="synthesis",
            model=Model(id=settings.model),
            data=Data(train="-", eval="-"),
            prompt=Prompt(
                template="{{ question }}", template_arguments=settings.template_arguments
            ),
            train=Train(steps=1),
            evaluate=Evaluate(max_new_tokens=settings.max_new_tokens),
        )
        with self._named():
            hardware, config = choose_hardware(recipe), load_config(source)
            tokenizer = load_tokenizer(source)
            if not tokenizer.chat_template:
                raise UsageError(
                    f"{SECTION}.model: the tokenizer of {settings.model} has no chat template, so it "
                    "follows no instructions.",
                    "Name a model that is made for conversations (its name often ends in -it or -Instruct).",
                )
            tokenizer = prepare_tokenizer(tokenizer, recipe)
            encoder = Encoder(tokenizer, recipe, context_length(config))
            note(f"Loading {settings.model} on {hardware.name} as {hardware.dtype_name} …")
            arriving, size = to_download(source)
            with busy(f"loading {settings.model}", size, growing=arriving):
                model = load_model(source, hardware, nf4=False)
            require_causal(model, settings.model)
            stop_generation_at(model, encoder)
        return _Loaded(recipe, hardware, model, encoder)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Let messages about the model name the key that the user wrote."""
        try:
            yield
        except UsageError as error:
            message = error.message.replace("model.id", f"{SECTION}.model")
            raise UsageError(
                message.replace("prompt.template_arguments", f"{SECTION}.template_arguments"),
                f"{error.advice}\nIf a server has the model, set {SECTION}.endpoint.".lstrip(),
            ) from None


def _fingerprint(folder: Path) -> str:
    """Of a model's files: of small ones the content, of large ones size and time."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        stat = path.stat()
        what = sha256(path) if stat.st_size < SMALL else f"{stat.st_size} {stat.st_mtime_ns}"
        digest.update(f"{path.relative_to(folder)}\n{what}\n".encode())
    return digest.hexdigest()[:16]
