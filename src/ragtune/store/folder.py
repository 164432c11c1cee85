"""The run directory: where everything of a run lies."""

from __future__ import annotations

import re
from pathlib import Path

from ragtune.base.errors import UsageError
from ragtune.recipe.schema import Recipe

_OLD = ("before", "after", "controls", "checkpoints", "data/eval.jsonl", "comparison.json")
"""What runs had before evaluation sets lay beside each other."""


class RunFolder:
    """The paths of a run. What lies under one of them is whole: it came there by a rename."""

    def __init__(self, path: Path, evaluation_set: str) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.summary = path / "run.json"
        self.published = path / "published.json"
        self.report = path / "report.html"
        self.data = path / "data"
        self.adapter = path / "adapter"
        self.merged = path / "merged"
        self.work = path / "work"
        self.plan = self.work / "plan.json"
        self.evaluation = path / "eval" / evaluation_set
        self.questions = self.evaluation / "questions"
        self.comparison = self.evaluation / "comparison.json"
        self.controls = self.evaluation / "controls.json"

    def answers(self, which: str) -> Path:
        """The folder of the answers `before` or `after` tuning, or of the `merged` model."""
        return self.evaluation / which

    def begun(self) -> list[str]:
        """The names under which a run keeps what it made, as far as they are taken."""
        own = (self.recipe, self.report, self.data, self.adapter, self.merged, self.path / "eval",
               self.work)  # fmt: skip
        return [path.name for path in own if path.exists()]

    def require_ours(self) -> None:
        """Raise unless what lies here was made by this version of ragtune, or nothing does.

        Raises:
            UsageError: somebody else's files, or a run of an older layout.
        """
        old = [name for name in _OLD if (self.path / name).exists()]
        if old and self.summary.exists():
            raise UsageError(
                f"{self.path} was made by an older ragtune: it holds {', '.join(old)}, which now lie "
                "in eval/SET.",
                "Its files stay as they are. Go on with the version that made it (run.json names it), or "
                "let this one make its own: name=ANOTHER on the command line, or --run-dir.",
            )
        found = self.begun()
        if found and not (self.summary.exists() or any(self.path.glob("**/stage.json"))):
            raise UsageError(
                f"{self.path} holds {', '.join(found)} and no run.json: it is no run directory, and these "
                "may be somebody's own.",
                "Choose another directory with --run-dir; a recipe is named as a file, "
                "FOLDER/recipe.yaml. If it was a run, move what it holds away.",
            )


def set_name(recipe: Recipe) -> str:
    """What the recipe's evaluation set is called below eval/: by its file or dataset."""
    named = recipe.data.eval
    if named is None:
        return str(recipe.data.source)
    last = re.split(r"[/\\]", named.removeprefix("sample:").rstrip("/\\"))[-1]
    last = re.sub(r"(\.(jsonl?|parquet|gz))+$", "", last, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", last).strip(".-") or "questions"
