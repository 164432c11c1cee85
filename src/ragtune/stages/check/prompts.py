"""What the chat template makes of the examples: what is read, what is trained, and what doesn't fit."""

from __future__ import annotations

from ragtune.answering.confined import refusal_starts
from ragtune.base.errors import UsageError
from ragtune.base.text import one_or_many
from ragtune.data.counts import (
    ADVICE,
    TooLong,
    accepted_whole,
    on_cut,
    refusal_too_long,
    shortest_accepted,
    what_becomes,
)
from ragtune.data.encode import Encoder
from ragtune.data.example import Example
from ragtune.data.quotes import quote_of
from ragtune.data.select import positives_left, target_answer
from ragtune.data.splits import positives_cut
from ragtune.data.tokenizer import BROKEN, pieces, require_rows, special_ids
from ragtune.reporting.terminal import opening_tokens, opening_words
from ragtune.stages.check.directory import adapter_folder, prepared
from ragtune.stages.check.findings import Look

_SHOWN = 40
"""How much of a prompt's end is shown, in tokens."""


def template(look: Look) -> None:
    """How a turn ends, and what stands where the answer begins."""
    run, encoder = look.run, look.run.encoder
    _stop(look, encoder)
    if encoder.max_prompt < 1:
        raise UsageError(
            f"The model reads {encoder.context} tokens and evaluate.max_new_tokens is "
            f"{run.recipe.evaluate.max_new_tokens}: no room is left for a prompt.",
            "Lower evaluate.max_new_tokens, or choose a model with a longer context.",
        )
    for words in encoder.form.words():
        look.say(words)
    if encoder.date:
        words = (
            f"it writes the date; this run's is {encoder.date}, in the template that is saved, too"
        )
        look.say(words + ("; a server may write its own" if run.remote else ""))
    opening = encoder.opening
    if opening.generation == opening.trained and opening.saved == "alike":
        return
    advice = _served_otherwise(look) if run.remote or opening.saved == "unlike" else ""
    look.say(opening_words(opening), "warning" if advice else "ok", advice)


def _stop(look: Look, encoder: Encoder) -> None:
    """Which token ends an answer, and why."""
    turn = encoder.turn
    stop = encoder.tokenizer.convert_ids_to_tokens(encoder.stop_id)
    reads = f"the model reads {encoder.context:,} tokens"
    if rest := turn.rest.strip():
        look.warn(
            f"it ends a turn with {rest!r}, which is no token of this tokenizer: {stop} (eos) ends an "
            f"answer in its place; {reads}",
            "Is it the template of this tokenizer? Else set prompt.chat_template.",
        )
        return
    if turn.written:
        words = f"a turn ends with {stop}"
    else:
        words = f"it ends a turn with no token: {stop} (eos) is trained in its place, and ends an answer"
    if encoder.stop_id not in special_ids(encoder.tokenizer):
        words += ", which the tokenizer doesn't mark as special"
    if turn.closing:
        words += f", after {turn.closing!r}, which is trained, too"
    look.say(f"{words}; {reads}")


def _served_otherwise(look: Look) -> str:
    """What to do where a server would ask otherwise than is trained."""
    opening = look.run.encoder.opening
    if opening.variable:
        name, value = opening.variable
        mend = f"Set prompt.template_arguments: {{{name}: {str(value).lower()}}}: then it doesn't."
    elif opening.saved == "unlike":
        mend = "Set prompt.chat_template to one that asks as it writes a finished turn."
    else:
        mend = f"Serve it with the chat template that is saved in {adapter_folder(look.run)}."
    return f"A server that renders the model's own template asks otherwise than is trained. {mend}"


def mask(look: Look) -> None:
    """What is read and what is trained of the first example."""
    encoder = look.run.encoder
    samples = encoder.samples(look.examples.get("train", [])[:1])
    if not samples or samples[0] is None:
        return
    sample, decode = samples[0], encoder.tokenizer.decode
    parts = pieces(encoder.tokenizer, sample.completion_ids)
    stop = (
        "the last one is the stop token"
        if sample.completion_ids[-1] == encoder.stop_id
        else "the stop token is not among them"
    )
    words = (
        f"of the example {sample.qid}, {len(sample.prompt_ids):,} prompt tokens are read, "
        f"{one_or_many(len(sample.completion_ids), 'is', 'are')} trained: {'|'.join(parts)} ({stop})"
    )
    read, opening = opening_tokens(encoder, sample.prompt_ids)
    excerpt = (
        ("prompt", "…" + decode(read[-_SHOWN:]).lstrip(BROKEN)),
        ("opening", decode(opening)),
        ("trained", decode(sample.completion_ids)),
    )
    look.say(words.replace("\n", "⏎"), excerpt=excerpt)


