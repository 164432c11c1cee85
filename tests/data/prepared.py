"""Prepared data for the tests: both folders at once, as a run has them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ragtune.base.files import making_folder
from ragtune.data.encode import Encoder
from ragtune.data.prepare import load_report, prepare_questions, prepare_training
from ragtune.recipe.schema import Recipe

FILES = {"train": "training/train.jsonl", "eval": "questions/eval.jsonl"}


def prepare_both(
    recipe: Recipe, encoder: Encoder, folder: Path, rows: int = sys.maxsize
) -> dict[str, Any]:
    """Fill FOLDER/training and FOLDER/questions, and give the data report."""
    with making_folder(folder) as partial:
        training, questions = partial / "training", partial / "questions"
        training.mkdir()
        questions.mkdir()
        auditor = prepare_training(recipe, encoder, rows, training)
        prepare_questions(recipe, encoder, rows, questions, auditor)
    return dict(load_report(folder / "training", folder / "questions"))
