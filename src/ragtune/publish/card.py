"""The model card: what a reader needs to trust and to use the model."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml

from ragtune.data.chat import Form
from ragtune.data.prompt import PromptBuilder
from ragtune.publish.licences import Licence, Origin
from ragtune.recipe.schema import Recipe
from ragtune.reporting.wording import METRICS, environment

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

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
_METRIC_TYPES = {"token_f1": "f1", "char_f1": "f1", "contains": "accuracy"}
"""The Hub's name of a metric that is no exact match."""


def model_card(
    *,
    recipe: Recipe,
    state: dict[str, Any],
    data_report: dict[str, Any],
    comparison: dict[str, Any] | None,
    base_model: str | None,
    licence: Licence | None,
    origins: dict[str, Origin],
    repo: str,
) -> str:
    """The text of README.md, the Hub's model card, for a folder that will be pushed.

    A path of this machine is never written as the base model or the data.

    Args:
        recipe: the run's.
        state: run.json.
        data_report: data/report.json.
        comparison: comparison.json; None if there are not both evaluations.
        base_model: its Hub id; None if only this machine has it.
        licence: the base model's; None if it is not known.
        origins: of `train` and `eval`.
        repo: owner/name.
    """
    merged = recipe.publish.format == "merged"
    rescored = state.get("merge") if merged else None
    fingerprints = state.get("data", {})
    name = repo.rpartition("/")[2]
    text = (
        environment(html=False)
        .get_template("card.md.j2")
        .render(
            metadata=_metadata(
                recipe,
                base_model,
                licence,
                origins,
                _eval_results(recipe, rescored, comparison, origins["eval"], fingerprints),
                name,
            ),
            recipe=recipe,
            recipe_yaml=yaml.safe_dump(
                _public(recipe, base_model, origins), sort_keys=False, allow_unicode=True
            ).strip(),
            code=_example(recipe, data_report, base_model, repo, _auto_class(state)),
            name=name,
            merged=merged,
            base_model=base_model,
            licence=licence,
            origins=origins,
            data=data_report,
            fingerprints=fingerprints,
            merge=rescored,
            comparison=comparison,
            versions=json.dumps(state.get("versions", {})),
        )
    )
    return text.rstrip() + "\n"


def _metadata(
    recipe: Recipe,
    base_model: str | None,
    licence: Licence | None,
    origins: dict[str, Origin],
    results: list[EvalResult],
    name: str,
) -> str:
    """The card's YAML, in the form that the Hub checks."""
    from huggingface_hub import ModelCardData

    merged = recipe.publish.format == "merged"
    more: dict[str, Any] = {}
    if base_model:
        more["base_model_relation"] = "finetune" if merged else "adapter"
    if licence:
        more["license"] = licence.id
        if licence.id == "other":
            more |= {"license_name": licence.name, "license_link": licence.link}
    data = ModelCardData(
        library_name="transformers" if merged else "peft",
        pipeline_tag="text-generation",
        tags=["ragtune", "rag", "lora", "question-answering"],
        base_model=base_model,
        datasets=sorted({o.hub for o in origins.values() if o.hub}) or None,
        model_name=name if results else None,
        eval_results=results or None,
        **more,
    )
    return str(data.to_yaml()).strip()


def _eval_results(
    recipe: Recipe,
    rescored: dict[str, Any] | None,
    comparison: dict[str, Any] | None,
    origin: Origin,
    fingerprints: dict[str, str],
) -> list[EvalResult]:
    """The figures of what is published, in percent, for the Hub's model-index.

    A merged model has its own; they are the adapter's where it was not asked.
    """
    from huggingface_hub import EvalResult

    if rescored and rescored.get("intervals"):
        n, figures = rescored["n"], rescored["intervals"]
    elif comparison:
        n, figures = comparison["n"], comparison["intervals"]["after"]
    else:
        return []
    headline = recipe.evaluate.metric
    of_data = {"sha256": fingerprints["eval"]} if "eval" in fingerprints else None
    results = []
    asked = [m for m in figures if m in METRICS and figures[m]]
    for metric in sorted(asked, key=lambda m: m != headline):
        value, low, high = (round(100 * figures[metric][k], 2) for k in ("value", "low", "high"))
        results.append(
            EvalResult(
                task_type="question-answering",
                task_name="Question answering from retrieved passages",
                dataset_type=origin.hub or origin.name,
                dataset_name=origin.name,
                dataset_split=origin.split,
                dataset_args=of_data,
                metric_type=_METRIC_TYPES.get(metric, "exact_match"),
                metric_name=f"{metric} in %, 95 % interval {low:.1f} … {high:.1f}",
                metric_value=value,
                metric_args={
                    "n": n,
                    "low": low,
                    "high": high,
                    "confidence": 0.95,
                    "answers": recipe.evaluate.answers,
                },
            )
        )
    return results


def _auto_class(state: dict[str, Any]) -> str:
    """The class of transformers that loads the whole model; older runs had only this one."""
    return str(state.get("train", {}).get("auto_class", "AutoModelForCausalLM"))


def _example(
    recipe: Recipe, report: dict[str, Any], base_model: str | None, repo: str, auto_class: str
) -> str:
    """Python that loads what is published and asks it, with the prompt that it was measured with."""
    builder = PromptBuilder.of(recipe.prompt)
    form = Form(**report.get("messages", {}))
    words = builder.template + (builder.system or "")
    question, passages = _EXAMPLES[
        "ja" if re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", words) else "en"
    ]
    return (
        environment(html=False)
        .get_template("example.py.j2")
        .render(
            repo=json.dumps(repo),
            merged=recipe.publish.format == "merged",
            base_model=base_model,
            base=json.dumps(base_model or "PATH-OF-THE-BASE"),
            auto_class=auto_class,
            template=[repr(line) for line in builder.template.splitlines(keepends=True)],
            system=repr(builder.system) if builder.system else None,
            system_in_user=form.system_in_user,
            parts=form.parts,
            question=repr(question),
            passages=[
                {"title": repr(title), "text": repr(text)}
                for title, text in passages[: recipe.data.max_passages]
            ],
            max_passages=recipe.data.max_passages,
            max_new_tokens=recipe.evaluate.max_new_tokens,
            stop=repr(report["stop_token"]) if report.get("stop_token") else None,
        )
        .strip()
    )


def _public(recipe: Recipe, base_model: str | None, origins: dict[str, Origin]) -> dict[str, Any]:
    """The recipe without what it says of this machine: of a path, only the file's name is left."""
    served = {"endpoint", "served_before", "served_after"}
    public = recipe.model_dump(mode="json", exclude={"publish": True, "evaluate": served})
    if not recipe.model.id.startswith("package:"):
        public["model"]["id"] = base_model or "(a local model)"
    for split in ("train", "eval"):
        source = public["data"][split]
        if source and not source.startswith("sample:"):
            public["data"][split] = source if origins[split].hub else origins[split].name
    for name, section in public.items():
        # The prompt is text, its files are read when the recipe is: "/no_think" is no path.
        if isinstance(section, dict) and name != "prompt":
            section |= {key: _without_folder(value) for key, value in section.items()}
    return public


def _without_folder(value: Any) -> Any:
    """A value; only the last name of a path that starts at a root or at home."""
    if isinstance(value, list):
        return [_without_folder(inner) for inner in value]
    if isinstance(value, str) and re.match(r"[/~\\]|[A-Za-z]:[/\\]|file:", value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value
