"""General tasks through lm-evaluation-harness: its own figures, kept results, and what can be wrong with a task."""

from __future__ import annotations

import errno
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ragtune.answering import harness, harnessed
from ragtune.answering.harness import TASKS, ask_tasks, require_tasks
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import read_jsonl
from ragtune.recipe.schema import Evaluate
from tests.conftest import tiny_model
from tests.general_tasks import write_task

needed = pytest.mark.skipif(
    not harness.is_installed(), reason="lm-eval is not installed: make general"
)
DAY = "2026-01-02"


@pytest.fixture(autouse=True)
def _own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def model(chatml_tokenizer: Any) -> Any:
    return tiny_model("llama", eos_token_id=chatml_tokenizer.eos_token_id, initializer_range=0.2)


def settings(folder: Path, *names: str, **more: Any) -> Evaluate:
    return Evaluate(general=[*names], general_folder=str(folder), **more)


def asked(
    settings: Evaluate, model: Any, tokenizer: Any, out: Path
) -> dict[str, list[dict[str, Any]]]:
    """The rows of every log."""
    out.mkdir(parents=True)
    ask_tasks(settings, model, tokenizer, DAY, out)
    parts = json.loads((out / TASKS).read_text("utf-8"))["tasks"]
    return {leaf: [*read_jsonl(out / file)] for one in parts.values() for leaf, file in one.items()}


@needed
def test_it_gives_what_lm_evaluation_harness_gives(
    tmp_path: Path, model: Any, chatml_tokenizer: Any
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = tmp_path / "tasks"
    write_task(folder, "flags", num_fewshot=2, fewshot_split="test")
    write_task(
        folder, "written", output_type="generate_until", generation_kwargs={"max_gen_toks": 4, "until": ["\n"]},
        doc_to_choice=None, doc_to_target="{{choices[answer]}}", metric_list=[{"metric": "exact_match"}],
    )  # fmt: skip
    write_task(
        folder, "rolling", output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{question}}",
        metric_list=[{"metric": "word_perplexity"}],
    )  # fmt: skip
    names = ["flags", "written", "rolling"]
    found = asked(
        settings(folder, *names, general_limit=7), model, chatml_tokenizer, tmp_path / "made"
    )
    whole = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=chatml_tokenizer, batch_size=3),
        tasks=names, limit=7, task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        random_seed=1234,
    )  # fmt: skip
    assert whole is not None
    assert {*found} == {*names}
    for name in names:
        theirs = whole["samples"][name]
        assert len(found[name]) == len(theirs) == 7
        for mine, other in zip(found[name], theirs, strict=True):
            for key in ("doc_id", "doc_hash", "prompt_hash", "target_hash", *other["metrics"]):
                value = list(other[key]) if isinstance(other[key], tuple) else other[key]
                assert (
                    mine[key] == pytest.approx(value) if name == "rolling" else mine[key] == value
                )
    assert any(row["acc"] for row in found["flags"])
    assert not all(row["acc"] for row in found["flags"])


@needed
def test_a_group_is_asked_with_all_its_parts(
    tmp_path: Path, model: Any, chatml_tokenizer: Any
) -> None:
    folder = tmp_path / "tasks"
    write_task(folder, "one", 3)
    write_task(folder, "two", 4)
    (folder / "both.yaml").write_text('{"group": "both", "task": ["one", "two"]}', "utf-8")
    found = asked(settings(folder, "both"), model, chatml_tokenizer, tmp_path / "made")
    assert {name: len(rows) for name, rows in found.items()} == {"one": 3, "two": 4}
    assert "arguments" not in found["one"][0]