def truncation(look: Look) -> None:
    """How many prompts are cut, and which of them lose what answers the question."""
    encoder = look.run.encoder
    for split, examples in look.examples.items():
        look.prompts[split] = encoder.prompts(examples)
        _lost_positives(look, split)
        _control(look, split)
    prompts = [prompt for split in look.prompts.values() for prompt in split]
    if not prompts:
        return
    cut = sum(p is None or bool(p.passages_dropped or p.characters_cut) for p in prompts)
    if cut:
        look.warn(
            f"{cut:,} of {len(prompts):,} prompts{look.which} {'loses' if cut == 1 else 'lose'} passages or "
            "text",
            f"Prompts may have {encoder.max_prompt:,} tokens: lower data.max_passages, or raise "
            "prompt.max_tokens as far as the model reads.",
        )
    else:
        look.say(f"none of {len(prompts):,} prompts{look.which} is cut")


def _control(look: Look, split: str) -> None:
    """How many records write out tokens of the chat template, and what is made of them."""
    run, examples = look.run, look.examples[split]
    shown = run.recipe.data.max_passages
    places = [run.encoder.control.written_out(example, shown) for example in examples]
    if count := sum(map(bool, places)):
        where = ", ".join(sorted({place for one in places for place in one}))
        asked = run.remote and split == "eval"
        done = "broken by a blank for the server" if asked else "encoded as text"
        look.say(
            f"{split}: {count:,} of {look.of(split, len(examples))} records "
            f"{'writes' if count == 1 else 'write'} out tokens of the chat "
            f"template (in {where}): {done}"
        )


def _lost_positives(look: Look, split: str) -> None:
    """Of how many prompts every passage with an answer is cut away."""
    run, examples = look.run, look.examples[split]
    pairs = zip(examples, look.prompts[split], strict=True)
    lost = sum(p is not None and positives_cut(run.encoder, e, p) for e, p in pairs)
    if not lost:
        return
    words = (
        f"{split}: {lost:,} of {look.of(split, len(examples))} prompts {'loses' if lost == 1 else 'lose'} "
        "every passage with an answer: "
        f"{what_becomes(split, run.recipe.data)} (data.cut_positives)"
    )
    advice = (
        "Raise prompt.max_tokens as far as the model reads, or lower data.max_passages; what else may "
        "become of them, data.cut_positives says."
    )
    left_out = on_cut(split, run.recipe.data) == "drop"
    if left_out and lost == len(examples) == look.chosen.get(split):
        raise UsageError(f"{words}. Nothing would be selected.", advice)
    look.warn(words, advice)


def answers(look: Look) -> None:
    """How many answers the model may not write: they are too long, or begin as the refusal does."""
    encoder, limit = look.run.encoder, look.run.recipe.evaluate.max_new_tokens
    counts = {split: TooLong(limit) for split in ("train", "eval")}
    for split, examples in _selected(look).items():
        lengths = (
            [len(ids) - 1 for ids in encoder.targets(examples)]
            if split == "train"
            else shortest_accepted(encoder, examples)
        )
        for example, tokens in zip(examples, lengths, strict=True):
            counts[split].add(example.qid, tokens)
    long = [
        f"{split}: {one.words(split, look.of(split, one.of))}"
        for split, one in counts.items()
        if one.count
    ]
    looked = sum(one.of for one in counts.values())
    refusal = refusal_too_long(encoder)
    for words in [*long, *([refusal] if refusal else [])]:
        look.warn(words, ADVICE)
    if looked and not long and not refusal:
        look.say(f"none of {looked:,}{look.which} has more than {limit:,} tokens")
    _barred(look, _selected(look).get("eval", []))


