"""Publishing on the Hugging Face Hub: ask first, then push, and lose nothing if it refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    ModelInfo,
    get_token,
)
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    DEFAULT_IGNORE_PATTERNS,
    filter_repo_objects,
    is_google_colab,
    validate_repo_id,
)

from ragtune.base.errors import RagtuneError
from ragtune.base.files import later
from ragtune.base.reading import open_plain
from ragtune.base.screen.progress import busy
from ragtune.base.text import size_of
from ragtune.base.web.hub import api, ask, hub_errors, own_bars
from ragtune.store.proof import NAME

# Results are safetensors and text; whatever else may lie in a folder is not for others, and a stage's
# proof names paths of this machine.
_NEVER = [
    "*.bin",
    "*.pt",
    "*.pth",
    "*.pkl",
    "*.pickle",
    "*.ckpt",
    "*train_log.jsonl",
    "*.partial",
    NAME,
]
# Of what an earlier push may have left: transformers takes one file of weights before many, an adapter
# besides the weights, and settings, tokens and templates wherever they come from.
_LOADED = re.compile(
    r"adapter_(config\.json|model\.safetensors)"
    r"|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
    r"|(generation_)?config\.json|chat_template\.jinja|additional_chat_templates/[^/]+\.jinja"
    r"|tokenizer(_config)?\.json|tokenizer\.model|added_tokens\.json|special_tokens_map\.json"
    r"|vocab\.json|merges\.txt|model-(bf16|q8_0)\.gguf|Modelfile"
)
_UNAUTHORIZED = 401
TAG = "ragtune"
"""In the card of everything that was pushed from here."""
_WRITE = "repo.write"
_HEAD = 64 << 20
"""Bytes of a GGUF file among which its texts stand: tokenizers of a quarter of a million tokens take ten."""
_NAMED = {"user", "org", "model", "dataset", "space"}
"""What a fine-grained token's right may be for, and has the name of an owner or a repository."""


def require_name(repo: str) -> None:
    """Refuse a repository's name that the Hub takes from nobody, without asking it.

    Raises:
        UsageError: the Hub takes no such name.
    """
    with hub_errors(repo, ""):
        validate_repo_id(repo)


@dataclass(frozen=True)
class Access:
    """What the Hub says of a push: who may, and what it leaves open, with what to do about that."""

    words: str
    doubt: str = ""
    advice: str = ""


_ON_COLAB = (
    " On Colab: save it as HF_TOKEN among this notebook's secrets (the key at the left), let the notebook "
    "read it, restart the session, and run all cells again."
)


def check_access(repo: str, *, private: bool) -> Access:
    """Ask the Hub whether a push to `repo` would work: is there a token, whose, may it write there?

    Args:
        repo: owner/name.
        private: what the recipe wants; nothing private is pushed to a repository that is public.

    Returns:
        The user's name and what was found, in words, and what is not sure.

    Raises:
        UsageError: the Hub takes no such name.
        RagtuneError: it would fail, why, and what to do.
    """
    token = get_token()
    if not token:
        raise RagtuneError(
            f"publish.repo is {repo}, but there is no Hub token.",
            "Run `hf auth login`, or set HF_TOKEN, or set publish.repo=null to publish nothing."
            + (_ON_COLAB if is_google_colab() else ""),
        )
    if not (token.isascii() and token.isprintable()):
        raise RagtuneError(
            "The Hub token holds characters that no token has.",
            "Copy it again: run `hf auth login`, or set HF_TOKEN.",
        )
    require_name(repo)  # the Hub's auth_check takes any name
    user, mine, sure = ask(lambda: _owners(repo), repo)
    exists = ask(lambda: _may_write(repo, user, mine, private=private), repo)
    if exists:
        return Access(f"{user} may write to {repo}")
    if sure:
        return Access(f"{repo} will be made by {user}")
    return Access(
        f"{repo} will be made by {user}, if the token may",
        f"The Hub does not say clearly what the fine-grained token of {user} may write to: the push to "
        f"{repo} may be refused.",
        f"To be sure, give the token write access to the repositories of {repo.partition('/')[0]} at the "
        "Hub's settings.",
    )


def _owners(repo: str) -> tuple[str, list[str], bool]:
    """The user whose token it is, whose repositories it may make, and whether that is sure.

    Raises:
        RagtuneError: the token can't write to `repo`.
    """
    who = api().whoami()
    user = str(who["name"])
    access = (who.get("auth") or {}).get("accessToken") or {}
    if access.get("role") == "read":
        raise RagtuneError(
            f"The Hub token of {user} may only read.",
            "Make a token with write access at the Hub's settings, then `hf auth login`.",
        )
    mine = [user, *(o["name"] for o in who.get("orgs") or [] if o.get("roleInOrg") != "read")]
    rights = access.get("fineGrained") or {}
    if access.get("role") != "fineGrained" or _WRITE in (rights.get("global") or []):
        return user, mine, True
    owner = repo.partition("/")[0]
    scopes = [s["entity"] for s in rights.get("scoped") or [] if _WRITE in s["permissions"]]
    named = [entity for entity in scopes if entity["type"] in _NAMED]
    writable = {str(entity["name"]).lower() for entity in named}
    # Not clear: nothing is said, or of a group of an organisation's repositories, for example.
    if "scoped" not in rights or named != scopes:
        return user, mine, owner.lower() in writable
    if not writable & {owner.lower(), repo.lower()}:
        raise RagtuneError(
            f"The Hub token of {user} is fine-grained and may not write to {repo}.",
            f"At the Hub's settings, give it write access to the repositories of {owner}, or make "
            "another token; or choose another publish.repo.",
        )
    return user, [name for name in mine if name.lower() in writable], True


