"""What a build wrote beside its examples reaches the run that reads them: report, card and check."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.base.files import sha256
from ragtune.building.figures import NAME, Built, read_built, write_built
from ragtune.data.example import Place
from ragtune.data.prepare import load_examples
from ragtune.stages.built import builds_of
from ragtune.stages.context import Context
from tests.conftest import make_records, write_records
from tests.reporting.made import a_build

PLACE = {"file": "manual.pdf", "start": 3, "end": 40, "page": 12, "heading": "House"}


@pytest.fixture
def corpus(tiny_recipe: dict[str, Any], tmp_path: Path) -> Callable[..., Built]:
    """Writes what `ragtune build` would beside the recipe's data, whose passages say where they stand."""
    for split, prefix in (("train", "q"), ("eval", "e")):
        records = make_records(24 if split == "train" else 10, prefix)
        for record in records:
            record["passages"][0]["place"] = PLACE
        write_records(tmp_path / f"{split}.jsonl", records)

    def write(**changes: Any) -> Built:
        seal = {f"{s}.jsonl": sha256(tmp_path / f"{s}.jsonl") for s in ("train", "eval")}
        built = a_build(**{"seal": seal, **changes})
        write_built(tmp_path, built)
        return built

    return write


def builds(recipe: dict[str, Any], run: Path) -> dict[str, Built]:
    return {str(split): built for split, built in builds_of(Context(recipe, (), run)).items()}


def report(recipe: dict[str, Any], run: Path) -> str:
    return ragtune.report(recipe, run_dir=run).read_text("utf-8")


def test_a_run_keeps_what_was_built(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    corpus: Callable[..., Built],
    capsys: pytest.CaptureFixture[str],
) -> None:
    built, run = corpus(), tmp_path / "run"
    ragtune.prepare(tiny_recipe, run_dir=run)
    assert builds(tiny_recipe, run) == {"train": built, "eval": built}
    page = report(tiny_recipe, run)
    assert 'id="retrieval"' in page
    assert "Kept by the selection, evaluation questions</dt><dd>100.0 % (10 of 10)" in page
    # Where its passages stand is kept with them.
    for file in (run / "data" / "train.jsonl", run / "eval" / "eval" / "questions" / "eval.jsonl"):
        example = load_examples(file)[0]
        assert example.passages[0].place == Place(**PLACE)
        assert example.passages[1].place is None
    capsys.readouterr()
    ragtune.prepare(tiny_recipe, run_dir=run, show=1)
    assert "\n      manual.pdf, p. 12\n" in capsys.readouterr().out
    # The corpus may be gone: the run has it.
    (tmp_path / NAME).unlink()
    assert builds(tiny_recipe, run) == {"train": built, "eval": built}
    assert 'id="retrieval"' in report(tiny_recipe, run)


def test_what_is_stated_later_counts_and_makes_nothing_again(
    tiny_recipe: dict[str, Any], tmp_path: Path, corpus: Callable[..., Built]
) -> None:
    corpus(license=None, attribution=None)
    run = tmp_path / "run"
    ragtune.prepare(tiny_recipe, run_dir=run)
    assert "not stated" in report(tiny_recipe, run)
    before = (run / "data" / "stage.json").read_bytes()
    corpus(license="CC0-1.0")
    assert "CC0-1.0" in report(tiny_recipe, run)
    ragtune.prepare(tiny_recipe, run_dir=run)
    assert (run / "data" / "stage.json").read_bytes() == before


def test_examples_that_were_changed_are_not_those_that_were_built(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    corpus: Callable[..., Built],
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus()
    write_records(tmp_path / "train.jsonl", make_records(20))
    ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")
    said = " ".join(capsys.readouterr().out.split())
    assert f"! {tmp_path / NAME} is not of this train.jsonl, which was changed after" in said
    assert "Build them again, or move build.json away." in said
    assert list(builds(tiny_recipe, tmp_path / "run")) == ["eval"]
    page = {f["name"]: f for f in ragtune.check(tiny_recipe, run_dir=tmp_path / "other")}
    assert page["data licences"]["level"] == "ok"


def test_a_damaged_build_json_is_said_and_done_without(
    tiny_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / NAME).write_text('{"format": 1, "seal": {"train.jsonl": 3}, "figures": {}}')
    ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")
    assert "build.json is damaged: " in capsys.readouterr().out
    assert builds(tiny_recipe, tmp_path / "run") == {}
    (tmp_path / NAME).write_text('{"name": "of another program", "version": 3}')
    ragtune.prepare(tiny_recipe, run_dir=tmp_path / "other")
    assert "build.json" not in capsys.readouterr().out


def test_what_a_run_keeps_is_whole_or_damaged(
    tiny_recipe: dict[str, Any], tmp_path: Path, corpus: Callable[..., Built]
) -> None:
    """As every file of a stage it is sealed by the stage's proof."""
    corpus()
    run = tmp_path / "run"
    ragtune.prepare(tiny_recipe, run_dir=run)
    kept = run / "data" / NAME
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"license": "forged"}))
    (tmp_path / NAME).unlink()
    ragtune.prepare(tiny_recipe, run_dir=run)
    assert list(builds(tiny_recipe, run)) == ["eval"]  # set aside, and made of what is there now


@pytest.mark.parametrize("when", ["before", "after"])
def test_check_says_what_is_stated_before_anything_is_published(
    tiny_recipe: dict[str, Any], tmp_path: Path, corpus: Callable[..., Built], when: str
) -> None:
    run = tmp_path / "run"

    def finding(*changes: str) -> dict[str, str]:
        (found,) = (
            f
            for f in ragtune.check(tiny_recipe, *changes, run_dir=run)
            if f["name"] == "data licences"
        )
        return found

    corpus()
    if when == "after":
        ragtune.prepare(tiny_recipe, run_dir=run)
    assert finding() | {"advice": "", "excerpt": ()} == {
        "name": "data licences",
        "level": "ok",
        "message": "manuals/eval.jsonl: CC BY 4.0; manuals/train.jsonl: CC BY 4.0",
        "advice": "",
        "excerpt": (),
    }
    corpus(license=None)
    assert finding()["level"] == "ok"  # nothing is published
    found = finding("publish.repo=me/model")
    assert found["level"] == "warning"
    assert found["message"] == (
        "nothing states the licence of manuals/eval.jsonl and manuals/train.jsonl"
    )
    assert "state documents.license and documents.attribution in the corpus" in found["advice"]


def test_the_copy_in_a_run_is_the_record(
    tiny_recipe: dict[str, Any], tmp_path: Path, corpus: Callable[..., Built]
) -> None:
    built = corpus()
    ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")
    assert read_built(tmp_path / "run" / "data" / NAME) == dataclasses.replace(built)
