"""What the documentation has from the code: tables of keys, presets, the functions of `import ragtune`.

    python -m tests.reference

writes them again into the pages of docs and docs/ja. What they say in Japanese stands in
docs/ja/reference.yaml, by the English text: a description that changed has no Japanese any more.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic_core import PydanticUndefined

import ragtune
from ragtune.data.prompt import PRESETS
from ragtune.recipe.corpus import Corpus
from ragtune.recipe.keys import section_of, sections
from ragtune.recipe.schema import Recipe
from ragtune.recipe.section import Section

DOCS = Path(__file__).parents[1] / "docs"
JAPANESE = DOCS / "ja/reference.yaml"
Say = Callable[[str], str]
"""From an English text to that of a page's language."""
Part = Callable[[Say], Iterator[str]]
PRESETS_SAID = {
    "aio": "`aio`, the notebook's, character for character:",
    "english": "`english`, the same in English:",
}
MAKING = ("build", "prepare", "train", "evaluate", "merge", "push", "run")
LOOKING = ("check", "controls", "compare", "compare_runs", "report", "show", "summary")
FILES = ("load_recipe", "load_corpus", "Recipe", "Corpus")
ERRORS = ("UsageError", "RagtuneError")
CHAPTERS = {
    "Making": MAKING,
    "Looking and comparing": LOOKING,
    "Recipes and corpora": FILES,
    "Errors": ERRORS,
}
"""The chapters of docs/api.md. What they don't name stands in one of its own, before them."""
KINDS = {
    str: "text",
    int: "integer",
    float: "number",
    list: "list of texts",
    dict: "mapping of names to values",
}
LISTS = {"Args:": "Arguments", "Returns:": "Returns", "Raises:": "Raises"}
"""The parts of a docstring, and how they are headed."""


class Words:
    """The Japanese words, and which of them were used."""

    def __init__(self, text: str) -> None:
        self.there: dict[str, str] = yaml.safe_load(text)
        self.used: set[str] = set()
        self.missing: dict[str, None] = {}

    def __call__(self, english: str) -> str:
        self.used.add(english)
        if english not in self.there:
            self.missing[english] = None
        return self.there.get(english, english)


def presets(say: Say) -> Iterator[str]:
    for name, preset in PRESETS.items():
        yield f"{say(PRESETS_SAID[name])}\n\n```jinja\n{preset}\n```\n"


def tables(root: type[Section]) -> Part:
    """Every key of a recipe or corpus: key, value, default, meaning."""

    def written(say: Say) -> Iterator[str]:
        head = (
            f"| {' | '.join(map(say, ('key', 'value', 'default', 'meaning')))} |\n|---|---|---|---|"
        )
        yield f"### {say('At the top')}\n\n{head}"
        yield from _rows(root, "", say)
        for name, section in sections(root).items():
            yield f"\n### {name}\n\n{say((section.__doc__ or '').strip())}\n\n{head}"
            yield from _rows(section, f"{name}.", say)
        yield ""

    return written


def _rows(section: type[Section], prefix: str, say: Say) -> Iterator[str]:
    """Of its keys, but for those that are sections."""
    for name, field in section.model_fields.items():
        if section_of(field.annotation) is None:
            yield _row(f"{prefix}{name}", field, say)


def _row(key: str, field: Any, say: Say) -> str:
    default = field.default
    if default is PydanticUndefined:
        shown = say("required")
    elif isinstance(default, list):
        shown = f"`[{', '.join(default)}]`"
    else:
        shown = f"`{json.dumps(default, ensure_ascii=False)}`".replace('"', "")
    description = say(field.description or "").replace("|", "\\|")
    return f"| `{key}` | {_kind(field.annotation, say)} | {shown} | {description} |"


