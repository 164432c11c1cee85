"""The stage as a whole: the merged model's score, a preview, the card's example."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from ragtune import api as pipeline
from ragtune.answering.prediction import read_predictions
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.web import hub
from ragtune.data.example import Example, Passage
from ragtune.recipe.load import load_recipe
from ragtune.stages.answer import ask
from ragtune.stages.context import Context
from ragtune.store.proof import NAME
from tests.publish.conftest import Finished, contents, published
from tests.standin import TOKEN, Hub, Repo

REPO = "publish.repo=alice/model"


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return re.sub(r"[ \n]+", " ", capsys.readouterr().out)


# Again, and nothing new.


def test_the_same_content_again(
    hub: Hub, run_dir: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.push(run_dir.path, REPO)
    assert "Published: " in said(capsys)
    hub.requests.clear()
    pipeline.push(run_dir.path)  # the repository is in the run's recipe by now
    assert f"Nothing to send: {hub.url}/alice/model holds all of this already." in said(capsys)
    assert hub.repos["alice/model"].commits == ["Upload by ragtune"]
    assert not [r for r in hub.requests if r.startswith("PUT") or "/commit/" in r]


def test_something_new(hub: Hub, run_dir: Finished, folder: Path) -> None:
    pipeline.push(run_dir.path, REPO)
    (folder / "config.json").write_text("{}", "utf-8")
    run_dir.record("merged")  # else it would count as damaged
    run_dir.answer("merged answers", 5)
    pipeline.push(run_dir.path)
    assert hub.repos["alice/model"].files == published(folder)
    assert len(hub.repos["alice/model"].commits) == 2


def test_what_the_token_may_is_not_clear(
    hub: Hub, run_dir: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    """The push says it on the screen, and check in what it found."""
    hub.grant(None)
    doubt = (
        "The Hub does not say clearly what the fine-grained token of alice may write to: the push to "
        "alice/model may be refused."
    )
    advice = "To be sure, give the token write access to the repositories of alice at the Hub's settings."
    one = next(f for f in pipeline.check(run_dir.path, REPO) if f["name"] == "hub")
    assert (one["level"], one["message"], one["advice"]) == ("warning", doubt, advice)
    capsys.readouterr()
    pipeline.push(run_dir.path, REPO)
    out = said(capsys)
    assert f"! {doubt} {advice}" in out
    assert "alice/model will be made by alice, if the token may." in out
    assert next(f for f in pipeline.check(run_dir.path, REPO) if f["name"] == "hub") == {
        "name": "hub", "level": "ok", "message": "alice may write to alice/model", "advice": "",
        "excerpt": (),
    }  # fmt: skip


# The merged model's score.


@pytest.mark.parametrize("merged", [3, 9])
def test_a_score_inside_the_interval(hub: Hub, run_dir: Finished, merged: int) -> None:
    run_dir.answer("merged answers", merged)
    pipeline.push(run_dir.path, REPO)
    assert hub.repos["alice/model"].files


@pytest.mark.parametrize(
    ("merged", "paired"),
    [(2, "−40.0 points (−70.0 … −10.0"), (10, "+40.0 points (+10.0 … +70.0")],
)
def test_a_score_outside_the_interval_stops_the_push(
    hub: Hub, run_dir: Finished, merged: int, paired: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir.answer("merged answers", merged)
    with pytest.raises(RagtuneError) as caught:
        pipeline.push(run_dir.path, REPO)
    message, advice = str(caught.value).split("\n")
    assert message == (
        "The merged model is not what was measured: it gives 4 of 10 answers otherwise than the run itself; "
        f"squad_em {merged}0.0 % where the run has 60.0 % (30.0 … 90.0), {paired}: the paired 95 % interval "
        "over 10 questions). Nothing was sent."
    )
    assert hub.repos == {}
    with pytest.raises(RagtuneError, match="is not what was measured"):
        pipeline.push(run_dir.path, REPO, dry_run=True)

    # What the advice says, does it.
    assert advice.endswith(f": ragtune push {run_dir.path} {REPO} publish.format=adapter")
    pipeline.push(run_dir.path, REPO, "publish.format=adapter")
    assert set(hub.repos["alice/model"].files) == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "ragtune.yaml",
    }  # fmt: skip


# A preview.


def test_a_preview_names_what_then_arrives(
    hub: Hub,
    run_dir: Finished,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HF_TOKEN")  # none is needed
    before = contents(run_dir.path)
    pipeline.push(run_dir.path, REPO, "publish.private=false", dry_run=True)
    assert hub.requests == []
    assert contents(run_dir.path) == before  # neither the card nor the recipe is written
    shown = capsys.readouterr().out
    assert "Would push the merged model to alice/model, public if it is made:" in shown
    assert "library_name: transformers" in shown  # the card's head
    listed = {
        name: size for size, name in re.findall(r"^ +([\d.]+ \w+)  (\S+)$", shown, re.MULTILINE)
    }
    assert listed["model-00001-of-00002.safetensors"] == "293 KiB"

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    pipeline.push(run_dir.path, REPO)
    assert set(listed) == set(hub.repos["alice/model"].files)


def test_a_preview_before_there_is_anything(hub: Hub, run_dir: Finished, folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.rmtree(run_dir.adapter)
    with pytest.raises(
        UsageError, match=r"merged is not there yet\.\nRun `ragtune merge .*` first\."
    ):
        pipeline.push(run_dir.path, REPO, dry_run=True)
    with pytest.raises(
        UsageError, match=r"adapter is not there yet\.\nRun `ragtune train .*` first\."
    ):
        pipeline.push(run_dir.path, REPO, "publish.format=adapter", dry_run=True)


def test_a_preview_of_an_illegal_name(hub: Hub, run_dir: Finished) -> None:
    with pytest.raises(UsageError, match=r"^publish\.repo: "):
        pipeline.push(run_dir.path, "publish.repo=alice/a--b", dry_run=True)
    with pytest.raises(UsageError, match=r"^publish\.repo is not set"):
        pipeline.push(run_dir.path, dry_run=True)


# The real thing, with a tiny model: what the card shows, runs on what was pushed.


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A whole run of the tiny model, merged."""
    from tests.conftest import make_records, write_records

    folder = tmp_path_factory.mktemp("finished")
    recipe = {
        "name": "tiny",
        "seed": 7,
        "model": {"id": str(tiny_folder), "dtype": "float32"},
        "data": {
            "train": str(write_records(folder / "train.jsonl", make_records(24))),
            "eval": str(write_records(folder / "eval.jsonl", make_records(10, "e"))),
            "max_passages": 2,
        },
        "prompt": {"preset": "english", "system": "Be brief."},
        "lora": {"rank": 4, "alpha": 8},
        "train": {"steps": 4, "batch_size": 4, "learning_rate": 0.01},
        "evaluate": {"max_new_tokens": 6, "metric": "squad_em"},
    }
    pipeline.run(recipe, run_dir=folder / "run")
    return folder / "run"


