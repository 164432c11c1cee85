"""What the stages of a run share: recipe, directory, and what is made of them once. Knows no stage."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel
from pydantic import JsonValue
from transformers import PretrainedConfig, PreTrainedModel

from ragtune.answering.engine import encode_prompts
from ragtune.base.disk import ReadOnlyError
from ragtune.base.screen.console import heading, note, warn
from ragtune.base.screen.progress import busy
from ragtune.data.auditor import Auditor
from ragtune.data.encode import Encoder, Sample
from ragtune.data.example import Example
from ragtune.data.prepare import asked, load_examples
from ragtune.data.tokenizer import prepare_tokenizer, today
from ragtune.distributed.world import World
from ragtune.model.cpu_dtype import settle
from ragtune.model.fast.lora import fuse
from ragtune.model.hardware import (
    Hardware,
    answering_alone,
    choose_hardware,
    free_gpu,
    plain,
    training_alone,
)
from ragtune.model.hub_cache import commit_of, set_damaged_aside, to_download
from ragtune.model.load import context_length, load_config, load_tokenizer, multiply_in_8_bits
from ragtune.model.lora import load_adapter
from ragtune.model.plan import Plan, make_plan
from ragtune.model.skeleton import skeleton
from ragtune.model.source import ModelSource, resolve
from ragtune.model.wrapping import Tuned
from ragtune.recipe.schema import Recipe
from ragtune.stages.order import proofs_of
from ragtune.stages.planning import begun_as, read_plan, what_changed, write_plan
from ragtune.stages.preference import sizes_of, steps_to_train
from ragtune.stages.ranks import Ranks, count_of, hardware_of
from ragtune.stages.target import Target, find_recipe, names_set
from ragtune.stages.weights import load_weights
from ragtune.store.folder import RunFolder
from ragtune.store.seal import SMALL
from ragtune.store.sets import find_set


class Context:
    """A recipe in its run directory.

    Each resource is made when it is first asked for, and stays: an uninterrupted run reads the
    tokenizer once. At most one model is in memory.
    """

    def __init__(
        self,
        target: Target,
        overrides: Sequence[str] = (),
        run_dir: str | Path | None = None,
        *,
        redo: bool = False,
    ) -> None:
        self.recipe, path = find_recipe(target, overrides, run_dir)
        self.folder = RunFolder(path, find_set(path, self.recipe, named=names_set(overrides)))
        self.redo = redo
        """Whether stages that are no longer valid are set aside, instead of refused."""
        self.heading = ""
        """The last one printed."""
        self.held = False
        """Whether the directory is locked for this run, and has only what is whole and of its recipe."""
        self.read_only: ReadOnlyError | None = None
        """Why nothing can be written to the directory, if that is so: what is finished can be read."""
        self.pause: int | None = None
        """The step after which a training is to wait, if it is to."""
        self.auditor: Auditor | None = None
        """Of training data that were prepared just now."""
        self.ranks: Ranks | None = None
        """The processes that share the work, while stages are made."""
        self.weights = ""
        """The digest of the base's weights, where several ranks load it, once it is known."""
        self.loading_seconds = 0.0
        """Of models, since a stage was last finished."""
        self.following: World | None = None
        """The ranks, in a process that follows rank 0."""
        self._written: Plan | None = None
        self._base: PreTrainedModel | None = None
        self._tuned: Tuned | None = None
        self._in_8_bits = False
        """Whether products of the model in memory are in 8 bits."""

    def tell_ranks(self, do: str, **more: JsonValue) -> World | None:
        """Let the other ranks do something; returns the world to do it in, None where this rank is alone.

        Raises as `Ranks.tell`.
        """
        if self.ranks is None or self.ranks.size == 1:
            return None
        return self.ranks.tell({
            "do": do, "recipe": self.recipe.model_dump(mode="json"),
            "folder": str(self.folder.path.resolve()), "set": self.folder.evaluation.name,
            "plan": None if do == "prepare" else self.plan.to_dict(),
            "day": self.day.isoformat(),  # another machine's clock may say another
            "commit": self.pin(), "weights": self.weights, **more,
        })  # fmt: skip

    def let_ranks_prepare(self, *, data: bool) -> None:
        """Let the other ranks read what they will need, with `data` the samples, too, if they are ready to."""
        if self.ranks and self.ranks.ready and self.config and not to_download(self.source)[0]:
            self.tell_ranks("prepare", data=data)  # pins what the config found on the Hub

    @property
    def has_ranks(self) -> bool:
        """Whether other processes share the work."""
        return self.ranks is not None and self.ranks.size > 1

    @property
    def rank_count(self) -> int:
        """The processes that share the work; of a run that is only looked at, those that would."""
        return count_of(self.recipe)

    @property
    def remote(self) -> bool:
        """Whether a server answers, and not a model that is loaded here."""
        return self.recipe.evaluate.engine != "local"

    @cached_property
    def day(self) -> date:
        """The date that a chat template writes: that of the day on which the run began."""
        return next((proof.date for proof in proofs_of(self.folder)), None) or today()

    @cached_property
    def source(self) -> ModelSource:
        """Where the model is; of the Hub always the commit with which the run began."""
        source = resolve(self.recipe.model)
        model = self.recipe.model
        same = {"model.id": model.id, "model.revision": model.revision}.items()
        proofs = (proof for proof in proofs_of(self.folder) if same <= proof.recipe.items())
        pinned = next((proof.commit for proof in proofs if proof.commit), None)
        if pinned:  # what the Hub has by now may be another model
            source = dataclasses.replace(source, revision=pinned)
        set_damaged_aside(source, SMALL)
        return source

    def pin(self) -> str | None:
        """Let this run have one commit of a Hub model, now that it is in the cache; returns it."""
        commit = commit_of(self.source)
        if commit:
            self.source = dataclasses.replace(self.source, revision=commit)
        return commit

    @cached_property
    def config(self) -> PretrainedConfig:
        return load_config(self.source)

    @cached_property
    def encoder(self) -> Encoder:
        longest = context_length(self.config)  # first: a tokenizer asks it, too; it must be sane
        tokenizer = prepare_tokenizer(load_tokenizer(self.source), self.recipe, self.day)
        return Encoder(tokenizer, self.recipe, longest)

    @cached_property
    def embedding_rows(self) -> int:
        """Token ids that the model has a row for."""
        return int(skeleton(self.config).get_input_embeddings().weight.shape[0])

    @cached_property
    def hardware(self) -> Hardware:
        # Not every stage answers: `base` sees to what answers need. And where an adapter stands, what only a
        # training needs of a machine need not be here.
        needed, trained = training_alone(self.recipe), self.folder.adapter.is_dir()
        return self.hardware_for(answering_alone(needed) if trained else needed)

    def hardware_for(self, recipe: Recipe) -> Hardware:
        """The device and dtype for this run's recipe, or for what it is without training."""
        if self.following:  # rank 0 saw to what it needs, and chose what all are good at
            found = choose_hardware(plain(recipe))
            return dataclasses.replace(found, dtype=getattr(torch, self.plan.dtype))
        begun = begun_as(self.folder, self.recipe)  # a dtype that is measured stays
        return settle(hardware_of(recipe, self.ranks), self.recipe, lambda: self.config, begun)

    @cached_property
    def training_examples(self) -> list[Example]:
        return load_examples(self.folder.data / "train.jsonl")

    @cached_property
    def questions(self) -> list[Example]:
        """Every example of the evaluation set, asked or not."""
        return load_examples(self.folder.questions / "eval.jsonl")

    @cached_property
    def asked(self) -> list[Example]:
        """The questions that are asked."""
        return asked(self.recipe, self.questions)

    @cached_property
    def selected(self) -> list[Example]:
        """Of those the ones that the figures are of."""
        return [example for example in self.asked if example.extra["selected"]]

    @cached_property
    def steps(self) -> list[list[Sample]]:
        """The samples of every optimizer step."""
        return steps_to_train(self.recipe, self.encoder, self.training_examples)

    @cached_property
    def prompt_lengths(self) -> list[int]:
        """Tokens of the prompts of the questions that are asked."""
        return [len(ids) for _, ids in encode_prompts(self.encoder, self.asked)]

    @cached_property
    def plan(self) -> Plan:
        """How the work is laid out: as it was begun, or made for this hardware; `keep_plan` keeps it."""
        if kept := self.kept_plan:
            return kept
        self.let_ranks_prepare(data=not self.folder.adapter.is_dir())  # is a training to come?
        old = read_plan(self.folder, self.recipe)
        given = self.recipe, self.hardware, self.config, sizes_of(self.steps), self.prompt_lengths
        plan = make_plan(*given, ranks=self.rank_count)
        if old and (change := what_changed(self.folder, old, plan)):
            warn(f"{change}: the result will not be that of an uninterrupted run, bit for bit.")
            plan = dataclasses.replace(plan, changes=(*old.changes, change))
        return plan

    @property
    def kept_plan(self) -> Plan | None:
        """The plan that was made for this hardware and these data, if there is one."""
        old, hardware = read_plan(self.folder, self.recipe), self.hardware
        here = hardware.name, hardware.dtype_name, self.rank_count
        return old if old and (old.device, old.dtype, old.ranks) == here else None

    def forget_data(self) -> None:
        """Read anew what is made of the data: they were made just now."""
        for name in ("training_examples", "questions", "asked", "selected", "steps", "prompt_lengths",
                     "plan"):  # fmt: skip
            self.__dict__.pop(name, None)

    def keep_plan(self, plan: Plan) -> None:
        """Let the run go on by this plan, after a break, too; another set leaves that of the run's own."""
        self.plan = plan
        if self.folder.is_own and plan is not self._written:  # each stage keeps the run's
            write_plan(self.folder, self.recipe, plan)
            self._written = plan

    def load(
        self, which: Literal["base", "tuned", "either"] | None, *, training: bool = False
    ) -> None:
        """Have a model in memory, to answer or to be trained: nothing is loaded twice if that can be."""
        if which is None:
            return
        can_switch = self.folder.adapter.is_dir() and not self.recipe.full
        if which == "tuned" or (which == "either" and can_switch):
            self.tuned()
        else:
            self.base(training=training)
        self.keep_plan(self.plan)

    def base(self, *, training: bool = False) -> PreTrainedModel:
        """The base model, without an adapter, to answer or to be trained: its products may be other ones."""
        recipe, start = self.recipe, time.monotonic()
        key = "train.products" if training else "evaluate.products"
        fp8 = (recipe.train if training else recipe.evaluate).products == "fp8"
        if self._base is not None and fp8 == self._in_8_bits:
            return self._base
        if fp8 and not training:
            self.hardware_for(answering_alone(recipe))  # refuses where there are no such products
        self.say("Model")
        if self._base is None or self._in_8_bits:
            again = self._in_8_bits and not fp8 and (self._base or self._tuned) is not None
            self.release()
            if again:
                which = "The training has" if training else "Answers have"
                note(f"{which} products in the model's dtype: its weights are loaded again.")
            with busy(f"checking the files of {self.source.name or self.source.path}"):
                set_damaged_aside(self.source)
            if not self.plan.spread and not to_download(self.source)[0]:
                # All at the same time.
                self.tell_ranks("load", merged=False, training=training)
            self._base = load_weights(
                self, self.source, self.hardware, nf4=recipe.model.quantization == "nf4",
                # Answers in 8 bits are of these; a training makes its own of packed ones, too.
                dequantized=self.plan.dequantized or (fp8 and not training),
            )  # fmt: skip
        if fp8:
            multiply_in_8_bits(self._base, key)
        self._in_8_bits = fp8
        self.loading_seconds += time.monotonic() - start
        return self._base

    def tuned(self) -> Tuned:
        """The model that was tuned, to answer."""
        if self._tuned is None or self._in_8_bits != (self.recipe.evaluate.products == "fp8"):
            self._tuned = self.tuned_in(self.folder.adapter)
        return self._tuned

    def tuned_in(self, folder: Path) -> Tuned:
        """A model that was tuned, from the folder of the run's or of a checkpoint; its caller's own."""
        if self.recipe.full:
            self.release()
            source = dataclasses.replace(self.source, path=str(folder))
            return load_weights(self, source, self.hardware)
        model = load_adapter(self.take_base(), folder).eval()
        fuse(model)
        return model

    def set_tuned(self, model: Tuned) -> None:
        """Take a model that was tuned: in the base's place, so that there is no base."""
        self._base, self._tuned = None, model

    def take_base(self, *, training: bool = False) -> PreTrainedModel:
        """The base model, to be tuned or to get an adapter: nobody else gets it."""
        base, self._base = self.base(training=training), None
        return base

    @contextlib.contextmanager
    def answering(self, which: Literal["before", "after"]) -> Iterator[PreTrainedModel]:
        """The model `before` or `after` tuning; an adapter is switched off for `before`."""
        if which == "after":
            yield self.tuned()
        elif isinstance(self._tuned, PeftModel):
            with self._tuned.disable_adapter():
                yield self._tuned
        else:
            yield self.base()

    def release(self) -> None:
        """Give back the memory of the models that were loaded."""
        self._base = self._tuned = None
        world = self.following or (self.ranks and self.ranks.world)
        if world and world.passes:  # the weights are spread over all
            self.tell_ranks("release")
            world.share(None)
        free_gpu()

    def say(self, title: str) -> None:
        """Print a heading, unless it is the last one printed."""
        if title != self.heading:
            heading(title)
            self.heading = title
