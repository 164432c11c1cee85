"""Malformed models: a tiny model's folder, changed in one place, and what is to be blamed for it.

    python -m tests.safety.malformed [--ask] [WORD...]

checks all of them (whose names have the words), or asks them questions without a check, says what was
found of each, and ends with 1 if one is called a fault of ragtune, ends in anything but words that name the
model and the key, or takes longer than SECONDS.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

SECONDS = 20
NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Malformed:
    """A change of a model's folder."""

    name: str
    change: Callable[[Path], None]
    key: str = ""
    """What the finding must name beside the model: a key, a tensor or a file."""
    harmless: bool = False
    """Whether a model may be like this."""


def edited(file: str, key: str, value: Any) -> Callable[[Path], None]:
    """A change of one key of a JSON file, which may lie deeper: a.b."""

    def change(folder: Path) -> None:
        path = folder / file
        whole = json.loads(path.read_text("utf-8")) if path.exists() else {}
        *parents, last = key.split(".")
        at = whole
        for parent in parents:
            at = at.setdefault(parent, {})
        at[last] = value
        path.write_text(json.dumps(whole), "utf-8")

    return change


def written(file: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).write_bytes(content)

    return change


def weights(alter: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """A change of the tensors."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = load_file(path)
        alter(tensors)
        save_file(tensors, path, {"format": "pt"})

    return change


SAID = {
    "rope_scaling": "rope_parameters", "quantization_config": "is quantised", "base_model_tp_plan": "",
    "transformers_weights": "as weights", "_attn_implementation": "attn_implementation",
    "_experts_implementation": "experts_implementation", "model_type": "lack bert.",
    "is_encoder_decoder": "encoder of its own", "fusion_config": "'items'",
}  # fmt: skip
"""What may be named in a key's place."""
Q = "model.layers.0.self_attn.q_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
COUNTS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "max_position_embeddings",
)  # fmt: skip
FLOATS = ("rms_norm_eps", "initializer_range", "attention_dropout")
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
DAMAGES = {
    "empty": b"",
    "cut": b'{"a": ',
    "a list": b"[]",
    "a string": b'"x"',
    "null": b"null",
    "binary": bytes(range(256)),
    "deep": b"[" * 100_000,
    "not UTF-8": b'{"a": "\xff\xfe"}',
}


def _of_numbers() -> Iterator[Malformed]:
    for key in COUNTS:
        for value in (0, -1, -(2**70), 2**70, 10**7, 1.5, NAN, INF, "x", "8", True, [], {}, None):
            name = f"config.json: {key}={value!r}"
            yield Malformed(name, edited("config.json", key, value), key)
    for key in FLOATS:
        for value in (-1.0, NAN, INF, "x", [], {}, None, 2**70):
            yield Malformed(f"config.json: {key}={value!r}", edited("config.json", key, value), key)
    for file in ("config.json", "generation_config.json"):
        for key in TOKENS:
            for value in (-7, 10**9, 2**70, 1.5, NAN, "</s>", [], {}, [[1]], [10**9], ["x"], True):
                yield Malformed(f"{file}: {key}={value!r}", edited(file, key, value), key)


