"""What is found out before anything costs time, all at once."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import ragtune
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.cli import main
from ragtune.stages.check import capacity, inputs
from ragtune.stages.context import Context
from ragtune.stages.order import checkpoints_of
from ragtune.stages.road import make, working
from ragtune.stages.run import check
from tests.base.test_lock import holder
from tests.conftest import CHATML, make_records, write_records
from tests.model.test_hub_cache import snapshot


def found(
    recipe: dict[str, Any], tmp_path: Path, *overrides: str
) -> dict[str, list[dict[str, str]]]:
    by_name: dict[str, list[dict[str, str]]] = {}
    for one in ragtune.check(recipe, *overrides, run_dir=tmp_path / "run"):
        assert set(one) == {"name", "level", "message", "advice", "excerpt"}
        by_name.setdefault(one["name"], []).append(one)
    return by_name


def levels(by_name: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    order = ["ok", "warning", "fail"]
    return {n: max((f["level"] for f in fs), key=order.index) for n, fs in by_name.items()}


def test_a_good_recipe_is_ok_in_everything(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    page = found(tiny_recipe, tmp_path, "train.steps=6")
    assert [f for fs in page.values() for f in fs if f["level"] != "ok"] == []
    assert list(page) == [
        "environment", "recipe", "run directory", "hardware", "data.train", "data.eval", "data licences",
        "model", "licence", "weights",
        "template", "mask", "truncation", "answers", "vocabulary", "adapter", "trial", "memory", "merging", "disk",
    ]  # fmt: skip
    assert "24 of 24 records are selected; sha256 " in page["data.train"][0]["message"]
    (mask,) = page["mask"]
    assert re.match(
        r"of the example q0, \d+ prompt tokens are read, \d+ are trained: ", mask["message"]
    )
    assert "|<|im_end|> (the last one is the stop token)" in mask["message"]
    assert not (tmp_path / "run").exists()


def test_all_that_is_wrong_is_said_at_once(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    page = found(
        tiny_recipe, tmp_path, "data.eval=gone.jsonl", "lora.target_modules=[query_key_value]",
        "train.report_to=[nothing]", "publish.repo=me/model",
    )  # fmt: skip
    assert levels(page)["licence"] == "warning"  # what would be published is of unknown licence
    wrong = {n for n, level in levels(page).items() if level == "fail"}
    assert wrong == {"data.eval", "adapter", "trackers"}
    assert levels(page)["hub"] == "warning"  # the tests are offline
    assert all(f["advice"] for n in wrong for f in page[n])
    assert "memory" not in page  # it needs them
    assert levels(page)["mask"] == "ok"


def test_a_recipe_that_can_t_be_read_is_the_only_finding(tmp_path: Path) -> None:
    (one,) = ragtune.check(str(tmp_path / "none.yaml"))
    assert (one["name"], one["level"]) == ("recipe", "fail")


def test_the_command_prints_json_and_exits_with_1(
    tiny_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(tiny_recipe), "utf-8")
    place = ["--run-dir", str(tmp_path / "run"), "--json"]
    for change, code in (("train.steps=6", 0), ("data.eval=gone.jsonl", 1)):
        with pytest.raises(SystemExit) as end:
            main(["check", str(path), change, *place])
        assert (end.value.code or 0) == code
        page = json.loads(capsys.readouterr().out)
        assert any(one["level"] == "fail" for one in page) == bool(code)


def test_a_run_stops_at_a_failure_and_prints_the_page(
    tiny_recipe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_recipe["lora"]["target_modules"] = ["q_proj", "query_key_value"]
    with pytest.raises(UsageError, match="has no linear layer query_key_value"):
        ragtune.run(tiny_recipe, run_dir=tmp_path / "run")
    out = capsys.readouterr().out
    assert "will fail  adapter: " in out
    assert "ok  data.train: " in out
    assert not (tmp_path / "run").exists()


def test_a_check_is_of_the_ranks_that_a_run_would_have(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    page = found(tiny_recipe, tmp_path, "train.steps=6", "devices=2")
    assert page["hardware"][1]["message"] == "2 processes share the work"
    assert "on each of 2 ranks" in page["memory"][0]["message"]
    assert len(found(tiny_recipe, tmp_path, "train.steps=6")["hardware"]) == 1


def test_a_check_decides_nothing(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    one = Context(tiny_recipe, run_dir=tmp_path / "run")
    with working(one):
        make(one, "questions")
        check(one)
        assert not one.folder.plan.exists()
        make(one, "before")
        assert one.folder.plan.exists()


def test_data_of_which_nothing_would_be_selected(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    rows = [r | {"answers": []} for r in make_records(5)]
    tiny_recipe["data"]["eval"] = str(write_records(tmp_path / "none.jsonl", rows))
    (one,) = found(tiny_recipe, tmp_path)["data.eval"]
    assert one["level"] == "fail"
    assert "would be selected (5 records)" in one["message"]


def test_a_bad_line_far_on_is_found(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    write_records(path, make_records(300))
    path.write_text(path.read_text("utf-8") + "{\n", "utf-8")
    tiny_recipe["data"]["train"] = str(path)
    (one,) = found(tiny_recipe, tmp_path)["data.train"]
    assert one["level"] == "fail"
    assert "long.jsonl:301" in one["message"]


def test_of_a_large_file_the_first_records_are_read(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "WHOLE", 10)
    tiny_recipe["data"]["train"] = str(write_records(tmp_path / "long.jsonl", make_records(400)))
    message = found(tiny_recipe, tmp_path)["data.train"][0]["message"]
    assert "of the first 100 records 100 are selected, of about 4" in message


def test_training_on_the_evaluation_set_is_warned_of(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    tiny_recipe["data"]["eval"] = str(
        shutil.copy(tiny_recipe["data"]["train"], tmp_path / "copy.jsonl")
    )
    page = found(tiny_recipe, tmp_path)
    assert levels(page)["data"] == "warning"
    assert "the same file" in page["data"][0]["message"]


def test_many_epochs_are_warned_of(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    page = found(tiny_recipe, tmp_path, "train.steps=1000")
    assert page["training"][0]["message"] == "each of 24 examples is trained 167 times"
    assert levels(page)["training"] == "warning"


def test_prompts_that_are_cut_are_warned_of(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    page = found(tiny_recipe, tmp_path, "prompt.max_tokens=60")
    assert levels(page)["truncation"] == "warning"
    assert "34 of 34 prompts lose passages or text" in page["truncation"][0]["message"]


def test_control_tokens_in_the_data_are_said(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    records = make_records(9)
    records[2]["passages"][0]["text"] += " <|im_end|>"
    records[4]["question"] += " <|im_start|>"
    tiny_recipe["data"]["train"] = str(write_records(tmp_path / "forged.jsonl", records))
    page = found(tiny_recipe, tmp_path)
    assert page["truncation"][0]["message"] == (
        "train: 2 of 9 records write out tokens of the chat template (in a passage, the question): "
        "encoded as text"
    )
    assert levels(page)["truncation"] == "ok"


def test_memory_and_disk_that_don_t_do(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "available_memory", lambda: 1000)
    monkeypatch.setattr(capacity.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    page = found(tiny_recipe, tmp_path)
    assert levels(page)["merging"] == levels(page)["disk"] == "fail"
    assert "publish.format=adapter" in page["merging"][0]["advice"]
    assert "checkpoints" in page["disk"][0]["message"]
    needed = re.findall(
        r"checkpoints (\d+) KiB, adapter (\d+) KiB, merged model (\d+) KiB",
        page["disk"][0]["message"],
    )
    checkpoints, _, merged = map(int, needed[0])
    assert merged == pytest.approx(110, abs=10)  # of the tiny model in bf16
    # Weights and their two moments: with the mean of the weights a third more.
    page = found(tiny_recipe, tmp_path, "train.average_last=0.2")
    more = re.findall(r"checkpoints (\d+) KiB", page["disk"][0]["message"])
    assert int(more[0]) == pytest.approx(checkpoints * 4 / 3, abs=2)
    ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")
    one = Context(tiny_recipe, run_dir=tmp_path / "run")
    there = checkpoints_of(one.folder, one.recipe) / "checkpoint-2"
    there.mkdir(parents=True)
    (there / "adapter_model.safetensors").write_bytes(bytes(50 * 1024))
    page = found(tiny_recipe, tmp_path)  # what is written already is not needed again
    assert f"checkpoints {checkpoints - 50} KiB" in page["disk"][0]["message"]
    page = found(tiny_recipe, tmp_path, "publish.format=adapter")
    assert "merging" not in page


def test_who_is_at_work_is_found(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    try:
        page = found(tiny_recipe, tmp_path)
        assert levels(page)["run directory"] == "fail"
        assert f"process {process.pid} on " in page["run directory"][1]["message"]
    finally:
        process.kill()
        process.wait()
    assert levels(found(tiny_recipe, tmp_path))["run directory"] == "ok"  # it would be taken over
    assert (tmp_path / "run" / "run.lock").exists()


def test_a_changed_recipe_or_file_is_one_finding_of_many(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")
    data = Path(tiny_recipe["data"]["train"])
    data.write_text(data.read_text("utf-8").replace("colour", "color"), "utf-8")
    page = found(tiny_recipe, tmp_path, "seed=8", "lora.target_modules=[gone]")
    wrong = {n for n, level in levels(page).items() if level == "fail"}
    assert wrong == {"run directory", "adapter"}
    said = page["run directory"][1]["message"]
    assert "seed: 7 there, 8 now: no longer valid: data" in said
    assert "train.jsonl has changed (sha256 " in said
    assert levels(page)["template"] == "ok"


def test_what_is_damaged_is_said_and_left_to_the_run(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ragtune.evaluate(tiny_recipe, run_dir=run)
    before = run / "eval" / "eval" / "before"
    for figures in (run / "run.json", before / "metrics.json"):  # which nothing reads back
        figures.write_text("{", "utf-8")
    assert levels(found(tiny_recipe, tmp_path))["run directory"] == "ok"
    for file in ("predictions.jsonl", "stage.json"):
        (before / file).write_text("{", "utf-8")
        there = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        page = found(tiny_recipe, tmp_path)
        assert levels(page)["run directory"] == "warning"
        message = page["run directory"][1]["message"]
        assert message.startswith(f"{before} is damaged (")
        assert file in message
        assert "fail" not in levels(page).values()
        assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == there


def test_a_run_directory_that_can_t_be_written(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").touch()
    page = found(tiny_recipe, tmp_path)
    assert levels(page)["run directory"] == "fail"
    assert "run is a file" in page["run directory"][1]["message"]
    (tmp_path / "run").unlink()
    monkeypatch.setattr("ragtune.base.disk.os.access", lambda *_: False)
    page = found(tiny_recipe, tmp_path)
    assert levels(page)["run directory"] == "fail"
    assert page["run directory"][1]["message"].startswith("Not allowed to write ")
    assert "--run-dir" in page["run directory"][1]["advice"]


def test_the_first_records_may_all_be_left_out(
    tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "WHOLE", 10)
    rows = [r | {"answers": []} for r in make_records(100)] + make_records(3, "good")
    tiny_recipe["data"]["eval"] = str(write_records(tmp_path / "late.jsonl", rows))
    page = found(tiny_recipe, tmp_path)
    assert "of the first 100 records 0 are selected" in page["data.eval"][0]["message"]
    assert levels(page)["memory"] == "warning"


def test_weights_that_are_cut_off_or_missing_are_found(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_recipe["model"]["id"], tmp_path / "model")
    tiny_recipe["model"]["id"] = str(model)
    weights = model / "model.safetensors"
    os.truncate(weights, 1000)
    assert "model.safetensors is damaged" in found(tiny_recipe, tmp_path)["model"][-1]["message"]
    weights.unlink()
    assert "has no model.safetensors" in found(tiny_recipe, tmp_path)["model"][-1]["message"]


def test_a_missing_part_of_the_weights_is_found(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_recipe["model"]["id"], tmp_path / "model")
    tiny_recipe["model"]["id"] = str(model)
    (model / "model.safetensors").rename(model / "model-00001-of-00003.safetensors")
    last = found(tiny_recipe, tmp_path)["model"][-1]
    assert last["level"] == "fail"
    assert "holds neither model.safetensors nor model.safetensors.index.json" in last["message"]
    parts = {str(i): f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)}
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": parts}), "utf-8")
    last = found(tiny_recipe, tmp_path)["model"][-1]
    assert (last["level"], last["advice"]) == ("fail", "Copy the model to that folder again.")
    assert last["message"] == (
        f"model.id: {model} lacks model-00002-of-00003.safetensors and 1 more, a part of the weights by "
        "model.safetensors.index.json."
    )
    for i in (2, 3):
        shutil.copy(model / parts["1"], model / parts[str(i)])
    assert levels(found(tiny_recipe, tmp_path))["model"] == "ok"


def test_offline_a_model_that_is_not_cached_and_a_name_that_the_hub_takes_not(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    page = found(tiny_recipe, tmp_path, "model.id=some/model", "publish.repo=-x/model")
    assert levels(page)["model"] == levels(page)["hub"] == "fail"
    assert page["model"][0]["message"] == (
        "model.id: the configuration of some/model is not in the cache, and offline nothing is "
        "downloaded."
    )
    assert page["hub"][0]["message"].startswith("publish.repo: ")


def test_a_hub_that_can_t_be_asked_stops_no_run_whose_model_is_in_the_cache(
    tiny_recipe: dict[str, Any],
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> None:
        raise RagtuneError("The Hub can't be asked.", "Try again later.")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("ragtune.stages.check.model.model_facts", refuse)
    monkeypatch.setattr("ragtune.stages.check.model.hub_is_offline", lambda: False)
    cached = snapshot(tmp_path / "hub", "a" * 40, tiny_folder)
    page = found(tiny_recipe, tmp_path, "model.id=owner/base")
    _, one = page["model"]
    assert (one["level"], one["message"]) == ("warning", "The Hub can't be asked.")
    assert one["advice"] == "Try again later. This run takes the model in the cache."
    assert "fail" not in levels(page).values()
    assert levels(page)["licence"] == "ok"
    parts = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
    index = {"metadata": {}, "weight_map": parts}
    (cached / "model.safetensors").rename(cached / "model-1-of-2.safetensors")
    (cached / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    assert levels(found(tiny_recipe, tmp_path, "model.id=owner/base"))["model"] == "fail"
    shutil.copy(cached / "model-1-of-2.safetensors", cached / "model-2-of-2.safetensors")
    assert levels(found(tiny_recipe, tmp_path, "model.id=owner/base"))["model"] == "warning"


@pytest.mark.parametrize("where", ["question", "answer", "pad", "stop"])
def test_ids_beyond_the_embedding_are_found_by_check_and_prepare(
    where: str, tiny_recipe: dict[str, Any], tmp_path: Path, tiny_folder: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.add_tokens([f"filler{i}" for i in range(512 - len(tokenizer))])
    tokenizer.add_tokens(["Zephyr"], special_tokens=where == "stop")
    rows = make_records(24)
    said = "Question q0"
    if where == "question":
        rows[0]["question"] = "Who is Zephyr?"
    elif where == "answer":
        rows[0]["passages"][0]["text"], rows[0]["answers"] = "House 0 is of Zephyr.", ["Zephyr"]
    elif where == "pad":
        tokenizer.pad_token = "Zephyr"
        said = "Padding"
    else:
        tokenizer.chat_template = CHATML.replace("<|im_end|>", "Zephyr")
        said = "The end of a turn"
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    tokenizer.save_pretrained(model)
    tiny_recipe["model"]["id"] = str(model)
    tiny_recipe["data"]["train"] = str(write_records(tmp_path / "t.jsonl", rows))
    page = found(tiny_recipe, tmp_path)
    wrong = {n for n, level in levels(page).items() if level == "fail"}
    assert wrong == {"vocabulary"}
    message = page["vocabulary"][0]["message"]
    assert message.lower().removeprefix("data.train: ") == (
        f"{said} has the token 'Zephyr' with the id 512, and the model's embedding has 512 rows.".lower()
    )
    assert "resize_token_embeddings" in page["vocabulary"][0]["advice"]
    with pytest.raises(
        UsageError, match=r" has the token 'Zephyr' with the id 512, and the model's"
    ):
        ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")


def low(i: int, prefix: str) -> dict[str, Any]:
    """The answer stands behind a passage that fills the prompt."""
    text = "A street has many houses and trees, and people walk along it every single day."
    return {
        "qid": f"{prefix}{i}", "question": f"What colour is house {i}?", "answers": ["red"],
        "passages": [{"title": "s", "text": text}, {"title": "x", "text": f"House {i} is red."}],
    }  # fmt: skip


def test_positives_that_are_cut_away_are_counted(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    records = [*make_records(4), *(low(i, "low") for i in range(3))]
    tiny_recipe["data"]["train"] = str(write_records(tmp_path / "some.jsonl", records))
    cut = "prompt.max_tokens=180"
    first, *_ = found(tiny_recipe, tmp_path, cut)["truncation"]
    assert first["level"] == "warning"
    assert first["message"].startswith(
        "train: 3 of 7 prompts lose every passage with an answer: left out"
    )
    first, *_ = found(tiny_recipe, tmp_path, cut, "data.cut_positives=keep")["truncation"]
    assert "kept as if nothing were lost (data.cut_positives)" in first["message"]
    tiny_recipe["data"]["train"] = str(write_records(tmp_path / "all.jsonl", records[4:]))
    (only,) = found(tiny_recipe, tmp_path, cut)["truncation"]
    assert only["level"] == "fail"
    assert only["message"].endswith(". Nothing would be selected.")


def test_answers_that_are_too_long_are_counted_of_prepared_data_too(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    (one,) = found(tiny_recipe, tmp_path)["answers"]
    assert (one["level"], one["message"]) == ("ok", "none of 34 has more than 6 tokens")
    ragtune.prepare(tiny_recipe, run_dir=tmp_path / "run")
    for prepared in (True, False):
        place = tmp_path if prepared else tmp_path / "elsewhere"
        train, evaluated = found(tiny_recipe, place, "evaluate.max_new_tokens=1")["answers"]
        assert train["level"] == evaluated["level"] == "warning"
        assert re.match(
            r"train: \d+ of 24 trained answers have more than 1 tokens", train["message"]
        )
        assert "they can't be given whole" in evaluated["message"]
        assert train["advice"] == "Raise evaluate.max_new_tokens."


def test_answers_that_begin_as_the_refusal_does_are_counted_where_a_threshold_refuses(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    """The model may not write them then; what is copied may begin so."""
    records = make_records(10)
    records[0]["answers"] = ["No man"]
    records[1]["answers"] = ["No man", "somebody"]
    for record in records[:2]:
        record["passages"][0]["text"] = f"{record['answers'][0]} knows."
        record["positive_passage_indices"] = [0]
    tiny_recipe["data"]["eval"] = str(write_records(tmp_path / "no.jsonl", records))
    tiny_recipe["data"]["refusal"] = "No man says"

    def counted(*changes: str) -> list[dict[str, Any]]:
        page = found(tiny_recipe, tmp_path, "evaluate.max_new_tokens=30", *changes)["answers"]
        return [one for one in page if "data.refusal" in one["message"]]

    (one,) = counted("evaluate.refuse_below=0.2")
    assert one["level"] == "warning"
    assert one["message"].startswith(
        "eval: 1 of 10 questions' accepted answers begin as data.refusal does ('"
    )
    assert counted() == counted("evaluate.refuse_below=0.2", "evaluate.copy=true") == []


def test_a_count_of_the_first_records_says_that_it_is_one(
    tiny_recipe: dict[str, Any], tmp_path: Path
) -> None:
    tiny_recipe["data"]["train"] = str(write_records(tmp_path / "many.jsonl", make_records(101)))
    page = found(tiny_recipe, tmp_path, "evaluate.max_new_tokens=1")
    train, evaluated = (one["message"] for one in page["answers"])
    assert re.match(r"train: \d+ of the first 100 trained answers have more than 1 tokens", train)
    assert re.match(r"eval: \d+ of 10 questions' accepted answers have more than", evaluated)
    assert (
        page["truncation"][0]["message"] == "none of 110 prompts (the first of each split) is cut"
    )
    assert "all of 110 examples (the first of each split) are" in page["vocabulary"][0]["message"]


def test_answers_inside_words_are_counted(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    eyes = low(0, "eyes") | {"answers": ["stre"]}
    wide = low(1, "wide") | {"answers": ["ＳＴＲＥＥＴ"]}
    path = write_records(tmp_path / "eyes.jsonl", [*make_records(4), eyes, wide])
    inside, forms, there = found(tiny_recipe | {"data": tiny_recipe["data"] | {"train": str(path)}}, tmp_path)[
        "data.train"
    ]  # fmt: skip
    assert inside["message"].startswith(
        "1 record is left out whose answer stands there only inside"
    )
    assert forms["message"].endswith("only in another width, case or spacing")
    assert "4 of 6 records are selected" in there["message"]
