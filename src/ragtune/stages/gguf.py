"""The stages that write the merged model as GGUF, and ask what was written the same questions."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path

from pydantic import JsonValue

from ragtune.answering.llama_process import INSTALL, Llama, installed
from ragtune.answering.llamacpp import LlamaCpp
from ragtune.answering.prediction import write_predictions
from ragtune.base.errors import RagtuneError
from ragtune.base.files import writing
from ragtune.base.screen.console import note, warn
from ragtune.base.screen.progress import busy
from ragtune.base.text import one_or_many
from ragtune.base.versions import versions
from ragtune.data.chat import render
from ragtune.data.encode import Encoder
from ragtune.data.example import Example, Passage
from ragtune.data.select import drawn, shown_passages
from ragtune.model.load import load_config
from ragtune.model.to_gguf.modelfile import MODELFILE, Longest, modelfile
from ragtune.model.to_gguf.shapes import context_of
from ragtune.model.to_gguf.vocabulary import begins_with_bos
from ragtune.model.to_gguf.write import FILES, gguf_of, write_gguf
from ragtune.stages.answer import ANSWERS
from ragtune.stages.context import Context
from ragtune.store.proof import Facts, read_proof

ASKED = 200
"""Questions that a GGUF file is asked at most: on a processor a large model takes half a minute for one."""
_READ = 200
"""Prompts that are compared token by token."""
_BY = ("gguf", "xllamacpp")
_CONTEXT = 512
"""Tokens for which llama.cpp makes room while nothing is asked."""


def model(context: Context, out: Path) -> Facts:
    """gguf/: the merged model in bf16 and in Q8_0, each with tokenizer and chat template, and a Modelfile."""
    context.release()
    encoder, recipe = context.encoder, context.recipe
    config = load_config(dataclasses.replace(context.source, path=str(context.folder.merged)))
    made = gguf_of(context.folder.merged, recipe.name, config, encoder)
    for kind, name in FILES.items():
        write_gguf(made, kind, out / name)
    with writing(out / MODELFILE) as file:
        file.write(modelfile(encoder, FILES["Q8_0"], _longest(context), context_of(config)))
    if made.vocabulary.composes:
        note(
            "The tokenizer composes letters and marks that stand apart (NFC), and llama.cpp doesn't: such "
            "texts it reads otherwise. Text that is typed is composed already."
        )
    if not installed():
        warn(f"The GGUF files were not tried: xllamacpp is not installed. {INSTALL}")
        return {"gguf": {"pre": made.vocabulary.pre}}
    by = {name: version for name, version in versions(*_BY).items() if name in _BY}
    tried = _tried(context, out / FILES["BF16"])
    return {"gguf": {"pre": made.vocabulary.pre, **by, **tried}}


def _longest(context: Context) -> Longest:
    """The longest prompt: of the length that the recipe allows, else of training and evaluation."""
    if context.recipe.prompt.max_tokens:
        return Longest(context.recipe.prompt.max_tokens, "prompt.max_tokens")
    folder = context.folder
    places = {"the training data": folder.data}
    places |= {f"eval/{p.parent.name}": p for p in sorted(folder.path.glob("eval/*/questions"))}
    found = []
    for name, place in places.items():
        with suppress(RagtuneError):  # another set's may be damaged
            if (proof := read_proof(place)) is not None:
                found.append(Longest(proof.facts["prompts"]["longest"], name))
    return max(found)


def _tried(context: Context, file: Path) -> dict[str, JsonValue]:
    """What llama.cpp makes of a file: how many prompts it cuts otherwise than the tokenizer, which is said."""
    encoder = context.encoder
    texts = [_prompt(encoder, e) for e in context.training_examples[:_READ]]
    own = encoder.tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
    with busy("comparing tokens with llama.cpp's"), Llama(file, _CONTEXT, 1) as llama:
        pairs = zip(texts, own["input_ids"], strict=True)
        unlike = [text for text, ids in pairs if llama.ids(text) != ids]
        template = _template_as(context, llama)
    if unlike:
        warn(
            f"llama.cpp cuts {len(unlike):,} of {len(texts):,} prompts into other tokens than the model was "
            "trained with: it may answer those otherwise."
        )
    else:
        note(
            f"llama.cpp cuts {one_or_many(len(texts), 'prompt')} of the training data into the very same "
            "tokens."
        )
    if template:
        warn(f"llama.cpp {template}. Ollama takes the Modelfile's TEMPLATE instead.")
    return {"prompts": len(texts), "unlike": len(unlike), "template": template or "alike"}


def _prompt(encoder: Encoder, example: Example) -> str:
    """The text of a prompt, uncut."""
    passages = shown_passages(example, encoder.recipe)
    messages = encoder.builder.messages(example.question, passages)
    return encoder.turn.prompt(encoder.tokenizer, messages, encoder.form)


def _template_as(context: Context, llama: Llama) -> str | None:
    """What llama.cpp does otherwise with the chat template; None if nothing."""
    encoder = context.encoder
    messages = encoder.form.of(encoder.builder.messages("Where?", [Passage("There.", "It")]))
    own = render(encoder.tokenizer, messages, generation=True)
    if begins_with_bos(encoder):  # it is written when the text is cut into tokens
        own = own.removeprefix(encoder.tokenizer.bos_token)
    try:
        found = llama.ask("/apply-template", {"messages": messages})["prompt"]
    except RagtuneError as error:
        return f"can't render the chat template ({error.message})"
    return None if found == own else "renders the chat template otherwise than transformers"


def answers(context: Context, out: Path) -> Facts:
    """eval/NAME/gguf/: predictions.jsonl of the Q8_0 file, to some of the questions."""
    context.release()
    examples = drawn(context.asked, ASKED, f"gguf:{context.recipe.seed}")
    if len(examples) < len(context.asked):
        note(
            f"Of {len(context.asked):,} questions the GGUF file is asked {len(examples)}, drawn by the seed."
        )
    engine = LlamaCpp(context.folder.gguf / FILES["Q8_0"], context.recipe.evaluate.max_new_tokens)
    partial = out.with_name("answers.jsonl")
    found = engine.answer(context.encoder, examples, partial, "answering (llama.cpp)")
    write_predictions(out / ANSWERS, found)
    return {}