def _of_kinds() -> Iterator[Malformed]:
    config = {
        "model_type": [None, 7, "", "no such", "llama\n", [], {}, "bert", "../llama"],
        "architectures": [None, 7, "LlamaForCausalLM", [], [7], [None], ["NoSuch"], {}, [[]]],
        "hidden_act": [None, 7, "no such", [], {}, "os.system"],
        "rope_parameters": [7, "x", [], {"rope_type": "no such"}, {"rope_type": "yarn"}, {"rope_type": 7},
                            {"rope_type": "default", "rope_theta": "x"}, {"rope_type": "default", "rope_theta": 0},
                            {"rope_type": "linear", "factor": "x", "rope_theta": 1e4},
                            {"rope_type": "dynamic", "factor": -1, "rope_theta": 1e4}, {"rope_theta": NAN}],
        "rope_scaling": [7, "x", [], {"type": "no such"}, {"type": "linear"}],
        "dtype": [7, "no such", "float128", [], {}, "os.system"],
        "torch_dtype": [7, "no such", [], {}],
        "tie_word_embeddings": ["x", 7, [], {}],
        "attention_bias": ["x", True, [], {}],
        "mlp_bias": [True],
        "_attn_implementation": ["evil/kernel", "evil/kernel:run", "no such", 7, [], {"": "evil/kernel"},
                                 "flash_attention_2", "paged|evil/kernel", "kernels-community/flash-attn2"],
        "attn_implementation": ["evil/kernel", "no such", 7, {"text_config": "evil/kernel"}, "paged|evil/kernel"],
        "_experts_implementation": ["evil/kernel", "no such", 7],
        "experts_implementation": ["evil/kernel"],
        "_attn_implementation_internal": ["evil/kernel"],
        "quantization_config": [7, "x", [], {}, {"quant_method": "no such"}, {"quant_method": 7},
                                {"quant_method": "fp8"}, {"quant_method": "mxfp4"},
                                {"quant_method": "bitsandbytes", "load_in_4bit": "x"},
                                {"quant_method": "fp8", "weight_block_size": [0, 0]},
                                {"quant_method": "bitsandbytes", "load_in_4bit": True}],
        "transformers_version": [7, [], {}, "no such"],
        "transformers_weights": [7, "../x.safetensors", "x.safetensors"],
        "auto_map": [7, "x", [], {"AutoConfig": "evil--code.Config"}, {"AutoConfig": 7}],
        "id2label": [7, "x", {"x": "y"}, []],
        "num_labels": ["x", 10**9, -1],
        "problem_type": ["x", 7],
        "use_cache": ["x", 7],
        "output_attentions": [True, "x"],
        "output_hidden_states": [True, "x"],
        "return_dict": ["x", False],
        "chunk_size_feed_forward": [-1, "x"],
        "is_encoder_decoder": [True, "x", 7],
        "pretraining_tp": [0, -1, 2, "x"],
        "text_config": [7, "x", {"model_type": "no such"}, {}],
        "sub_configs": [7, "x"],
        "name_or_path": [7, "/etc/passwd"],
        "layer_types": [7, ["no such", "no such"], ["full_attention"] * 7, "x"],
        "fusion_config": [7, "x", {"patch_embeddings": True}],
        "base_model_tp_plan": [7, "x"],
        "attribute_map": [7, {"hidden_size": "hidden_size"}],
        "keys_to_ignore_at_inference": [7],
        "get_text_config": [7],
        "to_dict": [7],
        "__class__": ["x"],
    }  # fmt: skip
    for key, values in config.items():
        for value in values:
            shown = repr(value)[:60]
            yield Malformed(f"config.json: {key}={shown}", edited("config.json", key, value), key)
    generation = {
        "max_length": ["x", -1, NAN], "max_new_tokens": ["x", -1], "temperature": ["x", -1, NAN, INF],
        "top_p": ["x", 7], "top_k": ["x", -1], "do_sample": ["x", 7], "num_beams": ["x", 0, -1, 10**9],
        "repetition_penalty": ["x", 0, -1, NAN], "no_repeat_ngram_size": ["x", -1],
        "suppress_tokens": ["x", [10**9], [-1]], "begin_suppress_tokens": [[10**9]],
        "forced_eos_token_id": [10**9, "x"], "forced_bos_token_id": [10**9], "bad_words_ids": [7, [["x"]]],
        "stop_strings": [7, ["x"]], "cache_implementation": ["no such", 7, "static"],
        "cache_config": [7, {"x": 1}], "watermarking_config": [7, {"greenlist_ratio": "x"}],
        "num_return_sequences": [0, 7, "x"], "penalty_alpha": ["x", 7], "assistant_confidence_threshold": ["x"],
        "custom_generate": ["evil/code"], "sequence_bias": [7, [[[10**9], 1.0]]],
        "compile_config": [7], "prompt_lookup_num_tokens": [3], "decoder_start_token_id": [10**9],
        "exponential_decay_length_penalty": [7], "constraints": [7], "guidance_scale": ["x", 7.0],
    }  # fmt: skip
    for key, values in generation.items():
        for value in values:
            name = f"generation_config.json: {key}={value!r}"
            yield Malformed(name, edited("generation_config.json", key, value), key)
    tokenizer = {
        "tokenizer_class": [7, "NoSuch", "os.system", None, [], "LlamaTokenizer", "BertTokenizer"],
        "model_max_length": ["x", -1, 0, NAN, 2**70], "eos_token": [7, {}, [], "<nope>", None],
        "pad_token": [7, {}, [], "<nope>"], "bos_token": [7, {}], "chat_template": [7, {}, [], "{% if", "{{ x }}"],
        "added_tokens_decoder": [7, "x", [], {"x": {}}, {"0": 7}, {"0": {}}, {"-1": {"content": "x"}},
                                 {"999999999": {"content": "<far>", "special": True}}],
        "extra_special_tokens": [7, "x", {"x": 7}], "additional_special_tokens": [7, "x", [7]],
        "clean_up_tokenization_spaces": ["x"], "padding_side": ["x", 7], "truncation_side": ["x"],
        "model_input_names": [7, "x"], "auto_map": [7, {"AutoTokenizer": ["evil--code.T", None]}],
        "tokenizer_file": ["/etc/passwd"], "backend": [7, "no such"],
    }  # fmt: skip
    for key, values in tokenizer.items():
        for value in values:
            shown = repr(value)[:60]
            yield Malformed(
                f"tokenizer_config.json: {key}={shown}",
                edited("tokenizer_config.json", key, value),
                key,
            )


