"""A tokenizer as a run uses it: with the chat template of the recipe, its arguments and the run's date."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from typing import TYPE_CHECKING

from ragtune.base.errors import UsageError
from ragtune.base.text import nearest
from ragtune.data.chat import (
    Message,
    find_form,
    own_variables,
    render,
    require_end,
    samples,
)
from ragtune.data.prompt import chat_template
from ragtune.recipe.schema import Recipe
from ragtune.recipe.section import Scalar
from ragtune.recipe.template import without_mark

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNLIKE = (datetime(1999, 1, 2, 3, 4, 5), datetime(2031, 12, 30, 20, 51, 52))  # noqa: DTZ001 - as templates do
"""Two moments that no format writes alike."""
BROKEN = "\ufffd"
"""What tokenizers write for bytes that are no whole character."""
_DIRECTIVES = "aAbBcdDeFgGhHIjlmMnpPrRStTuUVwWxXyYZ"


def prepare_tokenizer(
    tokenizer: PreTrainedTokenizerBase, recipe: Recipe, day: date | None = None
) -> PreTrainedTokenizerBase:
    """Give a tokenizer the chat template of a run: the recipe's or its own, with arguments and date.

    Of several of its own, the default is kept alone.

    Args:
        tokenizer: is changed.
        recipe: the prompt.
        day: the date that a template writes; today's by default.

    Raises:
        UsageError: it has none and the recipe names none, it goes on without end, it drops what is said,
            or it never reads one of the recipe's arguments.
    """
    if recipe.prompt.chat_template:
        tokenizer.chat_template = chat_template(recipe.prompt.chat_template)
    elif not tokenizer.chat_template:
        raise UsageError(
            f"The tokenizer of {recipe.model.id} has no chat template.",
            "Set prompt.chat_template: aio (the book's), plain (English), or a .jinja file.",
        )
    elif isinstance(tokenizer.chat_template, dict):
        # So that the one that is used is the one that is looked at here, and that is saved.
        tokenizer.chat_template = _default(tokenizer.chat_template, recipe.model.id)
    template = without_mark(tokenizer.chat_template)
    tokenizer.chat_template = template
    require_end(
        tokenizer, samples()
    )  # first of all: Jinja computes constants when it reads a template
    tokenizer.chat_template = with_arguments(tokenizer, template, recipe.prompt.template_arguments)
    require_end(tokenizer, samples())  # with these arguments
    form = find_form(tokenizer, system=bool(recipe.prompt.system))
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]
    if asks_clock(tokenizer, form.of(turns)):
        tokenizer.chat_template = with_date(tokenizer.chat_template, day or today())
    return tokenizer


def _default(templates: dict[str, object], model: str) -> str:
    """The one that transformers uses where no other is asked for."""
    default = templates.get("default")
    if not isinstance(default, str):
        raise UsageError(
            f"The tokenizer of {model} has several chat templates and none that is the default: "
            f"{', '.join(sorted(map(str, templates)))}.",
            "Save the one to use as a .jinja file, and name it in prompt.chat_template.",
        )
    return default


def encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """A text's ids; the special tokens that it should have stand in it already."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def all_encoded(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], **options: bool
) -> list[list[int]]:
    """The ids of several texts, as `encoded` has them, but encoded together.

    The `tokenizers` library counts for each token the characters up to it, unless it is asked not to, which
    transformers never does: of Japanese text that took a quarter of the time.

    Args:
        tokenizer: of whatever kind.
        texts: with the special tokens that they should have.
        options: for the tokenizer, such as `split_special_tokens`.
    """
    if not texts:
        return []

    def ids(asked: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = tokenizer(
            list(asked), add_special_tokens=False, return_attention_mask=False, **options
        )["input_ids"]
        return found

    if not by_backend_alone(tokenizer):
        return ids(texts)
    ids([""])  # with it the backend knows the options, and that it cuts and fills nothing
    backend = tokenizer.backend_tokenizer
    return [one.ids for one in backend.encode_batch_fast(list(texts), add_special_tokens=False)]


def by_backend_alone(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the `tokenizers` library gets texts as they are, and its ids stay: some classes change them."""
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415 - large, and loaded with the tokenizer

    def encoding(kind: type) -> list[object]:
        return [getattr(kind, name, None) for name in ("__call__", "_encode_plus")]

    usual = encoding(PreTrainedTokenizerFast)
    return None not in usual and encoding(type(tokenizer)) == usual


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids of a tokenizer's special tokens."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def require_rows(
    tokenizer: PreTrainedTokenizerBase, ids: Iterable[int], rows: int, where: str
) -> None:
    """Raise unless a model has a row for every token id: a GPU would read beyond the embedding.

    Args:
        tokenizer: that made the ids.
        ids: what is read or trained.
        rows: of the model's embedding.
        where: whose ids they are, for the message.

    Raises:
        UsageError: an id has no row.
    """
    beyond = max(ids, default=-1)
    if beyond < rows:
        return
    raise UsageError(
        f"{where} has the token {tokenizer.convert_ids_to_tokens(beyond)!r} with the id {beyond}, and the "
        f"model's embedding has {rows:,} rows.",
        "The tokenizer belongs to another model, or tokens were added to it: take the tokenizer that came "
        "with the model, or save the model again after model.resize_token_embeddings(len(tokenizer)).",
    )


# Arguments of the chat template.


def with_arguments(
    tokenizer: PreTrainedTokenizerBase, template: str, arguments: Mapping[str, Scalar]
) -> str:
    """A chat template of which `arguments` are the defaults, so that whoever renders it has them.

    Raises:
        UsageError: the template never reads one of them.
    """
    own = own_variables(tokenizer, template)
    for name in arguments:
        if name not in own:
            near = nearest(name, own)
            hint = f" Did you mean {near}?" if near else ""
            raise UsageError(
                f"prompt.template_arguments: the chat template never reads {name}.{hint}",
                f"It reads: {', '.join(own) or 'no variable of its own'}.",
            )
    head = "".join(
        f"{{% set {name} = {name} if {name} is defined else {_literal(value)} %}}\n"
        for name, value in arguments.items()
    )
    # A template that was saved with them has them already.
    return template if head in template else head + template


def _literal(value: Scalar) -> str:
    """A value as Jinja writes it."""
    return repr(value).lower() if value is None or isinstance(value, bool) else repr(value)


# The date that some chat templates write: one for the whole run, and kept with its template.


def today() -> date:
    """The date here, as a template would write it."""
    return datetime.now().astimezone().date()


def asks_clock(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> bool:
    """Whether the chat template writes a conversation otherwise at another time."""
    template = tokenizer.chat_template
    first, second = (
        render(tokenizer, messages, template=_at(template, moment)) for moment in _UNLIKE
    )
    return first != second


def with_date(template: str, day: date) -> str:
    """A chat template to which it is always midnight of this day."""
    return f"{{# the date: {day.isoformat()} #}}" + _at(template, datetime.combine(day, time()))


def date_of(template: str) -> date | None:
    """The day of a template of `with_date`; None for others."""
    found = re.search(r"\{# the date: (\d{4}-\d\d-\d\d) #\}", template)
    return date.fromisoformat(found[1]) if found else None


def pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text of each token; those that make a character only together are one piece."""
    found, begun = list[str](), list[int]()
    for one in ids:
        begun.append(one)
        if BROKEN not in (text := str(tokenizer.decode(begun))):
            found.append(text)
            begun = []
    return [*found, str(tokenizer.decode(begun))] if begun else found


def _at(template: str, moment: datetime) -> str:
    """A chat template with a clock of its own, which stands still.

    The macro hides the function of this name that transformers, and servers like it, offer. They have
    no other clock. It is a matter of text alone, so that it can be saved with the template.
    """
    steps = ""
    for sign in ("", "-"):
        for directive in _DIRECTIVES:
            written = f"%{sign}{directive}"
            if written in template:
                steps += f" | replace({written!r}, {moment.strftime(written)!r})"
    return f"{{% macro strftime_now(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}\n{template}"
