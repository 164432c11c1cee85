"""What the Hub's refusals and failures mean, in words."""

from __future__ import annotations

import json
import re

from huggingface_hub import errors, get_token

from ragtune.base.secrets import HIDDEN, STRANGE_TOKEN, TOKEN_ADVICE, hide
from ragtune.base.text import shortened
from ragtune.base.web.answers import AnswerError, retry_after

# httpx's in huggingface_hub 1.x, httpx2's from 2.0 on.
HTTPError: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
"""What the client raises of a connection, and of an answer that says no."""
SENSELESS = (
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RecursionError,
    json.JSONDecodeError,
    UnicodeDecodeError,
)
"""What is raised while an answer is read that holds something other than it should."""
_MALFORMED = re.compile(r"improperly formatted|[Mm]alformed response|does not match format|int\(\)")
"""What huggingface_hub says of such an answer, by a ValueError, where it looks."""
_SHOWN = 300
"""How much of a server's words a message shows, in characters."""

_SERVERS_FAULT = 500
_MEANING = {
    400: "it does not understand what it was asked",
    401: "it takes no such token, or wants one",
    403: "this is not allowed",
    404: "there is nothing of this name, or nothing that this token may see",
    410: "it was there once, and is gone",
    416: "the file is shorter than it was when its download began",
    429: "too many requests",
    451: "it is withheld for legal reasons",
}
"""What a code says that comes without words."""
_WORDLESS = re.compile(
    r"(\d{3} )?(Client|Server) [Ee]rror|\d{3} (Forbidden: None|Too Many Requests)|Bad request:$"
)
"""What the client says of such a code."""
_TOKEN = "The token is wrong or has expired: run `hf auth login`, or set HF_TOKEN"  # noqa: S105 - no password
_NO_HUB = "Try again later; if HF_ENDPOINT is set, see that a Hub is there."
_ADVICE = {
    400: _NO_HUB,
    401: f"{_TOKEN}.",
    403: "This token may not read {repo}: run `hf auth login` with one that may.",
    404: "Check the name; for something private run `hf auth login`.",
    410: "Choose another one, or a folder.",
    416: "Run the same command again.",
    429: "The Hub limits the rate: wait some minutes.",
    451: "Choose another one, or a folder.",
}
_WRITING = {
    400: "If the message names nothing to change, check publish.repo: owner/name, letters, digits "
    "and single - _ . inside.",
    401: f"{_TOKEN}, with a token that may write.",
    403: "The token may not write to {repo}: make one with write access to it, or choose another "
    "publish.repo.",
    404: "{repo} is not there and could not be made: check publish.repo and the token's rights.",
    409: "{repo} is being changed by someone else: wait a moment.",
}


def root_of(error: BaseException) -> BaseException:
    """What the Hub or the network said: the client wraps it, once for each file that fails."""
    while not isinstance(error, (HTTPError, AnswerError)) and error.__cause__ is not None:
        error = error.__cause__
    return error


def explain(error: BaseException, repo: str, *, writing: bool = True) -> tuple[str, str]:
    """What a failure to ask the Hub means, and what to do.

    Args:
        error: as huggingface_hub raised it.
        repo: owner/name.
        writing: whether it was asked to change something, and not only to read.
    """
    root = root_of(error)
    text, name = _line(str(root)), type(root).__name__
    network, later = "Check the network.", "Check the network, or try again later."
    # By name, as httpx's and httpx2's classes are called alike: tests/publish/test_faults.py.
    kinds = {kind.__name__ for kind in type(root).__mro__}
    if isinstance(root, errors.HfHubHTTPError):
        code = root.response.status_code
        wordless = _WORDLESS.match(text) and _MEANING.get(code)
        said = _line(root.server_message or wordless or str(root))
        reason, advice = f"The Hub refused ({code}): {said}", _advice(root, repo, writing=writing)
    elif isinstance(root, UnicodeEncodeError):
        reason, advice = STRANGE_TOKEN, TOKEN_ADVICE
    elif isinstance(root, AnswerError):
        reason, advice = f"The Hub's answer was not read on: {text}", _NO_HUB
    elif isinstance(root, PermissionError):  # Xet's refusal of the token
        reason, advice = f"The Hub refused: {text}", (_WRITING if writing else _ADVICE)[401]
    elif kinds & {"ConnectError", "ConnectTimeout"}:
        reason, advice = f"The Hub can't be reached: {name}: {text}", network
    elif "TimeoutException" in kinds:
        reason, advice = f"The Hub did not answer{_within(root)}.", later
    elif isinstance(root, (HTTPError, ConnectionError, TimeoutError)):
        reason, advice = f"The connection to the Hub was cut: {name}: {text}", network
    elif isinstance(root, (errors.FileMetadataError, *SENSELESS)) or _MALFORMED.search(text):
        reason, advice = f"The Hub's answer makes no sense: {name}: {text}", _NO_HUB
    else:
        reason = f"The Hub's client failed: {name}: {text}"
        advice = "Check the network and try again."
    return f"{reason.removesuffix('.')}.", advice


def _within(error: BaseException) -> str:
    """How long an answer was waited for."""
    request = getattr(error, "_request", None)  # `request` itself raises where there is none
    seconds = request.extensions.get("timeout", {}).get("read") if request else None
    return f" within {seconds:g} s" if seconds else ""


def _advice(error: errors.HfHubHTTPError, repo: str, *, writing: bool) -> str:
    """What to do about an answer that says no."""
    if asked := retry_after(error.response.headers):
        return f"It asks to wait {asked:.0f} s."
    code = error.response.status_code
    if code >= _SERVERS_FAULT:
        return "The Hub has a problem: try again later."
    advice = {**_ADVICE, **_WRITING} if writing else _ADVICE
    return advice.get(code, "").format(repo=repo)


def _line(text: str) -> str:
    """The first line of a message, shortened and without a token."""
    # The client's may be of neither the environment nor the store: it also asks for short-lived ones.
    line = text.strip().partition("\n")[0].replace(get_token() or "\0", HIDDEN)
    return shortened(hide(line), _SHOWN)
