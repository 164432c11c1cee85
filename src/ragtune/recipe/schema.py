"""The recipe: the whole configuration of a run, typed.

Everything a run needs is in it; the defaults below are the only ones. `ragtune schema` prints it as
a JSON schema and `ragtune init` as a commented file to start from, both made from the fields here.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from ragtune.recipe.data import Data, Prompt
from ragtune.recipe.lora import Lora
from ragtune.recipe.names import Endpoint, Name
from ragtune.recipe.section import Section

Metric = Literal[
    "strict_em", "squad_em", "aio_em", "jsquad_em", "token_f1", "char_f1", "rouge_l", "contains"
]  # fmt: skip


class Model(Section):
    """Which model is tuned, and how its weights are held."""

    id: str = Field(
        min_length=1,
        description="Hub id, folder, GGUF file, or package:NAME (a Python package with a GGUF)",
    )
    revision: str | None = Field(None, description="branch, tag or commit on the Hub")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="auto: bfloat16 or float16 by what the GPU can do; without one float32, or bfloat16 "
        "where the CPU is measured to compute clearly faster in it",
    )
    quantization: Literal["nf4"] | None = Field(
        None, description="nf4: frozen weights in 4 bits (QLoRA), on CUDA with bitsandbytes"
    )
    trust_remote_code: bool = Field(
        False,
        description="run the Python code that the model brings, with all your rights here; read it first",
    )


class Train(Section):
    """How the adapter is trained."""

    steps: int | None = Field(None, ge=1, description="optimizer steps; give this or epochs")
    epochs: float | None = Field(None, gt=0, description="passes over the training examples")
    batch_size: int = Field(16, ge=1, description="samples an optimizer step, on any hardware")
    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate")
    lora_plus: float | None = Field(
        None,
        ge=1,
        description="LoRA+: how often that rate for the adapter's B matrices (adamw alone)",
    )
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        "cosine", description="how the learning rate falls"
    )
    warmup: float = Field(0.1, ge=0, description="below 1: share of the steps; else: steps")
    products: Literal["fp8"] | None = Field(
        None,
        description="fp8: products of the frozen weights in 8 bits while training, on NVIDIA GPUs from "
        "compute capability 8.9; null: in the model's dtype",
    )
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = Field(
        "adamw", description="the 8-bit ones need CUDA and bitsandbytes"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    max_grad_norm: float = Field(0.3, gt=0, description="gradient clipping")
    average_last: float = Field(
        0.0, ge=0, lt=1, description="share of the steps, the last ones, whose weights are averaged"
    )
    reorder_passages: bool = Field(
        False, description="show a training example's passages in another order in each epoch"
    )
    preference: str | None = Field(
        None,
        description="a model's answers to the training examples, records of qid and prediction: the wrong ones "
        "are rejected for the trained answers, by DPO",
    )
    preference_beta: float = Field(
        0.1, gt=0, description="DPO's beta: how near to the model before this training it stays"
    )
    samples_per_row: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="samples packed into one row; auto: by the memory there is"
    )
    recompute: Literal["auto"] | bool = Field(
        "auto", description="recompute activations to save memory (gradient checkpointing)"
    )
    log_every: int = Field(10, ge=1, description="steps between lines of the loss table")
    eval_every: int | None = Field(
        None, ge=1, description="steps between looks at the completion loss on the evaluation set"
    )
    eval_answers: int | None = Field(
        None,
        ge=1,
        description="evaluation questions that are asked at each of these looks (needs eval_every)",
    )
    save_every: int = Field(50, ge=1, description="steps between checkpoints")
    keep: Literal["last", "best"] = Field(
        "last",
        description="best: the checkpoint with the lowest evaluation loss (needs eval_every)",
    )
    keep_checkpoints: int = Field(2, ge=1, description="checkpoints kept in work/")
    report_to: list[str] = Field(
        [], description="trackers of transformers, such as tensorboard or wandb"
    )
    arguments: dict[str, JsonValue] = Field(
        {},
        description="more of transformers' TrainingArguments, such as {adam_beta2: 0.95}: those that "
        "ragtune doesn't set itself",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Train:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps or epochs")
        if self.keep == "best" and self.eval_every is None:
            raise ValueError("keep: best needs eval_every")
        if self.keep == "best" and self.average_last:
            raise ValueError("average_last averages what keep: best would choose from: give one")
        if self.lora_plus is not None and self.optimizer != "adamw":
            raise ValueError("lora_plus needs optimizer: adamw")
        if self.eval_answers is not None and self.eval_every is None:
            raise ValueError("eval_answers needs eval_every, the steps between two askings")
        return self


class Evaluate(Section):
    """How the answers before and after tuning are made and counted."""

    limit: int | None = Field(None, ge=1, description="ask only the first N of the questions")
    questions: Literal["selected", "all"] = Field(
        "selected", description="all: also those without a positive among the shown passages"
    )
    max_new_tokens: int = Field(32, ge=1, description="longest answer, in tokens")
    copy: bool = Field(  # type: ignore[assignment]  # pydantic's own method is an old one
        False, description="answers are copied: a span of one shown passage, or data.refusal"
    )
    refuse_below: float | None = Field(
        None,
        ge=0,
        le=1,
        description="the model only answers, and data.refusal takes the place of a less probable answer",
    )
    orders: int = Field(
        1,
        ge=1,
        description="ask each question with its passages in so many orders; the most probable answer is given",
    )
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="questions answered at a time"
    )
    products: Literal["fp8"] | None = Field(
        None, description="fp8: as train.products, for answers; null: in the model's dtype"
    )
    metric: Metric = Field(
        "strict_em", description="the headline: what `fixed` and `broken` are counted by"
    )
    answers: Literal["first", "all", "all+alternatives"] = Field(
        "all",
        description="which answers are accepted: the first alone (as in the notebook), all, or also "
        "those of data.alternatives",
    )
    engine: Literal["local", "openai"] = Field(
        "local", description="openai: ask a server with OpenAI's interface (vLLM, say)"
    )
    endpoint: Endpoint | Annotated[list[Endpoint], Field(min_length=1)] | None = Field(
        None,
        description="the server's address, such as http://localhost:8000/v1; of several that serve the "
        "same a list; they share the questions",
    )
    served_before: str | None = Field(
        None, description="the name under which the server has the model before tuning"
    )
    served_after: str | None = Field(None, description="the same after tuning")
    concurrency: int = Field(8, ge=1, description="questions that a server is asked at a time")
    general: list[Annotated[str, Field(min_length=1)]] = Field(
        [],
        description="tasks of lm-evaluation-harness, asked before and after tuning: what was forgotten",
    )
    general_limit: int | None = Field(
        200, ge=1, description="ask only the first N documents of each of these tasks"
    )
    general_folder: str | None = Field(
        None, min_length=1, description="a folder of your own such tasks (their code is run)"
    )

    @property
    def confined(self) -> bool:
        """Whether an answer isn't always what the model would write by itself."""
        return self.copy or self.refuse_below is not None

    @property
    def endpoints(self) -> list[str]:
        """The servers' addresses."""
        if self.endpoint is None:
            return []
        return [self.endpoint] if isinstance(self.endpoint, str) else self.endpoint

    @model_validator(mode="after")
    def _reachable(self) -> Evaluate:
        if self.engine == "openai" and self.endpoint is None:
            raise ValueError("engine: openai needs endpoint, the server's address")
        if len({one.rstrip("/") for one in self.endpoints}) < len(self.endpoints):
            raise ValueError("endpoint names a server twice")
        if self.engine != "local" and self.confined:
            raise ValueError("copy and refuse_below need engine: local: a server writes freely")
        if self.engine != "local" and self.general:
            raise ValueError("general needs engine: local: it reads probabilities of any text")
        if len({*self.general}) < len(self.general):
            raise ValueError("general names a task twice")
        return self


