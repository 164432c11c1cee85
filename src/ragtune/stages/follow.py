"""A process that follows: it does what rank 0 tells it, prints nothing, and writes nothing into the run."""

from __future__ import annotations

import dataclasses
import gc
import sys
import traceback
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import cast

import torch
from pydantic import JsonValue
from transformers import PreTrainedModel

from ragtune.base import stopping
from ragtune.base.errors import RagtuneError, UsageError, in_words
from ragtune.base.garbage import sparing_the_old
from ragtune.base.screen.output import complain, silent
from ragtune.base.sparing import await_import
from ragtune.base.versions import versions
from ragtune.distributed import limits
from ragtune.distributed.place import Place, take_place
from ragtune.distributed.pulse import LostError, OverError
from ragtune.distributed.world import World
from ragtune.model.fast.liger import has_liger
from ragtune.model.hardware import free_gpu
from ragtune.model.headers import compare
from ragtune.model.plan import Plan
from ragtune.model.targets import find_targets
from ragtune.recipe.schema import Recipe
from ragtune.stages import answer
from ragtune.stages.context import Context
from ragtune.stages.ranks import own_device, require_same_weights, share_of_cores
from ragtune.stages.train import follow_training
from ragtune.store.folder import RunFolder


def follow(place: Place, patience: float = limits.REACH) -> int:
    """Do what rank 0 tells, until it says that it is over; returns the exit code, which is rank 0's.

    Args:
        place: of this process.
        patience: seconds in which rank 0 has to be there.

    Raises:
        UsageError: rank 0 can't be reached.
        LostError: it is gone.
    """
    world = World(place, patience=patience)
    try:
        with sparing_the_old():
            world.meet(dict(versions()), own_device())
            following = _Following(world)
            while True:
                following.do(world.agree())  # type: ignore[arg-type]
    except OverError as error:
        return error.exit_code
    except LostError:
        raise
    except KeyboardInterrupt:
        code, name, _ = stopping.last_words()
        world.fail(RagtuneError(f"it was stopped by {name}."))
        return code
    except Exception as error:  # noqa: BLE001 - whatever ends this rank, rank 0 says
        told = in_words(error)
        world.fail(told, traceback.format_exc())
        return told.exit_code
    finally:
        world.close()


class _Following:
    """What stays between two orders: the model."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.context: Context | None = None
        self.of: JsonValue = None
        self.merged: PreTrainedModel | None = None
        """The merged model: of spread weights all ranks load theirs together, else this one by itself."""

    def do(self, order: dict[str, JsonValue]) -> None:
        if order["do"] == "prepare":
            with suppress(Exception):  # what fails is asked for again, and then says so
                _prepare(self._context_of(order), data=bool(order["data"]))
            return
        context = self._context_of(order)
        match order["do"]:
            case "load":
                context.release()
                self.merged = answer.merged_model(context) if order["merged"] else None
                if self.merged is None:
                    context.base(training=bool(order.get("training")))
            case "release":
                context.release()
                self.merged = None
            case "train":
                self.merged = None
                # As rank 0 does before a stage; here while it does something else, and not within the training.
                free_gpu()
                follow_training(context, self.world)
                gc.collect()  # what it left is what answers need
            case _:
                self._answer(context, order)

    def _answer(self, context: Context, order: dict[str, JsonValue]) -> None:
        """Answer; the merged model stays until another is asked: each part of the questions is an order."""
        if order["model"] != "merged":
            self.merged = None
        elif self.merged is None:
            context.release()
            self.merged = answer.merged_model(context)
        answer.follow(context, self.world, order, self.merged)

    def _context_of(self, order: dict[str, JsonValue]) -> Context:
        of = [order[key] for key in ("recipe", "folder", "set", "day", "commit")]
        if self.context is None or of != self.of:
            folder = Path(str(order["folder"]))
            if not folder.is_dir():
                raise UsageError(
                    f"There is no {folder} on this machine.",
                    "Let every machine reach the run directory by the same path: put it on a file "
                    "system that they share.",
                )
            self.merged = None
            self.context = Context(Recipe.model_validate(order["recipe"]), run_dir=folder)
            self.context.following = self.world
            self.context.folder = RunFolder(folder, str(order["set"]))
            self.context.day = date.fromisoformat(str(order["day"]))
            if order["commit"]:
                source = dataclasses.replace(self.context.source, revision=str(order["commit"]))
                self.context.source = source
            self.of = of
        told, own = str(order["weights"]), self.context.weights
        if told and own:  # those that were loaded before rank 0 could say which
            require_same_weights(own, told, self.context.recipe.model.id)
        self.context.weights = told or own
        if order["plan"] is not None:
            plan = Plan.from_dict(cast("dict[str, JsonValue]", order["plan"]))
            assert plan is not None  # rank 0 has the same version
            self.context.plan = plan
        return self.context


def _prepare(context: Context, *, data: bool) -> None:
    """Have what loading and training take before they begin: else rank 0 would wait for each."""
    await_import()  # of what Liger imports, too
    if torch.cuda.is_available():
        has_liger(context.config)
    compare(context.config, context.source)
    if not context.recipe.full:
        find_targets(context.config, context.recipe.lora)
    wanted = ["encoder"]
    if data:
        context.forget_data()  # they may have been made anew
        wanted += ["steps", "selected"]
    for name in wanted:
        getattr(context, name)


def main(port: int) -> None:
    """Follow the process that started this one, whose store has this port."""
    stopping.install()
    place = take_place()
    assert place is not None
    try:
        # Rank 0 tells their last words.
        with silent(but_libraries=True), share_of_cores(place.size):
            code = follow(dataclasses.replace(place, port=port), limits.STARTED)
    except RagtuneError as error:
        complain(f"{error}\n")
        code = error.exit_code
    sys.exit(code)
