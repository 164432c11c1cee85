"""The stages in order, the run directory, and going on after a break.

Every stage is a function of a recipe (a path, a mapping, a Recipe) or of a run directory, which
holds its recipe. A stage that is finished is not repeated; what it needs from earlier stages is
made first.
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from ragtune.console import console, heading, note
from ragtune.errors import UsageError
from ragtune.files import read_json, read_jsonl, sha256, write_json
from ragtune.workspace import Target, Workspace


class Run(Workspace):
    """The stages of a recipe. Each returns what it found out; one that is finished is not repeated."""

    def prepare(self) -> dict[str, Any]:
        from ragtune.data.prepare import prepare

        self.dir.claim(self.recipe)
        if not (self.dir.data / "report.json").exists():
            with self.stage("prepare", "Data"):
                self.dir.forget("before", "after", "merged", "controls", "checkpoints", "plan")
                self._made.pop("plan", None)
                prepare(self.recipe, self.encoder, self.dir.data)
                self.dir.update(
                    data={s: sha256(self.dir.data / f"{s}.jsonl") for s in ("train", "eval")}
                )
        return read_json(self.dir.data / "report.json")

    def evaluate(self, which: str) -> dict[str, Any]:
        """Answer the questions `before` or `after` tuning."""
        from ragtune.evaluation.evaluate import show_answers, write_evaluation
        from ragtune.evaluation.score import load_predictions

        folder = self.dir.predictions(which)
        if not (folder / "metrics.json").exists():
            self.prepare()
            if which == "after":
                self.train()
            questions = self.examples("eval")
            if not self.remote:
                _ = self.base if which == "before" else self.tuned  # loading is a stage of its own
                self._keep_plan(self.plan)
            with self.stage(which, f"Answers {which} tuning"):
                partial = self.dir.work / f"{which}.jsonl"
                predictions = self.ask(which, questions, partial)
                write_evaluation(self.recipe, folder, predictions, self.questions)
                partial.unlink()
                show_answers(questions, load_predictions(folder))
        return read_json(folder / "metrics.json")

    def train(self) -> dict[str, Any]:
        from ragtune.training.train import train

        if not self.dir.adapter.exists():
            self.prepare()
            base = self.base
            with self.stage("train", "Training"):
                self.dir.forget("after", "merged", "controls", "checkpoints")
                self._made["tuned"], result = train(
                    self.recipe,
                    self.hardware,
                    base,
                    self.encoder,
                    self.steps,
                    [e for e in self.examples("eval") if e.extra["selected"]],
                    self.dir.adapter,
                    self.dir.checkpoints,
                    self.source.name,
                    self.plan,
                    self._keep_plan,
                )
                del self._made["base"]
                self.dir.update(train=dataclasses.asdict(result))
        return dict(self.dir.read_state().get("train", {}))

    def report(self, *, again: bool = False) -> dict[str, Any]:
        """Compare before with after, and write the report; `again` says no word about it."""
        from ragtune.evaluation.evaluate import compare_folders
        from ragtune.reporting.html import write_report
        from ragtune.reporting.table import answer_rows, comparison_table

        comparison: dict[str, Any] | None = None
        with self.stage("report", "" if again else "Report"):
            before, after = (self.dir.predictions(w) for w in ("before", "after"))
            if not (self.dir.data / "report.json").exists():
                raise UsageError(f"{self.dir.path} has no data yet.", "Run `ragtune run` first.")
            if all((f / "metrics.json").exists() for f in (before, after)):
                comparison = compare_folders(self.recipe, self.questions, before, after)
                write_json(self.dir.comparison, comparison)
                if not again:
                    console.print(comparison_table(comparison))
            log = self.dir.adapter / "train_log.jsonl"
            write_report(
                self.dir.report,
                recipe=self.recipe,
                state=self.dir.read_state(),
                data_report=read_json(self.dir.data / "report.json"),
                comparison=comparison,
                log=list(read_jsonl(log)) if log.exists() else [],
                answers=answer_rows(self.recipe, self.examples("eval"), before, after),
            )
            if not again:
                note(f"Report: {self.dir.report}")
        return comparison or {}

    def merge(self) -> dict[str, Any]:
        """Merge the adapter into the base, and count the answers that this changed."""
        from ragtune.evaluation.evaluate import ask
        from ragtune.evaluation.score import load_predictions, metrics_of, score_answers
        from ragtune.model.load import choose_hardware, plain
        from ragtune.model.plan import plan_answers
        from ragtune.publish.merge import merge

        whole = (self.dir.merged / "config.json").exists()
        if self.recipe.evaluate.engine == "openai":
            return self._merge_alone(whole=whole)
        if not whole or "merge" not in self.dir.read_state():
            self.evaluate("after")
            with self.stage("merge", "Merged model"):
                # The tuned model's memory is needed for the base in bfloat16.
                self.forget_models()
                if not whole:
                    self.dir.forget("merged")
                    merge(self.source, self.dir.adapter, self.encoder, self.dir.merged)
                partial = self.dir.work / "merged.jsonl"
                # The merged model is not quantised, and answers on a machine without a GPU, too.
                simple = plain(self.recipe)
                hardware = choose_hardware(simple)
                lengths = [len(ids) for _, ids in self.prompts]
                found = ask(
                    self.recipe,
                    self._load(str(self.dir.merged), hardware),
                    self.encoder,
                    self.prompts,
                    plan_answers(simple, hardware, self.config, lengths),
                    partial,
                    "answering (merged)",
                )
                after = load_predictions(self.dir.predictions("after"))
                changed = sum(p.prediction != after[p.qid] for p in found)
                answers = {p.qid: p.prediction for p in found}
                scored = metrics_of(score_answers(self.recipe, self.questions, answers))
                result = {
                    "asked": len(found),
                    "changed": changed,
                    **{k: scored[k] for k in ("n", "metrics", "intervals")},
                }
                self.dir.update(merge=result)
                partial.unlink()
                metric = self.recipe.evaluate.metric
                note(
                    f"The merged model gives {changed} of {len(found)} answers otherwise than "
                    f"the adapter; {metric} {result['metrics'][metric]:.1%}."
                )
        return dict(self.dir.read_state()["merge"])

    def _merge_alone(self, *, whole: bool) -> dict[str, Any]:
        """Merge without asking: the answers after tuning are a server's, perhaps of this very model."""
        from ragtune.publish.merge import merge

        if not whole:
            self.train()
            with self.stage("merge", "Merged model"):
                self.forget_models()
                merge(self.source, self.dir.adapter, self.encoder, self.dir.merged)
                note(f"Merged: {self.dir.merged}")
        return {}

    def push(self) -> str:
        """Publish the merged model or the adapter, with its card."""
        from ragtune.publish.hub import check_access, push
        from ragtune.reporting.card import write_card

        repo = self.recipe.publish.repo
        if repo is None:
            raise UsageError(
                "publish.repo is not set.", "Name it: ragtune push RECIPE publish.repo=owner/name"
            )
        # Asked first: what is to be published may not be made yet.
        access = check_access(repo, private=self.recipe.publish.private)
        merged = self.recipe.publish.format == "merged"
        folder = self.dir.merged if merged else self.dir.adapter
        if merged:
            self.merge()
        else:
            self.train()
        with self.stage("push", "Publishing"):
            note(f"{access}.")
            write_card(
                folder,
                recipe=self.recipe,
                state=self.dir.read_state(),
                data_report=read_json(self.dir.data / "report.json"),
                comparison=read_json(self.dir.comparison) if self.dir.comparison.exists() else None,
                base_model=self.source.name,
                repo=repo,
            )
            address = push(
                folder,
                repo,
                private=self.recipe.publish.private,
                command=shlex.join(["ragtune", "push", str(self.dir.path), f"publish.repo={repo}"]),
            )
            self.dir.update(push={"repo": repo, "address": address})
            note(f"Published: {address}")
        return address

    def check(self) -> None:
        from ragtune.checks import check

        heading("Check")
        check(self)

    def run(self) -> dict[str, Any]:
        """Everything, in order; what is finished is not repeated."""
        self.check()
        self.prepare()
        self.evaluate("before")
        self.train()
        self.evaluate("after")
        comparison = self.report()
        if self.recipe.publish.format == "merged":
            self.merge()
            self.report(again=True)  # with what merging changed
        if self.recipe.publish.repo:
            self.push()
        self._where()
        return comparison

    def _where(self) -> None:
        heading("Where everything lies")
        for path, what in (
            (self.dir.report, "the report, for a browser"),
            (self.dir.comparison, "the figures"),
            (self.dir.predictions("after") / "predictions.jsonl", "every answer after tuning"),
            (self.dir.adapter, "the adapter and its tokenizer"),
            (self.dir.merged, "the merged model"),
            (self.dir.recipe, "the recipe with every value: runs again"),
        ):
            if path.exists():
                note(f"  {path}  {what}")
        state = self.dir.read_state()
        total = sum(state.get("times", {}).values())
        note(f"{total:.0f} s in all.")
        if not self.recipe.publish.repo:
            command = shlex.join(["ragtune", "push", str(self.dir.path)])
            note(f"To publish: {command} publish.repo=YOUR-NAME/MODEL")


