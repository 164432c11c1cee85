"""Tune a language model to answer from retrieved passages, measure what changed, publish it.

Every stage is a command and a function: `ragtune.run("recipe.yaml")` does all of them.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from typing import TYPE_CHECKING

from ragtune.base import sparing
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.garbage import importing
from ragtune.base.web.network import go_offline, is_offline, no_telemetry

__version__ = "0.1.0"

no_telemetry()
sparing.install()
if is_offline():  # the libraries must see it before they are imported
    go_offline()
# Any library may import it, and on a CPU it then says which kernels it does not have.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# In a notebook without widgets the libraries' bars say so; ours need none.
warnings.filterwarnings("ignore", message="IProgress not found")
# What it shadows is a method of pydantic's that is deprecated, and not used.
warnings.filterwarnings("ignore", message='Field name "copy" in "Evaluate" shadows')

__all__ = [
    "Corpus",
    "RagtuneError",
    "Reader",
    "Recipe",
    "UsageError",
    "__version__",
    "answers",
    "ask_served",
    "build",
    "check",
    "compare",
    "compare_logs",
    "compare_runs",
    "controls",
    "evaluate",
    "judge",
    "load_corpus",
    "load_recipe",
    "merge",
    "prepare",
    "push",
    "report",
    "run",
    "serve",
    "serve_command",
    "show",
    "summary",
    "sweep",
    "train",
]

_ELSEWHERE = {
    "Corpus": "recipe.corpus",
    "Reader": "asking.reader",
    "Recipe": "recipe.schema",
    "load_corpus": "recipe.load",
    "load_recipe": "recipe.load",
    "ask_served": "asking.serve",
    "judge": "stages.judge",
    "serve": "asking.serve",
    "serve_command": "asking.serve",
    "sweep": "stages.sweep.sweep",
}
"""What is not in `ragtune.api`."""

if TYPE_CHECKING:
    from ragtune.api import (
        answers,
        build,
        check,
        compare,
        compare_logs,
        compare_runs,
        controls,
        evaluate,
        merge,
        prepare,
        push,
        report,
        run,
        show,
        summary,
        train,
    )
    from ragtune.asking.reader import Reader
    from ragtune.asking.serve import ask_served, serve, serve_command
    from ragtune.recipe.corpus import Corpus
    from ragtune.recipe.load import load_corpus, load_recipe
    from ragtune.recipe.schema import Recipe
    from ragtune.stages.judge import judge
    from ragtune.stages.sweep.sweep import sweep


def __getattr__(name: str) -> object:
    # Nothing heavy is imported before it is asked for: `import ragtune` takes milliseconds.
    if name in __all__:
        with importing():
            module = importlib.import_module(f"ragtune.{_ELSEWHERE.get(name, 'api')}")
        return getattr(module, name)
    raise AttributeError(f"module 'ragtune' has no attribute {name!r}")
