"""A model's files: which commit of the Hub lies in the cache, and whether all of them are whole."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import sys
from pathlib import Path

from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from ragtune.base.disk import cache_dir
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import later, read_if_whole, read_json, sha256, write_json
from ragtune.base.web.hub_client import bound_client
from ragtune.base.web.refusals import HTTPError
from ragtune.model.safety import (
    ADAPTER,
    INDEX,
    WEIGHTS,
    lacks_weights,
    model_json,
    named_weights,
    parts_in,
    require_safe_references,
    require_safe_repository,
)
from ragtune.model.source import ModelSource
from ragtune.store.seal import set_aside

_MISSING = 404
_SHA1, _SHA256 = 40, 64
"""Characters of the names that the Hub's cache gives to files: git's for small ones, sha256 for large."""
_COPY_AGAIN = "Copy the model to that folder again."


def commit_of(source: ModelSource) -> str | None:
    """The commit of a Hub model that is in the cache; None for any other model."""
    snapshot = _snapshot(source)
    return snapshot.name if snapshot else None


def folder_of(source: ModelSource) -> Path | None:
    """Where a model's files are: its folder, or its snapshot in the Hub's cache if there is one."""
    return _snapshot(source) if source.path == source.name else Path(source.path)


def _snapshot(source: ModelSource) -> Path | None:
    if source.path != source.name:
        return None
    found = try_to_load_from_cache(source.path, "config.json", revision=source.revision)
    return Path(found).parent if isinstance(found, str) else None


def loads_without_hub(source: ModelSource) -> bool:
    """Whether a Hub model's configuration and all of its weights are in the cache."""
    snapshot = _snapshot(source)
    if snapshot is None:
        return False
    if (snapshot / WEIGHTS).is_file():
        return True
    index = snapshot / INDEX
    names: set[str] = set()
    with contextlib.suppress(RagtuneError):  # a damaged index names none
        names = parts_in(index) if index.is_file() else names
    return bool(names) and all((snapshot / name).is_file() for name in names)


def to_download(source: ModelSource) -> tuple[Path | None, int | None]:
    """The folder in which what the cache lacks of a Hub model's weights will arrive, and their bytes.

    None where nothing is lacking, and for bytes that no index in the cache names.
    """
    snapshot = _snapshot(source)
    if snapshot is None or loads_without_hub(source):
        return None, None
    told = read_if_whole(snapshot / INDEX).get("metadata")
    size = told.get("total_size") if isinstance(told, dict) else None
    return snapshot.parents[1] / "blobs", size if isinstance(size, int) else None


def set_damaged_aside(source: ModelSource, largest: int = sys.maxsize) -> None:
    """Look whether the cached files of a Hub model are what their names say; a damaged one goes.

    It is then downloaded again. What was found whole is remembered by size and time, so that
    gigabytes are read once and not at every start.

    Args:
        source: any model.
        largest: files of more bytes are not looked at.
    """
    snapshot = _snapshot(source)
    if snapshot is None:
        return
    memory = cache_dir() / "whole.json"
    known: dict[str, list[int]] = {}
    with contextlib.suppress(RagtuneError):
        known = read_json(memory)["files"] if memory.exists() else {}
    begun = []
    for link in sorted(p for p in snapshot.rglob("*") if p.is_file()):
        blob = link.resolve()
        stat = blob.stat()
        seen = [stat.st_size, stat.st_mtime_ns]
        named = len(blob.name) in (_SHA1, _SHA256)
        if named and stat.st_size <= largest and known.get(str(blob)) != seen:
            begun.append((link, blob, seen, later(lambda blob=blob: _digest(blob))))  # type: ignore[misc]
    for link, blob, seen, digest in begun:
        if digest.result() == blob.name:
            known[str(blob)] = seen
        else:
            set_aside(blob, f"{link.name} of {source.name} has another checksum")
            link.unlink()
    if begun:
        there = {k: v for k, v in known.items() if Path(k).exists()}
        # Of two processes at once one forgets what the other found whole: it is read once more.
        write_json(memory, {"files": there}, shared=True)


