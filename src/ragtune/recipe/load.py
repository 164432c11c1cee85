"""Recipes as YAML: reading with messages that name file, line and key, and writing."""

from __future__ import annotations

import copy
import difflib
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError

from ragtune.base import secrets as tokens
from ragtune.base.errors import UsageError
from ragtune.base.files import writing
from ragtune.recipe.schema import Recipe, all_keys, describe_key, field_of, section_of, sections

_SHOWN = 60
"""How much of a wrong value an error message shows, in characters."""
_LONGEST_KEY = 200
"""How much of an unknown key is looked at and shown, in characters."""
_PROBLEMS = 50
"""How many wrong keys a message names."""
_LARGEST = 256 << 10
"""Bytes of the largest recipe."""


class _Loader(yaml.SafeLoader):
    """Reads 5e-4 as a number, as YAML 1.2 does; PyYAML's 1.1 wants 5.0e-4.

    Aliases are refused: a few lines of them stand for more values than any memory holds.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "a recipe takes no alias (*name)", mark)
        return super().compose_node(parent, index)  # type: ignore[no-untyped-call]


class _Dumper(yaml.SafeDumper):
    """Quotes a text that `_Loader` would read as a number, such as a commit 12e4567."""


def _text(dumper: Any, value: str) -> Any:
    # YAML reads these as line breaks and folds them, unless they are escaped.
    style = '"' if any(sign in value for sign in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _integer(loader: _Loader, node: yaml.ScalarNode) -> Any:
    if len(node.value) > _SHOWN:  # one of thousands of digits can't even be shown
        raise yaml.constructor.ConstructorError(None, None, "a number too long", node.start_mark)
    return loader.construct_yaml_int(node)  # type: ignore[no-untyped-call]


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)

for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def parse_yaml(text: str) -> tuple[Any, Any]:
    """The node of a YAML document and its value. Raises YAMLError whatever is wrong with it."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    # What PyYAML raises for 2024-13-45, 0x_ and the like.
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        raise yaml.YAMLError(str(error)) from None
    finally:
        loader.dispose()


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write every value, defaults included, as a valid recipe."""
    with writing(path) as file:
        yaml.dump(
            recipe.model_dump(mode="json"),
            file,
            _Dumper,
            sort_keys=False,
            allow_unicode=True,
            width=100,
        )


def load_recipe(
    source: str | Path | dict[str, Any] | Recipe, overrides: list[str] | None = None
) -> Recipe:
    """Read a recipe from a YAML file or a mapping, and apply `section.key=value` overrides.

    Relative paths in a recipe are relative to the current folder, as on the command line.

    Raises:
        UsageError: a missing file, bad YAML, an unknown key, a wrong value; all problems at once.
    """
    lines: dict[str, str] = {}
    where = "recipe"
    if isinstance(source, Recipe):
        values = source.model_dump(mode="json")
    elif isinstance(source, dict):
        values = copy.deepcopy(source)
    else:
        where = str(source)
        values, lines = _read_yaml(Path(source))
    for override in overrides or []:
        _refuse_tokens_in_override(override)
        _override(values, override, lines)
    _refuse_tokens(values, where, lines)
    # A section whose keys are all commented out is read as null.
    values = {k: v for k, v in values.items() if v is not None or k not in sections()}
    try:
        recipe = _with_templates(Recipe.model_validate(values))
    except ValidationError as error:
        by_key: dict[str, list[Any]] = {}
        for problem in error.errors():
            by_key.setdefault(_key_of(problem["loc"]), []).append(problem)
        shown = list(by_key.items())[:_PROBLEMS]
        more = len(by_key) - len(shown)
        raise UsageError(
            "\n".join(_describe(key, found, where, lines) for key, found in shown)
            + (f"\n{where}: and {more:,} problems more." if more else ""),
            "`ragtune schema` lists every key, `ragtune init` writes a commented recipe.",
        ) from None
    _refuse_tokens(recipe.model_dump(mode="json"), where, lines)  # of template files, too
    return recipe


def _refuse_tokens(values: dict[str, Any], where: str, lines: dict[str, str]) -> None:
    """See that no value is a token or a password. Raises UsageError without showing it."""
    for key, kind in tokens.scan(values):
        place = lines.get(key) or lines.get(key.partition(".")[0]) or where
        shown = "a key" if tokens.kind_of(key) else key
        raise UsageError(f"{place}: {shown} holds {kind}.", tokens.ADVICE)


def _refuse_tokens_in_override(override: str) -> None:
    key, _, value = override.partition("=")
    kind = tokens.kind_of(override) or (
        "by its name, a secret" if value.strip() and tokens.named_as_secret(key.strip()) else None
    )
    if kind:
        name = "an override" if tokens.kind_of(key) else f"the override of {key.strip()}"
        raise UsageError(f"Command line: {name} holds {kind}.", tokens.ADVICE)


def _with_templates(recipe: Recipe) -> Recipe:
    """The recipe with the text of its template files, so that it is whole without them."""
    from ragtune.data.prompt import read_template

    texts = {
        key: read_template(text, f"prompt.{key}")[0]
        for key in ("template", "chat_template")
        if (text := getattr(recipe.prompt, key))
    }
    return recipe.model_copy(update={"prompt": recipe.prompt.model_copy(update=texts)})


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of a YAML file and, for each dotted key, the place where it stands."""
    try:
        if path.is_file() and path.stat().st_size > _LARGEST:
            raise UsageError(
                f"Recipe {path} can't be read: it has more than {_LARGEST // 2**10} KiB.",
                "A recipe is a YAML file of some lines; data are named in it, not held.",
            )
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1
        )
        hint = f" Did you mean {path.parent / near[0]}?" if near else ""
        raise UsageError(
            f"Recipe {path} does not exist.{hint}",
            "`ragtune init` writes a commented recipe to start from.",
        ) from None
    except IsADirectoryError:
        raise UsageError(
            f"{path} is a folder without a recipe.yaml, so it is no run directory.",
            "Name a recipe, or the directory of a run.",
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"Recipe {path} can't be read: {error}.", "A recipe is a YAML file in UTF-8."
        ) from error
    if kind := tokens.kind_of(text):
        numbered = enumerate(text.split("\n"), 1)
        number = next((number for number, line in numbered if tokens.kind_of(line)), 1)
        raise UsageError(f"{path}:{number}: this line holds {kind}.", tokens.ADVICE)
    try:
        node, values = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(
            f"{path}{line}: not valid YAML: {problem}.",
            "A recipe is `key: value` lines, indented by two spaces inside a section.",
        ) from None
    if not isinstance(values, dict):
        raise UsageError(
            f"{path}: a recipe is a mapping (name, model, data, …); this is "
            f"{'empty' if values is None else type(values).__name__}.",
            "`ragtune init` writes a commented recipe to start from.",
        )
    lines: dict[str, str] = {}
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
        if isinstance(value, yaml.MappingNode) and not prefix:
            _walk(value, f"{dotted}.", path, lines)