@pytest.mark.parametrize("kind", ["merged", "adapter"])
@pytest.mark.parametrize("named", [False, True], ids=["local base", "named base"])
def test_the_cards_example_runs(
    hub: Hub,
    finished: Path,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    named: bool,
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    if named:  # as if the base had been a model of the Hub
        config = run / "adapter/adapter_config.json"
        values = {**json.loads(config.read_text("utf-8")), "base_model_name_or_path": "owner/base"}
        config.write_text(json.dumps(values), "utf-8")
        done = Finished(run, load_recipe(run / "recipe.yaml"))
        for stage in ("adapter", "after", "merged", "merged answers"):
            done.record(stage)
    pipeline.push(run, REPO, f"publish.format={kind}")
    repo = hub.repos["alice/model"]
    card = repo.files["README.md"].decode()
    assert ("base_model: owner/base\n" in card) == named
    assert "model-index:" in card
    text = b"".join(c for name, c in repo.files.items() if not name.endswith(".safetensors"))
    for private in (str(tmp_path), str(tiny_folder), str(finished), TOKEN):
        assert private.encode() not in text

    # Everything by the names that a reader has, and nothing from anywhere else.
    place = tmp_path / "reader"
    for name, content in repo.files.items():
        (place / "alice/model" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "alice/model" / name).write_bytes(content)
    (place / "owner").mkdir()
    for base in ("PATH-OF-THE-BASE", "owner/base"):
        (place / base).symlink_to(tiny_folder)
    monkeypatch.chdir(place)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code = re.search(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    assert code
    capsys.readouterr()
    scope: dict[str, Any] = {}
    exec(code[1], scope)
    printed = capsys.readouterr().out.strip()

    # The prompt and the answer are those of the run.

    passages = tuple(Passage(p["text"], p["title"]) for p in scope["passages"])
    example = Example("x", scope["question"], (), passages, (), (), {})
    one = Context(run)
    prompt = one.encoder.prompt(example)
    assert scope["inputs"]["input_ids"].tolist() == [prompt.ids]
    ask(one, "after", one.encoder.showing_all(), [example], tmp_path)
    (found,) = read_predictions(tmp_path / "predictions.jsonl")
    assert found.prediction == printed or kind == "merged"  # bf16 may say it otherwise
    assert printed


def of_another_base(run_dir: Finished, old: Path, new: str) -> None:
    """As if the run had been made from another model."""
    for path in (run_dir.folder.recipe, *run_dir.path.rglob(NAME)):
        path.write_text(path.read_text("utf-8").replace(str(old), new), "utf-8")


def test_the_cards_licence_is_the_bases(
    hub: Hub, run_dir: Finished, tiny_folder: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: mit\n---\n# base\n", "utf-8")
    of_another_base(run_dir, tiny_folder, str(base))
    pipeline.push(run_dir.path, REPO)
    card = hub.repos["alice/model"].files["README.md"].decode()
    assert "\nlicense: mit\n" in card
    assert "| base model | a model that is not on the Hub | mit |" in card


def test_what_is_not_stated_is_said_before_anything_is_published(
    hub: Hub, run_dir: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "Before this is published: nothing states the licence of eval.jsonl and train.jsonl."
    pipeline.push(run_dir.path, REPO, dry_run=True)
    assert words in said(capsys)
    assert hub.requests == []
    pipeline.push(run_dir.path, REPO)
    told = said(capsys)
    assert told.index(words) < told.index("Published: ")


@pytest.mark.parametrize("there", [True, False])
def test_the_card_of_a_base_on_the_hub_is_asked_for(
    hub: Hub,
    run_dir: Finished,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    if there:
        hub.repos["owner/base"] = Repo(False, {"README.md": b"---\nlicense: gemma\n---\n"})
    run_dir.trained("owner/base")
    of_another_base(run_dir, tiny_folder, "owner/base")
    pipeline.push(run_dir.path, REPO)
    card = hub.repos["alice/model"].files["README.md"].decode()
    assert f"| base model | owner/base | {'gemma' if there else 'not known here'}" in card
    assert ("\nlicense: gemma\n" in card) == there
    hub.requests.clear()
    pipeline.push(run_dir.path, dry_run=True)
    assert hub.requests == []  # it is in the cache now, or stays unknown


def test_a_folder_that_is_gone_does_not_become_a_model_of_the_hub(
    hub: Hub, run_dir: Finished, tiny_folder: Path
) -> None:
    """models/base, relative to a folder that one has left, has the form of a Hub id."""
    of_another_base(run_dir, tiny_folder, "models/base")
    pipeline.push(run_dir.path, REPO)
    card = hub.repos["alice/model"].files["README.md"].decode()
    assert "models/base" not in card


@pytest.mark.parametrize("gone", ["./gone", "./gone.gguf", "package:ragtune-gone"])
@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_a_base_that_is_gone_is_not_needed(
    hub: Hub,
    run_dir: Finished,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
    gone: str,
    kind: str,
) -> None:
    of_another_base(run_dir, tiny_folder, gone)
    for dry_run in (True, False):
        pipeline.push(run_dir.path, REPO, f"publish.format={kind}", dry_run=dry_run)
        assert (
            "It is not needed to publish, but its licence is not known then: the card says so."
        ) in said(capsys)
    card = hub.repos["alice/model"].files["README.md"].decode()
    assert "| base model | a model that is not on the Hub | not known here" in card


def test_a_gguf_file_is_not_converted_for_its_licence(
    hub: Hub,
    run_dir: Finished,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gguf: Any = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "base.gguf", "llama")
    writer.add_license("mit")
    for write in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{write}_to_file")()
    writer.close()
    monkeypatch.setattr("ragtune.model.gguf._convert", None)
    of_another_base(run_dir, tiny_folder, str(tmp_path / "base.gguf"))
    pipeline.push(run_dir.path, REPO)
    card = hub.repos["alice/model"].files["README.md"].decode()
    assert "| base model | a model that is not on the Hub | mit |" in card


def test_the_command_line_has_a_preview(
    run_dir: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ragtune.cli import main

    monkeypatch.setattr(hub, "api", None)  # nobody is asked
    with pytest.raises(SystemExit) as end:
        main(["push", str(run_dir.path), REPO, "--dry-run"])
    assert end.value.code == 0
    assert "Would push the merged model to alice/model, private if it is made:" in said(capsys)