def _of_tokenizers() -> Iterator[Malformed]:
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    parts = {
        "pre_tokenizer": [{**split, "pattern": {"Regex": "("}}, {**split, "pattern": {"Regex": "(?<=a+)b"}},
                          {**split, "pattern": {"Regex": "(" * 5000}}, {**split, "pattern": {"Regex": 7}},
                          {**split, "pattern": {"Regex": "(a*)*$"}}, {"type": "NoSuch"}, 7, [], "x"],
        "normalizer": [{"type": "Replace", "pattern": {"Regex": "["}, "content": ""}, {"type": "NoSuch"}, 7,
                       {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
                       {"type": "Precompiled", "precompiled_charsmap": "/////w=="}],
        "decoder": [{"type": "NoSuch"}, 7, {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}],
        "post_processor": [{"type": "NoSuch"}, 7, {"type": "TemplateProcessing", "single": [], "pair": [],
                                                   "special_tokens": {}},
                           {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "no", "type_id": 0}}],
                            "pair": [], "special_tokens": {}}],
        "model": [None, 7, {}, {"type": "NoSuch"}, {"type": "BPE", "vocab": {}, "merges": []},
                  {"type": "BPE", "vocab": {"a": 0}, "merges": [["x", "y"]]},
                  {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}, {"type": "BPE", "vocab": {"a": -1}, "merges": []},
                  {"type": "BPE", "vocab": {"a": 2**70}, "merges": []}, {"type": "Unigram", "vocab": [], "unk_id": 9},
                  {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 9}, {"type": "WordLevel", "vocab": {}, "unk_token": "x"},
                  {"type": "WordPiece", "vocab": {}, "unk_token": "x", "continuing_subword_prefix": "", "max_input_chars_per_word": 0}],
        "added_tokens": [7, [7], [{}], [{"id": -1, "content": "x"}], [{"id": 2**70, "content": "x"}],
                         [{"id": 900_000_000, "content": "<far>", "special": True, "single_word": False,
                           "lstrip": False, "rstrip": False, "normalized": False}],
                         [{"id": 0, "content": "", "special": True, "single_word": False, "lstrip": False,
                           "rstrip": False, "normalized": False}]],
        "truncation": [7, {"max_length": 0, "strategy": "LongestFirst", "stride": 5, "direction": "Right"},
                       {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}],
        "padding": [7, {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                        "pad_type_id": 0, "pad_token": "x"}],
        "version": [7, "9.9", None],
    }  # fmt: skip
    for key, values in parts.items():
        for value in values:
            shown = repr(value)[:60]
            yield Malformed(
                f"tokenizer.json: {key}={shown}",
                edited("tokenizer.json", key, value),
                "tokenizer.json",
            )