def _digest(blob: Path) -> str:
    if len(blob.name) == _SHA256:
        return sha256(blob)
    content = blob.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def require_safe_snapshot(source: ModelSource) -> tuple[ModelSource, bool]:
    """Require that a Hub model's commit in the cache has nothing that must not be loaded.

    Of a repository with an adapter, transformers loads the base model that the adapter names, from
    anywhere, and the adapter, also a pickle. The small files that say so are fetched to look at them.

    Returns:
        The source at that commit, and whether its repository was asked: if not, nothing but what is in
        the cache has been looked at. Of any other model, which `resolve` looks at: itself, True.

    Raises:
        UsageError: there is an adapter, or an index leads elsewhere or to pickles.
    """
    if source.path != source.name:
        return source, True
    snapshot = _snapshot(source)
    if snapshot is None:
        return source, False
    commit, asked = snapshot.name, True
    indexes = [n for n in named_weights(snapshot) if n.endswith(".index.json")]
    for name in (ADAPTER, INDEX, *indexes):
        # What the commit lacks is in the cache, too.
        if asked and try_to_load_from_cache(source.path, name, revision=commit) is None:
            asked = _fetch(source.path, name, commit)
    names = {p.name for p in snapshot.iterdir() if p.is_file()}
    require_safe_repository(names, source.path, whole=False)
    require_safe_references(snapshot)
    return dataclasses.replace(source, revision=commit), asked


def _fetch(repo: str, name: str, commit: str) -> bool:
    """Download a file of a commit if it has it; whether the Hub answered that it has it or not."""
    bound_client()
    try:
        endpoint = os.environ.get("HF_ENDPOINT") or None
        hf_hub_download(repo, name, revision=commit, endpoint=endpoint)
    except (HTTPError, OSError) as error:
        away = isinstance(error, errors.LocalEntryNotFoundError)
        cause = error.__cause__ if away else error
        gone = isinstance(cause, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError))
        # A mirror may say 404 and not of what: whoever asks again is told the same.
        return getattr(getattr(cause, "response", None), "status_code", 0) == _MISSING and not gone
    return True


def require_weights(source: ModelSource) -> None:
    """Require that a model's weights are whole, as far as that shows at once; of the Hub's: those in the cache.

    Raises:
        UsageError: there are none, or a part is missing.
        RagtuneError: a file is cut off or damaged.
    """
    folder = folder_of(source)
    if folder is None or (source.path == source.name and not loads_without_hub(source)):
        return
    weights_in(folder)
    if _unreadable(folder):
        raise damaged(source, "")


def weights_in(folder: Path) -> list[Path]:
    """The safetensors files of a folder that are loaded, of which each is there.

    Raises:
        UsageError: there are none, or a part is missing.
    """
    if not any(folder.glob("*.safetensors")):
        raise lacks_weights(folder, sorted(folder.iterdir()))
    for name in named_weights(folder):
        if not (folder / name).is_file():
            raise UsageError(
                f"model.id: {folder} lacks {name}, which transformers_weights of config.json names.",
                _COPY_AGAIN,
            )
    usual = (WEIGHTS, INDEX)  # the first that is there is loaded
    first = next((n for n in (*named_weights(folder), *usual) if (folder / n).is_file()), None)
    if first is None:
        raise UsageError(f"model.id: {folder} holds neither {WEIGHTS} nor {INDEX}.", _COPY_AGAIN)
    parts = parts_in(folder / first) if first.endswith(".index.json") else {first}
    missing = sorted(name for name in parts if not (folder / name).is_file())
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UsageError(
            f"model.id: {folder} lacks {missing[0]}{more}, a part of the weights by {first}.",
            _COPY_AGAIN,
        )
    if first.endswith(".index.json") and not isinstance(
        model_json(folder / first).get("metadata"), dict
    ):
        raise UsageError(f"model.id: {folder / first} is damaged: it has no metadata.", _COPY_AGAIN)
    return [folder / name for name in sorted(parts)]


def damaged(source: ModelSource, problem: str) -> RagtuneError:
    """What to say of weights that can't be read: which file it is, and where to get it again."""
    folder, advice = Path(source.path), _COPY_AGAIN
    snapshot = _snapshot(source)
    if snapshot:
        folder = snapshot
        advice = "Delete it and run the same command again: it is downloaded again."
    named, problem = _unreadable(folder) or (folder, problem)
    # In the Hub's cache the name is only a link, and what it leads to would be used again.
    return RagtuneError(f"model.id: {named.resolve()} is damaged ({problem}).", advice)


def _unreadable(folder: Path) -> tuple[Path, str] | None:
    """The first file of weights that does not begin as safetensors do, and why."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            safe_open(file, "pt")
        except (SafetensorError, OSError) as error:
            return file, str(error)
    return None