def _override(values: dict[str, Any], override: str, lines: dict[str, str]) -> None:
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
    target[keys[-1]] = value = _override_value(dotted, text)
    lines[dotted] = place
    # steps and epochs, preset and template exclude each other: naming one on the command line
    # replaces the other of the file.
    for pair in (("train.steps", "train.epochs"), ("prompt.preset", "prompt.template")):
        if dotted in pair and value is not None:
            other = pair[1 - pair.index(dotted)]
            target.pop(other.split(".")[1], None)


def _override_value(dotted: str, text: str) -> Any:
    try:
        _, value = parse_yaml(text)
    except yaml.YAMLError:
        return text
    field = field_of(dotted)
    wants_text = field is not None and field.annotation in {str, str | None}
    # A revision of digits alone, or a prompt with a colon in it, is text and nothing else.
    return text.strip() if wants_text and not isinstance(value, str | None) else value


def _key_of(location: tuple[str | int, ...]) -> str:
    """The dotted key of pydantic's location, without what it adds for a union or a list's item."""
    keys: list[str] = []
    model: type[BaseModel] | None = Recipe
    for part in location:
        if model is None:
            break
        keys.append(str(part))
        field = model.model_fields.get(str(part))
        model = section_of(field.annotation) if field else None
    return ".".join(keys)