def run(target: Target, *overrides: str, run_dir: str | Path | None = None) -> dict[str, Any]:
    """Do everything, from data to report and, if the recipe names a repository, to the Hub.

    Args:
        target: a recipe (path, mapping or Recipe) or a run directory.
        overrides: `section.key=value` changes to it.
        run_dir: where the run lies; runs/NAME by default.

    Returns:
        The comparison, as in comparison.json.

    Raises:
        UsageError: the recipe or the data must be changed.
        RagtuneError: something failed; its message says what to do.
    """
    return Run(target, list(overrides), run_dir).run()


def check(target: Target, *overrides: str, run_dir: str | Path | None = None) -> None:
    """Find out, before anything costs time, whether a run would work. Raises as `run` does."""
    Run(target, list(overrides), run_dir).check()


def prepare(target: Target, *overrides: str, run_dir: str | Path | None = None) -> dict[str, Any]:
    """Read and select the data; returns data/report.json. Raises as `run` does."""
    return Run(target, list(overrides), run_dir).prepare()


def train(target: Target, *overrides: str, run_dir: str | Path | None = None) -> dict[str, Any]:
    """Train the adapter; returns what it took. Raises as `run` does."""
    return Run(target, list(overrides), run_dir).train()


def evaluate(
    target: Target,
    *overrides: str,
    run_dir: str | Path | None = None,
    base: bool = False,
    checkpoint: int | None = None,
    predictions: str | Path | None = None,
) -> dict[str, Any]:
    """Answer and score the questions: with the adapter if there is one, else (or with `base`) without.

    Args:
        target: a recipe or a run directory.
        overrides: changes to the recipe.
        run_dir: where the run lies.
        base: without the adapter.
        checkpoint: with the adapter of this step instead.
        predictions: a file of {qid, prediction} lines: it is scored, and nothing is asked.

    Returns:
        As metrics.json. Raises as `run` does.
    """
    from ragtune import measure

    one = Run(target, list(overrides), run_dir)
    if predictions is not None:
        prepared = one.dir.data / "eval.jsonl"
        return measure.score_file(
            one.recipe, str(predictions), prepared if prepared.exists() else None
        )
    if checkpoint is not None:
        return measure.evaluate_checkpoint(one, checkpoint)
    return one.evaluate("before" if base or not one.dir.adapter.exists() else "after")


