"""Publishing on the Hugging Face Hub: ask first, then push, and lose nothing if it refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragtune.errors import RagtuneError

_NEVER = {"train_log.jsonl", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"}


def api() -> Any:
    """The Hub's client, at `HF_ENDPOINT` if that is set."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


@contextmanager
def hub_errors(repo: str, finish: str) -> Iterator[None]:
    """Turn what the Hub or the network answers into a message and the command that goes on."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    again = f"Nothing is lost: {finish}" if finish else ""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise RagtuneError(
            "The Hub can't be asked: HF_HUB_OFFLINE is set.", f"Unset it to publish. {again}"
        ) from error
    except HfHubHTTPError as error:
        response = getattr(error, "response", None)
        code = response.status_code if response is not None else 0
        advice = {
            401: "The token is wrong or has expired: run `hf auth login`, or set HF_TOKEN, with a token that may write.",
            403: f"The token may not write to {repo}: make one with write access to it, or choose another publish.repo.",
            404: f"{repo} is not there and could not be made: check publish.repo and the token's rights.",
            409: f"{repo} is being changed by someone else: wait a moment.",
            429: "The Hub limits the rate: wait some minutes.",
        }.get(code, "The Hub has a problem: try again later." if code >= 500 else "")  # noqa: PLR2004
        text = (getattr(error, "server_message", None) or str(error)).strip().splitlines()
        reason = text[0] if text else ""
        raise RagtuneError(f"The Hub refused ({code}): {reason}", f"{advice} {again}".strip()) from error
    except (httpx.HTTPError, OSError) as error:
        raise RagtuneError(
            f"The Hub can't be reached: {type(error).__name__}: {error}", f"Check the network. {again}".strip()
        ) from error


def check_access(repo: str) -> str:
    """Ask the Hub whether a push to `repo` would work: is there a token, whose, may it write there?

    Returns:
        The user's name, and what was found, in words.

    Raises:
        RagtuneError: it would fail, why, and what to do.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if not get_token():
        raise RagtuneError(
            f"publish.repo is {repo}, but there is no Hub token.",
            "Run `hf auth login`, or set HF_TOKEN, or set publish.repo=null to publish nothing.",
        )
    hub = api()
    with hub_errors(repo, ""):
        who = hub.whoami()
    user = who["name"]
    role = (who.get("auth") or {}).get("accessToken", {}).get("role")
    if role == "read":
        raise RagtuneError(
            f"The Hub token of {user} may only read.",
            "Make a token with write access at the Hub's settings, then `hf auth login`.",
        )
    owner = repo.partition("/")[0]
    mine = [user, *(o["name"] for o in who.get("orgs") or [])]
    with hub_errors(repo, ""):
        try:
            hub.auth_check(repo, write=True)
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
            ignore_patterns=sorted(_NEVER),
        )
    return str(address)