def _of_files() -> Iterator[Malformed]:
    for file in (
        "config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json",
        "special_tokens_map.json", "model.safetensors.index.json", "added_tokens.json",
        "processor_config.json", "preprocessor_config.json",
    ):  # fmt: skip
        for damage, content in DAMAGES.items():
            yield Malformed(f"{file}: {damage}", written(file, content), file)
    for file in ("config.json", "tokenizer.json", "model.safetensors", "generation_config.json"):

        def folder_instead(folder: Path, file: str = file) -> None:
            (folder / file).unlink()
            (folder / file).mkdir()

        yield Malformed(f"{file}: a folder", folder_instead, file)
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        yield Malformed(f"{file}: gone", lambda folder, file=file: (folder / file).unlink(), "")
    index: list[Any] = [
        {}, {"weight_map": 7}, {"weight_map": {}}, {"weight_map": {"x": 7}}, {"weight_map": {"x": "../x"}},
        {"weight_map": {Q: "model-1.safetensors"}}, {"weight_map": {7: None}},
    ]  # fmt: skip
    for value in index:

        def by_index(folder: Path, value: Any = value) -> None:
            (folder / "model.safetensors").rename(folder / "model-0.safetensors")
            (folder / "model.safetensors.index.json").write_text(json.dumps(value), "utf-8")

        yield Malformed(f"index: {value!r}", by_index, "")
    for template in (b"{% if", b"\xff", b"{{ 1/0 }}", b"{{ raise_exception('x') }}", b""):
        change = written("chat_template.jinja", template)
        yield Malformed(f"chat_template.jinja: {template!r}", change, "template")


def _of_weights() -> Iterator[Malformed]:
    def without(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
        return lambda tensors: (tensors.pop(name), None)[1]

    for name in (Q, EMBEDDING, "model.norm.weight", "lm_head.weight"):
        yield Malformed(f"without {name}", weights(without(name)), name)
    yield Malformed("without any", weights(lambda tensors: tensors.clear()), "safetensors")
    shapes = {
        "turned": lambda t: t.mT.contiguous() if t.ndim > 1 else t,
        "flat": lambda t: t.flatten(),
        "cut": lambda t: t[:-1].contiguous(),
        "a number": lambda t: t.sum(),
        "empty": lambda t: t[:0],
        "deeper": lambda t: t[None].contiguous(),
    }
    for how, turn in shapes.items():
        for name in (Q, EMBEDDING, "model.norm.weight", "model.layers.1.mlp.down_proj.weight"):

            def other(tensors: dict[str, torch.Tensor], name: str = name, turn: Any = turn) -> None:
                tensors[name] = turn(tensors[name])

            same = ("norm" in name and how in ("turned", "flat")) or (name == Q and how == "turned")
            yield Malformed(f"{name}: {how}", weights(other), name, harmless=same)
    for name in (
        "model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_norm.weight",
        "model.layers.9.self_attn.q_proj.weight", "model.layers.0.self_attn.q_proj.weight_scale_inv",
        "lm_head.bias", "x", "model.layers.99999999999.x", "model..x", "",
    ):  # fmt: skip
        added = weights(lambda tensors, name=name: tensors.update({name: torch.ones(3)}))
        yield Malformed(f"with {name!r}", added, name)
    for dtype in (
        torch.int8,
        torch.bool,
        torch.float8_e4m3fn,
        torch.complex64,
        torch.float64,
        torch.int64,
    ):

        def typed(tensors: dict[str, torch.Tensor], dtype: torch.dtype = dtype) -> None:
            tensors[Q] = tensors[Q].to(dtype)

        read = dtype in (torch.float64, torch.float8_e4m3fn)
        yield Malformed(f"{Q} in {dtype}", weights(typed), Q, harmless=read)
    headers = {
        "no JSON": b"xx", "a list": b"[]", "a string": b'{"x": "y"}', "no shape": b'{"x": {"dtype": "F32"}}',
        "negative shape": b'{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        "huge shape": b'{"x": {"dtype": "F32", "shape": [99999999999999999999], "data_offsets": [0, 4]}}',
        "no dtype": b'{"x": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}}',
        "offsets beyond": b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 99999]}}',
    }  # fmt: skip
    for how, header in headers.items():
        content = len(header).to_bytes(8, "little") + header + b"\0" * 8
        yield Malformed(f"header: {how}", written("model.safetensors", content), "safetensors")
    huge = written("model.safetensors", b"\xff" * 8 + b"{}")
    yield Malformed("header: of 2^64 bytes", huge, "safetensors")