def controls(target: Target, *overrides: str, run_dir: str | Path | None = None) -> dict[str, Any]:
    """Ask the questions with other passages, before and after tuning; returns controls.json.

    Raises as `run` does.
    """
    from ragtune import measure

    one = Run(target, list(overrides), run_dir)
    result = measure.controls(one)
    one.report(again=True)
    return result


def compare_runs(*runs: str | Path) -> dict[str, Any]:
    """Compare the answers of runs, or of folders of answers in them, with those of the first.

    Raises:
        UsageError: a folder without answers, or different questions.
    """
    from ragtune import measure

    return measure.compare_runs([Path(run) for run in runs])


def compare(target: Target, *overrides: str, run_dir: str | Path | None = None) -> dict[str, Any]:
    """Compare before with after; returns comparison.json. Raises as `run` does."""
    one = Run(target, list(overrides), run_dir)
    for which in ("before", "after"):
        if not (one.dir.predictions(which) / "metrics.json").exists():
            raise UsageError(
                f"{one.dir.path} has no answers {which} tuning.", "Run `ragtune run` first."
            )
    return one.report()


def report(target: Target, *overrides: str, run_dir: str | Path | None = None) -> Path:
    """Write the report of what there is; returns its path. Raises as `run` does."""
    one = Run(target, list(overrides), run_dir)
    one.report()
    return one.dir.report


def merge(target: Target, *overrides: str, run_dir: str | Path | None = None) -> dict[str, Any]:
    """Merge the adapter into the base; returns the number of answers that changed, and the score."""
    return Run(target, list(overrides), run_dir).merge()


def push(target: Target, *overrides: str, run_dir: str | Path | None = None) -> str:
    """Publish the result on the Hub; returns the repository's address. Raises as `run` does."""
    one = Run(target, list(overrides), run_dir)
    one.dir.claim(one.recipe)
    return one.push()
