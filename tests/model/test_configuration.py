"""What a model's configuration may not ask for, and which key is blamed when nothing can be made of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from ragtune.base.errors import UsageError
from ragtune.model import skeleton as module
from ragtune.model.configuration import culprit, require_sane
from ragtune.model.generation import require_settings
from ragtune.model.load import load_config, load_tokenizer
from ragtune.model.skeleton import skeleton
from ragtune.model.source import ModelSource

pytestmark = pytest.mark.usefixtures("patient")
KERNELS: list[dict[str, Any]] = [
    {"_attn_implementation": "evil/kernel"},
    {"attn_implementation": "evil/kernel:run"},
    {"_attn_implementation": {"text_config": "paged|evil/kernel"}},
    {"text_config": {"_attn_implementation_internal": "kernels-community/flash-attn2"}},
    {"_experts_implementation": "evil/kernel"},
]


@pytest.mark.parametrize("values", KERNELS, ids=str)
def test_code_of_the_hub_is_refused(
    values: dict[str, Any], tiny_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text("utf-8")) | values
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(
        UsageError, match=r"implementation.* code from the Hub, which ragtune does not run"
    ):
        load_config(ModelSource(str(folder), None))


def test_flash_attention_that_is_not_here_is_no_reason_to_download_it() -> None:
    require_sane({"_attn_implementation": "sdpa", "attn_implementation": None}, "x")
    with pytest.raises(UsageError, match="flash-attn is not installed") as raised:
        require_sane({"_attn_implementation": "flash_attention_2"}, "x")
    assert raised.value.advice.startswith(
        "Remove the key from config.json in a copy of the model's folder"
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_hidden_layers": 10**7}, "num_hidden_layers is 10000000; no model has more than 1,000."),
        ({"vision_config": {"depth": 10**9}}, "vision_config.depth is 1000000000; no model has more"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1."),
        ({"num_labels": 10**9}, "num_labels is 1000000000; no model has more than 1,000,000."),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan."),
        ({"architectures": 7}, "architectures is 7, which is of no use there."),
        ({"return_dict": False}, "return_dict is False, which is of no use there."),
        ({"auto_map": {"AutoConfig": 7}}, "auto_map is {'AutoConfig': 7}, which is of no use there."),
    ],
)  # fmt: skip
def test_numbers_that_are_none(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        require_sane(values, "owner/name")
    assert words in raised.value.message
    assert raised.value.message.startswith("model.id: config.json of owner/name: ")


def test_what_real_configurations_have_is_let_be() -> None:
    require_sane(
        {
            "time_step_limit": [0.0, float("inf")], "vision_feature_layer": -2, "pad_token_id": -1,
            "architectures": None, "num_nextn_predict_layers": 0, "rope_theta": 1e9,
        },
        "x",
    )  # fmt: skip


def test_a_model_of_more_tensors_than_any_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    make = torch.nn.Linear.__init__
    monkeypatch.setattr(
        torch.nn.Linear, "__init__", lambda self, *a, **k: (made.append(a), make(self, *a, **k))[0]
    )
    monkeypatch.setattr(module, "MOST_TENSORS", 100)
    with pytest.raises(UsageError, match="describes a model of more than 100 tensors"):
        skeleton(hf.LlamaConfig(num_hidden_layers=900))
    assert 0 < len(made) <= 100
    assert skeleton(hf.LlamaConfig(num_hidden_layers=2))


def test_the_key_to_blame_is_the_one_without_which_it_works() -> None:
    def attempt(values: dict[str, Any]) -> None:
        if values.get("a", {}).get("b") == 7:
            raise ValueError("no")

    assert culprit({"x": 1, "a": {"c": 1, "b": 7}}, attempt) == " (a.b is 7)"
    assert culprit({"x": 1}, attempt) == ""


@pytest.mark.parametrize(
    ("file", "key", "value", "words"),
    [
        ("config.json", "num_attention_heads", 0, "(num_attention_heads is 0)"),
        ("config.json", "hidden_act", "no such", "(hidden_act is 'no such')"),
        ("config.json", "rope_parameters", {"rope_type": "no such"}, "rope_parameters"),
        ("config.json", "pad_token_id", 10**9, "(pad_token_id is 1000000000)"),
        ("config.json", "id2label", 7, "(id2label is 7)"),
        ("config.json", "hidden_size", "x", "(hidden_size is 'x')"),
        ("tokenizer_config.json", "model_max_length", "x", "by tokenizer_config.json (model_max_length is 'x')"),
        ("tokenizer.json", "normalizer", {"type": "No"}, "by tokenizer.json (normalizer"),
        ("tokenizer.json", "pre_tokenizer",
         {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
         "by tokenizer.json (pre_tokenizer"),
        # A panic of Rust's, which is no Exception.
        ("tokenizer.json", "normalizer", {"type": "Precompiled", "precompiled_charsmap": "/////w=="},
         "by tokenizer.json (normalizer"),
    ],
)  # fmt: skip
def test_the_file_and_the_key_are_named(
    file: str, key: str, value: object, words: str, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    values = json.loads((folder / file).read_text("utf-8")) | {key: value}
    (folder / file).write_text(json.dumps(values), "utf-8")
    source = ModelSource(str(folder), None)
    load = load_tokenizer if file.startswith("tokenizer") else _model
    with pytest.raises(UsageError) as raised:
        load(source)
    assert words in raised.value.message
    assert str(folder) in raised.value.message


def _model(source: ModelSource) -> None:
    skeleton(load_config(source))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_who_stops_it_is_no_panic(
    stop: type[BaseException], tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise stop

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", fail)
    with pytest.raises(stop):
        load_tokenizer(ModelSource(str(tiny_folder), None))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"eos_token_id": "</s>"}', "eos_token_id is '</s>', and no token's id."),
        ('{"eos_token_id": [2, [3]]}', "eos_token_id is [2, [3]], and no token's id."),
        ('{"pad_token_id": 1e30}', "pad_token_id is 1e+30, and no token's id."),
        ('{"repetition_penalty": "x"}', "repetition_penalty is 'x', a text where none belongs."),
        ('{"repetition_penalty": NaN}', "repetition_penalty is nan."),
        ("{", "generation_config.json is damaged: Expecting property name"),
    ],
)
def test_generation_settings_that_can_t_be_followed(
    content: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "generation_config.json").write_text(content, "utf-8")
    with pytest.raises(UsageError) as raised:
        require_settings(tmp_path)
    assert words in raised.value.message
    assert str(tmp_path) in raised.value.message


def test_generation_settings_of_old_models_are_let_be(tmp_path: Path) -> None:
    assert require_settings(tmp_path) == ()
    text = '{"chat_format": "chatml", "eos_token_id": [1, 2], "pad_token_id": null, "_from_model_config": true}'
    (tmp_path / "generation_config.json").write_text(text, "utf-8")
    assert require_settings(tmp_path) == (1, 2)