def _may_write(repo: str, user: str, mine: list[str], *, private: bool) -> bool:
    """Whether the repository exists.

    Raises:
        RagtuneError: the token can't write to it or make it, or it is public and should not be.
    """
    hub = api()
    try:
        hub.auth_check(repo, write=True)
        if private and not hub.model_info(repo).private:
            raise RagtuneError(
                f"{repo} is public, and publish.private is true.",
                "Set publish.private=false to publish there, or choose another publish.repo.",
            )
    except GatedRepoError:
        raise
    except RepositoryNotFoundError as error:
        if error.response.status_code == _UNAUTHORIZED:
            hub.whoami()  # the client takes a token that has just expired for this, too
        owner, _, name = repo.partition("/")
        if owner not in mine:
            raise RagtuneError(
                f"{repo} does not exist, and the token of {user} can't make it: it may create "
                f"repositories of {', '.join(mine) or 'nobody'}.",
                f"Set publish.repo={mine[0]}/{name}."
                if mine
                else f"At the Hub's settings, give it write access to the repositories of {owner}.",
            ) from None
        return False
    return True


def files_to_send(folder: Path) -> dict[str, int]:
    """The files of a folder that a push sends, with their sizes in bytes."""
    ignored = [*_NEVER, *DEFAULT_IGNORE_PATTERNS]
    paths = (p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file())
    kept = filter_repo_objects(paths, ignore_patterns=ignored)
    return {name: (folder / name).stat().st_size for name in kept}


@dataclass(frozen=True)
class Published:
    """Where a folder lies on the Hub, whether anything had to be sent, and what was removed there."""

    address: str
    changed: bool
    removed: tuple[str, ...]

    def words(self) -> Iterator[str]:
        """What to say of it, a line at a time."""
        if self.removed:
            yield (
                "Removed there, as it would be loaded instead of this or besides it: "
                f"{', '.join(self.removed)}."
            )
        if self.changed:
            yield f"Published: {self.address}"
        else:
            yield f"Nothing to send: {self.address} holds all of this already."


def push(folder: Path, repo: str, *, private: bool, command: str) -> Published:
    """Upload a folder in one commit; what is there already is not sent again.

    The same content is no commit. What an earlier push left, and would be loaded instead of this folder
    or besides it, is removed in the same commit. A failure that may pass is tried again some times.
    After another, the same command goes on where this one stopped: a file that arrived whole is not
    sent a second time.

    Raises:
        RagtuneError: the Hub refuses, or what is to be private would be public, or a file holds the
            token; nothing here is changed.
    """
    _refuse_token(folder)
    finish = f"run `{command}` again to finish."
    hub = api()
    address = str(ask(lambda: hub.create_repo(repo, private=private, exist_ok=True), repo, finish))
    before = ask(lambda: hub.model_info(repo), repo, finish)
    if private and not before.private:
        raise RagtuneError(
            f"{repo} is public, though it was to be made private: its owner's settings may make every "
            "repository public. Nothing was sent.",
            "In its settings on the Hub make it private, or delete it if this push made it; or choose "
            "another publish.repo, or set publish.private=false to publish there.",
        )
    left = tuple(_left_over(before, folder))
    if left and TAG not in (before.tags or []):
        raise RagtuneError(
            f"{repo} holds {', '.join(left)}, which would be loaded instead of this model or besides "
            "it, and its card does not say that ragtune put it there. Nothing was sent.",
            "Choose another publish.repo. Or remove these files there, if nobody needs them.",
        )
    commit = ask(lambda: _commit(folder, repo), repo, finish)
    return Published(address, commit.oid != before.sha, left)


def _commit(folder: Path, repo: str) -> CommitInfo:
    """Make the one commit; upload_folder makes several of what takes long."""
    hub = api()
    # Looked up each time: a commit whose answer was lost has removed them.
    gone = _left_over(hub.model_info(repo), folder)
    files = files_to_send(folder)
    with busy(f"uploading {size_of(sum(files.values()))} to {repo}"), own_bars():
        # Each reads its whole file: several at a time.
        sent = [later(partial(CommitOperationAdd, name, folder / name)) for name in files]
        changes: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationDelete(name) for name in gone),
            *(one.result() for one in sent),
        ]
        commit: CommitInfo = hub.create_commit(repo, changes, commit_message="Upload by ragtune")
    return commit


def _left_over(info: ModelInfo, folder: Path) -> list[str]:
    """What lies in a repository, is not in the folder, and would be taken for a part of it."""
    names = {file.rfilename for file in info.siblings or []} - files_to_send(folder).keys()
    return sorted(name for name in names if _LOADED.fullmatch(name))


def _beginning(path: Path) -> bytes:
    """A file's text: all of it, or what stands before the weights."""
    with open_plain(path) as file:
        return file.read(_HEAD if path.suffix == ".gguf" else -1)


def _refuse_token(folder: Path) -> None:
    token = (get_token() or "").encode()
    for name in files_to_send(folder) if token else ():
        if not name.endswith(".safetensors") and token in _beginning(folder / name):
            raise RagtuneError(
                f"{folder / name} holds your Hub token: nothing was sent.",
                "Take it out of the recipe or the template, make this file again, and revoke the token.",
            )
