"""Recipes and corpora: reading them with messages that name file, line and key, and writing them."""

from __future__ import annotations

import copy
import difflib
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ragtune.base import secrets
from ragtune.base.errors import UsageError
from ragtune.base.files import writing
from ragtune.base.reading import read_text
from ragtune.base.screen.visible import visible
from ragtune.base.text import first_line
from ragtune.base.windows import BACKSLASHES
from ragtune.recipe.corpus import Corpus
from ragtune.recipe.keys import field_of, sections
from ragtune.recipe.problems import problems_in
from ragtune.recipe.schema import Recipe
from ragtune.recipe.section import Section
from ragtune.recipe.template import read_template
from ragtune.recipe.yaml import dump_yaml, parse_yaml

_DEEPEST = 2
"""How many sections a key may stand in."""
_EMPTY = ("", "''", '""', "null", "~")
"""What a text is set to nothing by, on the command line."""
_LARGEST = 256 << 10
"""Bytes of the largest recipe."""
_HALF = re.compile("[\ud800-\udfff]")
S = TypeVar("S", bound=Section)
_FIRST: dict[type[Section], tuple[str, ...]] = {
    Recipe: ("name", "model", "data"),
    Corpus: ("name", "documents", "questions"),
}
_OPTIONS: dict[type[Section], str] = {Recipe: "", Corpus: " --corpus"}
"""Of `ragtune init` and `ragtune schema`."""


def save(whole: Recipe | Corpus, path: Path) -> None:
    """Write every value, defaults included, as a valid recipe or corpus."""
    with writing(path) as file:
        file.write(dumped(whole))


def dumped(whole: Recipe | Corpus) -> str:
    """What `save` writes."""
    return dump_yaml(whole.model_dump(mode="json"))


def load_recipe(
    source: str | Path | dict[str, Any] | Recipe, overrides: list[str] | None = None
) -> Recipe:
    """Read a recipe from a YAML file or a mapping, and apply `section.key=value` overrides.

    Relative paths in a recipe are relative to the current folder, as on the command line.

    Raises:
        UsageError: a missing file, bad YAML, an unknown key, a wrong value; all problems at once.
    """
    recipe = _with_templates(_load(source, overrides or [], Recipe))
    where = str(source) if isinstance(source, str | Path) else "recipe"
    _refuse_tokens(recipe.model_dump(mode="json"), where, {})  # of template files, too
    return recipe


def load_corpus(
    source: str | Path | dict[str, Any] | Corpus, overrides: list[str] | None = None
) -> Corpus:
    """Read a corpus, as `load_recipe` reads a recipe."""
    return _load(source, overrides or [], Corpus)


def _load(source: str | Path | dict[str, Any] | S, overrides: list[str], root: type[S]) -> S:
    lines: dict[str, str] = {}
    where = root.__name__.lower()
    if isinstance(source, Section):
        values = source.model_dump(mode="json")
    elif isinstance(source, dict):
        values = copy.deepcopy(source)
    else:
        where = str(source)
        values, lines = _read_yaml(Path(source), root)
    for override in overrides:
        _refuse_tokens_in_override(override)
        _override(values, override, lines, root)
    _refuse_tokens(values, where, lines)
    _require_text(values, where, lines)
    # A section whose keys are all commented out is read as null.
    values = {k: v for k, v in values.items() if v is not None or k not in sections(root)}
    try:
        return root.model_validate(values)
    except ValidationError as error:
        option = _OPTIONS[root]
        raise UsageError(
            problems_in(error, root, where, lines),
            f"`ragtune schema{option}` lists every key, `ragtune init{option}` writes a commented "
            f"{root.__name__.lower()}.",
        ) from None


def _refuse_tokens(values: dict[str, Any], where: str, lines: dict[str, str]) -> None:
    """See that no value is a token or a password. Raises UsageError without showing it."""
    for key, kind in secrets.scan(values):
        place = lines.get(key) or lines.get(key.partition(".")[0]) or where
        shown = "a key" if secrets.kind_of(key) else key
        raise UsageError(f"{place}: {shown} holds {kind}.", secrets.ADVICE)


def _require_text(values: dict[str, Any], where: str, lines: dict[str, str]) -> None:
    """Raise UsageError if something can't be written as UTF-8: of a command line, bytes that are none."""
    pending: list[tuple[str, object]] = [*values.items()]
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            pending += [(f"{key}.{name}", inner) for name, inner in value.items()]
        elif isinstance(value, list):
            pending += [(key, inner) for inner in value]
        if _HALF.search(f"{key}{value}"):
            place = lines.get(key) or where
            raise UsageError(
                f"{visible(place)}: {visible(key)} holds half of a surrogate pair or bytes that are no UTF-8, "
                "which is no text.",
                "Write it as UTF-8.",
            )


def _refuse_tokens_in_override(override: str) -> None:
    key, _, value = override.partition("=")
    kind = secrets.kind_of(override) or (
        "by its name, a secret" if value.strip() and secrets.named_as_secret(key.strip()) else None
    )
    if kind:
        name = "an override" if secrets.kind_of(key) else f"the override of {key.strip()}"
        raise UsageError(f"Command line: {name} holds {kind}.", secrets.ADVICE)


