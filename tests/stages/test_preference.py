"""A reader that is tuned on what it answered wrongly: two runs, of which one asks the other's training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ragtune
from ragtune.base.files import read_jsonl
from ragtune.data.prepare import load_examples
from ragtune.stages.context import Context
from ragtune.training.pairs import Pair
from tests.conftest import make_records, write_records


def test_from_a_run_to_one_on_its_wrong_answers(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    reader, preferring = tmp_path / "reader", tmp_path / "preferring"
    tiny_recipe["data"] |= {"refusal": "no", "unanswerable": 0.25}
    ragtune.run(tiny_recipe, "train.steps=2", run_dir=reader)
    second = {**tiny_recipe, "model": {"id": str(reader / "merged"), "dtype": "float32"}}
    second["data"] = {
        **tiny_recipe["data"],
        "train": str(write_records(tmp_path / "other.jsonl", make_records(20, "o"))),
    }
    ragtune.prepare(second, run_dir=preferring)
    trained = preferring / "data" / "train.jsonl"
    ragtune.evaluate(reader, f"data.eval={trained}")
    answers = reader / "eval" / "train" / "after" / "predictions.jsonl"
    assert len(list(read_jsonl(answers))) == 20  # those to be refused, too
    comparison = ragtune.run(second, f"train.preference={answers}", run_dir=preferring)
    assert comparison is not None
    one = Context(preferring)
    pairs = {p.qid: p for step in one.steps for p in step if isinstance(p, Pair)}
    refused = {e.qid for e in load_examples(trained) if not e.answers}
    assert len(refused) == 5
    assert refused & pairs.keys()
    texts = {row["qid"]: row["prediction"] for row in read_jsonl(answers)}
    for qid in refused & pairs.keys():
        ids = pairs[qid].rejected_ids
        assert one.encoder.tokenizer.decode(ids, skip_special_tokens=True) == texts[qid]

    # Other answers make another adapter: that is seen, and said.
    write_records(answers, [{"qid": qid, "prediction": "x"} for qid in texts])
    found = [f for f in ragtune.check(preferring) if "train.preference" in json.dumps(f)]
    assert found, "the file has changed"
