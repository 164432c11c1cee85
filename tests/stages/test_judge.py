"""A judge behind OpenAI's interface: what it is asked, what is kept, and what its words come to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ragtune
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import sha256
from ragtune.cli import main
from ragtune.reporting.judging import judged_table
from ragtune.stages import judge as judging
from ragtune.stages.context import Context
from tests.answering.chat import Chat
from tests.conftest import make_records, write_records

pytestmark = pytest.mark.usefixtures("_online")


@pytest.fixture
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragtune.answering.connection.require_network", lambda *_: None)


@pytest.fixture
def run(tiny_recipe: dict[str, Any], tmp_path: Path) -> Path:
    """A run with answers before tuning, which alone are needed."""
    ragtune.evaluate(tiny_recipe, base=True, run_dir=tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def chat() -> Iterator[Chat]:
    with Chat("judge") as chat:
        chat.says = says
        chat.usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        yield chat


def says(asked: str) -> str:
    """The text in which a colour stands supports; of house 3 nothing that can be read."""
    if "house 3" in asked:
        return "I can't say."
    texts = re.findall(r"^\[(\d)\] (.*)$", asked, re.MULTILINE)
    holding = [
        int(number) for number, text in texts if "is" in text.split() and "house" in text.lower()
    ]
    return json.dumps({"correct": True, "claims": [{"claim": "x", "texts": holding[:1]}]})


def test_answers_are_judged_and_what_was_written_is_kept(run: Path, chat: Chat) -> None:
    found = ragtune.judge(run, endpoint=chat.endpoint, model="judge", base=True, again=4)
    asked = len(chat.asked)
    assert (found["n"], found["failed"]) == (9, 1)
    assert asked == found["requests"] == 14
    assert (found["kept"], found["prompt_tokens"], found["completion_tokens"]) == (0, 1400, 140)
    assert found["correct"] is not None
    assert found["correct"]["value"] == 1
    assert found["with_metric"] is not None
    assert found["with_metric"]["n"] == 9
    assert found["again"] is not None
    assert found["again"]["agree"]["value"] == 1
    assert (found["model"], found["prompt"], found["which"]) == ("judge", "1", "before")
    written = json.loads((run / "eval/eval/judge/before.json").read_text("utf-8"))
    assert {k: v for k, v in written.items() if k != "format"} == found
    assert found["sha256"] == sha256(run / "eval/eval/before/predictions.jsonl")
    # Asked once more, nothing goes to the server; of more only what is new.
    again = ragtune.judge(run, endpoint=chat.endpoint, model="judge", base=True, again=4)
    assert len(chat.asked) == asked
    assert (again["kept"], again["prompt_tokens"]) == (14, 0)
    assert again["correct"] == found["correct"]
    ragtune.judge(run, endpoint=chat.endpoint, model="judge", base=True, again=6)
    assert len(chat.asked) == asked + 2
    assert "Answers" not in str(ragtune.evaluate(run, base=True))  # the run is as whole as before


def test_the_report_has_it_while_it_is_of_the_answers_that_are_there(
    run: Path, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    ragtune.judge(run, endpoint=chat.endpoint, model="judge", base=True, again=4)
    report = run / "report.html"
    assert "<h3>Before tuning</h3>" in report.read_text("utf-8")
    assert "1 verdict failed" in report.read_text("utf-8")
    path = run / "eval/eval/judge/before.json"
    found = json.loads(path.read_text("utf-8"))
    for damaged in ("", "{}", "[1]", json.dumps({**found, "n": "many"})):
        path.write_text(damaged, "utf-8")
        capsys.readouterr()
        ragtune.report(run)
        assert f"{path} is damaged" in "".join(capsys.readouterr().out.split("\n"))
        assert 'id="judge"' not in report.read_text("utf-8")
    path.write_text(json.dumps({**found, "sha256": "00"}), "utf-8")  # of answers that are no more
    ragtune.report(run)
    assert 'id="judge"' not in report.read_text("utf-8")


def test_what_the_judge_is_shown(run: Path, chat: Chat) -> None:
    ragtune.judge(run, endpoint=chat.endpoint, model="judge", base=True, count=1, again=1)
    example = next(e for e in Context(run).questions if e.question in chat.asked[0])
    first, second = (p.text for p in example.passages[:2])
    # They are asked at the same time, and come in any order.
    one, other = sorted(chat.asked, key=lambda asked: f"[1] {first}" not in asked)
    assert f"[1] {first}\n\n[2] {second}\n\nQuestion: {example.question}" in one
    assert f"[1] {second}\n\n[2] {first}\n\n" in other
    assert f"Accepted answers: {example.answers[0]}\n" in one
    assert chat.bodies[0]["temperature"] == 0


def test_the_command(run: Path, chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["judge", str(run), "--endpoint", chat.endpoint, "--model", "judge", "--base"]
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            main([*given, *more])
        assert not end.value.code
    out = capsys.readouterr().out
    assert "says what an accepted answer says" in out
    assert json.loads(out[out.rindex('{"which"') :])["failed"] == 1


def test_what_goes_wrong_is_said(run: Path, chat: Chat) -> None:
    with pytest.raises(UsageError, match="has no answers after tuning that could be judged"):
        ragtune.judge(run, endpoint=chat.endpoint, model="judge")
    with pytest.raises(UsageError, match=r"--endpoint: 'nowhere' is no address"):
        ragtune.judge(run, endpoint="nowhere", model="judge", base=True)
    for numbers in ({"count": 0}, {"count": 5, "again": -1}):
        with pytest.raises(UsageError, match="answers can't be judged"):
            ragtune.judge(run, endpoint=chat.endpoint, model="judge", base=True, **numbers)
    with pytest.raises(UsageError, match="--model is empty"):
        ragtune.judge(run, endpoint=chat.endpoint, model="", base=True)
    with pytest.raises(UsageError, match="does not serve another"):
        ragtune.judge(run, endpoint=chat.endpoint, model="another", base=True)
    chat.models = 500
    with pytest.raises(RagtuneError, match="No server answers") as silent:
        ragtune.judge(run, endpoint="http://127.0.0.1:9/v1", model="judge", base=True)
    assert "--endpoint" in silent.value.advice


def test_a_single_answer_with_a_single_passage(capsys: pytest.CaptureFixture[str]) -> None:
    case: Any = SimpleNamespace(turns=False)
    assert judging._again([case], 1, 1) == set()
    assert "Of 1 answer 1 has a single passage" in " ".join(capsys.readouterr().out.split())


def test_a_single_passage_is_not_asked_about_twice(
    tiny_recipe: dict[str, Any], tmp_path: Path, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    """Turned round it is the same prompt, and what is kept of it agrees with itself."""
    records = make_records(4, "e")
    for record in records[:3]:
        record |= {"passages": record["passages"][:1], "negative_passage_indices": []}
    tiny_recipe["data"]["eval"] = str(write_records(tmp_path / "eval.jsonl", records))
    ragtune.evaluate(tiny_recipe, base=True, run_dir=tmp_path / "run")
    chat.says = lambda _: '{"correct": true, "claims": [{"claim": "x", "texts": [1]}]}'
    found = ragtune.judge(tmp_path / "run", endpoint=chat.endpoint, model="judge", base=True)
    assert (found["n"], found["requests"]) == (4, 5)
    assert (found["again"] or {})["n"] == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "Of 4 answers 3 have a single passage" in said
    none = ragtune.judge(
        tmp_path / "run", endpoint=chat.endpoint, model="judge", base=True, again=0
    )
    assert none["again"] is None
    assert "the judge's own doubt is not in the intervals" in str(judged_table(none).caption)
