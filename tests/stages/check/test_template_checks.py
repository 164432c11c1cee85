"""What a run makes of a chat template: what check says, the date, what a server is sent, what is saved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import AutoTokenizer

import ragtune
from ragtune.answering.local import Local
from ragtune.answering.prediction import Prediction
from ragtune.data.encode import Encoder
from ragtune.reporting import terminal
from ragtune.stages.check import findings
from ragtune.stages.check.findings import Finding
from ragtune.stages.context import Context
from ragtune.stages.road import make, working
from ragtune.stages.views import prompt_texts
from tests.answering.test_server import Chat, chat, pauses  # noqa: F401 - fixtures
from tests.conftest import CHATML
from tests.data.chat_templates import QWEN3
from tests.test_served import served_recipe  # noqa: F401 - a fixture

DATED = "{{ 'Today: ' + strftime_now('%d %b %Y') + '\\n' }}" + CHATML
NO_SYSTEM = CHATML.replace("messages %}", "messages if m['role'] != 'system' %}")


@pytest.fixture
def with_template(
    tiny_folder: Path, tiny_recipe: dict[str, Any], tmp_path: Path
) -> Callable[[str], dict[str, Any]]:
    """The tiny recipe for a model with another chat template."""

    def make(template: str) -> dict[str, Any]:
        folder = shutil.copytree(tiny_folder, tmp_path / "model")
        (folder / "chat_template.jinja").write_text(template, "utf-8")
        return {**tiny_recipe, "model": {**tiny_recipe["model"], "id": str(folder)}}

    return make


def of_template(recipe: dict[str, Any], run: Path, *changes: str) -> list[tuple[str, str, str]]:
    page = ragtune.check(recipe, *changes, run_dir=run)
    return [(f["level"], f["message"], f["advice"]) for f in page if f["name"] == "template"]


OPENING = (
    "its generation prompt ends with “<|im_start|>assistant⏎”, a finished turn has "
    "“<|im_start|>assistant⏎<think>⏎⏎</think>⏎⏎” there, which is trained and asked; the template that "
    "is saved asks so, too"
)


def test_what_stands_before_the_answer_is_shown(
    with_template: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    recipe = with_template(QWEN3)
    first, second = of_template(recipe, tmp_path / "run")
    assert first[1].startswith("a turn ends with <|im_end|>; the model reads")
    assert second == ("ok", OPENING, "")
    page = ragtune.check(recipe, run_dir=tmp_path / "run")
    (mask,) = (f for f in page if f["name"] == "mask")
    read, opening, trained = mask["excerpt"]
    assert read[0] == "prompt"
    assert read[1].endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert opening == ("opening", "<think>\n\n</think>\n\n")
    assert trained == ("trained", "red<|im_end|>")
    # With the argument the model's own template asks so.
    changed = of_template(
        recipe, tmp_path / "run", "prompt.template_arguments.enable_thinking=false"
    )
    assert len(changed) == 1


def test_the_choice_is_in_colour(
    with_template: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Context(with_template(QWEN3), [], tmp_path / "run")
    with working(run):
        make(run, "questions")
    screen = Console(record=True, force_terminal=True, width=1000, highlight=False)
    for module in (findings, terminal):
        monkeypatch.setattr(module, "console", screen)
    monkeypatch.setattr("ragtune.base.screen.console.console", screen)
    opening, trained = "\x1b[30;43m", "\x1b[1;30;42m"
    findings.show([Finding(**one) for one in ragtune.check(run.recipe, run_dir=tmp_path / "other")])
    shown = screen.export_text(styles=True)
    assert f"{opening}<think>⏎⏎</think>⏎⏎\x1b[0m" in shown
    assert f"{trained}red<|im_end|>\x1b[0m" in shown
    terminal.show_examples(run.encoder, run.training_examples[:1])
    shown = screen.export_text(styles=True)
    assert f"The chat template: {OPENING}." in shown
    coloured = shown[shown.rindex("trained tokens:") :]
    pieces = [part.split("\x1b[0m")[0] for part in coloured.split(opening)[1:]]
    assert "".join(pieces) == "<think>⏎⏎</think>⏎⏎"
    assert f"{trained}<|im_end|>\x1b[0m" in coloured


def test_a_server_with_the_model_s_own_template_would_ask_otherwise(
    served_recipe: dict[str, Any],  # noqa: F811
    with_template: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    chat: Chat,  # noqa: F811
) -> None:
    recipe = {**served_recipe, "model": with_template(QWEN3)["model"]}
    level, message, advice = of_template(recipe, tmp_path / "run")[1]
    assert (level, message) == ("warning", OPENING)
    assert advice == (
        "A server that renders the model's own template asks otherwise than is trained. "
        "Set prompt.template_arguments: {enable_thinking: false}: then it doesn't."
    )
    argument = "prompt.template_arguments.enable_thinking=false"
    assert len(of_template(recipe, tmp_path / "run", argument)) == 1
    ragtune.evaluate(recipe, argument, run_dir=tmp_path / "run")
    assert {json.dumps(body["chat_template_kwargs"]) for body in chat.bodies} == {
        '{"enable_thinking": false}'
    }


def test_a_system_message_without_a_place_is_moved_for_a_server_too(
    served_recipe: dict[str, Any],  # noqa: F811
    with_template: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    chat: Chat,  # noqa: F811
) -> None:
    recipe = {**served_recipe, "model": with_template(NO_SYSTEM)["model"]}
    recipe["prompt"]["system"] = "Be brief."
    assert (
        "ok",
        "it has no place for a system message: prompt.system stands at the head of the user's text",
        "",
    ) in of_template(recipe, tmp_path / "run")
    ragtune.evaluate(recipe, run_dir=tmp_path / "run")
    (message,) = chat.bodies[0]["messages"]
    assert message["role"] == "user"
    assert message["content"].startswith("Be brief.\n\nAnswer the question")
    assert "chat_template_kwargs" not in chat.bodies[0]
    report = json.loads((tmp_path / "run/data/report.json").read_text("utf-8"))
    assert report["messages"] == {"parts": False, "system_in_user": True}


def test_prepare_says_that_the_system_message_was_moved(
    with_template: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = with_template(NO_SYSTEM)
    recipe["prompt"]["system"] = "Be brief."
    ragtune.prepare(recipe, run_dir=tmp_path / "run")
    said = " ".join(capsys.readouterr().out.split())
    assert "has no place for a system message: prompt.system stands at the head" in said


def test_a_stop_text_that_is_no_token_is_a_warning(
    with_template: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    recipe = with_template(CHATML.replace("<|im_end|>", "<|stop|>"))
    ((level, message, advice),) = of_template(recipe, tmp_path / "run")
    assert level == "warning"
    assert message.startswith(
        "it ends a turn with '<|stop|>', which is no token of this tokenizer: <|im_end|> (eos) ends an "
        "answer in its place;"
    )
    assert advice == "Is it the template of this tokenizer? Else set prompt.chat_template."


# One date a run.


def on(monkeypatch: pytest.MonkeyPatch, day: date) -> None:
    monkeypatch.setattr("ragtune.stages.context.today", lambda: day)


def prompts(run: Path) -> set[str]:
    texts = prompt_texts(Context(run))
    assert texts
    return {text.split("\n")[0] for text in texts.values()}


def test_one_date_a_run(
    with_template: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, run = with_template(DATED), tmp_path / "run"
    on(monkeypatch, date(2025, 7, 26))
    words = "it writes the date; this run's is {}, in the template that is saved, too"
    assert ("ok", words.format("2025-07-26"), "") in of_template(recipe, run)
    assert not run.exists()
    ragtune.train(recipe, run_dir=run)
    on(monkeypatch, date(2025, 7, 27))
    assert ("ok", words.format("2025-07-26"), "") in of_template(recipe, run)
    assert ("ok", words.format("2025-07-27"), "") in of_template(recipe, tmp_path / "other")
    ragtune.run(recipe, run_dir=run)
    assert json.loads((run / "run.json").read_text("utf-8"))["date"] == "2025-07-26"
    assert prompts(run) == {"Today: 26 Jul 2025"}
    assert "Today: 26 Jul 2025" in (run / "report.html").read_text("utf-8")
    for folder in ("adapter", "merged"):
        saved = AutoTokenizer.from_pretrained(run / folder)
        turn = [{"role": "user", "content": "Hi"}]
        text = saved.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        assert text.startswith("Today: 26 Jul 2025\n<|im_start|>user")
    # The prompts in the report need no base model.
    shutil.rmtree(recipe["model"]["id"])
    assert prompts(run) == {"Today: 26 Jul 2025"}


def test_the_date_is_that_of_what_is_there(
    with_template: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, run = with_template(DATED), tmp_path / "run"
    on(monkeypatch, date(2025, 7, 26))
    ragtune.prepare(recipe, run_dir=run)
    on(monkeypatch, date(2025, 7, 28))

    def days() -> list[str]:
        files = ("run.json", "data/stage.json", "eval/eval/questions/stage.json")
        return [json.loads((run / file).read_text("utf-8"))["date"] for file in files]

    (run / "run.json").write_text("{}", "utf-8")
    shutil.rmtree(run / "data")
    ragtune.prepare(recipe, run_dir=run)
    assert days() == ["2025-07-26"] * 3
    shutil.rmtree(run / "data")
    shutil.rmtree(run / "eval")
    ragtune.prepare(recipe, run_dir=run)  # nothing is there that is of another day
    assert days() == ["2025-07-28"] * 3


# What is answered.


def test_predictions_have_nothing_of_what_the_template_writes_around_an_answer(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = ragtune.load_recipe(tiny_recipe)
    tokenizer = AutoTokenizer.from_pretrained(recipe.model.id)
    tokenizer.chat_template = CHATML.replace("m['content']", "m['content'] + '\\n'")
    one = Encoder(tokenizer, recipe, 1000)
    assert one.turn.closing == "\n"
    given = [
        Prediction("a", "Paris\n", [1], stopped=True),
        Prediction("b", "x", [2], stopped=False),
    ]
    monkeypatch.setattr(Local, "complete", lambda *_, **__: given)
    found = Local(None, 4, 1).answer(one, [], tmp_path / "x", "asking")
    assert [p.prediction for p in found] == ["Paris", "x"]
    assert [p.token_ids for p in found] == [[1], [2]]


# Where the template can't be mended, and where it can't be used.


def test_a_generation_prompt_that_cannot_be_mended_is_a_warning(
    with_template: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    asks = CHATML.replace("assistant\\n' }}", "assistant\\n<think>\\n' }}{% else %}{{ eos_token }}")
    level, message, advice = of_template(with_template(asks), tmp_path / "run")[1]
    assert level == "warning"
    assert message == (
        "its generation prompt ends with “<|im_start|>assistant⏎<think>⏎”, a finished turn has "
        "“<|im_start|>assistant⏎” there, which is trained and asked; the template that is saved asks "
        "otherwise"
    )
    assert advice == (
        "A server that renders the model's own template asks otherwise than is trained. "
        "Set prompt.chat_template to one that asks as it writes a finished turn."
    )


def test_a_template_that_drops_the_text_fails_the_check(
    with_template: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    recipe = with_template(CHATML.replace("m['content']", "m['text'] | default('')"))
    ((level, message, _),) = of_template(recipe, tmp_path / "run")
    assert level == "fail"
    assert message.startswith("The chat template drops the user's text: what is to be learnt")
