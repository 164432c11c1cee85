"""What is served is asked again: a server that answers as the run did, and others that don't."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.asking.check_served import RunningServer, ask_again, sample
from ragtune.asking.serve import open_run
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.cli import main
from ragtune.scoring.score import Answers
from tests.answering.chat import Chat
from tests.conftest import make_records, write_records

COLOURS = ["red", "green", "blue", "white", "black"]


def right(said: str) -> str:
    """The answer to a question of `make_records`."""
    return COLOURS[int(said.rpartition("house ")[2].rstrip("?")) % 5]


@pytest.fixture(scope="module")
def answered_by(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Iterator[tuple[Path, Chat]]:
    """A run whose answers are right, for a server gave them; and that server."""
    place = tmp_path_factory.mktemp("answered")
    with Chat("base", "tiny") as server:
        server.says = right
        recipe: dict[str, Any] = {
            "name": "tiny",
            "seed": 7,
            "model": {"id": str(tiny_folder), "dtype": "float32"},
            "data": {
                "train": str(write_records(place / "train.jsonl", make_records(4))),
                "eval": str(write_records(place / "eval.jsonl", make_records(10, "e"))),
                "max_passages": 2,
            },
            "prompt": {"preset": "english"},
            "lora": {"rank": 4, "alpha": 8},
            "train": {"steps": 1, "batch_size": 4},
            "evaluate": {
                "max_new_tokens": 6,
                "metric": "squad_em",
                "engine": "openai",
                "endpoint": server.endpoint,
                "served_before": "base",
                "served_after": "tiny",
            },
            "publish": {"format": "adapter"},
        }
        ragtune.run(recipe, run_dir=place / "run")
        yield place / "run", server


@pytest.fixture
def chat(answered_by: tuple[Path, Chat]) -> Chat:
    server = answered_by[1]
    server.says, server.usage = right, None
    server.keys.clear()
    return server


@pytest.fixture
def answered(answered_by: tuple[Path, Chat]) -> Path:
    return answered_by[0]


def test_a_server_that_answers_otherwise_is_found_out(
    answered: Path, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    found = ragtune.ask_served(answered, endpoint=chat.endpoint, count=6)
    assert (found["n"], found["changed"]) == (6, 0)
    first = chat.asked[-6:]
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "What is served gives 0 of 6 answers otherwise than the run itself; squad_em 100.0 % where the run "
        "has 100.0 % (54.1 … 100.0), 0.0 points (−45.9 … +45.9:" in said
    )
    assert "questions): no detectable difference." in said
    # One of six that is wrong could be chance, and is said.
    chat.says = lambda text: "grey" if text == first[0] else right(text)
    found = ragtune.ask_served(answered, endpoint=chat.endpoint, count=6)
    assert sorted(chat.asked[-6:]) == sorted(first)
    assert found["changed"] == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "What is served gives 1 of 6 answers otherwise than the run itself" in said
    assert "−16.7 points (−50.0 … 0.0:" in said
    # Wrong in most.
    chat.says = lambda text: "grey \033[31m" if "house 1" not in text else right(text)
    with pytest.raises(SystemExit) as stop:
        main(["serve", str(answered), "--endpoint", chat.endpoint, "--check", "10"])
    assert stop.value.code == 1
    out = capsys.readouterr().out
    said = " ".join(out.split())
    assert "What is served is not what was measured: it gives 9 of 10 answers otherwise" in said
    assert "−90.0 points (−100.0 … −70.0:" in said
    assert "Look at its chat template, stop token, dtype and quantization." in said
    assert "\033[31m" not in out
    served = json.loads((answered / "eval/eval/served.json").read_text("utf-8"))
    assert served["endpoint"] == chat.endpoint
    assert (served["asked"], served["changed"]) == (10, 9)
    assert served["difference"]["squad_em"]["value"] == -0.9


def test_another_template_is_seen_by_the_tokens_that_the_server_counts(
    answered: Path, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    chat.usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    ragtune.ask_served(answered, endpoint=chat.endpoint, count=50)
    said = " ".join(capsys.readouterr().out.split())
    assert "The server counts other tokens in 10 of 10 prompts than were trained" in said
    served = json.loads((answered / "eval/eval/served.json").read_text("utf-8"))
    assert (served["other_prompts"], served["of"]) == (10, 10)


def test_a_server_without_the_model_or_a_run_without_answers(
    answered: Path, tuned: Path, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"does not serve other .*it lists base, tiny") as error:
        ragtune.ask_served(answered, endpoint=chat.endpoint, name="other")
    assert "--name" in error.value.advice
    context = open_run(tuned, ["data.eval=another.jsonl"])
    with pytest.raises(UsageError, match="has no answers after tuning"):
        ask_again(context, RunningServer(chat.endpoint, "tiny"), 5)


@pytest.mark.parametrize("endpoint", ["nowhere", "http://127.0.0.1:9/v1"])
def test_an_address_that_is_wrong_is_that_of_the_option(answered: Path, endpoint: str) -> None:
    with pytest.raises(RagtuneError) as error:
        ragtune.ask_served(answered, endpoint=endpoint)
    assert "--endpoint" in str(error.value)
    assert "evaluate." not in str(error.value)


def test_what_starts_an_engine_does_not_go_with_one_that_runs(
    tuned: Path, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ("--print", "--merged", "--engine=vllm"):
        with pytest.raises(SystemExit) as stop:
            main(["serve", str(tuned), "--endpoint", chat.endpoint, more])
        assert stop.value.code == 2
        assert "--endpoint" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["http://me:s3cret-7@{}/v1", "http://{}/v1?key=s3cret-7"])
def test_a_key_in_the_address_is_neither_said_nor_written(
    answered: Path, chat: Chat, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = address.format(chat.endpoint.removeprefix("http://").removesuffix("/v1"))
    written = answered / "eval/eval/served.json"
    written.unlink(missing_ok=True)
    with pytest.raises(SystemExit) as stop:
        main(["--debug", "serve", str(answered), "--endpoint", endpoint])
    assert stop.value.code == 2
    out, errors = capsys.readouterr()
    assert "holds a user's name or password, or something behind ? or #" in errors
    assert "s3cret" not in out + errors
    assert not written.exists()
    for key in ("endpoint", "served_after"):  # by way of the recipe, too; --debug shows more
        with pytest.raises(SystemExit):
            main(["--debug", "serve", str(answered), f"evaluate.{key}={endpoint}", "--print"])
        assert "s3cret" not in "".join(capsys.readouterr())


def test_the_key_of_vllm_is_sent_and_shown_nowhere(
    answered: Path,
    chat: Chat,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "sk-of-vllm")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    ask_again(
        open_run(answered, []), RunningServer(chat.endpoint, "tiny", key_from="VLLM_API_KEY"), 2
    )
    assert chat.keys == {"Bearer sk-of-vllm"}
    assert "sk-of" not in capsys.readouterr().out
    for path in answered.rglob("*"):
        assert path.is_dir() or b"sk-of" not in path.read_bytes(), path


def test_the_sample_is_drawn_by_the_seed_with_as_many_right_ones(answered: Path) -> None:
    context = open_run(answered, [])
    texts = {e.qid: e.answers[0] if i < 6 else "no" for i, e in enumerate(context.asked)}
    own = Answers(texts)
    drawn = [e.qid for e in sample(context, own, 5)]
    assert [e.qid for e in sample(context, own, 5)] == drawn
    assert sum(texts[q] != "no" for q in drawn) == 3
    assert drawn == sorted(drawn)
    assert len(sample(context, own, 99)) == 10
    other = open_run(answered, [])
    other.recipe = other.recipe.model_copy(update={"seed": 8})
    assert {tuple(e.qid for e in sample(other, own, 5))} != {tuple(drawn)}
