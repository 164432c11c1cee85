"""llama.cpp answers from a GGUF file: the same as the model that it was written of."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from ragtune.answering import llama_process
from ragtune.answering.engine import Engine
from ragtune.answering.llama_process import Llama
from ragtune.answering.llamacpp import LlamaCpp
from ragtune.answering.local import Local
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.data.encode import Encoder
from ragtune.model.to_gguf.write import gguf_of, write_gguf
from tests.answering.test_engine import EXAMPLES, Contract
from tests.answering.test_server import chat, pauses  # noqa: F401 - fixtures
from tests.conftest import tiny_model
from tests.model.to_gguf.vocabularies import encoder_of

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def plain(chatml_tokenizer: Any) -> Encoder:
    return encoder_of(chatml_tokenizer)


@pytest.fixture(scope="module")
def model(chatml_tokenizer: Any) -> Any:
    return tiny_model("llama", eos_token_id=chatml_tokenizer.eos_token_id, initializer_range=0.2)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, plain: Encoder, model: Any) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    model.save_pretrained(folder)
    write_gguf(gguf_of(folder, "tiny", model.config, plain), "F16", folder / "tiny.gguf")
    return folder / "tiny.gguf"


def test_the_same_answers(file: Path, plain: Encoder, model: Any, tmp_path: Path) -> None:
    own = Local(model, 12, 4).answer(plain, EXAMPLES, tmp_path / "own", "x")
    found = LlamaCpp(file, 12).answer(plain, EXAMPLES, tmp_path / "llama", "x")
    # llama.cpp's probabilities are not asked for.
    assert found == [dataclasses.replace(one, probability=None) for one in own]


class TestLlamaCpp(Contract):
    @pytest.fixture
    def engine(self, file: Path) -> Engine:
        return LlamaCpp(file, 6)

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        seen: list[Any] = []
        plain = Llama.ask

        def ask(self: Llama, path: str, question: dict[str, object]) -> dict[str, Any]:
            seen.append(question)
            return plain(self, path, question)

        monkeypatch.setattr(Llama, "ask", ask)
        return seen


def test_a_file_that_can_not_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(40))
    with (
        pytest.raises(RagtuneError, match=r"llama.cpp can't load .*bad.gguf: .*bad GGUF version"),
        Llama(tmp_path / "bad.gguf", 64, 1),
    ):
        pass


def test_a_crash_is_told_and_leaves_nothing(file: Path) -> None:
    with Llama(file, 64, 1) as llama:
        child = psutil.Process(llama._process.pid)
        assert llama._key not in " ".join(child.cmdline())
        child.send_signal(signal.SIGKILL)
        with pytest.raises(RagtuneError, match=r"llama\.cpp crashed with"):
            llama.ask("/completion", {"prompt": [1], "n_predict": 1})
    assert not psutil.pid_exists(child.pid)


def test_nobody_else_is_answered(file: Path) -> None:
    with Llama(file, 64, 1) as llama:
        llama._client.headers.pop("Authorization")
        with pytest.raises(RagtuneError, match="Invalid API Key"):
            llama.ask("/tokenize", {"content": "x"})


def test_without_the_package(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_process, "installed", lambda: False)
    with pytest.raises(UsageError, match="xllamacpp is not installed") as raised:
        Llama(file, 64, 1)
    assert raised.value.advice == "Run: pip install xllamacpp"
