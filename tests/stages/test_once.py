"""What a run does once, however many of its stages need it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import ragtune
from ragtune.data.encode import Encoder
from ragtune.data.example import Example


def test_a_run_loads_and_encodes_no_more_often_than_it_must(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: Counter[str] = Counter()
    for name, kind in (("tokenizer", AutoTokenizer), ("model", AutoModelForCausalLM)):
        load = kind.from_pretrained

        def counted(path: str, name: str = name, load: Any = load, **options: Any) -> Any:
            weightless = options.get("device_map") == {"": "meta"}
            loads[name] += not weightless
            return load(path, **options)

        monkeypatch.setattr(kind, "from_pretrained", counted)
    encoded: Counter[str] = Counter()
    prompts = Encoder.prompts

    def seen(self: Encoder, examples: Sequence[Example]) -> Any:
        encoded.update(one.qid for one in examples)
        return prompts(self, examples)

    monkeypatch.setattr(Encoder, "prompts", seen)
    ragtune.run(tiny_recipe, run_dir=tmp_path / "run")
    assert loads == {"tokenizer": 1, "model": 2}  # the base, which is tuned; and what was merged
    # By the check, which may be asked alone; when the data are prepared; and for all that asks and shows.
    assert {encoded[f"e{i}"] for i in range(10)} == {3}
    # The last time to train; the first one is shown by the check, too.
    assert {encoded[f"q{i}"] for i in range(1, 24)} == {3}
