"""The stage that publishes: the card, a last look at the merged model's score, and the push."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragtune.base.console import note, warn
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import read_json, writing
from ragtune.publish.hub import check_access, check_name, files_to_send, push

if TYPE_CHECKING:
    from ragtune.model.source import ModelSource
    from ragtune.stages.run import Run

_SHOWN = 30
"""Lines of the card that a preview shows."""
CARD = "README.md"


def may_publish(run: Run) -> str:
    """Who may write to the repository that the recipe names, in words.

    Raises:
        UsageError: publish.repo is not set, or is no name.
        RagtuneError: the Hub refuses.
    """
    repo, _ = _target(run)
    access = check_access(repo, private=run.recipe.publish.private)
    if access.doubt:
        warn(f"{access.doubt} {access.advice}")
    return access.words


def publish(run: Run, access: str) -> str:
    """Push what the recipe names, and return the repository's address.

    Args:
        run: what is not made yet is made first.
        access: as `may_publish` said.

    Raises:
        RagtuneError: the Hub refuses, or the merged model is not what was measured.
    """
    repo, folder = _target(run)
    private, command = run.recipe.publish.private, _command(run, repo)
    if run.recipe.publish.format == "merged":
        merged = run.merge()
        if merged:
            same_score(merged, run.evaluate("after"), run.recipe.evaluate.metric, command)
    else:
        run.train()
    run.dir.see_whole(folder.name)
    comparison = run.compare_answers()
    with run.stage("push", "Publishing"):
        note(f"{access}.")
        card = _card(run, repo, comparison, ask=True)
        with writing(folder / CARD) as file:
            file.write(card)
        done = push(folder, repo, private=private, command=shlex.join(command))
        run.dir.update(push={"repo": repo, "address": done.address})
        if done.removed:
            note(
                "Removed there, as it would be loaded instead of this or besides it: "
                f"{', '.join(done.removed)}."
            )
        if done.changed:
            note(f"Published: {done.address}")
        else:
            note(f"Nothing to send: {done.address} holds all of this already.")
    return done.address


def preview(run: Run) -> str:
    """Show what `publish` would send, without a token and without the network; return the repository.

    Raises:
        UsageError: there is nothing to send yet, or publish.repo is not set or no name.
        RagtuneError: a push would be stopped, because of the merged model's score.
    """
    repo, folder = _target(run)
    check_name(repo)
    run.dir.refuse(run.dir.changes(run.recipe))
    run.dir.see_unchanged(*run.dir.results())
    wanted = run.recipe.publish.format
    if not folder.is_dir():
        first = "merge" if wanted == "merged" else "train"
        raise UsageError(f"{folder} is not there yet.", f"Run `ragtune {first}` first.")
    card = _card(run, repo, run.compare_answers(write=False), ask=False)
    files = {**files_to_send(folder), CARD: len(card.encode())}
    visible = "private" if run.recipe.publish.private else "public"
    what = "the merged model" if wanted == "merged" else "the adapter"
    note(f"Would push {what} to {repo}, {visible} if it is made:")
    for name, size in sorted(files.items()):
        note(f"  {_size(size):>9}  {name}")
    note(f"  {_size(sum(files.values())):>9}  in {len(files)} files")
    note(
        "Nobody was asked what lies there. Of an earlier push by ragtune a push removes what would be "
        "loaded instead of these files or besides them."
    )
    lines = card.splitlines()
    note(f"\nThe card ({CARD}) begins:\n")
    for line in lines[:_SHOWN]:
        note(f"  {line}".rstrip())
    if len(lines) > _SHOWN:
        note(f"  … and {len(lines) - _SHOWN} more lines")
    if wanted == "merged" and not run.remote:
        after = run.dir.predictions("after") / "metrics.json"
        merged = run.dir.read_state().get("merge")
        if merged and after.exists():
            metric = run.recipe.evaluate.metric
            same_score(merged, read_json(after), metric, _command(run, repo))
        else:
            note(
                "\nThe merged model has not answered the questions yet: a push lets it do so first."
            )
    return repo


def same_score(
    merged: dict[str, Any], adapter: dict[str, Any], metric: str, command: list[str]
) -> None:
    """See that merging left the score where it was: inside the interval of the adapter's own.

    Args:
        merged: the merged model's figures, as `merge` in run.json.
        adapter: the adapter's, as in after/metrics.json.
        metric: the headline.
        command: the push that is stopped.

    Raises:
        RagtuneError: the merged model's score lies outside.
    """
    value, own = merged["metrics"].get(metric), adapter["intervals"].get(metric)
    if value is None or own is None or own["low"] <= value <= own["high"]:
        return
    instead = shlex.join([*command, "publish.format=adapter"])
    raise RagtuneError(
        f"The merged model is not what was measured: {metric} {value:.1%}, and the adapter has "
        f"{own['value']:.1%} (95 % interval {own['low']:.1%} … {own['high']:.1%}); "
        f"{merged['changed']} of {merged['asked']} answers changed. Nothing was sent.",
        f"Publish the adapter, which is what was measured: {instead}",
    )


def _target(run: Run) -> tuple[str, Path]:
    """The repository, and the folder that goes there."""
    repo = run.recipe.publish.repo
    if repo is None:
        raise UsageError(
            "publish.repo is not set.", "Name it: ragtune push RECIPE publish.repo=owner/name"
        )
    return repo, run.dir.merged if run.recipe.publish.format == "merged" else run.dir.adapter


def _command(run: Run, repo: str) -> list[str]:
    return ["ragtune", "push", str(run.dir.path), f"publish.repo={repo}"]


def _card(run: Run, repo: str, comparison: dict[str, Any] | None, *, ask: bool) -> str:
    from ragtune.publish.card import model_card
    from ragtune.publish.licences import base_licence, data_origins

    report = run.dir.data / "report.json"
    if not report.exists():
        raise UsageError(f"{run.dir.path} has no data yet.", "Run `ragtune run` first.")
    source = _base(run)
    base = _base_name(run, source)
    return model_card(
        recipe=run.recipe,
        state=run.dir.read_state(),
        data_report=read_json(report),
        comparison=comparison,
        base_model=base,
        licence=base_licence(run.recipe.model, source, ask=ask and base is not None)
        if source
        else None,
        origins=data_origins(run.recipe.data),
        repo=repo,
    )


def _base(run: Run) -> ModelSource | None:
    """Where the base is, or None, which is said: a card can do without it."""
    from ragtune.model.source import unconverted

    try:
        return unconverted(run.recipe.model) or run.source
    except RagtuneError as error:
        warn(
            f"{error.message} It is not needed to publish, but its licence is not known then: the card "
            "says so."
        )
        return None


def _base_name(run: Run, source: ModelSource | None) -> str | None:
    """What people call the base; None for a model that only this machine has.

    The adapter knows it from when it was trained: a folder that has been moved since would look like a
    Hub id.
    """
    config = run.dir.adapter / "adapter_config.json"
    if config.exists():
        name = read_json(config).get("base_model_name_or_path")
        return None if name is None else str(name)
    return source.name if source else None


def _size(size: int) -> str:
    """1500 as 1.5 kB."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 1000:  # noqa: PLR2004 - SI units
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
