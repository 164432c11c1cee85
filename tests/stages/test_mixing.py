"""Nothing is mixed: an edited recipe, a kill in the middle of a change, a state of another shape."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

import ragtune
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.stages.context import Context
from ragtune.stages.run import markdown_summary
from tests.faults import digests
from tests.store.test_folder import finished, flip, place

__all__ = ["finished"]


def test_an_edited_or_deleted_recipe_in_the_directory_mixes_nothing(
    finished: Any, tmp_path: Path
) -> None:
    recipe, run = finished(tmp_path)
    whole = digests(run)
    copy = run / "recipe.yaml"
    edited = copy.read_text("utf-8").replace("steps: 8", "steps: 9")
    assert edited != copy.read_text("utf-8")
    copy.write_text(edited, "utf-8")
    with pytest.raises(UsageError, match=r"train.steps: 8 there, 9 now: no longer valid: adapter"):
        ragtune.run(run)
    copy.unlink()
    (run / "run.json").unlink()
    with pytest.raises(UsageError, match="seed: 7 there, 8 now"):
        ragtune.run(recipe, "seed=8", run_dir=run)
    ragtune.run(recipe, run_dir=run)
    assert copy.exists()
    assert digests(run) == whole
    copy.write_text("", "utf-8")
    ragtune.run(recipe, run_dir=run)
    assert "steps: 8" in copy.read_text("utf-8")


def test_somebody_elses_folder_is_not_touched(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "data" / "notes.txt").write_text("mine", "utf-8")
    (project / "recipe.yaml").write_text(f"# my comments\n{yaml.safe_dump(tiny_recipe)}", "utf-8")
    files = {p: p.read_bytes() for p in project.rglob("*") if p.is_file()}
    for target, folder in ((project, None), (project / "recipe.yaml", project)):
        for redo in (False, True):
            with pytest.raises(UsageError, match=r"holds recipe\.yaml, data and no run\.json"):
                ragtune.run(target, run_dir=folder, redo=redo)
        (bad,) = [f for f in ragtune.check(target, run_dir=folder) if f["level"] == "fail"]
        assert bad["name"] == "run directory"
    assert {p: p.read_bytes() for p in project.rglob("*") if p.is_file()} == files


def test_another_name_is_another_run(finished: Any, tmp_path: Path) -> None:
    _, run = finished(tmp_path)
    ragtune.prepare(run, "name=second", "seed=8")
    assert (tmp_path / "second" / "data").is_dir()
    assert "seed: 7" in (run / "recipe.yaml").read_text("utf-8")


def test_what_was_set_aside_can_be_compared(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    ragtune.run(recipe, "train.steps=4", run_dir=run, redo=True)
    assert "steps: 8" in (run / "old-1" / "recipe.yaml").read_text("utf-8")
    found = ragtune.compare_runs(run / "old-1", run)
    assert found["n"] == 10


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_kill_while_stages_are_set_aside_keeps_no_figures_of_them(
    finished: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    recipe, run = finished(tmp_path)
    replace, left = Path.replace, [moment]

    def cut(self: Path, target: Any) -> Any:
        if "old-1" in str(target):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        ragtune.run(recipe, "evaluate.limit=5", run_dir=run, redo=True)
    monkeypatch.undo()
    monkeypatch.setenv("RAGTUNE_CACHE", str(tmp_path / "cache"))
    ragtune.run(recipe, "evaluate.limit=5", run_dir=run, redo=True)
    ragtune.run(recipe, "evaluate.limit=5", run_dir=tmp_path / "new")
    assert digests(run) == digests(tmp_path / "new")
    assert json.loads((run / "run.json").read_text("utf-8"))["merge"]["asked"] == 5


@contextmanager
def changed_file(recipe: dict[str, Any]) -> Iterator[None]:
    """Meanwhile the training data under the same path are others."""
    file = Path(recipe["data"]["train"])
    old = file.read_text("utf-8")
    file.write_text(old.replace("colour", "color"), "utf-8")
    try:
        yield
    finally:
        file.write_text(old, "utf-8")


@pytest.fixture(scope="module")
def undisturbed(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the changed file."""
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe, _ = finished(folder)
    with changed_file(recipe):
        ragtune.run(recipe, run_dir=folder / "new")
    return folder / "new"


