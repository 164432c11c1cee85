"""docs/serving.md, run: a tiny model served by `ragtune serve` with transformers, asked by every client on the page."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import ragtune
from ragtune.stages import weights
from tests.asking.conftest import tuned  # noqa: F401 - a fixture
from tests.asking.test_serve import until
from tests.ports import free_port
from tests.ready import Ready
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs/serving.md"
CHECKED = 6


@dataclass
class Server:
    """What `ragtune serve` started."""

    endpoint: str
    model: str
    said: str
    folder: Path


@pytest.fixture(scope="module")
def served(
    ready: Ready,
    tuned: Path,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(tuned, folder / "runs/my-run")
    out = folder / "out"
    out.touch()
    port = free_port()
    command = ready.start(
        ["serve", "runs/my-run", "--check", str(CHECKED), "--port", str(port)],
        cwd=folder,
        outputs=(out, folder / "errors"),
    )
    try:
        until(lambda: command.poll() is not None or "Serving goes on at" in out.read_text("utf-8"))
        said = out.read_text("utf-8")
        assert command.poll() is None, said + (folder / "errors").read_text("utf-8")
        model = re.search(r"Serving (\S+) at", said)
        assert model
        yield Server(f"http://127.0.0.1:{port}/v1", model[1], said, folder)
    finally:
        command.send_signal(signal.SIGINT)
        code = command.wait(60)
    assert code == 130, (folder / "errors").read_text("utf-8")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")


@pytest.fixture
def here(served: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.chdir(served.folder)
    return served


@pytest.fixture(scope="module")
def said_here(served: Server) -> str:
    """What the run's own model answers to the page's question."""
    return own_answer(served, "evaluate.max_new_tokens=32")


def own_answer(served: Server, *options: str) -> str:
    own = ragtune.Reader.load(served.folder / "runs/my-run", *options)
    passages = ["The house is red.", "A street has houses."]
    return own.ask(["What colour is the house?"], passages)[0].text


def test_the_real_server_answers_as_the_run_did(here: Server) -> None:
    said = " ".join(here.said.split())
    assert (
        "Chat template and stop token are those of training (10 prompts, token by token)." in said
    )
    assert f"What is served gives 0 of {CHECKED} answers otherwise than the run itself" in said
    found = json.loads((here.folder / "runs/my-run/eval/eval/served.json").read_text("utf-8"))
    assert (found["engine"], found["served_as"]) == ("transformers serve", "runs/my-run/merged")
    assert (found["n"], found["other_prompts"]) == (CHECKED, 0)


def test_it_lists_and_loads_no_other_model(here: Server, tiny_folder: Path) -> None:
    assert httpx.get(f"{here.endpoint}/models").json()["data"] == []
    other = {"model": str(tiny_folder), "messages": [{"role": "user", "content": "?"}]}
    assert httpx.post(f"{here.endpoint}/chat/completions", json=other).status_code == 400


def meant(block: str, server: Server) -> str:
    """A block of the page, for this server."""
    return (
        block.replace("http://localhost:8000/v1", server.endpoint)
        .replace('my-run"', f'{server.model}"')
        .replace(f'runs/{server.model}"', 'runs/my-run"')
    )


def run_block(name: str, namespace: dict[str, Any], server: Server) -> str:
    """What the block with this text prints."""
    (block,) = (one for one in blocks(PAGE, "python") if name in one)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(meant(block, server), str(PAGE), "exec"), namespace)
    return said.getvalue().removesuffix("\n")


@pytest.fixture
def namespace(here: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found: dict[str, Any] = {}
    within_its_limit = own_answer(here)
    with monkeypatch.context() as within:
        within.setattr(weights, "load_model", lambda *_, **__: pytest.fail("weights are loaded"))
        assert run_block("Reader.load", found, here).endswith(within_its_limit)
    return found


def test_openais_client(here: Server, namespace: dict[str, Any], said_here: str) -> None:
    assert run_block("from openai", namespace, here) == said_here


def test_langchain(here: Server, namespace: dict[str, Any], said_here: str, tmp_path: Path) -> None:
    pytest.importorskip("langchain_openai")
    for thing, colour in (("house", "red"), ("street", "grey")):
        (tmp_path / f"{thing}.md").write_text(f"The {thing} is {colour}.", "utf-8")
    asked = "question,answer\nWhat colour is the house?,red\nWhat colour is the street?,grey\n"
    (tmp_path / "questions.csv").write_text(asked, "utf-8")
    corpus = {
        "name": "c",
        "documents": {"files": [str(tmp_path / "*.md")]},
        "questions": {"files": [str(tmp_path / "questions.csv")]},
    }
    ragtune.build(corpus, folder=tmp_path / "corpus")
    changes = ("evaluate.engine=openai", f"evaluate.endpoint={here.endpoint}")
    namespace["reader"] = ragtune.Reader.load("runs/my-run", *changes, corpus=tmp_path / "corpus")
    own = ragtune.Reader.load(
        "runs/my-run", "evaluate.max_new_tokens=32", corpus=tmp_path / "corpus"
    )
    assert (
        run_block("langchain_openai", namespace, here) == own.ask([namespace["question"]])[0].text
    )


def test_llama_index(here: Server, namespace: dict[str, Any], said_here: str) -> None:
    pytest.importorskip("llama_index.llms.openai_like", reason="make llama-index has it")
    assert run_block("llama_index", namespace, here) == said_here


def test_curl(here: Server, namespace: dict[str, Any], said_here: str) -> None:
    (block,) = blocks(PAGE, "sh")
    assert shutil.which("curl")
    done = subprocess.run(
        ["bash", "-c", meant(block, here)], capture_output=True, check=True, env={**os.environ}
    )
    assert json.loads(done.stdout)["choices"][0]["message"]["content"] == said_here
    body = subprocess.run(
        ["bash", "-c", f'curl() {{ printf %s "${{@: -1}}"; }}; {block}'],
        capture_output=True,
        check=True,
    )
    asked = namespace["reader"].messages(namespace["question"], namespace["passages"])
    assert json.loads(body.stdout)["messages"] == asked


def test_the_page_has_no_block_that_is_not_run() -> None:
    names = ("Reader.load", "from openai", "langchain_openai", "llama_index")
    assert [[n for n in names if n in block] for block in blocks(PAGE, "python")] == [
        [n] for n in names
    ]
