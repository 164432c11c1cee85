"""What can be found out before anything costs time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragtune.console import note, warn
from ragtune.data.read import locate
from ragtune.data.select import rejection
from ragtune.errors import UsageError
from ragtune.files import existing_parent

if TYPE_CHECKING:
    from ragtune.data.example import Example
    from ragtune.stages import Run


LOOK = 100
"""Records of a file that are looked at before a run; the rest is read when it is prepared."""


def check(run: Run) -> None:
    """Look at hardware, model, data, memory, disk and Hub, and say what was found and chosen.

    Raises:
        UsageError, RagtuneError: the run would fail.
    """
    from ragtune.model.load import skeleton
    from ragtune.model.lora import check_targets

    recipe = run.recipe
    note(f"Run directory: {run.dir.path}")
    hardware = run.hardware
    note(f"Hardware: {hardware.name}; {hardware.dtype_name} ({hardware.reason})")
    if recipe.train.report_to:
        from ragtune.training.trainer import check_trackers

        check_trackers(recipe.train.report_to)
    looked_at = _data(run)
    encoder = run.encoder
    stop = encoder.tokenizer.convert_ids_to_tokens(encoder.stop_id)
    note(f"Model: {recipe.model.id}; context {encoder.context:,} tokens; a turn ends with {stop}")
    if encoder.max_prompt < 1:
        raise UsageError(
            f"The model reads {encoder.context} tokens and evaluate.max_new_tokens is "
            f"{recipe.evaluate.max_new_tokens}: no room is left for a prompt.",
            "Lower evaluate.max_new_tokens, or choose a model with a longer context.",
        )
    if not encoder.prefix_holds:
        warn(
            "The chat template writes a finished turn otherwise than the generation prompt; what is "
            "trained follows the generation prompt. See `ragtune prepare --show 1`."
        )
    check_targets(skeleton(run.config), recipe.lora)
    _plan(run, looked_at)
    if recipe.evaluate.engine == "openai":
        from ragtune.evaluation.endpoint import check_server

        answered = (run.dir.predictions("before") / "metrics.json").exists()
        check_server(recipe, needed=not answered)
    if recipe.publish.format == "merged":
        _room_for_merging(run)
    if recipe.publish.repo:
        from ragtune.publish.hub import check_access

        note(f"Hub: {check_access(recipe.publish.repo, private=recipe.publish.private)}")


def _plan(run: Run, looked_at: dict[str, list[Example]]) -> None:
    """Say what memory the run will need and how it is laid out.

    Before the data are prepared the first records' lengths stand for all.

    Raises:
        UsageError: the model does not fit.
    """
    from ragtune.model.plan import describe, make_plan

    if not looked_at:
        plan = run.plan
    else:
        encoder, size = run.encoder, run.recipe.train.batch_size
        lengths = [len(s) for s in encoder.samples(looked_at["train"]) if s is not None]
        prompts = [len(p.ids) for p in encoder.prompts(looked_at["eval"]) if p is not None]
        steps = [(lengths * size)[i : i + size] for i in range(0, len(lengths), size)]
        plan = make_plan(run.recipe, run.hardware, run.config, steps, prompts)
    for line in describe(plan):
        note(line)
    note("Whether the model can be packed is tried when it is loaded; if not: one sample a row.")


def _data(run: Run) -> dict[str, list[Example]]:
    """See that the files are there and that their first records can be used.

    Returns:
        The selected ones of those that were looked at, by split; nothing if the data are prepared.
    """
    from ragtune.data.prepare import source_of
    from ragtune.data.read import read_examples

    if (run.dir.data / "report.json").exists():
        note("Data: prepared already")
        return {}
    found: dict[str, list[Example]] = {}
    for split, hub_split in (("train", "train"), ("eval", "validation")):
        named = run.recipe.data.train if split == "train" else run.recipe.data.eval
        if named is None:
            source = source_of(run.recipe.data, split)  # downloads what training needs anyway
        else:
            source = named
            locate(source)
        looked = 0
        selected = found[split] = []
        for example in read_examples(source, hub_split):
            looked += 1
            if rejection(example, run.recipe.data.max_passages) is None:
                selected.append(example)
            if looked == LOOK:
                break
        if not selected and looked < LOOK:
            raise UsageError(
                f"Nothing of {source} would be selected ({looked} records).",
                "Each question needs an answer that stands in one of its first data.max_passages passages.",
            )
        note(f"Data, {split}: {source}; of the first {looked} records {len(selected)} are selected")
    return found


def _room_for_merging(run: Run) -> None:
    from ragtune.publish.merge import available_memory, free_disk, memory_needed

    if run.dir.merged.exists():
        return
    needed, available = memory_needed(run.config), available_memory()
    note(f"Merging: needs about {needed / 2**30:.1f} GiB of memory, and disk")
    if available is not None and needed > available:
        raise UsageError(
            f"Merging needs about {needed / 2**30:.1f} GiB of memory; "
            f"{available / 2**30:.1f} GiB are available here.",
            "Set publish.format=adapter: the adapter alone can be published from here, and merged on "
            "another machine with `ragtune merge`.",
        )
    free = free_disk(existing_parent(run.dir.path))
    if needed > free:
        raise UsageError(
            f"The merged model needs about {needed / 2**30:.1f} GiB of disk; {free / 2**30:.1f} GiB "
            f"are free at {run.dir.path}.",
            "Choose another place with --run-dir, or set publish.format=adapter.",
        )