def _kind(annotation: Any, say: Say) -> str:
    """What a key takes, in words."""
    origin = typing.get_origin(annotation)
    parts = typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{json.dumps(v)}`".replace('"', "") for v in parts)
    if origin is typing.Annotated:
        return _kind(parts[0], say)
    if origin in (types.UnionType, typing.Union):
        return ", ".join(_kind(part, say) for part in parts)
    if annotation in (bool, type(None)):
        return "`true`, `false`" if annotation is bool else "`null`"
    if origin is list and int in (parts[0], *typing.get_args(parts[0])):
        return say("list of integers")
    return say(KINDS[origin or annotation])


def functions(say: Say) -> Iterator[str]:
    """The public names of ragtune, by their docstrings."""
    named = {name for names in CHAPTERS.values() for name in names}
    rest = tuple(n for n in ragtune.__all__ if n not in named and not n.startswith("__"))
    chapters = {"Asking": rest, **CHAPTERS} if rest else CHAPTERS
    for title, names in chapters.items():
        yield f"## {say(title)}\n"
        for name in names:
            yield from _entry(name, getattr(ragtune, name), say)


def _entry(name: str, thing: Any, say: Say) -> Iterator[str]:
    yield f"### {name}\n"
    if inspect.isfunction(thing):
        yield f"```text\nragtune.{_signature(name, thing)}\n```\n"
    yield from _said(inspect.getdoc(thing) or "", say)
    if not inspect.isclass(thing) or issubclass(thing, Section):
        return
    for member, value in vars(thing).items():
        method = value.__func__ if isinstance(value, classmethod) else value
        if member.startswith("_") or not inspect.getdoc(method):
            continue
        if isinstance(method, property):
            meaning = say(_line(inspect.getdoc(method) or ""))
            yield f"`{name}.{member}`{say(': ')}{meaning}\n"
        elif inspect.isfunction(method):
            yield f"```text\n{_signature(f'{name}.{member}', method)}\n```\n"
            yield from _said(inspect.getdoc(method) or "", say)


def _signature(name: str, function: Any) -> str:
    """A call with its arguments, a long one with an argument a line."""
    parameters = inspect.signature(function).parameters.values()
    bare = [p.replace(annotation=p.empty) for p in parameters if p.name not in ("self", "cls")]
    arguments = str(inspect.Signature(bare))[1:-1].replace("'", '"').split(", ")
    whole = f"{name}({', '.join(arguments)})"
    return whole if len(whole) <= 90 else f"{name}(\n    " + ",\n    ".join(arguments) + ",\n)"


def _said(docstring: str, say: Say) -> Iterator[str]:
    """A docstring in Google's form as Markdown: paragraphs, then lists of arguments and the like."""
    for part in docstring.split("\n\n"):
        title, _, rest = part.partition("\n")
        if title not in LISTS:
            yield f"{say(_line(part))}\n"
            continue
        text = inspect.cleandoc(rest)
        yield f"**{say(LISTS[title])}**\n"
        if title == "Returns:":
            yield f"{say(_line(text))}\n"
            continue
        for item in re.split(r"\n(?=\S)", text):
            name, _, meaning = item.partition(":")
            yield f"- `{name}`{say(': ')}{say(_line(meaning))}"
        yield ""


def _line(text: str) -> str:
    return " ".join(text.split())


PARTS: dict[str, tuple[str, Part]] = {
    "recipe.md": ("keys", tables(Recipe)),
    "documents.md": ("corpus", tables(Corpus)),
    "prompts.md": ("presets", presets),
    "api.md": ("functions", functions),
}
"""Of each page the mark around what is made, and how it is made."""


def fresh(page: Path, say: Say) -> str:
    """A page with what the code says now."""
    text = page.read_text("utf-8")
    mark, part = PARTS[page.name]
    before, _, rest = text.partition(f"<!-- {mark} -->")
    _, _, after = rest.partition(f"<!-- /{mark} -->")
    made = "\n".join(part(say))
    return f"{before}<!-- {mark} -->\n\n{made}\n<!-- /{mark} -->{after}"


def main() -> None:
    words = Words(JAPANESE.read_text("utf-8"))
    for name in PARTS:
        for page, say in ((DOCS / name, str), (DOCS / "ja" / name, words)):
            page.write_text(fresh(page, say), "utf-8")
    if words.missing:
        sys.exit("\n".join(["docs/ja/reference.yaml has no Japanese for:", *words.missing]))


if __name__ == "__main__":
    main()
