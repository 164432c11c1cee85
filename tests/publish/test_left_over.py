"""What an earlier push left in a repository, and would be loaded instead of this one or besides it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from ragtune import api as pipeline
from ragtune.base.errors import RagtuneError
from ragtune.publish.hub import push
from tests.publish.conftest import Finished, published
from tests.standin import Fault, Hub, Repo

REPO = "alice/model"
SHARDED = (
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
)
FOLDERS = {
    "adapter": ("adapter_config.json", "adapter_model.safetensors"),
    "single": ("model.safetensors", "config.json", "generation_config.json"),
    "no generation settings": ("model.safetensors", "config.json"),
    "with a template": ("model.safetensors", "config.json", "chat_template.jinja"),
    "sharded": SHARDED,
    "more shards": tuple(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)) + SHARDED[2:],
}
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "additional_chat_templates/tool_use.jinja",
)
OTHERS = {
    ".gitattributes": b"x",
    "LICENSE": b"mine",
    "model.onnx": b"mine",
    "model_card.safetensors": b"mine",
    "old/model.safetensors": b"mine",
    "old/tokenizer.model": b"mine",
    "additional_chat_templates/README.md": b"mine",
    "additional_chat_templates/old/x.jinja": b"mine",
    "vocab.txt.md": b"mine",
    "old/adapter_config.json": b"mine",
}


def made(folder: Path, kind: str) -> Path:
    """A folder to push, with new content."""
    folder.mkdir()
    for name in (*FOLDERS[kind], "tokenizer.json", "README.md"):
        card = f"---\ntags: [ragtune]\n---\n# {kind}\n"
        text = json.dumps({"x": os.urandom(4).hex()}) if name != "README.md" else card
        (folder / name).write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("adapter", "single"),
        ("adapter", "sharded"),
        ("single", "adapter"),
        ("sharded", "adapter"),
        ("single", "sharded"),
        ("sharded", "single"),
        ("more shards", "sharded"),
        ("single", "no generation settings"),
        ("with a template", "adapter"),
    ],
)
def test_the_content_is_that_of_a_fresh_push(
    hub: Hub, tmp_path: Path, before: str, after: str
) -> None:
    first, second = made(tmp_path / "first", before), made(tmp_path / "second", after)
    hub.repos[REPO] = Repo(private=True, files=dict(OTHERS))
    push(first, REPO, private=True, command="x")
    done = push(second, REPO, private=True, command="x")
    assert hub.repos[REPO].files == {**published(second), **OTHERS}
    assert set(done.removed) == set(FOLDERS[before]) - set(FOLDERS[after])
    assert len(hub.repos[REPO].commits) == 2  # what is removed goes with what comes

    hub.requests.clear()
    again = push(second, REPO, private=True, command="x")
    assert (again.changed, again.removed) == (False, ())
    assert not [r for r in hub.requests if "/commit/" in r]


@pytest.mark.parametrize("ours", [True, False])
def test_another_tokenizer(hub: Hub, tmp_path: Path, ours: bool) -> None:
    """Only what the folder lacks goes, and only where the card says that it is ours."""
    folder = made(tmp_path / "new", "single")
    card = b"---\ntags: [%s]\n---\n# x\n" % (b"ragtune" if ours else b"llama")
    old = {**dict.fromkeys(TOKENIZER, b"old"), **OTHERS, "README.md": card}
    hub.repos[REPO] = Repo(private=True, files=dict(old))
    gone = tuple(sorted(set(TOKENIZER) - {"tokenizer.json"}))
    if not ours:
        with pytest.raises(RagtuneError, match=re.escape(f"holds {', '.join(gone)}, which would")):
            push(folder, REPO, private=True, command="x")
        assert hub.repos[REPO].files == old
        return
    assert push(folder, REPO, private=True, command="x").removed == gone
    assert hub.repos[REPO].files == {**published(folder), **OTHERS}
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")
    assert push(folder, REPO, private=True, command="x").removed == ("tokenizer.json",)


@pytest.mark.parametrize("fault", [Fault(lost=True, times=1), Fault(503, times=1)])
def test_removed_once(hub: Hub, tmp_path: Path, fault: Fault) -> None:
    """The Hub refuses to remove what a commit, whose answer was lost, has removed."""
    push(made(tmp_path / "first", "adapter"), REPO, private=True, command="x")
    hub.fail["/commit/"] = fault
    done = push(made(tmp_path / "second", "single"), REPO, private=True, command="x")
    assert done.changed
    assert done.removed == FOLDERS["adapter"]
    assert hub.repos[REPO].files == published(tmp_path / "second")
    assert len(hub.repos[REPO].commits) == 2


def test_only_something_to_remove(hub: Hub, tmp_path: Path) -> None:
    folder = made(tmp_path / "first", "single")
    push(folder, REPO, private=True, command="x")
    hub.repos[REPO].files["adapter_config.json"] = b"{}"
    done = push(folder, REPO, private=True, command="x")
    assert (done.changed, done.removed) == (True, ("adapter_config.json",))
    assert hub.repos[REPO].files == published(folder)


def test_it_is_said(
    hub: Hub, run_dir: Finished, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repo = f"publish.repo={REPO}"
    for kind in ("adapter", "merged", "adapter"):
        pipeline.push(run_dir.path, repo, f"publish.format={kind}")
        target = run_dir.adapter if kind == "adapter" else folder
        assert hub.repos[REPO].files == published(target)
        said = " ".join(capsys.readouterr().out.split())
        gone = {
            "merged": "adapter_config.json, adapter_model.safetensors.",
            "adapter": "chat_template.jinja, config.json, model-00001-of-00002.safetensors, "
            "model-00002-of-00002.safetensors.",
        }[kind]
        line = f"Removed there, as it would be loaded instead of this or besides it: {gone}"
        assert (line in said) == (len(hub.repos[REPO].commits) > 1)


def test_what_another_put_there_is_not_removed(hub: Hub, tmp_path: Path) -> None:
    theirs = {"model.safetensors": b"theirs", "README.md": b"---\ntags: [llama]\n---\n# theirs\n"}
    hub.repos[REPO] = Repo(private=True, files=dict(theirs))
    with pytest.raises(RagtuneError, match=r"holds model\.safetensors, which would be loaded"):
        push(made(tmp_path / "new", "adapter"), REPO, private=True, command="x")
    assert hub.repos[REPO].files == theirs
