"""The secrets of a Colab notebook: the token is found there, never shown, and nothing fails without it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.utils import _auth, _runtime

import ragtune
from ragtune.base.errors import RagtuneError
from ragtune.base.secrets import HIDDEN, hide, kind_of
from ragtune.publish.hub import Access, check_access
from tests.standin import TOKEN, Hub, Repo

OTHER = "a-token-of-another-shape"


class ColabError(Exception):
    pass


class MissingError(ColabError):
    pass


class RefusedError(ColabError):
    pass


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Colab's modules, with a secret that can be set, or an error in its place."""
    vault = SimpleNamespace(secret=TOKEN, asked=[])

    def get(name: str) -> str:
        vault.asked.append(name)
        if isinstance(vault.secret, str):
            return vault.secret
        raise vault.secret

    found: dict[str, Any] = {
        name: ModuleType(name) for name in ("google", "google.colab", "google.colab.errors")
    }
    found["google.colab"].userdata = SimpleNamespace(
        get=get, SecretNotFoundError=MissingError, NotebookAccessError=RefusedError
    )
    found["google.colab.errors"].Error = ColabError
    for name, module in found.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(_runtime, "_is_google_colab", True)
    monkeypatch.setattr(_auth, "_IS_GOOGLE_COLAB_CHECKED", False)
    monkeypatch.setattr(_auth, "_GOOGLE_COLAB_SECRET", None)
    return vault


def test_the_secret_is_used(
    hub: Hub, vault: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    hub.repos["alice/model"] = Repo(private=True)
    assert check_access("alice/model", private=True) == Access("alice may write to alice/model")
    assert vault.asked == ["HF_TOKEN"]


def test_the_environment_comes_first(hub: Hub, vault: SimpleNamespace) -> None:
    hub.repos["alice/model"] = Repo(private=True)
    check_access("alice/model", private=True)
    assert vault.asked == []


def test_the_secret_is_hidden_whatever_its_shape(
    hub: Hub, vault: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    vault.secret = OTHER
    assert hide(OTHER) == OTHER  # nobody was asked for it yet
    with pytest.raises(RagtuneError) as refused:
        check_access("alice/model", private=True)
    assert OTHER not in refused.value.message + refused.value.advice
    assert hide(f"a log with {OTHER}") == f"a log with {HIDDEN}"
    assert kind_of(f"x{OTHER}x") == "a token of this machine"
    with pytest.raises(ragtune.UsageError, match="a token of this machine") as refused:
        ragtune.load_recipe({"name": OTHER})
    assert OTHER not in refused.value.message


@pytest.mark.parametrize("error", [MissingError(), RefusedError(), ColabError("no answer")])
@pytest.mark.filterwarnings("ignore")
def test_without_a_secret_it_is_said_where_to_put_it(
    error: Exception, hub: Hub, vault: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    vault.secret = error
    for _ in range(2):
        with pytest.raises(RagtuneError, match="there is no Hub token") as refused:
            check_access("alice/model", private=True)
        assert "to publish nothing. On Colab: save it as HF_TOKEN" in refused.value.advice
    assert vault.asked == ["HF_TOKEN"]
    assert hub.requests == []


def test_who_publishes_nothing_is_not_asked(
    vault: SimpleNamespace, tiny_recipe: dict[str, Any], tmp_path: Any
) -> None:
    ragtune.check(tiny_recipe, run_dir=tmp_path / "run")
    ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")
    assert vault.asked == []