def corpus() -> list[Malformed]:
    """All of them."""
    makers = (_of_numbers, _of_kinds, _of_tokenizers, _of_files, _of_weights)
    return [one for make in makers for one in make()]


class Slow(BaseException):
    """A look took too long."""


def _too_long(*_: object) -> None:
    raise Slow


@dataclass
class Outcome:
    """What became of a malformed model."""

    wrong: str = ""
    """What should not be so."""
    said: str = ""
    """The first refusal."""


def look(
    one: Malformed, whole: Path, recipe: dict[str, Any], place: Path, *, ask: bool = False
) -> Outcome:
    """Check a malformed model, or, without a check, `ask` it: it is refused in words, or it is no harm."""
    import ragtune

    folder = place / "model"
    shutil.copytree(whole, folder)
    one.change(folder)
    recipe = recipe | {"model": recipe["model"] | {"id": str(folder)}}
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    said: list[str] = []
    try:
        if ask:
            ragtune.evaluate(recipe, run_dir=place / "run", base=True)
        else:
            found = ragtune.check(recipe, run_dir=place / "run")
            said = [f"{f['message']} {f['advice']}" for f in found if f["level"] == "fail"]
    except ragtune.RagtuneError as error:
        said = [str(error)]
    except Slow:
        return Outcome("takes too long")
    except BaseException as error:  # noqa: BLE001 - Rust's panic is none of Exception
        return Outcome(f"ends in {type(error).__name__}: {error}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return Outcome(_wrong(one, said), said[0] if said else "")


def _wrong(one: Malformed, said: list[str]) -> str:
    if any("fault of ragtune" in words for words in said):
        return "is called a fault of ragtune"
    if said and not any(
        words.startswith("model.id: ") or "chat template" in words for words in said
    ):
        return "the model is not named"
    # A shape names its tensor; what a norm's number does shows in the answers alone.
    named = (one.key, SAID.get(one.key, one.key), "model.layers.", "logits are not finite")
    if said and one.key and not any(name in words for words in said for name in named):
        return f"{one.key} is not named"
    if not said and not one.harmless and one.key.startswith(("model.", "lm_head", "safetensors")):
        return "its weights are not refused"
    return ""


def recipe_in(place: Path) -> dict[str, Any]:
    """A recipe that lacks nothing but its model."""
    from tests.conftest import make_records, write_records

    return {
        "name": "tiny",
        "model": {"id": "", "dtype": "float32"},
        "data": {
            "train": str(write_records(place / "train.jsonl", make_records(8))),
            "eval": str(write_records(place / "eval.jsonl", make_records(2, "e"))),
            "max_passages": 2,
        },
        "prompt": {"preset": "english"},
        "train": {"steps": 2, "batch_size": 2},
        "evaluate": {"max_new_tokens": 3, "metric": "squad_em"},
    }


def main() -> int:
    from tests.conftest import CHATML, build_tokenizer, tiny_model

    start, bad, refused = time.monotonic(), 0, 0
    ask = "--ask" in sys.argv
    words = [word for word in sys.argv[1:] if word != "--ask"]
    chosen = [one for one in corpus() if all(word in one.name for word in words)]
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        whole = place / "whole"
        tokenizer = build_tokenizer(
            specials={
                "eos_token": "<|im_end|>",
                "pad_token": "<|im_end|>",
                "start": "<|im_start|>",
            },
            template=CHATML,
        )
        tiny_model("llama", eos_token_id=tokenizer.eos_token_id).save_pretrained(whole)
        tokenizer.save_pretrained(whole)
        recipe = recipe_in(place)
        for number, one in enumerate(chosen):
            begun = time.monotonic()
            found = look(one, whole, recipe, place / str(number), ask=ask)
            took = time.monotonic() - begun
            shutil.rmtree(place / str(number), ignore_errors=True)
            bad += bool(found.wrong)
            refused += bool(found.said)
            mark = f"WRONG: {found.wrong}" if found.wrong else "refused" if found.said else "taken"
            print(f"{mark:<8} {took:5.1f} s  {one.name}\n    {found.said[:500]}", flush=True)
    spent = time.monotonic() - start
    print(
        f"{len(chosen)} malformed models in {spent:.0f} s: {refused} refused, {bad} in a wrong way"
    )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
