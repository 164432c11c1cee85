"""Jinja in a sandbox that also ends: what a template may repeat and write is limited."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, wraps
from inspect import unwrap
from typing import Any, TypeVar

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

T = TypeVar("T")

MAX_REPEATS = 100_000
"""Turns of loops and calls of macros, in one rendering."""
MAX_CHARACTERS = 16 << 20
"""Characters that one rendering may write and compute."""
_MAX_NUMBER = 100_000
"""The largest argument: of center, batch and the like it is a length."""
_GROWING = {"wordwrap", "urlize", "xmlattr", "expandtabs", "translate", "lipsum"}
"""Filters and methods whose result can't be told from their arguments; no prompt needs them."""


class TooMuchError(SecurityError):
    """A template repeats, computes or writes more than it may."""


class Bounded(ImmutableSandboxedEnvironment):
    """Compiles templates that raise TooMuchError instead of running or growing without end.

    It holds what the current rendering has used up, so one is used by one thread at a time.
    """

    intercepted_binops = frozenset(["*", "**", "+", "%"])

    def __init__(self, extensions: Sequence[str | type[Extension]] = ()) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            optimized=False,  # constants, too, are computed when the limits are watched
            finalize=self.written,
            extensions=extensions,
        )
        self.repeats = self.characters = 0
        self.globals = {k: v for k, v in self.globals.items() if k not in _GROWING}
        self.filters = {
            name: self._guarded(name, function)
            for name, function in self.filters.items()
            if name not in _GROWING
        }

    def rendered(self, template: Template, **values: object) -> str:
        """The text of one of this environment's templates.

        Raises:
            TooMuchError: it goes on too long or writes too much.
        """
        self.repeats = self.characters = 0
        return template.render(**values)

    # What is counted.

    def repeated(self, characters: int) -> str:
        """One turn of a loop or a macro that writes so many characters of its own."""
        self.repeats += 1
        if self.repeats > MAX_REPEATS:
            raise TooMuchError(f"the template repeats something more than {MAX_REPEATS:,} times")
        self._count(characters)
        return ""

    def written(self, value: T) -> T:
        """An expression's value on its way into the text."""
        self._count(_weight(value))
        return value

    def joined(self, *values: object) -> str:
        """The operator ~."""
        self._count(sum(map(_weight, values)))
        return "".join(map(str, values))

    def made(self, value: T) -> T:
        """A list or a mapping, which may hold the same large one many times over."""
        if isinstance(value, list | tuple | dict) and _weight(value) > MAX_CHARACTERS:
            raise TooMuchError("the template makes a list too large")
        return value

    def _count(self, characters: int) -> None:
        self.characters += characters
        if self.characters > MAX_CHARACTERS:
            raise TooMuchError(f"the template writes more than {MAX_CHARACTERS:,} characters")

    # Where it is counted.

    def _generate(self, source: nodes.Template, *rest: Any, **named: Any) -> str:  # noqa: ANN401 - Jinja's
        """Jinja's hook between reading a template and compiling it."""
        for node in list(source.find_all(nodes.Stmt)):
            if not isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock):
                continue
            size = sum(len(data.data) for part in node.body for data in _constants(part))
            node.body.insert(0, nodes.Output([_call("repeated", [nodes.Const(size)])]))
        _watch(source)
        return super()._generate(source, *rest, **named)

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator in ("*", "**") and numbers:
            if not (_is_small(left) and _is_small(right, 64 if operator == "**" else _MAX_NUMBER)):
                raise TooMuchError("the template computes with too large a number")
        elif operator == "*":
            times = next((v for v in (left, right) if isinstance(v, int)), 1)
            self._count(max(_length(left), _length(right)) * max(0, times))
        elif operator == "+":
            self._count(_length(left) + _length(right))
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
            self._count(len(left) + _weight(right))
        return self.made(super().call_binop(context, operator, left, right))

    def call(
        self, context: Context, function: Callable[..., object], *args: object, **named: object
    ) -> object:
        own = getattr(unwrap(function), "__self__", None)
        if own is not self:
            name = getattr(function, "__name__", "")
            if name in _GROWING and isinstance(own, str):
                raise TooMuchError(f"a template can't use {name}")
            self._check(name, ((own,) if isinstance(own, str) else (None,)) + args, named)
            self.repeated(0)
        result = super().call(context, function, *args, **named)
        self._count(_length(result))
        return self.made(result)

    def _guarded(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        @wraps(function)  # with Jinja's marks of what it is passed
        def guarded(*args: object, **named: object) -> object:
            self._check(name, args, named)
            result = function(*args, **named)
            if isinstance(result, Iterator):
                result = self._watched(result)
            self._count(_length(result))
            return self.made(result)

        return guarded

    def _watched(self, items: Iterator[object]) -> Iterator[object]:
        for item in items:
            self.repeated(0)
            yield item

    def _check(self, name: str, args: tuple[object, ...], named: dict[str, object]) -> None:
        """Count beforehand what a filter or a method is going to make."""
        values = [*args, *named.values()]
        if any(isinstance(v, int | float) and not _is_small(v) for v in values[1:]):
            raise TooMuchError(f"the template gives {name} too large a number")
        texts = [v for v in values if isinstance(v, str)]
        if name == "format" and texts:
            _check_format(texts[0])
        if name == "replace" and len(texts) > 2:  # noqa: PLR2004 - text, old, new
            text, old, new = texts[:3]
            self._count((len(text) if not old else text.count(old)) * len(new))
        if name == "indent" and texts:
            width = next((v for v in values[1:] if isinstance(v, int)), 4)
            more = max((len(t) for t in texts[1:]), default=0)
            self._count((texts[0].count("\n") + 1) * max(width, more))
        if name == "join":
            lists = [v for v in values if isinstance(v, list | tuple)]
            between = sum(map(len, texts))
            self._count(sum(_weight(item) + between for items in lists for item in items))


def _constants(node: nodes.Node) -> Iterator[nodes.TemplateData]:
    """The texts that a body writes itself; an inner loop counts its own."""
    if isinstance(node, nodes.TemplateData):
        yield node
    elif not isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock):
        for child in node.iter_child_nodes():
            yield from _constants(child)


