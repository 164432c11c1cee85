"""Millions of questions on a cluster: Ray Data shares them out, vLLM answers them with a run's merged model.

    python examples/ray_vllm.py RUN QUESTIONS OUT [--gpus 8]

RUN is a run directory with a merged model, where every node reads it. QUESTIONS is a JSONL file, or a folder
of them: qid, question and passages, a list of texts, best first. OUT becomes a folder of JSONL files with
qid and prediction. Every node needs ragtune, ray[data] and vLLM.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import ray
from vllm import LLM, SamplingParams

import ragtune

# No weights are loaded where a server is said to answer; nothing is ever asked of this one.
ELSEWHERE = (
    "evaluate.engine=openai",
    "evaluate.endpoint=http://localhost/v1",
    "evaluate.served_after=vllm",
)


class Prompts:
    """Makes the prompts as in training: on processors, while the GPUs answer."""

    def __init__(self, run: str) -> None:
        self.reader = ragtune.Reader.load(run, *ELSEWHERE)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        asked = zip(batch["question"], batch["passages"], strict=True)
        messages = [self.reader.messages(question, list(texts)) for question, texts in asked]
        return {"qid": batch["qid"], "messages": [json.dumps(one) for one in messages]}


class Answers:
    """A model on a GPU of its own."""

    def __init__(self, run: str) -> None:
        recipe = ragtune.load_recipe(f"{run}/recipe.yaml")
        self.arguments = recipe.prompt.template_arguments
        self.sampling = SamplingParams(temperature=0, max_tokens=recipe.evaluate.max_new_tokens)
        self.model = LLM(model=f"{run}/merged")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        messages = [json.loads(one) for one in batch["messages"]]
        found = self.model.chat(messages, self.sampling, chat_template_kwargs=self.arguments)
        return {"qid": batch["qid"], "prediction": [one.outputs[0].text for one in found]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("questions")
    parser.add_argument("out")
    parser.add_argument("--gpus", type=int, default=1)
    told = parser.parse_args()
    run, out = str(Path(told.run).resolve()), str(Path(told.out).resolve())
    (
        ray.data.read_json(str(Path(told.questions).resolve()))
        .map_batches(Prompts, fn_constructor_args=(run,), batch_size=256, concurrency=told.gpus)
        .map_batches(
            Answers, fn_constructor_args=(run,), batch_size=1024, concurrency=told.gpus, num_gpus=1
        )
        .write_json(out)
    )


if __name__ == "__main__":
    main()
