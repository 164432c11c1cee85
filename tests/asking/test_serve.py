"""`ragtune serve`: what is started, with what, and how it ends; the engine is a stand-in for vLLM."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import ragtune
from ragtune.asking import check_prompts, process, serve
from ragtune.asking.process import Process
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.cli import main
from tests.asking.conftest import predictions
from tests.ports import free_port
from tests.ready import Ready, Started

STANDIN = Path(__file__).with_name("standin_engine.py")


def until(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a program that is called vllm, on the path."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -SE {STANDIN} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN", str(tmp_path))
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    yield tmp_path
    for pid in pids(tmp_path):  # of a test that failed
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


def pids(folder: Path) -> list[int]:
    told = folder / "told.json"
    found: list[int] = json.loads(told.read_text())["pids"] if told.exists() else []
    return found


def is_over(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def started(ready: Ready, folder: Path, run: Path, *more: str, **environment: str) -> Started:
    """`ragtune serve`, once it says that it serves, or has ended."""
    out = folder / "out"
    out.touch()
    port = free_port()
    command = ready.start(
        ["serve", str(run), "--port", str(port), *more],
        outputs=(out, folder / "err"),
        **environment,
    )
    until(lambda: command.poll() is not None or "Ctrl-C ends it." in out.read_text("utf-8"))
    return command


@pytest.mark.parametrize(
    ("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_it_ends_with_the_command_and_leaves_nothing(
    ready: Ready, engine: Path, tuned: Path, how: int, code: int
) -> None:
    command = started(ready, engine, tuned, VLLM_API_KEY="sk-secret-7")
    there = pids(engine)
    assert len(there) == 2
    assert not any(map(is_over, there))
    words = json.loads((engine / "told.json").read_text())["words"]
    assert words[:2] == ["serve", ragtune.load_recipe(tuned / "recipe.yaml").model.id]
    assert f"--lora-modules=houses={tuned}/adapter" in words
    assert "--max-lora-rank=8" in words
    assert "--host=127.0.0.1" in words
    assert "sk-secret-7" not in " ".join(words)
    command.send_signal(how)
    assert command.wait(60) == code, (engine / "err").read_text("utf-8")
    assert all(map(is_over, there))
    out, errors = command.communicate()
    # The engine's words come escaped: they hold a model's, too.
    assert "the engine says \\x1b[2Jhello 富\\x9c\n" in out
    assert "Chat template and stop token are those of training (10 prompts" in out
    assert "Serving houses, and the base as " in out
    assert "The server has ended, too." in errors
    assert "sk-secret-7" not in out + errors


def test_it_ends_with_a_command_that_is_killed(ready: Ready, engine: Path, tuned: Path) -> None:
    command = started(ready, engine, tuned)
    there = pids(engine)
    there += [one.pid for one in psutil.Process(command.pid).children()]
    assert len(there) == 4  # the engine twice, what it started, and what watches
    command.send_signal(signal.SIGKILL)
    command.wait(60)
    until(lambda: all(map(is_over, there)))


def test_it_ends_with_whoever_reads_its_words(ready: Ready, engine: Path, tuned: Path) -> None:
    pipe = engine / "pipe"
    os.mkfifo(pipe)
    command = ready.start(
        ["serve", str(tuned), "--port", str(free_port())],
        outputs=(pipe, engine / "err"),
        STANDIN_MODE="talks",
    )
    with pipe.open("rb") as reader:
        while b"still here" not in reader.read(64):
            pass
    assert command.wait(60) == 141, (engine / "err").read_text("utf-8")
    assert all(map(is_over, pids(engine)))


def test_an_engine_that_is_killed_leaves_nothing(ready: Ready, engine: Path, tuned: Path) -> None:
    """As by a system that is short of memory: what it started, in a session of its own, goes too."""
    command = started(ready, engine, tuned)
    os.kill(pids(engine)[0], signal.SIGKILL)
    assert command.wait(60) == 128 + signal.SIGKILL, (engine / "err").read_text("utf-8")
    until(lambda: all(map(is_over, pids(engine))))


def test_an_engine_that_fails_gives_its_exit_code(ready: Ready, engine: Path, tuned: Path) -> None:
    command = started(ready, engine, tuned, STANDIN_MODE="fails")
    assert command.wait() == 3, (engine / "err").read_text("utf-8")
    out, errors = command.communicate()
    assert "The engine ended with exit code 3; what it said stands above." in out
    assert "it has no GPU" in errors
    until(lambda: all(map(is_over, pids(engine))))


def test_one_that_does_not_listen_is_made_to_end(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.2)
    monkeypatch.setenv("STANDIN_MODE", "deaf")
    port = free_port()
    words = [str(engine / "bin/vllm"), "serve", "x", "--host=127.0.0.1", f"--port={port}"]
    with Process(words, {}) as running:
        assert running.is_ready(f"http://127.0.0.1:{port}/v1")
    assert len(pids(engine)) == 2
    assert all(map(is_over, pids(engine)))
    process.require_free("127.0.0.1", port)


def test_what_is_served_is_asked_again_and_serving_goes_on(
    ready: Ready, engine: Path, tuned: Path
) -> None:
    questions = (tuned / "eval/eval/questions/eval.jsonl").read_text("utf-8").splitlines()
    own = predictions(tuned, "after")
    answers = {
        row["question"]: (
            own[row["qid"]]["prediction"],
            "stop" if own[row["qid"]]["stopped"] else "length",
        )
        for row in map(json.loads, questions)
    }
    (engine / "answers.json").write_text(json.dumps(answers), "utf-8")
    command = started(ready, engine, tuned, "--check", "4")
    until(lambda: "Serving goes on at " in (engine / "out").read_text("utf-8"))
    assert command.poll() is None
    command.send_signal(signal.SIGTERM)
    assert command.wait(60) == 143, (engine / "err").read_text("utf-8")
    out = command.communicate()[0]
    assert "What is served gives 0 of 4 answers otherwise than the run itself; squad_em" in out
    assert "not what was measured" not in out
    served = json.loads((tuned / "eval/eval/served.json").read_text("utf-8"))
    assert (served["engine"], served["served_as"], served["n"]) == ("vllm", "houses", 4)
    assert (served["of"], served["changed"]) == (10, 0)
    # It is no part of the run that could be damaged or out of date.
    ragtune.report(tuned)


def test_without_answers_to_check_it_by_nothing_is_started(
    engine: Path, tuned: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    shutil.rmtree(run / "eval" / "eval" / "after")
    with pytest.raises(UsageError, match="has no answers after tuning"):
        ragtune.serve(run, check=4, address=("127.0.0.1", free_port()))
    assert not pids(engine)


def test_a_port_that_is_taken(
    engine: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as stop:
            main(["serve", str(tuned), "--port", str(port)])
    assert stop.value.code == 2
    errors = " ".join(capsys.readouterr().err.split())
    assert f"No server can listen at 127.0.0.1 port {port}: Address already in use." in errors
    assert "Choose another one with --port" in errors
    assert not pids(engine)


def test_beyond_this_machine_a_key_is_needed(
    engine: Path,
    tuned: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    open_to_all = ("0.0.0.0", free_port())
    with pytest.raises(
        UsageError, match=r"others can reach the server, and it has no key"
    ) as error:
        ragtune.serve(tuned, address=open_to_all)
    assert "VLLM_API_KEY" in error.value.advice
    assert not pids(engine)
    monkeypatch.setenv("STANDIN_MODE", "fails")
    monkeypatch.setenv("VLLM_API_KEY", "sk-secret-7")
    assert ragtune.serve(tuned, address=open_to_all) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "asks for the key in VLLM_API_KEY below /v1 alone" in said
    assert "sk-secret-7" not in said


def test_what_transformers_can_not_protect_is_said(
    tuned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "_found", lambda _: "/bin/false")
    assert ragtune.serve(tuned, engine="transformers", address=("0.0.0.0", free_port())) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "transformers serve knows no keys" in said
    assert "the base, and the adapter by itself, need vLLM" in said


def test_no_such_address(tuned: Path, engine: Path) -> None:
    for host, said in (("no.such.host.invalid", "is no address"), ("203.0.113.7", "can listen")):
        with pytest.raises(UsageError, match=said):
            process.require_free(host, 8000)


def test_the_command_alone_is_printed(
    engine: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["serve", str(tuned), "--print", "--port", "81", "--name", "a b"])
    assert not stop.value.code
    out, errors = capsys.readouterr()
    (line,) = out.splitlines()
    assert line.startswith("DO_NOT_TRACK=1 vllm serve ")
    assert f"'--lora-modules=a b={tuned}/adapter'" in line
    assert line.endswith("--dtype=float32 --host=127.0.0.1 --port=81")
    assert "Chat template and stop token are those of training" in errors
    assert not pids(engine)
    printed = ragtune.serve_command(tuned, engine="transformers", address=("127.0.0.1", 81))
    assert f"transformers serve {tuned}/merged --dtype=float32" in printed


def test_nothing_to_serve_and_nothing_to_serve_it(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_found", lambda _: None)
    with pytest.raises(UsageError, match="No engine that could serve it") as error:
        ragtune.serve_command(tuned)
    assert "pip install 'transformers[serving]'" in error.value.advice
    other = tmp_path / "run"
    shutil.copytree(tuned, other)
    shutil.rmtree(other / "merged")
    with pytest.raises(UsageError, match="merged is not there") as error:
        ragtune.serve_command(other, engine="transformers")
    assert f"ragtune merge {other}" in error.value.advice
    shutil.rmtree(other / "adapter")
    with pytest.raises(UsageError, match="is not tuned yet"):
        ragtune.serve_command(other, engine="vllm")


def test_an_engine_that_is_named_and_not_there(
    tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "_found", lambda _: None)
    for name, package in (("vllm", "vllm"), ("transformers", "transformers[serving]")):
        with pytest.raises(UsageError) as error:
            ragtune.serve(tuned, engine=name)
        assert error.value.message == f"--engine {name}: {package} is not installed."
        assert "pip install" in error.value.advice
        assert "--print" in error.value.advice


def test_what_is_damaged_is_not_served(engine: Path, tuned: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    merged, adapter = run / "merged/model.safetensors", run / "adapter/adapter_model.safetensors"
    content = merged.read_bytes()
    merged.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(RagtuneError, match=r"merged is damaged: .*model\.safetensors") as error:
        ragtune.serve(run, merged=True, address=("127.0.0.1", free_port()))
    assert f"`ragtune merge {run}` sets it aside" in error.value.advice
    ragtune.serve_command(run, engine="vllm")  # which has no use for it
    adapter.write_bytes(adapter.read_bytes()[:-1])
    with pytest.raises(RagtuneError, match=r"adapter is damaged"):
        ragtune.serve(run, address=("127.0.0.1", free_port()))
    assert not pids(engine)


def test_another_template_or_stop_token_is_said(
    tuned: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As an earlier version could have written it.
    monkeypatch.setattr(serve, "require_whole_stage", lambda *_: None)
    run = tmp_path / "run"
    shutil.copytree(tuned, run)
    template = run / "merged" / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("assistant\\n", "assistant"), "utf-8")
    settings = run / "merged" / "generation_config.json"
    settings.write_text(
        settings.read_text("utf-8").replace('"eos_token_id": 0', '"eos_token_id": 5')
    )
    ragtune.serve_command(run, engine="transformers")
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "The server asks otherwise than was trained: of 10 questions 10 have other tokens." in said
    )
    assert "doesn't name the stop token of training (0): answers would not end." in said
    assert "are those of training" not in said
    with monkeypatch.context() as patch:
        patch.setattr(check_prompts, "_TRIED", 1)
        ragtune.serve_command(run, engine="transformers")
    said = " ".join(capsys.readouterr().out.split())
    assert "of 1 question 1 has other tokens." in said
    ragtune.serve_command(run, engine="vllm")  # the adapter has its own
    assert "are those of training" in capsys.readouterr().out
    assert check_prompts._TRIED >= 10
