"""Tokens and passwords: refused in a recipe, hidden in messages, without ever being shown."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from ragtune.base.reading import read_text

HIDDEN = "[hidden]"
_SHORTEST = 8
"""A shorter value of a variable is no token, and hiding it would garble messages."""

_LARGEST = 1 << 20
"""Bytes of a file of tokens."""

_TOKENS = re.compile(
    r"\b(hf_\w{12,}(\.[\w-]{20,})*"  # Hugging Face; of a login in the browser a JSON web token follows
    r"|api_org_\w{12,}"
    r"|sk-[\w-]{12,}"  # OpenAI and others
    r"|gh[pousr]_\w{16,}|github_pat_\w{16,}"
    r"|AKIA[0-9A-Z]{16}"  # AWS
    r"|xox[abprs]-[\w-]{10,}"  # Slack
    r"|eyJ[\w-]{10,1000}+\.eyJ[\w-]{10,}\.[\w-]+)"  # a JSON web token, whose head is short
)
_IN_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]{0,30}://[^\s/?#@]+@", re.IGNORECASE)
_QUERY = re.compile(r"(?<=://)([^\s?#]{1,300})([?#]\S{1,2000})")
_VALUE = re.compile(r"([?&#;])([\w.-]{1,64})=[^&#;'\"]+")
_SECRET_NAME = re.compile(
    r"(^|[._-])(token|password|passwd|passphrase|secret|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|credentials?)$",
    re.IGNORECASE,
)
_KEYS = ("key", "sig", "signature", "auth")
"""Further names behind the ? of an address."""
_SECRET_VARIABLE = re.compile(r"(TOKEN|_KEY|SECRET|PASSWORD)$")
_STORED = re.compile(r"^(?:hf|refresh)_token *= *(\S+)", re.MULTILINE)
"""In the file of all tokens that the user ever logged in with."""

ADVICE = (
    "A recipe is written into run directories, reports and model cards. Remove it there, and make a "
    "new one if others could have seen it. The Hub's token belongs in `hf auth login` or the "
    "environment variable HF_TOKEN, a server's key in OPENAI_API_KEY."
)

BESIDE_ADDRESS = re.compile("[@?#]")
"""What an address of a server must not hold, which is shown and written to files."""
IN_ADDRESS = "holds a user's name or password, or something behind ? or #"
ADDRESS_ADVICE = "Leave it out, and put the key into the environment variable OPENAI_API_KEY."

STRANGE_TOKEN = "The Hub's token holds a character that no token has."  # noqa: S105 - it is none
TOKEN_ADVICE = "Copy it again: `hf auth login`, or HF_TOKEN."  # noqa: S105 - no password


def kind_of(text: str, known: Sequence[str] | None = None) -> str | None:
    """What a text holds that nobody else should see, in words, or None.

    Args:
        text: a value, or a line.
        known: the tokens of this machine, to look them up only once for many texts.
    """
    if _TOKENS.search(text):
        return "what looks like a token"
    if _IN_ADDRESS.search(text):
        return "an address with a user's name or password"
    if _without_keys(text) != text:
        return "an address with a key behind ? or #"
    if any(token in text for token in (_known() if known is None else known)):
        return "a token of this machine"
    return None


def named_as_secret(key: str) -> bool:
    """Whether a key's name says that its value is secret: `token`, `hub.password`, `api_key`."""
    return _SECRET_NAME.search(key) is not None


def hide(text: str) -> str:
    """A text without the tokens of this machine's environment and the Hub's store, and what looks so."""
    for token in _known():
        for form in {token, quote(token, safe=""), quote_plus(token), repr(token)[1:-1]}:
            text = text.replace(form, HIDDEN)
    text = _without_keys(text)
    text = _IN_ADDRESS.sub(lambda m: f"{m[0].partition('://')[0]}://{HIDDEN}@", text)
    return _TOKENS.sub(HIDDEN, text)


def _without_keys(text: str) -> str:
    """A text without the keys that stand behind ? or # in its addresses."""

    def value(found: re.Match[str]) -> str:
        name = found[2]
        secret = name.lower() in _KEYS or named_as_secret(name)
        return f"{found[1]}{name}={HIDDEN}" if secret else found[0]

    return _QUERY.sub(lambda found: found[1] + _VALUE.sub(value, found[2]), text)


def scan(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The (dotted key, what it holds) of every value of a mapping that nobody else should see."""
    known = _known()
    pending: list[tuple[str, Any]] = [("", values)]
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            pending += [(f"{key}.{name}".removeprefix("."), v) for name, v in value.items()]
        elif isinstance(value, list):
            pending += [(key, inner) for inner in value]
        elif value not in (None, "") and named_as_secret(key):
            yield key, "by its name, a secret"
        elif isinstance(value, str) and (kind := kind_of(value, known)):
            yield key, kind


def environment_without_secrets() -> dict[str, str]:
    """This process's environment for one that has no use for tokens."""
    return {k: v for k, v in os.environ.items() if not _SECRET_VARIABLE.search(k)}


def _known() -> list[str]:
    """The tokens that this process could see, the longest first."""
    found = {
        value.strip()
        for name, value in os.environ.items()
        if _SECRET_VARIABLE.search(name) and len(value.strip()) >= _SHORTEST
    }
    store = _store()
    stored = [_read(store), *_STORED.findall(_read(store.parent / "stored_tokens"))]
    found |= {token for token in (*stored, _of_colab()) if len(token) >= _SHORTEST}
    return sorted(found, key=len, reverse=True)


def _of_colab() -> str:
    """The token among a Colab notebook's secrets, if huggingface_hub has asked for it: nobody is asked here."""
    auth = sys.modules.get("huggingface_hub.utils._auth")
    return getattr(auth, "_GOOGLE_COLAB_SECRET", None) or ""


def _read(path: Path) -> str:
    try:
        return read_text(path, _LARGEST).strip()
    except (OSError, ValueError):
        return ""


def _store() -> Path:
    """The file of the Hub's token: huggingface_hub's own rule, without the time that it takes to load."""
    # os.path: an empty variable is the current folder, Path.expanduser fails where there is no home, and
    # nothing else expands variables.
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", os.path.join(cache, "huggingface"))  # noqa: PTH118 - as huggingface_hub does it
    path = os.environ.get("HF_TOKEN_PATH", os.path.join(home, "token"))  # noqa: PTH118 - as huggingface_hub does it
    return Path(os.path.expandvars(os.path.expanduser(path)))  # noqa: PTH111 - as huggingface_hub does it
