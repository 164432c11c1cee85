"""Publishing a run: what is still to be made first, its card, and the push."""

from __future__ import annotations

from pathlib import Path

from ragtune.answering.llama_process import installed
from ragtune.base.commands import command_line
from ragtune.base.disk import full_disk
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import write_json, writing
from ragtune.base.screen.console import note, show, warn
from ragtune.base.stopping import stop_if_asked
from ragtune.model.source import ModelSource, unconverted
from ragtune.publish.card import Card, base_model_name, model_card
from ragtune.publish.hub import check_access, push, require_name
from ragtune.publish.licences import base_licence, data_origins, without_licence
from ragtune.publish.preview import CARD, preview_text
from ragtune.publish.settings import SETTINGS, settings_text
from ragtune.reporting.wording import asked_again
from ragtune.scoring.compare import Comparison
from ragtune.scoring.reasked import is_other
from ragtune.stages import views
from ragtune.stages.built import builds_of
from ragtune.stages.context import Context
from ragtune.stages.holds import damaged_stages, require_unchanged, require_whole
from ragtune.stages.order import stages_there
from ragtune.stages.road import make, working
from ragtune.stages.summary import reasked_of, summary_of, write_summary
from ragtune.store.proof import damage, read_proof
from ragtune.store.seal import set_aside


def may_publish(context: Context) -> str:
    """Who may write to the repository that the recipe names, in words.

    Raises:
        UsageError: publish.repo is not set, or is no name.
        RagtuneError: the Hub refuses.
    """
    access = check_access(_repo(context), private=context.recipe.publish.private)
    if access.doubt:
        warn(f"{access.doubt} {access.advice}")
    return access.words


def push_alone(context: Context) -> str:
    """Push as a command of its own: nothing is made of changed inputs, and nothing for a refusal."""
    folder = context.folder
    folder.require_ours()
    broken = damaged_stages(folder)
    require_unchanged(context, making=False, but=broken)
    # Asked first: what is to be published may not be made yet, and a wrong name is not kept.
    access = may_publish(context)
    there = {stage.name for stage in stages_there(folder) if stage not in broken}
    # What is still to be made must be made of unchanged inputs; what is there may go out anyway.
    with working(context, making=not there.issuperset(_needed(context))):
        return publish(context, access)


def _needed(context: Context) -> tuple[str, ...]:
    """The stages that must be there to publish: a merged model has answered as the adapter did."""
    form = context.recipe.publish.format
    if form == "adapter":
        return ("adapter",)
    needed = ["merged"] if context.remote else ["merged", "after", "merged answers"]
    if form == "gguf":
        needed.append("gguf")
        if installed() and not context.remote:
            needed.append("gguf answers")
    return tuple(needed)


def publish(context: Context, access: str) -> str:
    """Push what the recipe names, and return the repository's address. Within `working`.

    Args:
        context: what is not made yet is made first.
        access: as `may_publish` said.

    Raises:
        RagtuneError: the Hub refuses, or what would go out is not what was measured.
    """
    if context.read_only:  # the card is written beside what is sent
        raise context.read_only
    recipe, folder, repo = context.recipe, context.folder, _repo(context)
    command = _command(context)
    for name in _needed(context):
        make(context, name)
    if recipe.publish.format != "adapter":
        _require_measured(context)
    place = _place(context)
    if problem := damage(place, thorough=True):
        set_aside(place, problem)
        raise RagtuneError(
            f"{place} is damaged: {problem}.",
            "Nothing was published. Run the same command again: it is made again.",
        )
    compared = views.comparison(context)
    stop_if_asked()
    context.say("Publishing")
    with full_disk(folder.path):
        note(f"{access}.")
        card = _card(context, compared, ask=True)
        for name, text in ((CARD, model_card(card)), (SETTINGS, _settings(context, card))):
            with writing(place / name) as file:
                file.write(text)
        done = push(place, repo, private=recipe.publish.private, command=command)
        write_json(folder.published, {"repo": repo, "address": done.address})
        write_summary(context)
        for words in done.words():
            note(words)
    return done.address


def preview(context: Context) -> str:
    """Show what `publish` would send, without a token and without the network; return the repository.

    Raises:
        UsageError: there is nothing to send yet, or publish.repo is not set or no name.
        RagtuneError: a push would be stopped, because of what it changed in the answers.
    """
    publishing, repo = context.recipe.publish, _repo(context)
    require_name(repo)
    context.folder.require_ours()
    require_whole(context)
    require_unchanged(context, making=False)
    merged = publishing.format != "adapter"
    place = _place(context)
    if not place.is_dir():
        form = [f"publish.format={publishing.format}"] * (publishing.format == "gguf")
        first = command_line("ragtune", "merge" if merged else "train", context.folder.path, *form)
        raise UsageError(f"{place} is not there yet.", f"Run `{first}` first.")
    card = _card(context, views.comparison(context), ask=False)
    show(preview_text(publishing, place, model_card(card), _settings(context, card)))
    if merged and not context.remote and not _require_measured(context):
        show("\nThe merged model has not answered the questions yet: a push lets it do so first.")
    return repo


def _place(context: Context) -> Path:
    """The folder that is published."""
    folder = context.folder
    places = {"adapter": folder.adapter, "merged": folder.merged, "gguf": folder.gguf}
    return places[context.recipe.publish.format]


def _require_measured(context: Context) -> bool:
    """Whether the merged model was asked; raises where it, or its GGUF file, is not what was measured."""
    sides = {"The merged model": reasked_of(context, "merged")}
    if context.recipe.publish.format == "gguf":
        sides["The GGUF file"] = reasked_of(context, "gguf")
    for who, found in sides.items():
        if found and found.get("confined"):
            warn(asked_again(who, found))
        elif found and is_other(found):
            raise RagtuneError(
                f"{asked_again(who, found)} Nothing was sent.",
                "Train with model.dtype=bfloat16: what is measured then is what is published."
                if context.recipe.full
                else "Publish the adapter, which is what was measured: "
                f"{_command(context)} publish.format=adapter",
            )
    return sides["The merged model"] is not None


def _repo(context: Context) -> str:
    repo = context.recipe.publish.repo
    if repo is None:
        raise UsageError(
            "publish.repo is not set.", "Name it: ragtune push RECIPE publish.repo=owner/name"
        )
    return repo


def _command(context: Context) -> str:
    return command_line("ragtune", "push", context.folder.path, f"publish.repo={_repo(context)}")


def _settings(context: Context, card: Card) -> str:
    proof = read_proof(context.folder.adapter)
    return settings_text(
        context.recipe, card.base_model, card.origins, proof.commit if proof else None
    )


def _card(context: Context, compared: Comparison | None, *, ask: bool) -> Card:
    source = _base(context)
    name = base_model_name(context.folder.adapter, source)
    ask = ask and name is not None
    builds = builds_of(context)
    origins = data_origins(context.recipe.data, builds)
    if words := without_licence(origins):
        warn(f"Before this is published: {words}. The card says so, too.")
    return Card(
        repo=_repo(context),
        recipe=context.recipe,
        summary=summary_of(context),
        data=views.data_report(context),
        comparison=compared,
        base_model=name,
        licence=base_licence(context.recipe.model, source, ask=ask) if source else None,
        origins=origins,
        builds=builds,
    )


def _base(context: Context) -> ModelSource | None:
    """Where the base is, or None, which is said: a card can do without it."""
    try:
        return unconverted(context.recipe.model) or context.source
    except RagtuneError as error:
        warn(
            f"{error.message} It is not needed to publish, but its licence is not known then: the card "
            "says so."
        )
        return None
