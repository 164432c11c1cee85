"""A run whose answers cite, from its data to its report and to asking it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.asking.reader import Reader
from ragtune.data.citations import parse
from ragtune.stages.context import Context
from tests.conftest import make_records, write_records


@pytest.fixture
def citing(tiny_recipe: dict[str, Any]) -> dict[str, Any]:
    tiny_recipe["prompt"]["citations"] = True
    tiny_recipe["evaluate"] |= {"max_new_tokens": 12}
    return tiny_recipe


def test_a_run_that_cites(citing: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    comparison = ragtune.run(citing, "train.steps=30", "train.save_every=30", run_dir=run)
    assert comparison is not None
    context = Context(run)
    written = [
        json.loads(line)["prediction"]
        for line in (run / "eval/eval/after/predictions.jsonl").read_text("utf-8").splitlines()
    ]
    # It learns nothing but to cite: the answer always stands in the first passage.
    cited = [parse(text).numbers for text in written]
    found = comparison["citations"]
    assert found is not None
    after = found["after"]
    assert after is not None
    assert after["n"] == len(written) == 10
    assert after["cited"]["value"] == pytest.approx(sum(map(bool, cited)) / 10)
    assert after["cited"]["value"] > 0.5
    assert "Citation recall" in (run / "report.html").read_text("utf-8")
    assert "| Citation recall |" in ragtune.summary(run)
    metrics = json.loads((run / "eval/eval/after/metrics.json").read_text("utf-8"))
    assert metrics["citations"] == after

    reader = Reader.load(run)
    example = context.questions[0]
    (answer,) = reader.ask([example.question], example.passages[:2])
    assert answer.text == parse(written[0]).answer
    assert (*answer.citations, *answer.malformed) == parse(written[0]).numbers
    assert "".join(reader.stream(example.question, example.passages[:2])) == written[0]


def test_check_says_what_is_cited(citing: dict[str, Any], tmp_path: Path) -> None:
    def found() -> list[dict[str, Any]]:
        every = ragtune.check(citing, run_dir=tmp_path / "run")
        return [one for one in every if one["name"] == "citations"]

    (one,) = found()
    assert one["level"] == "ok"
    assert one["message"] == "24 training answers cite 1.0 passages each"
    rows = [{k: v for k, v in r.items() if not k.endswith("_indices")} for r in make_records(24)]
    write_records(Path(citing["data"]["train"]), rows)
    (one,) = found()
    assert one["message"].endswith("; of 24 those in which an answer stands, if only by chance")
    citing["prompt"]["citations"] = False
    assert found() == []


def test_runs_with_and_without_citations_are_scored_as_their_own_prompts_say(
    citing: dict[str, Any], tmp_path: Path
) -> None:
    runs = [tmp_path / which for which in ("plain", "citing")]
    for run, cites in zip(runs, ("false", "true"), strict=True):
        ragtune.run(citing, f"prompt.citations={cites}", "train.steps=2", run_dir=run)
    (compared,) = ragtune.compare_runs(*runs)["comparisons"]
    alone = ragtune.compare(runs[1])
    assert compared["after"] == alone["after"]
    assert compared["citations"] is None
