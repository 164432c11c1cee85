"""The commands that start a server, as they are, word by word."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ragtune.answering.launch import (
    BindAddress,
    Command,
    ServedModel,
    lora_options,
    transformers_command,
    vllm_command,
)
from ragtune.base.errors import UsageError
from tests.base.test_commands import NASTY, in_a_shell

RUN = Path("runs/x")
HERE = BindAddress("127.0.0.1", 8000)
TUNED = ServedModel(
    base="owner/base",
    base_name="owner/base",
    name="x",
    adapter=RUN / "adapter",
    merged=None,
    dtype="bfloat16",
    rank=17,
    revision="0123abc",
    longest=1056,
    template_arguments={"enable_thinking": False},
)


def test_vllm_with_the_adapter_on_the_base() -> None:
    command = vllm_command(TUNED, HERE)
    assert command.words == (
        "vllm", "serve", "owner/base", "--served-model-name=owner/base",
        "--enable-lora", "--max-lora-rank=32", "--lora-modules=x=runs/x/adapter",
        "--chat-template=runs/x/adapter/chat_template.jinja",
        "--generation-config=runs/x/adapter", "--revision=0123abc", "--max-model-len=1056",
        "--dtype=bfloat16", "--host=127.0.0.1", "--port=8000",
        '--default-chat-template-kwargs={"enable_thinking": false}',
    )  # fmt: skip
    assert (command.name, command.base_name) == ("x", "owner/base")
    assert str(command).startswith("DO_NOT_TRACK=1 vllm serve owner/base ")
    assert str(command).endswith(" '--default-chat-template-kwargs={\"enable_thinking\": false}'")


def test_vllm_with_the_merged_model_with_nf4_and_with_code() -> None:
    merged = dataclasses.replace(TUNED, merged=RUN / "merged", nf4=True, trust_remote_code=True)
    assert vllm_command(merged, HERE).words == (
        "vllm", "serve", "runs/x/merged", "--served-model-name=x", "--max-model-len=1056",
        "--dtype=bfloat16", "--host=127.0.0.1", "--port=8000",
        '--default-chat-template-kwargs={"enable_thinking": false}', "--trust-remote-code",
    )  # fmt: skip
    assert vllm_command(merged, HERE).base_name is None
    words = vllm_command(dataclasses.replace(TUNED, nf4=True), HERE).words
    assert "--quantization=bitsandbytes" in words


def test_transformers_with_the_merged_model_and_nothing_else() -> None:
    plain = dataclasses.replace(TUNED, merged=RUN / "merged", template_arguments={})
    command = transformers_command(plain, BindAddress("::1", 81))
    assert command.words == (
        "transformers", "serve", "runs/x/merged", "--dtype=bfloat16", "--host=::1", "--port=81",
    )  # fmt: skip
    assert command.environment == {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": "runs/x/merged"}
    assert command.name == "runs/x/merged"
    asked = transformers_command(dataclasses.replace(TUNED, merged=RUN), HERE)
    assert '--chat-template-kwargs={"enable_thinking": false}' in asked.words
    with pytest.raises(UsageError, match=r"can't load a@b"):
        transformers_command(dataclasses.replace(TUNED, merged=Path("a@b")), HERE)


@pytest.mark.parametrize(
    ("rank", "allowed"), [(1, 1), (2, 8), (8, 8), (9, 16), (128, 128), (129, 256), (300, 320)]
)
def test_a_rank_is_the_next_that_vllm_takes(rank: int, allowed: int) -> None:
    assert lora_options(rank, "x", RUN)[1] == f"--max-lora-rank={allowed}"


def test_what_vllm_can_not_serve() -> None:
    with pytest.raises(UsageError, match="rank 513, and vLLM takes 512 at most"):
        vllm_command(dataclasses.replace(TUNED, rank=513), HERE)
    with pytest.raises(UsageError, match="would both be called x"):
        vllm_command(dataclasses.replace(TUNED, base_name="x"), HERE)


@pytest.mark.parametrize("name", [one for one in NASTY if one])
def test_a_shell_gets_the_words_that_are_meant(name: str) -> None:
    tuned = dataclasses.replace(TUNED, name=f"n-{name}", adapter=RUN / name, base=name)
    command = vllm_command(tuned, HERE)
    said = str(command)
    assert said.isprintable()
    setting, *words = in_a_shell(said)
    assert setting == "DO_NOT_TRACK=1"
    assert tuple(words) == command.words
    assert not words[2].startswith("-")
    if "@" not in name:
        closed = transformers_command(dataclasses.replace(tuned, merged=RUN / name), HERE)
        assert f"HF_HUB_CACHE={RUN / name}" in in_a_shell(f"env {closed}")


def test_an_adapter_whose_path_looks_like_something_else() -> None:
    option = lora_options(8, "a=b", Path("c,d"))[2]
    assert json.loads(option.partition("=")[2]) == {"name": "a=b", "path": "c,d"}


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/v1"),
        ("0.0.0.0", "http://127.0.0.1:80/v1"),
        ("::", "http://[::1]:80/v1"),
        ("box.local", "http://box.local:80/v1"),
    ],
)
def test_where_a_server_is_asked(host: str, endpoint: str) -> None:
    assert BindAddress(host, 80).endpoint == endpoint


def test_a_command_has_no_key() -> None:
    assert "VLLM_API_KEY" not in str(vllm_command(TUNED, HERE))
    assert isinstance(vllm_command(TUNED, HERE), Command)
