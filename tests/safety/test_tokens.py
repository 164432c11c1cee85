"""What is taken for a token, where it is refused, and that no message shows it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.secrets import hide, kind_of, named_as_secret
from ragtune.recipe.keys import all_keys
from ragtune.recipe.load import load_recipe

HUB = "hf_abcdefghijklmnopqrstuvwxyzABCDEF"
WEB = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiI2MDAwMDAwMDAwIn0.c2lnbmF0dXJl-X2Fub3RoZXI"
TOKENS = [
    HUB,
    f"hf_oauth_{WEB}",
    f"hf_jwt_{WEB}",
    WEB,
    "sk-abcdefghijklmnopqrst",
    "sk-proj-abc_DEF-0123456789",
    "ghp_abcdefghijklmnopqrst",
    "github_pat_abcdefghijklmnopqrst",
    "AKIAABCDEFGHIJKLMNOP",
    "https://user:word@example.org/x",
    "https://word@example.org/x",
    "https://example.org/x.jsonl?download=1&token=word-7",
    "http://localhost:8000/v1?key=word-7",
]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("where", ["file", "comment", "escaped", "mapping", "override", "template"])
def test_a_token_is_refused_and_not_shown(
    tiny_recipe: dict[str, Any], tmp_path: Path, token: str, where: str
) -> None:
    path = tmp_path / "r.yaml"
    overrides: list[str] = []
    source: Any = path
    text = json.dumps(tiny_recipe, indent=1)
    if where == "file":
        text = text.replace("english", token)
    elif where == "comment":
        text += f"\n# {token}\n"
    elif where == "escaped":
        escaped = "".join(f"\\u{ord(c):04x}" for c in token)
        text = text.replace('"preset": "english"', f'"preset": "english", "system": "{escaped}"')
    elif where == "mapping":
        source = {**tiny_recipe, "prompt": {"preset": "english", "system": f"x {token} y"}}
    elif where == "override":
        overrides = [f"prompt.system=x {token}"]
    else:
        (tmp_path / "t.jinja").write_text("{{ question }} " + token, "utf-8")
        overrides = [f"prompt.template={tmp_path / 't.jinja'}"]
    path.write_text(text, "utf-8")
    with pytest.raises(UsageError) as raised:
        load_recipe(source, overrides)
    assert token not in str(raised.value)
    assert "holds" in raised.value.message
    assert "HF_TOKEN" in raised.value.advice
    if where == "file":
        assert raised.value.message.startswith(f"{path}:")


@pytest.mark.parametrize(
    "key", ["token", "hub.token", "password", "api_key", "train.secret", "apikey"]
)
def test_a_key_that_is_named_so_is_refused(tiny_recipe: dict[str, Any], key: str) -> None:
    section, _, inner = key.rpartition(".")
    values: dict[str, Any] = {**tiny_recipe}
    values |= {section: {**values.get(section, {}), inner: "short"}} if section else {key: "short"}
    for source, overrides in ((values, []), (tiny_recipe, [f"{key}=short"])):
        with pytest.raises(UsageError) as raised:
            load_recipe(source, overrides)
        assert f"{key} holds by its name, a secret" in raised.value.message
        assert "short" not in str(raised.value)


def test_a_token_of_this_machine_is_refused_whatever_it_looks_like(
    tiny_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("stored-canary-123\n", "utf-8")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("SERVER_API_KEY", "canary-456-key")
    for token in ("stored-canary-123", "canary-456-key"):
        with pytest.raises(UsageError) as raised:
            load_recipe(tiny_recipe, [f"prompt.system={token}"])
        assert token not in str(raised.value)


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({}, "home/.cache/huggingface/token"),
        ({"XDG_CACHE_HOME": "{}/xdg"}, "xdg/huggingface/token"),
        ({"XDG_CACHE_HOME": "$ROOT/xdg"}, "xdg/huggingface/token"),
        ({"XDG_CACHE_HOME": "{}/xdg", "HF_HOME": "~/hf"}, "home/hf/token"),
        ({"XDG_CACHE_HOME": ""}, "here/huggingface/token"),
        ({"HF_HOME": ""}, "here/token"),
        ({"HF_HOME": "{}/hf", "HF_TOKEN_PATH": "~/my-token"}, "home/my-token"),
    ],
)
def test_the_token_in_the_hubs_store_is_hidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], path: str
) -> None:
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "{}/home", "ROOT": "{}", **variables}.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("stored-canary-123\n", "utf-8")
    (tmp_path / path).with_name("stored_tokens").write_text(
        "[at work]\nhf_token = other-canary-456\nrefresh_token = fresh-canary-789\n"
        "expires_at = 1795699999\n\n",
        "utf-8",
    )
    asked = (
        "from huggingface_hub import get_token; from huggingface_hub.utils import get_stored_tokens; "
        "print(get_token(), *get_stored_tokens().values())"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("HF_TOKEN", "HF_OIDC_RESOURCE")}
    done = subprocess.run(
        [sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True
    )
    # The rule is the client's own.
    assert done.stdout.split() == ["stored-canary-123", "other-canary-456"]
    for token in ("stored-canary-123", "other-canary-456", "fresh-canary-789"):
        assert hide(f"Bearer {token}") == "Bearer [hidden]"
    assert hide("at 1795699999") == "at 1795699999"


@pytest.mark.parametrize("path", ["", "/", "\udcff", "no-such-folder/token"])
def test_a_store_that_is_none_hinders_no_message(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("HF_TOKEN_PATH", path)
    assert hide("see x") == "see x"


@pytest.mark.parametrize("token", TOKENS)
def test_what_looks_like_a_token_is_hidden(token: str) -> None:
    shown = re.sub("(user:)?word(-7)?", "[hidden]", token, count=1) if "//" in token else "[hidden]"
    assert hide(f"KeyError: '{token}'.") == f"KeyError: '{shown}'."


def test_no_key_of_a_recipe_is_named_like_a_secret() -> None:
    assert not [key for key in all_keys() if named_as_secret(key)]


@pytest.mark.parametrize(
    "text",
    ["hf_model", "sk-learn", "task-specific-instructions", "https://example.org/@user", "a@b.org", "owner/sk-x",
     "http://localhost:8000/v1", "https://example.org/?download=true#tokens", "What is ?key=value in http://x/y", "desk-abcdefghijklmnopqrst", "What is hf_hub?", "file://x/y@z"],
)  # fmt: skip
def test_other_texts_are_no_tokens(text: str) -> None:
    assert kind_of(text) is None


def test_messages_hide_what_they_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary/Key+with=signs")
    for shown in ("canary/Key+with=signs", "canary%2FKey%2Bwith%3Dsigns"):
        error = RagtuneError(f"refused: Bearer {shown}", f"not {shown}")
        assert str(error) == "refused: Bearer [hidden]\nnot [hidden]"
        assert shown not in repr(error)
    assert hide("see https://me:word@host/x") == "see https://[hidden]@host/x"
    assert hide("'http://h/v1?a=b&api_key=word&c=d'") == "'http://h/v1?a=b&api_key=[hidden]&c=d'"
    monkeypatch.setenv("SHORT_TOKEN", "x")
    assert hide("xyz") == "xyz"


def test_messages_hold_no_signs_that_a_terminal_obeys() -> None:
    assert RagtuneError("a\x1b[2Jb\ud800\n\tc").message == "a\\x1b[2Jb\\ud800\n\tc"
