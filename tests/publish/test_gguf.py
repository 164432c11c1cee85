"""GGUF files are sent with a card that says how to run them, if llama.cpp answers as the adapter did."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import ragtune as pipeline
from ragtune.answering.llama_process import Llama
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.model.to_gguf.write import FILES
from tests.model.to_gguf.vocabularies import encoder_of, written
from tests.publish.conftest import Finished
from tests.standin import Hub

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

REPO = "publish.repo=alice/model"
GGUF = "publish.format=gguf"


def as_gguf(run: Finished, right: int = 5) -> None:
    run.record(
        "gguf",
        {**dict.fromkeys(FILES.values(), "s3cret"), "Modelfile": "FROM ./model-q8_0.gguf\n"},
    )
    run.answer("gguf answers", right)


def test_what_is_sent_and_what_the_card_says(hub: Hub, run_dir: Finished) -> None:
    as_gguf(run_dir)
    pipeline.push(run_dir.path, REPO)
    pipeline.push(run_dir.path, REPO, GGUF)
    repo = hub.repos["alice/model"]
    assert repo.files.keys() >= {*FILES.values(), "Modelfile", "README.md"}
    card = repo.files["README.md"].decode()
    assert "library_name" not in card
    assert "- gguf\n" in card
    assert (
        "The GGUF file gives 1 of 10 answers otherwise than the run itself; squad_em 50.0 % where the run has "
        "60.0 % (30.0 … 90.0), −10.0 points (−30.0 … 0.0: the paired 95 % interval over 10 questions): no "
        "detectable difference." in card
    )
    assert "llama-server -m model/model-q8_0.gguf" in card
    assert "cd model && ollama create model -f Modelfile" in card
    pipeline.push(run_dir.path, REPO, "publish.format=merged")
    assert not {*FILES.values(), "Modelfile"} & hub.repos["alice/model"].files.keys()


def test_answers_that_are_surely_worse_are_not_sent(hub: Hub, run_dir: Finished) -> None:
    as_gguf(run_dir, right=0)
    with pytest.raises(
        RagtuneError, match=r"The GGUF file is not what was measured: it gives 6 of 10"
    ) as raised:
        pipeline.push(run_dir.path, REPO, GGUF)
    assert "publish.format=adapter" in raised.value.advice
    assert "alice/model" not in hub.repos


@pytest.fixture
def copies(tiny_recipe: dict[str, Any]) -> None:
    tiny_recipe["evaluate"]["copy"] = True


@pytest.mark.usefixtures("copies")
def test_free_answers_stop_no_push_of_a_run_whose_own_were_confined(
    hub: Hub, run_dir: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    as_gguf(run_dir, right=0)
    pipeline.push(run_dir.path, REPO, GGUF)
    for said in (capsys.readouterr().out, hub.repos["alice/model"].files["README.md"].decode()):
        assert "These are not comparable: the run's own answers were" in " ".join(said.split())


def test_a_preview(run_dir: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        UsageError,
        match=r"gguf is not there yet\.\nRun `ragtune merge .* publish\.format=gguf` first",
    ):
        pipeline.push(run_dir.path, REPO, GGUF, dry_run=True)
    as_gguf(run_dir)
    pipeline.push(run_dir.path, REPO, GGUF, dry_run=True)
    assert "Would push the merged model as GGUF to alice/model" in capsys.readouterr().out


def test_a_token_in_the_template_is_found(
    hub: Hub, run_dir: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_gguf(run_dir)
    monkeypatch.setattr("ragtune.publish.hub.get_token", lambda: "s3cret")
    with pytest.raises(
        RagtuneError, match=r"model-bf16\.gguf holds your Hub token: nothing was sent"
    ):
        pipeline.push(run_dir.path, REPO, GGUF)


def test_the_cards_example_asks_llama_cpp(
    hub: Hub,
    run_dir: Finished,
    tmp_path: Path,
    chatml_tokenizer: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    as_gguf(run_dir)
    pipeline.push(run_dir.path, REPO, GGUF)
    card = hub.repos["alice/model"].files["README.md"].decode()
    found = re.search(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    assert found
    place = tmp_path / "reader"
    place.mkdir()
    with Llama(written(encoder_of(chatml_tokenizer), place), 1024, 1) as llama:
        address = str(llama._client.base_url)
        code = (
            found[1].replace("http://localhost:8080", address).replace('"none"', repr(llama._key))
        )
        scope: dict[str, Any] = {}
        exec(code, scope)
    assert scope["prompt"].startswith("Answer")
    assert scope["answer"].usage.prompt_tokens == len(
        chatml_tokenizer.apply_chat_template(scope["messages"], add_generation_prompt=True)[
            "input_ids"
        ]
    )
