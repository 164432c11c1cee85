"""Tasks of lm-evaluation-harness that need nothing but their own folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHOICES = ["red", "green", "blue", "white"]


def write_task(folder: Path, name: str, count: int = 12, **more: Any) -> None:
    """A task of multiple choice in a YAML file, with its data beside it; `more` of its keys."""
    folder.mkdir(exist_ok=True)
    data = folder / f"{name}.jsonl"
    documents = [
        {"question": f"What colour has flag {n} of {name}?", "choices": CHOICES, "answer": n % 4}
        for n in range(count)
    ]
    data.write_text("".join(json.dumps(one) + "\n" for one in documents), "utf-8")
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        **more,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(task), "utf-8")  # JSON is YAML