@pytest.mark.parametrize("moment", [1, 2, 3, 5, 7, 8, 12])
def test_a_kill_while_the_stages_of_a_changed_file_are_set_aside_mixes_nothing(
    finished: Any, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    recipe, run = finished(tmp_path)
    whole = digests(run)
    with changed_file(recipe):
        with monkeypatch.context() as patched:
            cut_at(patched, run, moment)
            with pytest.raises(KeyboardInterrupt):
                ragtune.run(recipe, run_dir=run, redo=True)
        if (
            run / "data"
        ).is_dir() and moment < 8:  # what is left says still that it is of another file
            found = [f for f in ragtune.check(recipe, run_dir=run) if f["name"] == "run directory"]
            assert "train.jsonl has changed" in found[-1]["message"]
            with pytest.raises(UsageError, match=r"train\.jsonl has changed"):
                ragtune.run(recipe, run_dir=run)
        ragtune.run(recipe, run_dir=run, redo=True)
    assert digests(run) == digests(undisturbed) != whole
    old = {k: v for n in ("old-1", "old-2") for k, v in digests(run / n).items()}
    assert old.items() <= whole.items()
    states = [json.loads((r / "run.json").read_text("utf-8")) for r in (run, undisturbed)]
    assert states[0]["merge"] == states[1]["merge"]
    assert states[0]["data"] == states[1]["data"]


def cut_at(monkeypatch: pytest.MonkeyPatch, run: Path, moment: int) -> None:
    """Interrupt before one of the renames that give a name in a run directory."""
    replace, left = Path.replace, [moment]

    def cut(self: Path, target: Any) -> Any:
        left[0] -= Path(target).is_relative_to(run)
        if not left[0]:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", cut)


def test_who_reads_without_a_lock_reads_nothing_damaged(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    flip(place(run, "after") / "predictions.jsonl")
    whole = digests(run)
    with pytest.raises(RagtuneError, match="after is damaged") as error:
        ragtune.compare_runs(run, place(run, "before"))
    assert f"ragtune run {run}" in error.value.advice
    with pytest.raises(RagtuneError, match="after is damaged"):
        markdown_summary(Context(recipe, [], run))
    with pytest.raises(RagtuneError, match="after is damaged"):
        ragtune.push(recipe, "publish.repo=alice/model", run_dir=run, dry_run=True)
    assert digests(run) == whole


def test_figures_are_never_read_back(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    made = ragtune.controls(recipe, run_dir=run)
    for name in ("controls.json", "comparison.json", "after/metrics.json"):
        place(run, name).write_text("{", "utf-8")
    ragtune.push(recipe, "publish.repo=alice/model", run_dir=run, dry_run=True)
    ragtune.run(recipe, run_dir=run)
    written = json.loads(place(run, "controls.json").read_text("utf-8"))
    assert {k: v for k, v in written.items() if k != "format"} == made


def test_a_summary_has_all_its_figures_of_one_scoring(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    ragtune.controls(recipe, run_dir=run)
    files = {f: f.read_bytes() for f in run.rglob("*") if f.is_file()}
    text = markdown_summary(Context(recipe, ["evaluate.metric=contains"], run))
    assert {f: f.read_bytes() for f in run.rglob("*") if f.is_file()} == files  # it only reads
    ragtune.report(recipe, "evaluate.metric=contains", run_dir=run)
    assert text == markdown_summary(Context(recipe, ["evaluate.metric=contains"], run))
    assert "squad_em" not in text.partition("ontrols")[2]


def test_what_a_training_keeps_and_shows_may_change(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    whole = digests(run)
    ragtune.run(recipe, "train.log_every=1", "train.keep_checkpoints=9", run_dir=run)
    assert digests(run) == whole
    assert "log_every: 1" in (run / "recipe.yaml").read_text("utf-8")


def test_times_of_stages_that_are_made_again_begin_anew(finished: Any, tmp_path: Path) -> None:
    recipe, run = finished(tmp_path)
    ragtune.prepare(recipe, "data.max_passages=1", run_dir=run, redo=True)
    state = json.loads((run / "run.json").read_text("utf-8"))
    assert not {"before", "train", "after", "merge"} & state["times"].keys()
    assert not state["asked"]


def test_a_file_that_came_into_the_models_folder_is_a_change(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_recipe["model"]["id"], tmp_path / "model")
    tiny_recipe["model"]["id"] = str(model)
    # Where the template stands is a matter of transformers' version; here it is in the older place.
    template = model / "chat_template.jinja"
    config = json.loads((model / "tokenizer_config.json").read_text("utf-8"))
    if template.exists():
        config["chat_template"] = template.read_text("utf-8")
        template.unlink()
    (model / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    run = tmp_path / "run"
    ragtune.prepare(tiny_recipe, run_dir=run)
    old = digests(run)
    (model / "README.md").write_text("nothing that a model is made of", "utf-8")
    ragtune.prepare(tiny_recipe, run_dir=run)
    template.write_text(config["chat_template"].replace("user", "User"), "utf-8")
    words = (
        r"model\.id: .*/model/chat_template\.jinja is new .*: no longer valid: data, questions\n"
    )
    with pytest.raises(UsageError, match=words):
        ragtune.run(tiny_recipe, run_dir=run)
    (bad,) = [f for f in ragtune.check(tiny_recipe, run_dir=run) if f["level"] == "fail"]
    assert "chat_template.jinja is new" in bad["message"]
    assert digests(run) == old
    ragtune.prepare(tiny_recipe, run_dir=run, redo=True)
    ragtune.prepare(tiny_recipe, run_dir=run)
    proof = json.loads((run / "data" / "stage.json").read_text("utf-8"))
    assert "chat_template.jinja" in proof["inputs"]["model.id"]["files"]
