"""Questions that are asked while a model is trained: which, how, and what is logged of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ragtune.answering.engine import encode_prompts
from ragtune.answering.local import Local, TooLittleMemoryError
from ragtune.answering.orders import answer_in_orders
from ragtune.base.errors import is_out_of_memory
from ragtune.base.screen.console import warn
from ragtune.base.stopping import Stopped, interrupted
from ragtune.base.text import duration
from ragtune.data.example import Example
from ragtune.data.select import drawn
from ragtune.model.fast.lora import drop_waiting
from ragtune.model.plan import plan_answers
from ragtune.model.wrapping import Tuned
from ragtune.scoring.metrics import log_key, score, short_name
from ragtune.scoring.statistics import figures
from ragtune.stages.answer import tell_way
from ragtune.stages.context import Context
from ragtune.stages.order import proof_of, stage_named
from ragtune.store.proof import fingerprint
from ragtune.training.questions import Questions


def asking(context: Context, work: Path) -> Questions | None:
    """The questions of `train.eval_answers`; None where none are to be asked.

    Args:
        context: the run.
        work: where the training's unfinished work lies: answers are kept there, so that a training that
            goes on asks nothing twice.
    """
    train = context.recipe.train
    if train.eval_answers is None or train.eval_every is None:
        return None
    asked = drawn(context.selected, train.eval_answers, f"eval_answers:{context.recipe.seed}")
    lengths = [len(ids) for _, ids in encode_prompts(context.encoder, asked)]
    batch, cache = plan_answers(
        context.recipe, context.hardware, context.config, lengths,
        dequantized=context.plan.dequantized, shares=context.plan.shares, training=True,
    )  # fmt: skip
    asker = _Asker(context, asked, work / f"answers-{_kept_for(context)}", batch, cache)
    times, metric = len(context.steps) // train.eval_every, context.recipe.evaluate.metric
    return Questions(
        len(asked), log_key(metric), short_name(metric), asker, times,
        cost=_cost(context, len(asked) * times),
    )  # fmt: skip


def _cost(context: Context, answers: int) -> str:
    """What so many answers take, by what those before tuning took here."""
    before = None if context.remote else proof_of(context.folder, "before")
    if before is None or "taken_from" in before.facts or "before" not in before.times:
        return ""
    seconds = answers * before.times["before"] / len(context.asked)
    return f": about {duration(seconds)} by what the answers before tuning took"


def _kept_for(context: Context) -> str:
    """A name for what answers depend on beside the training: questions, their room, and how they are chosen."""
    proof = proof_of(context.folder, "questions")
    assert proof is not None  # the training needs it
    digest = proof.digest(stage_named("questions").content)
    evaluate = context.recipe.evaluate
    chosen = ["copy"] * evaluate.copy + [f"orders {evaluate.orders}"] * (evaluate.orders > 1)
    chosen += ["answers alone"] * (evaluate.refuse_below is not None)
    return fingerprint([digest, evaluate.max_new_tokens, *chosen])[:10]


@dataclass
class _Asker:
    """Asks as the evaluation does, with the model as it is at a step."""

    context: Context
    asked: Sequence[Example]
    kept: Path
    batch: int
    cache_tokens: int | None
    engine: Local | None = None
    """It knows from the first time how the model is asked."""
    given_up: bool = False

    def __call__(self, model: Tuned, step: int) -> dict[str, float]:
        """What is logged of the answers; nothing where a stop came, or where there is no room for one.

        Raises:
            RagtuneError: the model's cache is wrong.
        """
        if self.given_up:
            return {}
        recipe = self.context.recipe
        if self.engine is None:
            longest = recipe.evaluate.max_new_tokens
            self.engine = Local(model, longest, self.batch, self.cache_tokens)
            tell_way(self.context, self.engine)
        try:
            found = answer_in_orders(
                self.engine,
                self.context.encoder,
                self.asked,
                self._partial(step),
                f"asking (step {step})",
            )
        except Stopped:
            if interrupted():
                raise
            return {}  # the training stops by itself, with a checkpoint; what is answered is kept
        except (TooLittleMemoryError, RuntimeError) as error:
            if not (isinstance(error, TooLittleMemoryError) or is_out_of_memory(error)):
                raise
            drop_waiting(model)
            self.given_up = True
            warn(
                f"Step {step}: beside the training there is too little memory to answer a question. It goes "
                "on without; train.eval_answers=null asks none."
            )
            return {}
        metric, key = recipe.evaluate.metric, log_key(recipe.evaluate.metric)
        values = score(recipe, self.asked, [one.prediction for one in found], (metric,))
        figure = figures(values, recipe.seed)[metric]
        return {
            key: figure["value"],
            f"{key}_low": figure["low"],
            f"{key}_high": figure["high"],
            "eval_questions": len(self.asked),
        }

    def _partial(self, step: int) -> Path:
        self.kept.mkdir(parents=True, exist_ok=True)
        return self.kept / f"{step}.jsonl"
