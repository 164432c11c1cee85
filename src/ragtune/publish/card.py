"""The model card: what a reader needs to trust and to use the model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ragtune.base.files import read_json
from ragtune.building.figures import Built, corpora
from ragtune.data.chat import Form
from ragtune.data.counts import SplitName
from ragtune.data.prepare import DataReport
from ragtune.data.prompt import PromptBuilder
from ragtune.model.safety import ADAPTER
from ragtune.model.source import ModelSource
from ragtune.publish.hub import TAG
from ragtune.publish.licences import Licence, Origin
from ragtune.publish.settings import public_recipe
from ragtune.recipe.schema import Recipe
from ragtune.recipe.yaml import dump_yaml
from ragtune.reporting.summary import Summary
from ragtune.reporting.wording import METRICS, rendered
from ragtune.scoring.compare import Comparison
from ragtune.scoring.reasked import Reasked
from ragtune.store.proof import read_proof

_EXAMPLES = {
    "en": (
        "What is the capital of Japan?",
        [
            ("Tokyo", "Tokyo is the capital of Japan and its largest city."),
            ("Kyoto", "Kyoto was the seat of the emperor until 1869."),
        ],
    ),
    "ja": (
        "日本の首都はどこですか？",
        [
            ("東京都", "東京都は日本の首都であり、最も人口の多い都市である。"),
            ("京都市", "京都市には1869年まで天皇の御所があった。"),
        ],
    ),
}
_METRIC_TYPES = {"token_f1": "f1", "char_f1": "f1", "rouge_l": "rouge", "contains": "accuracy"}
"""The Hub's name of a metric that is no exact match."""
_LIBRARIES = {"merged": "transformers", "adapter": "peft", "gguf": None}
"""What loads it; the Hub knows by itself what loads GGUF."""


@dataclass(frozen=True)
class Card:
    """Everything that the model card says.

    `repo` is owner/name, where the model goes; `base_model` the base's Hub id, None if only this machine
    has it; `comparison` is None if there are not both evaluations, `licence`, the base's, if it is not
    known. `origins` are those of `train` and `eval`, `builds` what `ragtune build` found of those that it
    wrote.
    """

    repo: str
    recipe: Recipe
    summary: Summary
    data: DataReport
    comparison: Comparison | None
    base_model: str | None
    licence: Licence | None
    origins: Mapping[SplitName, Origin]
    builds: Mapping[SplitName, Built] = field(default_factory=dict)

    @property
    def merged(self) -> bool:
        """Whether the merged model is published, as it is or as GGUF, and not the adapter."""
        return self.recipe.publish.format != "adapter"

    @property
    def as_gguf(self) -> bool:
        """Whether the merged model is published as GGUF."""
        return self.recipe.publish.format == "gguf"

    @property
    def gguf(self) -> Reasked | None:
        """What llama.cpp's answers are against the run's own, if GGUF is published and was asked."""
        return self.summary.get("gguf") if self.as_gguf else None

    @property
    def merge(self) -> Reasked | None:
        """What the merged model's answers are, if it is published and was asked."""
        return self.summary.get("merge") if self.merged else None

    @property
    def name(self) -> str:
        return self.repo.rpartition("/")[2]


def model_card(card: Card) -> str:
    """The text of README.md, the Hub's model card, for a folder that will be pushed.

    A path of this machine is never written as the base model or the data.
    """
    text = rendered(
        "card.md.j2",
        card=card,
        **vars(card),
        metadata=_metadata(card),
        corpora=corpora(card.builds),
        recipe_yaml=dump_yaml(public_recipe(card.recipe, card.base_model, card.origins)).strip(),
        code=_example(card),
        fingerprints=card.summary.get("data", {}),
        versions=json.dumps(card.summary.get("versions", {})),
    )
    return text.rstrip() + "\n"