@needed
def test_it_goes_on_from_what_was_kept(
    tmp_path: Path, model: Any, chatml_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tasks"
    write_task(folder, "flags")
    plain = asked(settings(folder, "flags"), model, chatml_tokenizer, tmp_path / "plain/made")
    keep, forward = harnessed._Kept._keep, type(model).forward
    fed: list[int] = []

    def kept(self: Any, key: str, result: Any) -> None:
        keep(self, key, result)
        if len(self._known) == 20:
            raise KeyboardInterrupt

    def counted(self: Any, ids: Any, *more: Any, **named: Any) -> Any:
        fed.append(len(ids))
        return forward(self, ids, *more, **named)

    monkeypatch.setattr(type(model), "forward", counted)
    with monkeypatch.context() as broken:
        broken.setattr(harnessed._Kept, "_keep", kept)
        with pytest.raises(KeyboardInterrupt):
            asked(settings(folder, "flags"), model, chatml_tokenizer, tmp_path / "cut/made")
    said = tmp_path / "cut/said.jsonl"
    text = said.read_text("utf-8")
    assert text.count("\n") == 20
    # A kill in the middle of a line, and a disk that lies about another.
    said.write_text("no JSON\n" + text + '{"key": "ab', "utf-8")
    first = sum(fed)
    fed.clear()
    (tmp_path / "cut/made").rmdir()
    assert asked(settings(folder, "flags"), model, chatml_tokenizer, tmp_path / "cut/made") == plain
    assert 0 < sum(fed) <= 48 - 20 < first + sum(fed)


@needed
def test_too_little_memory_halves_what_is_asked_at_a_time(
    tmp_path: Path, model: Any, chatml_tokenizer: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tmp_path / "tasks"
    write_task(folder, "flags", 6)
    plain = asked(settings(folder, "flags"), model, chatml_tokenizer, tmp_path / "plain/made")
    forward = type(model).forward

    def little(self: Any, ids: Any, *more: Any, **named: Any) -> Any:
        if len(ids) > 2:
            raise torch.OutOfMemoryError("too little")
        return forward(self, ids, *more, **named)

    monkeypatch.setattr(type(model), "forward", little)
    found = asked(settings(folder, "flags"), model, chatml_tokenizer, tmp_path / "little/made")
    assert found == plain
    printed = capsys.readouterr()
    assert "Out of memory: 2 texts at a time." in printed.out
    assert not printed.err  # no bar of the library's


@needed
def test_nothing_else_is_changed_by_it(tmp_path: Path, model: Any, chatml_tokenizer: Any) -> None:
    """Neither what is drawn afterwards, nor the tokenizer, nor weights that a file has both of."""
    import lm_eval.models.huggingface
    from tqdm import tqdm

    folder = tmp_path / "tasks"
    (folder).mkdir()
    (folder / "drawn.py").write_text(
        "import random\ndef f(docs): return docs.select([random.randrange(12)])\n"
    )
    write_task(folder, "flags")
    task = json.loads((folder / "flags.yaml").read_text("utf-8"))
    text = json.dumps(task)[:-1] + ', "process_docs": !function drawn.f}'
    (folder / "flags.yaml").write_text(text, "utf-8")
    model.config.tie_word_embeddings = True
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    side, pad = chatml_tokenizer.padding_side, chatml_tokenizer.pad_token_id
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    drawn = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = asked(settings(folder, "flags"), model, chatml_tokenizer, tmp_path / "first/made")
    random.seed(5)
    again = asked(settings(folder, "flags"), model, chatml_tokenizer, tmp_path / "again/made")
    assert first == again
    assert random.getstate() == drawn[0]
    assert (np.random.get_state()[1] == drawn[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), drawn[2])
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert (chatml_tokenizer.padding_side, chatml_tokenizer.pad_token_id) == (side, pad)
    assert "tie_weights" not in vars(model)
    assert lm_eval.models.huggingface.tqdm is tqdm


@needed
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"dataset_path": "nobody/nothing", "dataset_kwargs": {}}, "the data of odd can't be had"),
        ({"dataset_kwargs": {"data_files": {"test": "/nowhere/odd.jsonl"}}}, "the data of odd can't be had"),
        ({"test_split": "other"}, "odd fails"),
        ({"generation_kwargs": {"do_sample": True}, "output_type": "generate_until"}, "draws its answers by lot"),
        ({"unsafe_code": True}, "runs the code that a model writes"),
        ({"task": "../odd"}, "has no task odd"),
        ({"output_type": "nonsense"}, "odd fails"),
    ],
)  # fmt: skip
def test_a_task_that_can_not_be_asked(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    write_task(tmp_path / "tasks", "odd", **more)
    with pytest.raises(RagtuneError, match=said) as error:
        require_tasks(settings(tmp_path / "tasks", "odd"))
    assert error.value.message.startswith("evaluate.general: ")
    assert error.value.advice


@needed
def test_a_full_disk_is_no_fault_of_the_task(
    tmp_path: Path, model: Any, chatml_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_task(tmp_path / "tasks", "flags")
    with monkeypatch.context() as broken:
        broken.setattr("datasets.load_dataset", full)
        with pytest.raises(RagtuneError, match=r"The disk is full: could not write .*/datasets"):
            require_tasks(settings(tmp_path / "tasks", "flags"))
    monkeypatch.setattr(harnessed._Kept, "_keep", full)
    with pytest.raises(RagtuneError, match=r"The disk is full: could not write .*/made"):
        asked(settings(tmp_path / "tasks", "flags"), model, chatml_tokenizer, tmp_path / "made")


@needed
def test_a_task_without_a_file_s_name(tmp_path: Path) -> None:
    write_task(tmp_path / "tasks", "odd", task="../odd")
    with pytest.raises(UsageError, match="has a name that is none of a file"):
        require_tasks(settings(tmp_path / "tasks", "../odd"))


@needed
def test_an_unknown_task_a_folder_that_is_none_and_one_of_broken_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no task arc_eazy. Did you mean arc_easy\?"):
        require_tasks(Evaluate(general=["arc_eazy"]))
    with pytest.raises(UsageError, match=r"general_folder: .*/none is no folder"):
        require_tasks(settings(tmp_path / "none", "flags"))
    write_task(tmp_path / "tasks", "flags")
    (tmp_path / "tasks" / "broken.yaml").write_text("task: [", "utf-8")
    require_tasks(settings(tmp_path / "tasks", "flags"))


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "is_installed", lambda: False)
    with pytest.raises(UsageError, match="needs lm-eval") as error:
        require_tasks(Evaluate(general=["arc_easy"]))
    assert error.value.advice == "pip install lm-eval"
