"""What `push` published is asked as its run is: from a folder and from the Hub, merged and adapter."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import ragtune
from ragtune.asking.reader import Reader
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.data.prepare import load_examples
from ragtune.model import hardware
from tests.asking.conftest import predictions
from tests.standin import Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        hub.stand_in(monkeypatch)
        yield hub


@pytest.fixture
def run(tuned: Path, tmp_path: Path) -> Path:
    """A copy, in which pushing may write."""
    return Path(shutil.copytree(tuned, tmp_path / "run"))


def pushed(hub: Hub, run: Path, form: str, place: Path) -> Path:
    """What arrived on the Hub, as a folder."""
    ragtune.push(run, "publish.repo=alice/houses", f"publish.format={form}")
    for name, content in hub.repos["alice/houses"].files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return place


def test_a_merged_model_is_asked_as_its_run(
    hub: Hub, run: Path, reader: Reader, tmp_path: Path
) -> None:
    folder = pushed(hub, run, "merged", tmp_path / "sent")
    published = Reader.load(folder, "model.dtype=float32")
    examples = load_examples(run / "eval" / "eval" / "questions" / "eval.jsonl")
    theirs = published._model.context.encoder.prompts(examples)
    assert theirs == reader._model.context.encoder.prompts(examples)
    then = predictions(run, "merged")
    found = published.answer(examples)
    assert [one.text for one in found] == [then[e.qid]["prediction"] for e in examples]
    assert (published.name, published.compares, published.retrieves) == ("sent", False, False)
    with pytest.raises(UsageError, match="what was trained is in its weights"):
        published.ask(["What?"], ["A text."], which="base")


def test_answers_in_8_bits_are_refused_before_anything_is_loaded(
    hub: Hub, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UsageError("not here")

    folder = pushed(hub, run, "merged", tmp_path / "sent")
    monkeypatch.setattr(hardware, "_require_fp8", refuse)
    with pytest.raises(UsageError, match="not here"):
        Reader.load(folder, "evaluate.products=fp8")


def test_an_adapter_is_asked_as_its_run(
    hub: Hub, run: Path, reader: Reader, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = pushed(hub, run, "adapter", tmp_path / "sent")
    with pytest.raises(UsageError, match="its base is a model that is not on the Hub") as caught:
        Reader.load(folder)
    assert "model.id=FOLDER" in caught.value.advice
    published = Reader.load(folder, f"model.id={tiny_folder}", "model.dtype=float32")
    examples = load_examples(run / "eval" / "eval" / "questions" / "eval.jsonl")
    for which, stage in (("tuned", "after"), ("base", "before")):
        then = predictions(run, stage)
        found = published.answer(examples, which=which)
        assert [one.text for one in found] == [then[e.qid]["prediction"] for e in examples]


def test_the_settings_hold_nothing_of_this_machine(hub: Hub, run: Path, tmp_path: Path) -> None:
    folder = pushed(hub, run, "merged", tmp_path / "sent")
    text = (folder / "ragtune.yaml").read_text("utf-8")
    assert str(tmp_path.parent) not in text
    assert "/" not in text.partition("\n")[2].replace("http://", "")
    assert yaml.safe_load(text)["data"]["train"] == "train.jsonl"
    assert "ragtune.yaml" in hub.repos["alice/houses"].files


def test_from_the_hub(
    hub: Hub, run: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pushed(hub, run, "merged", tmp_path / "sent")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    published = Reader.load("alice/houses", "model.dtype=float32")
    assert published.name == "alice/houses"
    (example,) = load_examples(run / "eval" / "eval" / "questions" / "eval.jsonl")[:1]
    (answer,) = published.ask([example.question], example.passages)
    assert answer.text == predictions(run, "merged")[example.qid]["prediction"]


def test_what_is_not_published_by_ragtune(
    hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pushed(hub, run, "merged", tmp_path / "sent")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    del hub.repos["alice/houses"].files["ragtune.yaml"]
    with pytest.raises(UsageError, match="was not published by ragtune"):
        Reader.load("alice/houses")
    with pytest.raises(
        RagtuneError, match="alice/other is not here, and can't be read from the Hub"
    ):
        Reader.load("alice/other")


def test_a_stranger_s_settings_run_nothing(hub: Hub, run: Path, tmp_path: Path) -> None:
    folder = pushed(hub, run, "merged", tmp_path / "sent")
    settings = yaml.safe_load((folder / "ragtune.yaml").read_text("utf-8"))
    settings["model"]["trust_remote_code"] = True
    settings["evaluate"] |= {"engine": "openai", "endpoint": "http://192.0.2.1/v1"}
    (folder / "ragtune.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    recipe = Reader.load(folder)._model.context.recipe
    assert not recipe.model.trust_remote_code
    assert recipe.evaluate.engine == "local"


def test_a_published_model_is_asked_in_as_many_orders_as_its_run(
    tmp_path: Path, tuned: Path
) -> None:
    folder = Path(shutil.copytree(tuned / "merged", tmp_path / "sent"))
    settings = yaml.safe_load((tuned / "recipe.yaml").read_text("utf-8"))
    settings["evaluate"]["orders"] = 2
    (folder / "ragtune.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    assert Reader.open(folder)._model.context.recipe.evaluate.orders == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": {"template": "/etc/secret.jinja"}}, "prompt.template names a file"),
        ({"prompt": "x"}, "does not say how the model is prompted"),
        ({"publish": {"format": "adapter"}, "model": {"id": "a/b"}}, "holds no adapter"),
        ({"publish": {"format": "gguf"}}, "holds a GGUF file"),
        ("[", "can't be read"),
    ],
)
def test_settings_that_are_not_believed(
    tmp_path: Path, tuned: Path, change: dict[str, object] | str, said: str
) -> None:
    folder = Path(shutil.copytree(tuned / "merged", tmp_path / "sent"))
    settings = yaml.safe_load((tuned / "recipe.yaml").read_text("utf-8"))
    text = change if isinstance(change, str) else yaml.safe_dump(settings | change)
    (folder / "ragtune.yaml").write_text(text, "utf-8")
    with pytest.raises(UsageError, match=said):
        Reader.load(folder)