def base_model_name(adapter: Path, source: ModelSource | None) -> str | None:
    """What people call the base; None for a model that only this machine has.

    The adapter in this folder knows it from when it was trained: a folder that has been moved since would
    look like a Hub id. So does the proof of a whole model. Before there is either, its source does.
    """
    config = adapter / ADAPTER
    if config.exists():
        name = read_json(config).get("base_model_name_or_path")
        return None if name is None else str(name)
    if (proof := read_proof(adapter)) is not None and "base" in proof.facts:
        return proof.facts["base"]
    return source.name if source else None


def _metadata(card: Card) -> str:
    """The card's YAML, in the form that the Hub checks."""
    more: dict[str, Any] = {}
    if card.base_model:
        more["base_model_relation"] = "finetune" if card.merged else "adapter"
    if card.licence:
        more["license"] = card.licence.id
        if card.licence.id == "other":
            more |= {"license_name": card.licence.name, "license_link": card.licence.link}
    results = _eval_results(card)
    data = ModelCardData(
        library_name=_LIBRARIES[card.recipe.publish.format],
        pipeline_tag="text-generation",
        tags=[
            TAG,
            "rag",
            *["lora"] * (not card.recipe.full),
            "question-answering",
            *["gguf"] * card.as_gguf,
        ],
        base_model=card.base_model,
        datasets=sorted({o.hub for o in card.origins.values() if o.hub}) or None,
        model_name=card.name if results else None,
        eval_results=results or None,
        **more,
    )
    return str(data.to_yaml()).strip()


def _eval_results(card: Card) -> list[EvalResult]:
    """The figures of what is published, in percent, for the Hub's model-index.

    A merged model that was asked all questions has its own, and a GGUF file those of llama.cpp's answers; else
    they are the adapter's.
    """
    figures: Mapping[str, Any]
    whole = card.merge if card.merge and card.merge["asked"] == card.merge["of"] else None
    again = next((one for one in (card.gguf, whole) if one and one["again"]), None)
    if again:
        n, figures = again["n"], again["again"]
    elif card.comparison:
        n, figures = card.comparison["n"], card.comparison["intervals"]["after"]
    else:
        return []
    origin, evaluate = card.origins["eval"], card.recipe.evaluate
    sha256 = card.summary.get("data", {}).get("eval")
    results = []
    asked = [m for m in figures if m in METRICS and figures[m]]
    for metric in sorted(asked, key=lambda m: m != evaluate.metric):
        value, low, high = (round(100 * figures[metric][k], 2) for k in ("value", "low", "high"))
        results.append(
            EvalResult(
                task_type="question-answering",
                task_name="Question answering from retrieved passages",
                dataset_type=origin.hub or origin.name,
                dataset_name=origin.name,
                dataset_split=origin.split,
                dataset_args={"sha256": sha256} if sha256 else None,
                metric_type=_METRIC_TYPES.get(metric, "exact_match"),
                metric_name=f"{metric} in %, 95 % interval {low:.1f} … {high:.1f}",
                metric_value=value,
                metric_args={
                    "n": n,
                    "low": low,
                    "high": high,
                    "confidence": 0.95,
                    "answers": evaluate.answers,
                },
            )
        )
    return results


def _example(card: Card) -> str:
    """Python that loads what is published and asks it, with the prompt that it was measured with."""
    builder = PromptBuilder.of(card.recipe.prompt)
    words = builder.template + (builder.system or "")
    language = "ja" if re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", words) else "en"
    question, passages = _EXAMPLES[language]
    return rendered(
        "example.py.j2",
        card=card,
        repo=json.dumps(card.repo),
        base=json.dumps(card.base_model or "PATH-OF-THE-BASE"),
        # The class of transformers that loads the whole model; older runs had only this one.
        auto_class=card.summary.get("train", {}).get("auto_class", "AutoModelForCausalLM"),
        builder=builder,
        form=Form(**card.data.get("messages", {})),
        question=question,
        passages=passages[: card.recipe.data.max_passages],
    ).strip()
