"""A run whose questions a server answers; the server is a stand-in."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.answering.engine import encode_prompts
from ragtune.answering.prediction import partial_line, read_predictions
from ragtune.base.errors import UsageError
from ragtune.stages import weights
from ragtune.stages.context import Context
from ragtune.stages.order import stage_named, work_of
from ragtune.stages.road import make, working
from ragtune.stages.run import check
from tests.answering.chat import Gone
from tests.answering.test_server import KEY, Chat, chat, pauses  # noqa: F401 - fixtures


@pytest.fixture
def served_recipe(tiny_recipe: dict[str, Any], chat: Chat) -> dict[str, Any]:  # noqa: F811
    tiny_recipe["evaluate"] |= {
        "engine": "openai",
        "endpoint": chat.endpoint,
        "served_before": "base",
        "served_after": "tuned",
        "concurrency": 3,
    }
    return tiny_recipe


def test_no_model_is_loaded_and_the_messages_are_those_of_the_prompt(
    served_recipe: dict[str, Any],
    tmp_path: Path,
    chat: Chat,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    served_recipe["prompt"]["system"] = "Be brief."
    monkeypatch.setattr(weights, "load_model", lambda *_, **__: pytest.fail("a model is loaded"))
    metrics = ragtune.evaluate(served_recipe, run_dir=tmp_path / "run")
    assert (metrics["n"], metrics["asked"], metrics["stopped"]) == (10, 10, 10)
    assert metrics["new_tokens"] is None
    # Several are asked at once, and any of them comes first.
    bodies = {body["messages"][-1]["content"]: body for body in chat.bodies}
    (user,) = (said for said in bodies if "House 0 is red.\n\nA street has houses.\n---" in said)
    assert "Trees" not in user
    system, _ = bodies[user]["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    rows = [json.loads(x) for x in (tmp_path / "run/eval/eval/before/predictions.jsonl").open("rb")]
    assert [row["qid"] for row in rows] == [f"e{i}" for i in range(10)]
    ragtune.report(tmp_path / "run")
    assert chat.keys == {f"Bearer {KEY}"}
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
    assert KEY not in capsys.readouterr().out


def test_a_run_stops_until_the_tuned_model_is_served(
    served_recipe: dict[str, Any],
    tmp_path: Path,
    chat: Chat,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    served_recipe["lora"]["rank"] = 17
    with pytest.raises(UsageError, match=r"does not serve tuned .*it lists base") as error:
        ragtune.run(served_recipe, run_dir=run)
    assert (
        f"--enable-lora --max-lora-rank=32 --lora-modules=tuned={run}/adapter" in error.value.advice
    )
    assert f"ragtune merge {run}" in error.value.advice
    assert "The same command then goes on." in error.value.advice
    out = " ".join(capsys.readouterr().out.split())
    assert "answers; it lists base;" in out
    assert "chat template and stop token are its own" in out
    trained = (run / "adapter/adapter_model.safetensors").stat().st_mtime_ns
    # The advice can be followed: merging does not ask.
    assert ragtune.merge(run) is None
    assert (run / "merged/model.safetensors").exists()
    asked = len(chat.asked)
    chat.models = ["base", f"{run}/merged"]
    comparison = ragtune.run(run, f"evaluate.served_after={run}/merged")
    assert comparison["n"] == 10
    assert comparison["changed"] == 0
    assert (run / "adapter/adapter_model.safetensors").stat().st_mtime_ns == trained
    assert len(chat.asked) == asked + 10
    assert {body["model"] for body in chat.bodies[asked:]} == {f"{run}/merged"}


def test_a_name_that_is_not_set(served_recipe: dict[str, Any], tmp_path: Path) -> None:
    for which in ("before", "after"):
        with pytest.raises(UsageError, match=f"evaluate.served_{which} is not set"):
            check(Context(served_recipe, [f"evaluate.served_{which}=null"], tmp_path / "run"))
    with pytest.raises(UsageError, match=r"evaluate.served_before is not set"):
        ragtune.evaluate(served_recipe, "evaluate.served_before=null", run_dir=tmp_path / "run")


def test_a_check_without_a_server_fails_unless_the_first_answers_are_there(
    served_recipe: dict[str, Any], tmp_path: Path
) -> None:
    ragtune.evaluate(served_recipe, run_dir=tmp_path / "run")
    gone = Gone()
    away = f"evaluate.endpoint={gone.endpoint}"
    other = {
        f["level"] for f in server(ragtune.check(served_recipe, away, run_dir=tmp_path / "other"))
    }
    assert other == {"fail"}
    own = server(ragtune.check(served_recipe, away, run_dir=tmp_path / "run"))
    assert [f["level"] for f in own] == ["ok", "warning"]
    assert "No server answers" in own[1]["message"]


def test_a_check_of_several_servers_names_the_one_that_is_silent(
    served_recipe: dict[str, Any],
    tmp_path: Path,
    chat: Chat,  # noqa: F811
) -> None:
    gone = Gone()
    both = f"evaluate.endpoint=[{chat.endpoint}, {gone.endpoint}]"
    found = server(ragtune.check(served_recipe, both, run_dir=tmp_path / "run"))
    assert [f["level"] for f in found] == ["fail"]
    assert f"No server answers at {gone.endpoint}" in found[0]["message"]
    ragtune.evaluate(served_recipe, run_dir=tmp_path / "run")
    found = server(ragtune.check(served_recipe, both, run_dir=tmp_path / "run"))
    assert [f["level"] for f in found] == ["ok", "warning"]
    assert found[0]["message"].startswith(f"{chat.endpoint} answers")
    assert f"No server answers at {gone.endpoint}" in found[1]["message"]


def server(page: list[dict[str, str]]) -> list[dict[str, str]]:
    return [one for one in page if one["name"] == "server"]


def test_check_names_the_nearest_and_the_template_that_is_not_sent(
    served_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["evaluate.served_before=bas", "prompt.chat_template=plain"]
    check(Context(served_recipe, changes, tmp_path / "run"))
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(
        r"evaluate.served_before, bas, is not in the list of http://\S+; did you mean base\?", out
    )
    assert "prompt.chat_template is not sent" in out


def test_the_server_may_move_but_not_change(served_recipe: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    ragtune.evaluate(served_recipe, run_dir=run)
    for change in ("endpoint=http://localhost:1/v1", "concurrency=1", "served_after=other"):
        ragtune.prepare(served_recipe, f"evaluate.{change}", run_dir=run)
    with pytest.raises(UsageError, match="served_before: 'base' there, 'other' now"):
        ragtune.prepare(served_recipe, "evaluate.served_before=other", run_dir=run)


def test_unfinished_answers_of_one_model_are_not_taken_for_anothers(
    served_recipe: dict[str, Any],
    tmp_path: Path,
    chat: Chat,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    ragtune.evaluate(served_recipe, run_dir=run)
    one = Context(served_recipe, run_dir=run)
    begun = work_of(one.folder, stage_named("before"), one.recipe)
    begun.mkdir()
    found = read_predictions(run / "eval/eval/before/predictions.jsonl")
    text = "".join(map(partial_line, found[:4]))
    (begun / "answers.jsonl").write_text(text, "utf-8")
    shutil.rmtree(run / "eval/eval/before")
    chat.models = ["base", "other"]
    chat.bodies.clear()
    ragtune.evaluate(served_recipe, "evaluate.served_before=other", run_dir=run)
    assert [body["model"] for body in chat.bodies] == ["other"] * 10
    assert (begun / "answers.jsonl").read_text("utf-8") == text
    assert begun.name in capsys.readouterr().out
    # The first one's go on where they were.
    shutil.rmtree(run / "eval/eval/before")
    chat.bodies.clear()
    ragtune.evaluate(served_recipe, run_dir=run)
    assert [body["model"] for body in chat.bodies] == ["base"] * 6


def test_a_prompt_that_is_cut_is_cut_for_the_server_too(
    served_recipe: dict[str, Any],
    tmp_path: Path,
    chat: Chat,  # noqa: F811
) -> None:
    changes = ["prompt.max_tokens=180", "data.shuffle_passages=true"]
    one = Context(served_recipe, changes, tmp_path / "run")
    with working(one):
        make(one, "before")
    tokenizer = one.encoder.tokenizer
    said = {body["messages"][-1]["content"] for body in chat.bodies}
    for _, ids in encode_prompts(one.encoder, one.asked):
        content = tokenizer.decode(ids).split("user\n")[1].split("<|im_end|>")[0]
        assert content in said
    assert not any("A street" in content and "House" in content for content in said)
