"""Publishing on the Hugging Face Hub: ask first, then push, and lose nothing if it refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragtune.errors import RagtuneError, UsageError

# Results are safetensors and text; whatever else may lie in a folder is not for others.
_NEVER = ["*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*train_log.jsonl", "*.partial"]

_ADVICE = {
    401: "The token is wrong or has expired: run `hf auth login`, or set HF_TOKEN, with a token "
    "that may write.",
    403: "The token may not write to {repo}: make one with write access to it, or choose another "
    "publish.repo.",
    404: "{repo} is not there and could not be made: check publish.repo and the token's rights.",
    409: "{repo} is being changed by someone else: wait a moment.",
    429: "The Hub limits the rate: wait some minutes.",
}


def api() -> Any:
    """The Hub's client, at `HF_ENDPOINT` if that is set."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


@contextmanager
def hub_errors(repo: str, finish: str) -> Iterator[None]:
    """Turn what the Hub or the network answers into a message and the command that goes on."""
    from huggingface_hub import errors

    # The client's own: httpx's in huggingface_hub 1.x, httpx2's from 2.0 on.
    transport_error: Any = errors.HTTPError  # type: ignore[attr-defined]
    again = f" Nothing is lost: {finish}" if finish else ""
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise RagtuneError(
            "The Hub can't be asked: HF_HUB_OFFLINE is set.", f"Unset it to publish.{again}"
        ) from error
    except errors.HFValidationError as error:
        raise UsageError(
            f"publish.repo: {error}",
            "Name it owner/name: letters, digits, and single - _ . inside.",
        ) from error
    except (transport_error, OSError, RuntimeError, ValueError) as error:
        # A file that failed to upload comes as a RuntimeError that holds the Hub's answer.
        root: BaseException = error
        while not isinstance(root, transport_error) and root.__cause__ is not None:
            root = root.__cause__
        if isinstance(root, OSError) and root.filename is not None:
            raise  # a file here, not the Hub
        if isinstance(root, errors.HfHubHTTPError):
            code = root.response.status_code
            advice = _ADVICE.get(code, "")
            if code >= 500:  # noqa: PLR2004 - the server's own faults
                advice = "The Hub has a problem: try again later."
            reason = f"The Hub refused ({code}): {_line(root.server_message or str(root))}"
        elif isinstance(root, PermissionError):  # Xet's refusal of the token
            reason, advice = f"The Hub refused: {_line(str(root))}", _ADVICE[401]
        elif isinstance(root, (transport_error, ConnectionError, TimeoutError)):
            reason = f"The Hub can't be reached: {type(root).__name__}: {_line(str(root))}"
            advice = "Check the network."
        else:
            reason = f"The Hub's client failed: {type(root).__name__}: {_line(str(root))}"
            advice = "Check the network and try again."
        raise RagtuneError(reason, (advice.format(repo=repo) + again).strip()) from error


def _line(text: str) -> str:
    """The first line of a message, without the token."""
    from huggingface_hub import get_token

    return (text.strip().splitlines() or [""])[0].replace(get_token() or "\0", "…")


def check_access(repo: str, *, private: bool) -> str:
    """Ask the Hub whether a push to `repo` would work: is there a token, whose, may it write there?

    Args:
        repo: owner/name.
        private: what the recipe wants; nothing private is pushed to a repository that is public.

    Returns:
        The user's name, and what was found, in words.

    Raises:
        UsageError: the Hub takes no such name.
        RagtuneError: it would fail, why, and what to do.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    token = get_token()
    if not token:
        raise RagtuneError(
            f"publish.repo is {repo}, but there is no Hub token.",
            "Run `hf auth login`, or set HF_TOKEN, or set publish.repo=null to publish nothing.",
        )
    if not (token.isascii() and token.isprintable()):
        raise RagtuneError(
            "The Hub token holds characters that no token has.",
            "Copy it again: run `hf auth login`, or set HF_TOKEN.",
        )
    hub = api()
    with hub_errors(repo, ""):
        validate_repo_id(repo)  # auth_check takes any name
        who = hub.whoami()
    user = who["name"]
    access = (who.get("auth") or {}).get("accessToken") or {}
    if access.get("role") == "read":
        raise RagtuneError(
            f"The Hub token of {user} may only read.",
            "Make a token with write access at the Hub's settings, then `hf auth login`.",
        )
    owner = repo.partition("/")[0]
    mine = [user, *(o["name"] for o in who.get("orgs") or [] if o.get("roleInOrg") != "read")]
    with hub_errors(repo, ""):
        try:
            hub.auth_check(repo, write=True)
            if private and not hub.model_info(repo).private:
                raise RagtuneError(
                    f"{repo} is public, and publish.private is true.",
                    "Set publish.private=false to publish there, or choose another publish.repo.",
                )
            return f"{user} may write to {repo}"
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            if owner not in mine:
                raise RagtuneError(
                    f"{repo} does not exist, and the token of {user} can't make it: it may create "
                    f"repositories of {', '.join(mine)}.",
                    f"Set publish.repo={user}/{repo.partition('/')[2]}.",
                ) from None
    return f"{repo} will be made by {user}"


def push(folder: Path, repo: str, *, private: bool, command: str) -> str:
    """Upload a folder in one commit; return the repository's address.

    Files that are there already are not sent again. Uploads go on where they stopped when the same
    command is run again.

    Raises:
        RagtuneError: the Hub refuses; nothing here is changed.
    """
    hub = api()
    with hub_errors(repo, f"run `{command}` again to finish."):
        address = hub.create_repo(repo, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repo,
            folder_path=str(folder),
            commit_message="Upload by ragtune",
            ignore_patterns=list(_NEVER),
        )
    return str(address)
