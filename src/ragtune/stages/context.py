"""What the stages of a run share: directory, encoder, plan, model."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from ragtune.base.console import heading, note, warn
from ragtune.base.errors import RagtuneError
from ragtune.base.files import full_disk, read_json
from ragtune.base.lock import Lock, locked, see_held
from ragtune.base.stopping import stop_if_asked
from ragtune.base.surroundings import see_alone
from ragtune.model.gpu import free_gpu, gpu_peak, reset_gpu_peak
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Recipe
from ragtune.store.folder import RunDir
from ragtune.store.seal import SMALL

Target = str | Path | dict[str, Any] | Recipe
P = ParamSpec("P")
T = TypeVar("T")


def alone(
    *, making: bool = True
) -> Callable[
    [Callable[Concatenate[Any, P], T]],
    Callable[Concatenate[Any, P], T],
]:
    """For a method of `Workspace` that writes: it runs within `writing`."""

    def wrap(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
        @functools.wraps(method)
        def inner(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
            with self.writing(making=making):
                return method(self, *args, **kwargs)

        return inner

    return wrap


def find_recipe(
    target: Target, overrides: list[str] | None, run_dir: str | Path | None
) -> tuple[Recipe, Path]:
    """The recipe that a target names, changed, and the directory of its run."""
    folder = None
    if isinstance(target, (str, Path)) and (Path(target) / "recipe.yaml").is_file():
        folder = Path(target)
        target = folder / "recipe.yaml"
    recipe = load_recipe(target, overrides)
    if folder and any(one.startswith("name=") for one in overrides or []):
        folder = folder.parent / recipe.name  # another name is another run
    return recipe, Path(run_dir or folder or Path("runs") / recipe.name)


class Workspace:
    """A recipe in its run directory, with what the stages share.

    Each is made when a stage first needs it, and stays: an uninterrupted run loads the model once.
    """

    def __init__(
        self,
        target: Target,
        overrides: list[str] | None = None,
        run_dir: str | Path | None = None,
        *,
        redo: bool = False,
    ) -> None:
        self.recipe, folder = find_recipe(target, overrides, run_dir)
        self.dir = RunDir(folder)
        self.redo = redo
        self._made: dict[str, Any] = {}
        self._lock: Lock | None = None

    @property
    def settled(self) -> bool:
        """Whether the directory is held by this run, and has only what is whole and of its recipe."""
        return self._lock is not None

    @contextlib.contextmanager
    def writing(self, *, making: bool) -> Iterator[None]:
        """Alone in the run directory, and on nothing but whole results of this recipe.

        Args:
            making: whether stages may be made, and not only read.

        Raises:
            UsageError: stages may be made, and the environment would change how (`see_alone`).
        """
        if making:
            see_alone()
        with locked(self.dir.path) as lock:
            if lock is self._lock:  # a stage within a stage
                yield
                return
            self._lock = lock
            try:
                if self.dir.settle(self.recipe, redo=self.redo, making=making):
                    self._made.clear()
                if self.dir.scored_otherwise(self.recipe):
                    from ragtune.stages.measure import score_again

                    score_again(self)
                if self.dir.made_by() is not None:
                    self.dir.claim(self.recipe, self.day)
                yield
            finally:
                self._lock = None

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    @property
    def source(self) -> Any:
        from ragtune.model.source import resolve
        from ragtune.model.weights import set_damaged_aside

        def make() -> Any:
            source, pinned = resolve(self.recipe.model), self._known().get("commit")
            if pinned:  # what the Hub has by now may be another model
                source = dataclasses.replace(source, revision=pinned)
            set_damaged_aside(source, SMALL)
            return source

        return self._once("source", make)

    def _known(self) -> dict[str, Any]:
        """What run.json says; nothing if it is damaged: before it is used it is set aside."""
        with contextlib.suppress(RagtuneError):
            return self.dir.read_state()
        return {}

    @property
    def day(self) -> date:
        """The date that a chat template writes: that of the day on which the run began."""
        from ragtune.data.clock import today

        def make() -> date:
            with contextlib.suppress(RagtuneError):  # damaged, it is set aside before it is used
                return self.dir.day() or today()
            return today()

        day: date = self._once("day", make)
        return day

    def _pin(self) -> None:
        """Let this run have one commit of a Hub model, now and after a break."""
        from ragtune.model.weights import commit_of

        commit = commit_of(self.source)
        if commit:
            self._made["source"] = dataclasses.replace(self.source, revision=commit)
            self.dir.update(commit=commit)

    @property
    def config(self) -> Any:
        from ragtune.model.load import load_config

        return self._once("config", lambda: load_config(self.source))

    @property
    def encoder(self) -> Any:
        from ragtune.data.encode import Encoder, prepare_tokenizer
        from ragtune.model.load import context_length, load_tokenizer

        def make() -> Encoder:
            tokenizer = prepare_tokenizer(load_tokenizer(self.source), self.recipe, self.day)
            return Encoder(tokenizer, self.recipe, context_length(self.config))

        return self._once("encoder", make)

    @property
    def embedding_rows(self) -> int:
        """Token ids that the model has a row for."""
        from ragtune.model.skeleton import skeleton

        def make() -> int:
            return int(skeleton(self.config).get_input_embeddings().weight.shape[0])

        return int(self._once("embedding rows", make))

    @property
    def hardware(self) -> Any:
        from ragtune.model.load import choose_hardware

        return self._once("hardware", lambda: choose_hardware(self.recipe))

    @property
    def base(self) -> Any:
        """The base model, without an adapter."""
        if "base" not in self._made:
            from ragtune.model.weights import set_damaged_aside

            nf4 = self.recipe.model.quantization == "nf4"
            dequantized = nf4 and self.plan.dequantized
            with self.stage("load", "Model"):
                set_damaged_aside(self.source)
                self._made["base"] = self._load(
                    self.source.path, self.hardware, nf4=nf4, dequantized=dequantized
                )
        return self._made["base"]

    @property
    def steps(self) -> Any:
        """The samples of every optimizer step."""
        from ragtune.training.train import steps_of

        return self._once(
            "steps", lambda: steps_of(self.recipe, self.encoder, self.examples("train"))
        )

    @property
    def prompts(self) -> Any:
        """The (qid, prompt ids) of the questions that are asked."""
        from ragtune.answering.evaluate import encode_prompts

        return self._once("prompts", lambda: encode_prompts(self.encoder, self.examples("eval")))

    def prompt_texts(self) -> dict[str, str] | None:
        """The prompts of the questions that are asked, as the model reads them, by qid.

        They are made by the tokenizer that lies beside the adapter, so that nothing of the base model
        is needed any more. None where that is not there, or no longer fits the data.
        """
        from ragtune.answering.evaluate import encode_prompts
        from ragtune.data.encode import Encoder, prepare_tokenizer
        from ragtune.model.load import load_tokenizer
        from ragtune.model.source import ModelSource

        try:
            if "encoder" in self._made:
                encoder, prompts = self.encoder, self.prompts
            elif (self.dir.adapter / "tokenizer_config.json").exists():
                tokenizer = load_tokenizer(ModelSource(str(self.dir.adapter), None))
                longest = read_json(self.dir.data / "report.json")["max_prompt_tokens"]
                encoder = Encoder(
                    prepare_tokenizer(tokenizer, self.recipe, self.day),
                    self.recipe,
                    longest + self.recipe.evaluate.max_new_tokens,
                )
                prompts = encode_prompts(encoder, self.examples("eval"))
            else:
                return None
        except RagtuneError as error:
            note(f"The report shows no prompts: {error}")
            return None
        exact = {"clean_up_tokenization_spaces": False}
        return {qid: encoder.tokenizer.decode(ids, **exact) for qid, ids in prompts}

    @property
    def plan(self) -> Any:
        """How the work is laid out: the plan in run.json, or one made for this hardware.

        It is kept when the model is first used: a check decides nothing.
        """
        from ragtune.model.plan import Plan, make_plan

        if "plan" in self._made:
            return self._made["plan"]
        stored = self._known().get("plan")
        old = Plan.from_dict(stored) if stored else None
        hardware = self.hardware
        if old and (old.device, old.dtype) == (hardware.name, hardware.dtype_name):
            self._made["plan"] = old
            return old
        plan = make_plan(
            self.recipe,
            hardware,
            self.config,
            [[(len(s), len(s.completion_ids)) for s in step] for step in self.steps],
            [len(ids) for _, ids in self.prompts],
        )
        begun = (self.dir.checkpoints, self.dir.adapter, self.dir.predictions("before"))
        if old and any(path.exists() for path in begun):
            change = (
                f"continued on {plan.device} as {plan.dtype}, begun on {old.device} as {old.dtype}"
            )
            warn(f"{change}: the result will not be that of an uninterrupted run, bit for bit.")
            plan = dataclasses.replace(plan, changes=(*old.changes, change))
        self._made["plan"] = plan
        return plan

    def _keep_plan(self, plan: Any) -> None:
        self._made["plan"] = plan
        self.dir.update(plan=dataclasses.asdict(plan))

    @property
    def tuned(self) -> Any:
        """The model with its trained adapter."""
        from ragtune.model.fast.fused import fuse
        from ragtune.model.lora import load_adapter

        if "tuned" not in self._made:
            # The adapter wraps the base in place, so there is no plain base any more.
            base = self.base
            self._made["tuned"] = load_adapter(base, self.dir.adapter).eval()
            fuse(self._made["tuned"])
            del self._made["base"]
        return self._made["tuned"]

    @property
    def remote(self) -> bool:
        """Whether a server answers, and not a model that is loaded here."""
        return self.recipe.evaluate.engine == "openai"

    def ask(self, which: str, questions: Any, partial: Path, *, as_given: bool = False) -> Any:
        """Predictions of the model `before` or `after` tuning.

        Args:
            which: one of the two; `before` with the tuned model loaded, its adapter is switched off.
            questions: the examples.
            partial: where unfinished work is kept.
            as_given: show every passage of an example, not the first ones.
        """
        from ragtune.answering.evaluate import ask, ask_endpoint, encode_prompts
        from ragtune.model.plan import plan_answers

        encoder = self.encoder.showing_all() if as_given else self.encoder
        if self.remote:
            base, run = self.source.path, self.dir.path
            return ask_endpoint(self.recipe, which, encoder, questions, base, run, partial)
        if as_given:
            prompts = encode_prompts(encoder, questions)
            lengths = [len(ids) for _, ids in prompts]
            limits = plan_answers(
                self.recipe, self.hardware, self.config, lengths, dequantized=self.plan.dequantized
            )
        else:
            prompts = self.prompts
            limits = (self.plan.evaluation_batch, self.plan.cache_tokens)
        if which == "after" or "tuned" in self._made:
            model = self.tuned
            off = model.disable_adapter() if which == "before" else contextlib.nullcontext()
        else:
            model, off = self.base, contextlib.nullcontext()
        title = f"answering ({which})"
        keep = self.keep_way(f"controls_{which}" if as_given else which)
        with off:
            return ask(self.recipe, model, encoder, prompts, limits, partial, title, keep)

    def keep_way(self, stage: str) -> Callable[[Any], None]:
        """What writes to run.json how a stage's questions are asked, and why."""
        return lambda way: self.dir.update(asked={stage: way.to_dict()})

    def forget_models(self) -> None:
        """Give back the memory of the models that were loaded."""
        for name in ("base", "tuned"):
            self._made.pop(name, None)
        free_gpu()

    def fresh_base(self) -> Any:
        """The base model for an adapter of one's own, which then wraps it: nobody else gets it."""
        self.forget_models()
        base = self.base
        del self._made["base"]
        return base

    def _load(
        self, path: str, hardware: Any, *, nf4: bool = False, dequantized: bool = False
    ) -> Any:
        from ragtune.model.causal import see_causal
        from ragtune.model.load import load_model, stop_generation_at

        note(
            f"Loading {path if path != self.source.path else self.recipe.model.id} on {hardware.name} "
            f"as {hardware.dtype_name} ({hardware.reason})"
            + (", weights in NF4" if nf4 else "")
            + (", kept dequantised" if dequantized else "")
            + " …"
        )
        source = dataclasses.replace(self.source, path=path)
        model = load_model(source, hardware, nf4=nf4, dequantized=dequantized)
        see_causal(model, self.recipe.model.id)
        stop_generation_at(model, self.encoder)
        return model

    @property
    def questions(self) -> Any:
        """Every example of the evaluation set, asked or not."""
        from ragtune.data.prepare import load_examples

        return self._once("questions", lambda: load_examples(self.dir.data / "eval.jsonl"))

    def examples(self, split: str) -> Any:
        """The examples that are trained, or the questions that are asked."""
        from ragtune.data.prepare import asked, load_examples

        def make() -> Any:
            if split == "eval":
                return asked(self.recipe, self.questions)
            return load_examples(self.dir.data / f"{split}.jsonl")

        return self._once(f"examples {split}", make)

    @contextlib.contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """A stage's heading, and its time and GPU memory in run.json."""
        stop_if_asked()
        see_held()
        if title:
            heading(title)
        start = time.monotonic()
        free_gpu()
        reset_gpu_peak()
        with full_disk(self.dir.path):
            yield
            state = self.dir.read_state()
            seconds = state.get("times", {}).get(name, 0) + time.monotonic() - start
            self.dir.update(times={name: round(seconds, 2)})
            peak = gpu_peak()
            if peak is not None:
                self.dir.update(peak_gib={name: round(peak / 2**30, 2)})
