"""The model card: what a reader needs to trust and to use the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from ragtune.data.prompt import PromptBuilder
from ragtune.data.read import locate
from ragtune.errors import UsageError
from ragtune.files import writing
from ragtune.recipe import Recipe
from ragtune.reporting.wording import environment


def write_card(
    folder: Path,
    *,
    recipe: Recipe,
    state: dict[str, Any],
    data_report: dict[str, Any],
    comparison: dict[str, Any] | None,
    base_model: str | None,
    repo: str,
) -> None:
    """Write README.md, the Hub's model card, into a folder that will be pushed.

    A path of this machine is never written as the base model or the data.
    """
    merged = recipe.publish.format == "merged"
    metadata: dict[str, Any] = {
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["ragtune", "rag", "lora", "question-answering"],
    }
    if base_model:
        metadata["base_model"] = base_model
        metadata["base_model_relation"] = "finetune" if merged else "adapter"
    text = (
        environment(html=False)
        .get_template("card.md.j2")
        .render(
            metadata=yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).strip(),
            recipe=recipe,
            recipe_yaml=yaml.safe_dump(
                _public(recipe, base_model), sort_keys=False, allow_unicode=True
            ).strip(),
            prompt=PromptBuilder.of(recipe.prompt).template,
            name=repo.rpartition("/")[2],
            repo=repo,
            merged=merged,
            base_model=base_model,
            data=data_report,
            fingerprints=state.get("data", {}),
            merge=state.get("merge") if merged else None,
            comparison=comparison,
            versions=json.dumps(state.get("versions", {})),
        )
    )
    with writing(folder / "README.md") as file:
        file.write(text.rstrip() + "\n")


def _public(recipe: Recipe, base_model: str | None) -> dict[str, Any]:
    """The recipe without what it says of this machine: of a path, only the file's name is left."""
    public = recipe.model_dump(mode="json", exclude={"publish"})
    if not recipe.model.id.startswith("package:"):
        public["model"]["id"] = base_model or "(a local model)"
    for split in ("train", "eval"):
        source = public["data"][split]
        if source and not source.startswith("sample:") and not _is_hub_dataset(source):
            public["data"][split] = Path(source).name
    return public


def _is_hub_dataset(source: str) -> bool:
    try:
        return locate(source) is None
    except UsageError:  # a file that is gone
        return False
