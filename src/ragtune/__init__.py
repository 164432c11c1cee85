"""Tune a language model to answer from retrieved passages, measure what changed, publish it.

Every stage is a command and a function: `ragtune.run("recipe.yaml")` does all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ragtune.errors import RagtuneError, UsageError

__version__ = "0.1.0"

_STAGES = ("run", "check", "prepare", "train", "evaluate", "report", "merge", "push", "compare")
__all__ = ["RagtuneError", "Recipe", "UsageError", "__version__", "load_recipe", *_STAGES]

if TYPE_CHECKING:
    from ragtune.pipeline import check, compare, evaluate, merge, prepare, push, report, run, train
    from ragtune.recipe import Recipe, load_recipe


def __getattr__(name: str) -> Any:
    # Nothing heavy is imported before it is asked for: `import ragtune` takes milliseconds.
    import importlib

    if name in {"Recipe", "load_recipe"}:
        return getattr(importlib.import_module("ragtune.recipe"), name)
    if name in _STAGES:
        return getattr(importlib.import_module("ragtune.pipeline"), name)
    raise AttributeError(f"module 'ragtune' has no attribute {name!r}")
