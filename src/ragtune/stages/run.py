"""The stages in order, each of which goes on after a break.

A stage that is finished is not repeated; what it needs from earlier stages is made first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from typing import Any

from ragtune.base.console import console, heading, note
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import read_json, read_jsonl, write_json
from ragtune.base.lock import see_held
from ragtune.base.network import hub_is_offline
from ragtune.base.stopping import stop_if_asked
from ragtune.stages.context import Workspace, alone
from ragtune.store.changes import read_inputs


class Run(Workspace):
    """The stages of a recipe. Each returns what it found out; one that is finished is not repeated."""

    @alone()
    def prepare(self) -> dict[str, Any]:
        from ragtune.data.prepare import prepare

        stop_if_asked()
        self.dir.claim(self.recipe, self.day)
        if not (self.dir.data / "report.json").exists():
            with self.stage("prepare", "Data"):
                self._made.pop("plan", None)
                read = read_inputs(self.recipe)
                encoder = self.encoder  # with it a Hub model is in the cache
                self._pin()
                done = lambda: self.dir.update(inputs=read())  # noqa: E731
                prepare(self.recipe, encoder, self.dir.data, done, self.embedding_rows)
                self.dir.record("data")
        return read_json(self.dir.data / "report.json")

    @alone()
    def evaluate(self, which: str) -> dict[str, Any]:
        """Answer the questions `before` or `after` tuning."""
        from ragtune.answering.evaluate import show_answers, write_evaluation
        from ragtune.scoring.score import load_predictions

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
                self.dir.record(which)
                partial.unlink()
                show_answers(questions, load_predictions(folder))
        return read_json(folder / "metrics.json")

    @alone()
    def evaluate_latest(self) -> dict[str, Any]:
        """Answer with the adapter if there is one, or was when its answers were given; else without."""
        tuned = self.dir.adapter.exists() or self.dir.predictions("after").exists()
        return self.evaluate("after" if tuned else "before")

    @alone()
    def train(self) -> dict[str, Any]:
        from ragtune.training.train import train

        if not self.dir.adapter.exists():
            self.prepare()
            base = self.base
            with self.stage("train", "Training"):
                self.dir.forget("after", "merged", "controls", "checkpoints")
                self._made["tuned"] = train(
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
                    self._trained,
                )
                del self._made["base"]
                self.dir.record("adapter")
        return dict(self.dir.read_state().get("train", {}))

    def _trained(self, result: Any) -> None:
        see_held()  # another machine may have taken over meanwhile
        self.dir.update(train=dataclasses.asdict(result))

    @alone(making=False)
    def report(self, *, again: bool = False) -> dict[str, Any]:
        """Compare before with after, and write the report; `again` says no word about it."""
        from ragtune.reporting.answers import answer_rows
        from ragtune.reporting.html import write_report
        from ragtune.reporting.table import comparison_table

        with self.stage("report", "" if again else "Report"):
            comparison = self.compare_answers()
            if comparison and not again:
                console.print(comparison_table(comparison))
            log = self.dir.adapter / "train_log.jsonl"
            before, after = (self.dir.predictions(w) for w in ("before", "after"))
            asked = self.examples("eval")
            write_report(
                self.dir.report,
                recipe=self.recipe,
                state=self.dir.read_state(),
                data_report=read_json(self.dir.data / "report.json"),
                comparison=comparison,
                log=list(read_jsonl(log)) if log.exists() else [],
                answers=answer_rows(self.recipe, asked, before, after, self.prompt_texts()),
                controls=self._controls(),
            )
            if not again:
                note(f"Report: {self.dir.report}")
        return comparison or {}

    def summary(self) -> str:
        """The comparison in Markdown, for a pull request."""
        from ragtune.reporting.markdown import summary

        self.dir.refuse(self.dir.changes(self.recipe))
        self.dir.see_unchanged(*self.dir.results())
        comparison = self.compare_answers(write=False)
        if comparison is None:
            raise UsageError(
                f"{self.dir.path} has no answers before and after tuning to compare.",
                "Run `ragtune run` first.",
            )
        return summary(self.recipe.name, comparison, self._controls())

    def compare_answers(self, *, write: bool = True) -> dict[str, Any] | None:
        """Before against after, in comparison.json too; None, and no file, without both evaluations."""
        from ragtune.answering.evaluate import compare_folders

        before, after = (self.dir.predictions(w) for w in ("before", "after"))
        if not (self.dir.data / "report.json").exists():
            raise UsageError(f"{self.dir.path} has no data yet.", "Run `ragtune run` first.")
        if not all((f / "metrics.json").exists() for f in (before, after)):
            if write:
                self.dir.comparison.unlink(missing_ok=True)
            return None
        comparison = compare_folders(self.recipe, self.questions, before, after)
        if write:
            write_json(self.dir.comparison, comparison)
        return comparison

    def _controls(self) -> dict[str, Any] | None:
        from ragtune.stages.measure import control_results

        if not self.dir.controls.exists():
            return None
        if not self.dir.scored_otherwise(self.recipe):
            # Of a damaged one, the answers that it was made from are there.
            with contextlib.suppress(RagtuneError):
                return read_json(self.dir.controls)
        found = control_results(self)
        if self.settled:
            write_json(self.dir.controls, found)
        return found

    @alone()
    def merge(self) -> dict[str, Any]:
        """Merge the adapter into the base, and count the answers that this changed."""
        from ragtune.answering.evaluate import ask
        from ragtune.model.load import choose_hardware, plain
        from ragtune.model.merge import merge
        from ragtune.model.plan import plan_answers
        from ragtune.model.quantized import without_quantization
        from ragtune.scoring.score import load_predictions, metrics_of, score_answers

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
                    self.dir.record("merged")
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
                    plan_answers(
                        simple,
                        hardware,
                        without_quantization(self.config),
                        lengths,
                        dequantized=False,
                    ),
                    partial,
                    "answering (merged)",
                    self.keep_way("merge"),
                )
                after = load_predictions(self.dir.predictions("after"))
                changed = sum(p.prediction != after[p.qid] for p in found)
                answers = {p.qid: p.prediction for p in found}
                scored = metrics_of(score_answers(self.recipe, self.questions, answers))
                result = {
                    "asked": len(found),
                    "changed": changed,
                    **{k: scored[k] for k in ("n", "metrics", "intervals", "answers")},
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
        from ragtune.model.merge import merge

        if not whole:
            self.train()
            with self.stage("merge", "Merged model"):
                self.forget_models()
                merge(self.source, self.dir.adapter, self.encoder, self.dir.merged)
                self.dir.record("merged")
                note(f"Merged: {self.dir.merged}")
        return {}

    def push(self, *, dry_run: bool = False) -> str:
        """Publish the merged model or the adapter, with its card; `dry_run` shows what would go."""
        from ragtune.stages.push import may_publish, preview, publish

        if dry_run:
            return preview(self)
        self.dir.refuse(self.dir.changes(self.recipe))
        # Asked first: what is to be published may not be made yet, and a wrong name is not kept.
        access = may_publish(self)
        with self.writing(making=False):  # what is damaged goes, and then counts as not made
            pass
        merged = self.recipe.publish.format == "merged"
        there = self.dir.merged.exists() if merged else self.dir.adapter.exists()
        # What is still to be made must be made of unchanged inputs; what is there may go out anyway.
        making = not there or (merged and "merge" not in self.dir.read_state())
        with self.writing(making=making):
            return publish(self, access)

    def check(self) -> None:
        """Print what can be found out before anything costs time.

        Raises:
            RagtuneError: the first of the findings with which the run would fail.
        """
        from ragtune.stages.check.findings import look, show

        heading("Check")
        found = look(self)
        show(found.findings)
        if found.error:
            raise found.error

    @alone()
    def run(self) -> dict[str, Any]:
        """Everything, in order; what is finished is not repeated."""
        if self._finished():
            note(f"The run in {self.dir.path} is finished: no stage is repeated.")
        self.check()
        self.prepare()
        self.evaluate("before")
        self.train()
        self.evaluate("after")
        comparison = self.report()
        if self.recipe.publish.format == "merged":
            self.merge()
            self.report(again=True)  # with what merging changed
        if self.recipe.publish.repo and hub_is_offline():
            note(f"Not published: offline. Later: ragtune push {self.dir.path}")
        elif self.recipe.publish.repo:
            self.push()
        stop_if_asked()
        self._where()
        return comparison

    def _finished(self) -> bool:
        """Whether nothing is left to be made."""
        folders = [self.dir.data, self.dir.adapter, *map(self.dir.predictions, ("before", "after"))]
        if self.recipe.publish.format == "merged":
            folders.append(self.dir.merged)
        pushed = self.dir.read_state().get("push", {}).get("repo")
        return all(f.exists() for f in folders) and pushed == self.recipe.publish.repo

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
