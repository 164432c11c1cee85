"""The example for a cluster: with a stand-in in vLLM's place, and with Ray itself where that is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ragtune.asking.reader import Reader
from tests.asking.conftest import tuned  # noqa: F401 - a fixture

EXAMPLE = Path(__file__).parents[1] / "examples/ray_vllm.py"
VLLM = """\
from pathlib import Path
from types import SimpleNamespace


class SamplingParams(SimpleNamespace):
    pass


class LLM:
    def __init__(self, model: str) -> None:
        assert (Path(model) / "config.json").is_file()

    def chat(self, messages, sampling, chat_template_kwargs):
        assert (sampling.temperature, sampling.max_tokens, chat_template_kwargs) == (0, 6, {})
        texts = [f"re: {one[-1]['content']}" for one in messages]
        return [SimpleNamespace(outputs=[SimpleNamespace(text=text)]) for text in texts]
"""
"""It answers with the prompt that it got."""
START = """\
import ray, runpy, sys
ray.init(num_cpus=8, num_gpus=2, include_dashboard=False)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Two GPUs and eight processors, as far as Ray knows."""
QUESTIONS = [
    {"qid": f"n{n}", "question": f"Who built the house {n}?", "passages": [f"Anna built {n}.", "It is red."]}
    for n in range(600)
]  # fmt: skip


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    (tmp_path / "vllm.py").write_text(VLLM, "utf-8")
    return tmp_path


def expected(run: Path, count: int) -> dict[str, str]:
    reader = Reader.load(run)
    return {
        str(one["qid"]): f"re: {reader.messages(one['question'], one['passages'])[-1]['content']}"  # type: ignore[arg-type]
        for one in QUESTIONS[:count]
    }


def test_its_steps_make_the_prompts_of_training(
    tuned: Path,  # noqa: F811
    stand_in: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(stand_in)
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    spec = importlib.util.spec_from_file_location("ray_vllm", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    batch = {key: [one[key] for one in QUESTIONS[:3]] for key in QUESTIONS[0]}
    found = example.Answers(str(tuned))(example.Prompts(str(tuned))(batch))
    assert dict(zip(found["qid"], found["prediction"], strict=True)) == expected(tuned, 3)


def test_ray_shares_the_questions_out(tuned: Path, stand_in: Path) -> None:  # noqa: F811
    pytest.importorskip("ray", reason="the extra ray is not installed")
    questions, out = stand_in / "questions.jsonl", stand_in / "out"
    questions.write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS), "utf-8")
    path = [str(stand_in), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", START, EXAMPLE, tuned, questions, out, "--gpus", "2"],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(path),
            "HOME": str(stand_in),
            "RAY_USAGE_STATS_ENABLED": "0",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for file in out.glob("*.json*") for line in file.open("rb")]
    assert len(rows) == len(QUESTIONS)
    assert {row["qid"]: row["prediction"] for row in rows} == expected(tuned, len(QUESTIONS))