class Publish(Section):
    """What is made for others, and where it goes."""

    format: Literal["merged", "adapter", "gguf"] = Field(
        "merged",
        description="merged: a plain bf16 model; adapter: only what was trained; gguf: the merged model "
        "for llama.cpp and Ollama",
    )
    repo: str | None = Field(
        None,
        pattern=r"^[\w.-]{1,96}/[\w.-]{1,96}$",
        description="owner/name on the Hub; nothing is pushed without it",
    )
    private: bool = Field(True, description="whether the repository is private when it is made")


class Recipe(Section):
    """The whole configuration of a run."""

    format: Literal[1] = Field(1, description="version of this file's format")
    name: Name = Field(description="names the run directory: runs/NAME (letters, digits, . _ -)")
    seed: int = Field(42, ge=0, lt=2**32, description="seeds everything that is drawn")
    devices: Literal["all"] | Annotated[int, Field(ge=1)] | list[Annotated[int, Field(ge=0)]] = (
        Field(
            "all",
            description="GPUs of this machine that share the work: all, how many, or a list of their numbers",
        )
    )
    tuning: Literal["lora", "full"] = Field(
        "lora",
        description="lora: an adapter is trained; full: all weights are, in float32, and the lora section "
        "is not used",
    )
    model: Model
    data: Data
    prompt: Prompt
    lora: Lora = Lora()
    train: Train
    evaluate: Evaluate = Evaluate()
    publish: Publish = Publish()

    @property
    def full(self) -> bool:
        """Whether all weights are trained, and no adapter."""
        return self.tuning == "full"

    @property
    def in_8_bits(self) -> str | None:
        """The key that asks for products in 8 bits (fp8); None if none does."""
        asked = {"train.products": self.train.products, "evaluate.products": self.evaluate.products}
        return next((key for key, products in asked.items() if products), None)

    @model_validator(mode="after")
    def _answerable(self) -> Recipe:
        if self.evaluate.refuse_below is not None and self.data.refusal is None:
            raise ValueError("evaluate.refuse_below needs data.refusal, which is answered then")
        if self.prompt.citations and re.search(r"\[\d+\][\s.。]*$", self.data.refusal or ""):
            raise ValueError(
                "data.refusal ends in a number in brackets, which prompt.citations takes for a citation"
            )
        if self.evaluate.copy and self.prompt.citations:
            raise ValueError(
                "evaluate.copy names each answer's passage, and can't write the numbers of prompt.citations"
            )
        if self.evaluate.copy and self.prompt.quote:
            raise ValueError(
                "evaluate.copy can only write one span, and no answer behind the quote of prompt.quote"
            )
        if (orders := self.evaluate.orders) > self.data.max_passages:
            raise ValueError(
                f"evaluate.orders: {orders} needs as many passages, and data.max_passages is "
                f"{self.data.max_passages}"
            )
        if orders > 1 and (self.prompt.citations or self.prompt.quote):
            raise ValueError(
                "evaluate.orders counts answers of one text, which prompt.citations and prompt.quote make "
                "differ: each order has other numbers, and may have another quote"
            )
        return self

    @model_validator(mode="after")
    def _tunable(self) -> Recipe:
        if self.full and self.model.quantization is not None:
            raise ValueError(
                "tuning: full trains the weights that model.quantization: nf4 packs: set the one to lora, or "
                "the other to null"
            )
        if self.full and self.in_8_bits:
            raise ValueError(
                f"tuning: full trains the weights that {self.in_8_bits}: fp8 needs frozen: set the one to "
                "lora, or the other to null"
            )
        if self.full and self.train.lora_plus is not None:
            raise ValueError("tuning: full has no B matrices: leave train.lora_plus out")
        if self.lora.dora and self.lora.experts:
            raise ValueError("lora.dora is for dense models: PEFT has none for lora.experts")
        if self.lora.dora and self.in_8_bits:
            raise ValueError(
                f"lora.dora reads the weights' own numbers, which {self.in_8_bits}: fp8 rounds: leave one out"
            )
        if self.lora.init and not self.full:
            self._require_pissa()
        if self.full and self.publish.format == "adapter":
            raise ValueError("tuning: full makes no adapter: set publish.format to merged or gguf")
        return self

    def _require_pissa(self) -> None:
        reasons = {
            "model.quantization: nf4": (self.model.quantization, "packs the weights it decomposes"),
            f"{self.in_8_bits}: fp8": (self.in_8_bits, "packs the weights it decomposes"),
            "lora.dora": (self.lora.dora, "decomposes the same weights otherwise"),
            "lora.experts": (self.lora.experts, "adapts tensors that are no matrices"),
            "train.weight_decay": (self.train.weight_decay, "would shrink what stays as it began"),
            "an 8-bit optimizer": (
                self.train.optimizer != "adamw", "may change what stays as it began"
            ),
        }  # fmt: skip
        for key, (is_set, why) in reasons.items():
            if is_set:
                raise ValueError(f"lora.init: pissa doesn't go with {key}, which {why}")


CHANGES_NOTHING = (
    "format", "name", "devices", "publish.", "train.eval_answers", "train.keep_checkpoints", "train.log_every",
    "train.report_to", "evaluate.metric", "evaluate.answers", "evaluate.endpoint", "evaluate.concurrency",
    "evaluate.general",
)  # fmt: skip
"""Keys, or beginnings of keys, that change no model and no answer: they say what is shown, kept or sent,
how answers are counted, where a server is, and what else is asked."""