def _barred(look: Look, examples: list[Example]) -> None:
    """How many questions accept nothing that the model may write where a threshold refuses."""
    encoder = look.run.encoder
    starts = refusal_starts(encoder)
    if look.run.recipe.evaluate.copy or not starts:
        return

    def barred(answer: str) -> bool:
        ids = encoder.completion(answer)
        return any(ids[: len(start)] == start for start in starts)

    count = sum(bool(one) and all(map(barred, one)) for one in accepted_whole(encoder, examples))
    if count:
        words = sorted({encoder.tokenizer.decode(start).strip() for start in starts})
        look.warn(
            f"eval: {count:,} of {look.of('eval', len(examples))} questions' accepted answers begin as "
            f"data.refusal does ({', '.join(map(repr, words))}): the model may not write them so",
            "With evaluate.refuse_below no answer begins so: choose another data.refusal and train anew, or "
            "set evaluate.copy=true.",
        )


def _answered(look: Look) -> list[tuple[Example, list[tuple[int, str]]]]:
    """The training examples with an answer, each with its passages as its prompt holds them."""
    encoder = look.run.encoder
    examples = [e for e in _selected(look)["train"] if e.answers]
    prompts = [None] * len(examples) if prepared(look.run) else encoder.prompts(examples)
    return [(e, encoder.kept(e, p)) for e, p in zip(examples, prompts, strict=True)]


def quotes(look: Look) -> None:
    """How many of the training answers have a quote before them."""
    recipe = look.run.encoder.recipe
    if not recipe.prompt.quote:
        return
    found = [
        quote_of(e, target_answer(e, recipe.data, recipe.seed), kept) for e, kept in _answered(look)
    ]
    if none := found.count(""):
        look.warn(
            f"{none:,} of {look.of('train', len(found))} training answers "
            + (
                "has no quote before it: it stands"
                if none == 1
                else "have no quote before them: they stand"
            )
            + " in no sentence of a positive",
            "They are trained without one. Answers that stand in a passage word for word have one.",
        )
    if len(found) > none:
        look.say(
            f"{one_or_many(len(found) - none, 'training answer stands', 'training answers stand')} behind a "
            "quote"
        )


def citations(look: Look) -> None:
    """What the training answers cite, and how it is known what supports them."""
    if not look.run.encoder.recipe.prompt.citations:
        return
    answered = _answered(look)
    counts = [len(positives_left(*one)) for one in answered]
    if none := counts.count(0):
        look.warn(
            f"{none:,} of {look.of('train', len(counts))} training answers "
            + ("cites nothing" if none == 1 else "cite nothing")
            + ": no positive is shown there",
            "Name the positives in the records (positive_passage_indices), or set data.cut_positives=drop.",
        )
    if cited := len(counts) - none:
        words = one_or_many(cited, "training answer cites", "training answers cite")
        words += f" {sum(counts) / cited:.1f} passages each"
        computed = sum(e.positives_computed for e, _ in answered)
        more = f"; of {computed:,} those in which an answer stands, if only by chance"
        look.say(words + (more if computed else ""))


def _selected(look: Look) -> dict[str, list[Example]]:
    """The selected examples of each split: of prepared data all, else those that were looked at."""
    run = look.run
    if not prepared(run):
        return look.examples
    questions = [e for e in run.questions if e.extra["selected"]]
    return {"train": run.training_examples, "eval": questions}


def vocabulary(look: Look) -> None:
    """That the model has a row for every id of the examples that were read, and for those of its own use."""
    encoder, rows = look.run.encoder, look.run.embedding_rows
    tokenizer = encoder.tokenizer
    require_rows(tokenizer, [encoder.stop_id], rows, "The end of a turn")
    require_rows(tokenizer, [tokenizer.pad_token_id], rows, "Padding")
    for split, examples in look.examples.items():
        targets = encoder.targets(examples) if split == "train" else [[] for _ in examples]
        for example, prompt, target in zip(examples, look.prompts[split], targets, strict=True):
            ids = [*(prompt.ids if prompt else []), *target]
            require_rows(tokenizer, ids, rows, f"data.{split}: question {example.qid}")
    count = sum(map(len, look.examples.values()))
    words = (
        f"the stop token and all of {one_or_many(count, 'example')}{look.which} are"
        if count
        else "the stop token is"
    )
    look.say(f"{words} within the model's {rows:,} ids")