def _describe(dotted: str, found: list[Any], where: str, lines: dict[str, str]) -> str:
    """One line on a key; a union's every member has found something wrong with it."""
    place = next((lines[p] for p in (dotted, dotted.rpartition(".")[0]) if p in lines), where)
    kind, value = found[0]["type"], found[0]["input"]
    if kind == "extra_forbidden":
        near = nearest(dotted[:_LONGEST_KEY], all_keys())
        hint = f" Did you mean {near}?" if near else ""
        return f"{place}: unknown key {dotted[:_LONGEST_KEY]}.{hint}"
    if kind == "missing":
        such = f", such as {dotted}: {_scalar(STARTER[dotted])}" if dotted in STARTER else ""
        return f"{place}: {dotted} is missing ({describe_key(dotted)}){such}."
    if kind == "value_error":
        return f"{place}: {dotted}: {found[0]['ctx']['error']}."
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
    if kind == "model_type":
        return f"{place}: {dotted} = {shown}: a section holds `key: value` lines."
    if kind == "string_pattern_mismatch":
        return f"{place}: {dotted} = {shown} has another form than wanted: {describe_key(dotted)}."
    first, *others = dict.fromkeys(e["msg"] for e in found)
    wanted = first[0].lower() + first[1:]
    wanted += "".join(f" or {other.removeprefix('Input should be ')}" for other in others)
    if kind == "string_type" and isinstance(value, int | float):
        wanted += " (in quotes)"
    if kind == "list_type" and isinstance(value, str):
        wanted += f", such as [{value}]"
    field = field_of(dotted)
    if field and type(None) in typing.get_args(field.annotation):
        wanted += " or null"
    return f"{place}: {dotted} = {shown}: {wanted} ({describe_key(dotted)})."


def nearest(word: str, words: list[str]) -> str | None:
    """The word that `word` was probably meant to be: by the whole, else by its last part."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.75)
    if not close:
        last = word.rpartition(".")[2]
        by_last = {w.rpartition(".")[2]: w for w in reversed(words)}
        near = difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.6)
        close = [by_last[match] for match in near]
    return close[0] if close else None


def commented_recipe(values: dict[str, Any]) -> str:
    """A recipe as YAML with each key's meaning and default beside it.

    Keys in `values` are set; the others stand as comments with their defaults.
    """
    out: list[str] = []
    for name, field in Recipe.model_fields.items():
        section = section_of(field.annotation)
        if section is None:
            value = values.get(name, field.default)
            out.append(f"{name}: {_scalar(value)}  # {field.description}")
            continue
        given = values.get(name, {})
        out += ["", f"# {(section.__doc__ or '').strip()}"]
        out.append(f"{name}:" if given else f"# {name}:")
        for key, inner in section.model_fields.items():
            line = f"{key}: {_scalar(given.get(key, inner.default))}"
            choices = _choices(inner.annotation)
            note = f"{inner.description}" + (f" [{choices}]" if choices else "")
            out += [f"  # {note}", f"  {line}" if key in given else f"  # {line}"]
    return "\n".join(out) + "\n"


def _scalar(value: Any) -> str:
    text: str = yaml.dump(
        value,
        None,
        _Dumper,
        default_flow_style=True,
        width=10_000,
        allow_unicode=True,
        sort_keys=False,
    )
    return text.removesuffix("...\n").strip()


def _choices(annotation: Any) -> str:
    """The words that a field accepts, if it is a choice."""
    parts = (
        typing.get_args(annotation)
        if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
        else (annotation,)
    )
    words = [w for p in parts if typing.get_origin(p) is Literal for w in typing.get_args(p)]
    return " | ".join(str(w) for w in words) if len(words) > 1 else ""


STARTER: dict[str, Any] = {
    "name": "my-run",
    "model": {"id": "HuggingFaceTB/SmolLM2-135M-Instruct"},
    "data": {"train": "train.jsonl", "eval": "eval.jsonl", "max_passages": 3},
    "prompt": {"preset": "english"},
    "lora": {"rank": 16, "alpha": 32},
    "train": {"steps": 100, "batch_size": 16, "learning_rate": 2e-4},
    "evaluate": {"metric": "squad_em"},
    "publish": {"format": "merged", "repo": None},
}
"""What `ragtune init` sets; every other key stands there as a comment."""