def _watch(node: nodes.Node) -> None:
    """Let what makes texts and lists go through the environment."""
    for child in node.iter_child_nodes():
        _watch(child)
    for field, value in node.iter_fields():
        if isinstance(value, list):
            value[:] = [_watched(v) for v in value]
        else:
            setattr(node, field, _watched(value))


def _watched(value: object) -> object:
    if isinstance(value, nodes.Concat):
        return _call("joined", value.nodes)
    if isinstance(value, nodes.List | nodes.Dict) or (
        isinstance(value, nodes.Tuple) and value.ctx == "load"
    ):
        return _call("made", [value])
    return value


def _call(method: str, arguments: list[nodes.Expr]) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None)


def _length(value: object) -> int:
    """Characters of a text, items of a list."""
    return len(value) if isinstance(value, str | list | tuple | dict) else 0


def _weight(value: object) -> int:
    """About how many characters a value is written as; counting stops where it is too many."""
    total, pending = 0, [value]
    while pending and total <= MAX_CHARACTERS:
        item = pending.pop()
        total += len(item) if isinstance(item, str) else 8
        if isinstance(item, dict):
            pending += [*item, *item.values()]
        elif isinstance(item, list | tuple):
            pending += item
    return total


def _is_small(value: object, limit: int = _MAX_NUMBER) -> bool:
    return isinstance(value, int | float) and abs(value) <= limit


def _check_format(text: str) -> None:
    """Refuse a format that asks for a thousand characters or more, or for a width from elsewhere."""
    digits = "".join(c if c.isdigit() else " " for c in text).split()
    if "*" in text or any(len(d) > 3 for d in digits) or "{:{" in text:  # noqa: PLR2004 - a width of four digits is no layout
        raise TooMuchError("the template formats with too large a width")


class _Generation(Extension):
    """transformers' {% generation %}, which marks what is trained and changes no text."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=8)
def compiled(text: str) -> tuple[Bounded, Template]:
    """A template, and the environment that renders it. Raises TemplateSyntaxError."""
    environment = Bounded()
    return environment, environment.from_string(text)


_CHAT: list[str | type[Extension]] = ["jinja2.ext.loopcontrols", _Generation]
"""What transformers adds to the language of chat templates."""


def variables(chat_template: str) -> set[str]:
    """The names that a chat template reads from outside; none of one that is no Jinja."""
    environment = Bounded(_CHAT)
    try:
        tree = environment.parse(chat_template)
    except TemplateSyntaxError:  # transformers will say so
        return set()
    # Jinja counts those, too, that are set in one branch and read in another.
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
    defaulted = {
        test.node.name
        for test in tree.find_all(nodes.Test)
        if test.name in ("defined", "undefined") and isinstance(test.node, nodes.Name)
    }
    read: set[str] = meta.find_undeclared_variables(tree)
    return read - set(environment.globals) - (own - defaulted)


def unbounded(chat_template: str, **values: object) -> str | None:
    """Why transformers, which sets no limits, should not render a chat template; None if it may."""

    def refuse(message: str) -> None:
        raise ValueError(message)

    environment = Bounded(_CHAT)
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda _: ""}
    try:
        environment.rendered(environment.from_string(chat_template), **values)
    except TooMuchError as error:
        return str(error)
    except Exception:  # noqa: BLE001, S110 - transformers will say what else is wrong with it
        pass
    return None