def _with_templates(recipe: Recipe) -> Recipe:
    """The recipe with the text of its template files, so that it is whole without them."""
    texts = {
        key: read_template(text, f"prompt.{key}")[0]
        for key in ("template", "chat_template")
        if (text := getattr(recipe.prompt, key))
    }
    return recipe.model_copy(update={"prompt": recipe.prompt.model_copy(update=texts)})


def did_you_mean(path: Path, root: type[Section] = Recipe) -> str:
    """What to say of a path at which nothing is: the recipe or run directory beside it with the likest name.

    Args:
        path: which doesn't exist.
        root: Recipe; or Corpus, for corpus files and the folders of corpora.
    """
    inner = f"{root.__name__.lower()}.yaml"
    beside = [one.name for one in path.parent.glob("*.y*ml")]
    beside += [one.parent.name for one in path.parent.glob(f"*/{inner}")]
    near = difflib.get_close_matches(path.name, beside, n=1)
    return f" Did you mean {path.parent / near[0]}?" if near else ""


def _read_yaml(path: Path, root: type[Section]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of a YAML file and, for each dotted key, the place where it stands."""
    what, init = root.__name__, f"`ragtune init{_OPTIONS[root]}`"
    try:
        text = read_text(path, _LARGEST)
    except FileNotFoundError:
        named = path.suffix in (".yaml", ".yml")  # else it may have been meant for a directory
        raise UsageError(
            f"{f'{what} ' if named else ''}{path} does not exist.{did_you_mean(path, root)}",
            f"{init} writes a commented {what.lower()} to start from."
            + ("" if named or root is Corpus else " A run is named by its directory, runs/NAME."),
        ) from None
    except IsADirectoryError:
        raise UsageError(
            f"{path} is a folder without a {what.lower()}.yaml, so "
            + ("it is no run directory." if root is Recipe else "no corpus was built there."),
            "Name a recipe, or the directory of a run."
            if root is Recipe
            else "Name a corpus file.",
        ) from None
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{what} {path} can't be read: {problem}.",
            f"A {what.lower()} is a YAML file of some lines in UTF-8; data are named in it, not held.",
        ) from error
    if kind := secrets.kind_of(text):
        numbered = enumerate(text.split("\n"), 1)
        number = next((number for number, line in numbered if secrets.kind_of(line)), 1)
        raise UsageError(f"{path}:{number}: this line holds {kind}.", secrets.ADVICE)
    try:
        node, values = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or first_line(error)
        raise UsageError(
            f"{path}{line}: not valid YAML: {problem}.",
            BACKSLASHES
            if "escape character" in problem
            else f"A {what.lower()} is `key: value` lines, indented by two spaces inside a section.",
        ) from None
    if not isinstance(values, dict):
        raise UsageError(
            f"{path}: a {what.lower()} is a mapping ({', '.join(_FIRST[root])}, …); this is "
            f"{'empty' if values is None else type(values).__name__}.",
            f"{init} writes a commented {what.lower()} to start from.",
        )
    lines: dict[str, str] = {}
    if isinstance(node, yaml.MappingNode):  # as its value is a dict
        _walk(node, "", path, lines)
    return values, lines


def _walk(node: yaml.MappingNode, prefix: str, path: Path, lines: dict[str, str]) -> None:
    for key, value in node.value:
        dotted = f"{prefix}{key.value}"
        place = f"{path}:{key.start_mark.line + 1}"
        if dotted in lines:
            raise UsageError(
                f"{place}: {dotted} is given twice (first at {lines[dotted]}).", "Keep one."
            )
        lines[dotted] = place
        if isinstance(value, yaml.MappingNode) and prefix.count(".") < _DEEPEST:
            _walk(value, f"{dotted}.", path, lines)


def _override(
    values: dict[str, Any], override: str, lines: dict[str, str], root: type[Section]
) -> None:
    """Put `section.key=value` into `values`, and into `lines` where it came from."""
    dotted, equals, text = override.partition("=")
    dotted = dotted.strip()
    keys = dotted.split(".")
    if not equals or not all(keys):
        raise UsageError(
            f"'{override}' is no override.", "Write section.key=value, such as train.steps=50."
        )
    place = f"'{override}'"
    target = values
    for depth, key in enumerate(keys[:-1], 1):
        section = ".".join(keys[:depth])
        if target.get(key) is None:
            target[key] = {}
            lines[section] = place
        target = target[key]
        if not isinstance(target, dict):
            raise UsageError(f"{place}: {section} is not a section.")
    target[keys[-1]] = value = _override_value(dotted, text, root)
    lines[dotted] = place
    # steps and epochs, preset and template exclude each other: naming one on the command line
    # replaces the other of the file.
    for pair in (("train.steps", "train.epochs"), ("prompt.preset", "prompt.template")):
        if dotted in pair and value is not None:
            other = pair[1 - pair.index(dotted)]
            target.pop(other.split(".")[1], None)


def _override_value(dotted: str, text: str, root: type[Section]) -> object:
    try:
        _, value = parse_yaml(text)
    except yaml.YAMLError:
        return text
    field = field_of(dotted, root)
    if field is None or field.annotation not in {str, str | None}:
        return value
    # A revision of digits alone, or a separator that means something in YAML (|, #), is text and nothing else.
    return (
        value
        if text.strip().lower() in _EMPTY or (value and isinstance(value, str))
        else text.strip()
    )
