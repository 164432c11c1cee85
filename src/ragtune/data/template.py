"""Templates in Jinja's sandbox, and the program that tries one in a process of its own (`data/trial.py`).

That process starts this file alone: it imports nothing of ragtune, and no large library.
"""

from __future__ import annotations

import contextlib
import faulthandler
import inspect
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cache, lru_cache, wraps
from typing import Any, NoReturn

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

MEMORY = 1 << 30
"""Bytes that it may take, where the system limits that."""
MAX_CHARACTERS = 16 << 20
"""Characters that one rendering may write."""
READY = "ready"
"""What the process writes when it has come as far as the template."""

_DRAWING = ("random",)
_WRITING_AT_RANDOM = ("lipsum",)


class UnrepeatableError(TemplateError):
    """A template would write what is another text each time."""


class _Unwritable:
    """Stands for an object that Python would write with its place in memory."""

    def __repr__(self) -> str:
        raise UnrepeatableError(
            "it writes an iterator, a function or another object that is no text, which is another text "
            "each time: `| list` or `()` may be missing"
        )


class _Iterator(_Unwritable):
    def __init__(self, values: Iterator[object]) -> None:
        self.values = values

    def __iter__(self) -> Iterator[object]:
        return self.values

    def __next__(self) -> object:
        return next(self.values)


class _Function(_Unwritable):
    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function

    def __call__(self) -> NoReturn:  # a template's calls go through the sandbox
        raise AssertionError


class _Cycler(_Unwritable, Cycler):
    pass


class _Joiner(_Unwritable, Joiner):
    pass


def _writable(value: object) -> object:
    """A value, or what stands for it if it can't be written twice with the same text."""
    if isinstance(value, str):  # nearly each is one
        return value
    if isinstance(value, Iterator) and not isinstance(value, LoopContext):
        return _Iterator(value)
    if inspect.isroutine(value) or isinstance(value, BlockReference):
        return _Function(value)
    return value


def _writing(function: Callable[..., object]) -> Callable[..., object]:
    @wraps(function)  # with what Jinja notes at it
    def filtered(*args: object, **options: object) -> object:
        return _writable(function(*args, **options))

    return filtered


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's, in which the same values give the same text: nothing is drawn, nor written as an address."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - Jinja's own
        super().__init__(**options)
        for name in _DRAWING:
            self.filters.pop(name)
        for name in _WRITING_AT_RANDOM:
            self.globals.pop(name)
        self.globals |= {"cycler": _Cycler, "joiner": _Joiner}
        self.filters = {name: _writing(each) for name, each in self.filters.items()}
        self.globals = {name: _writable(each) for name, each in self.globals.items()}

    def getattr(self, obj: Any, attribute: str) -> Any:  # noqa: ANN401 - Jinja's own
        return _writable(super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:  # noqa: ANN401 - Jinja's own
        return _writable(super().getitem(obj, argument))

    def call(self, context: Context, obj: Any, /, *args: Any, **options: Any) -> Any:  # type: ignore[override]  # noqa: ANN401 - Jinja's own
        called = obj.function if isinstance(obj, _Function) else obj
        return _writable(super().call(context, called, *args, **options))


class _Generation(Extension):
    """transformers' {% generation %}, which marks what is trained and changes no text."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def prompt_environment() -> ImmutableSandboxedEnvironment:
    """The sandbox of prompt templates: nothing is undefined."""
    return _Sandbox(undefined=StrictUndefined, autoescape=False)


def chat_environment() -> ImmutableSandboxedEnvironment:
    """A sandbox with the language that transformers gives to chat templates."""

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    def as_json(value: object, ensure_ascii: bool = False, **options: object) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)  # type: ignore[arg-type]

    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = _Function(refuse)
    environment.globals["strftime_now"] = _Function(lambda form: datetime.now().strftime(form))  # noqa: DTZ005 - as transformers does
    return environment


@lru_cache(maxsize=8)
def compiled(text: str) -> Template:
    """A prompt template. Raises TemplateSyntaxError."""
    return prompt_environment().from_string(text)


def rewritten(text: str, change: Callable[[str], str]) -> Template:
    """A prompt template that writes other words; what it compares or looks up stays.

    Args:
        text: of the template, without errors.
        change: what becomes of each text in it.
    """
    environment = prompt_environment()
    tree = environment.parse(text)
    asked = [
        *tree.find_all((nodes.Compare, nodes.Test)),
        *(each.arg for each in tree.find_all(nodes.Getitem)),
        *(each for each in tree.find_all(nodes.Keyword) if each.key == "attribute"),
    ]
    kept = {id(each) for one in asked for each in (one, *one.find_all(nodes.Const))}
    for each in tree.find_all((nodes.TemplateData, nodes.Const)):
        if isinstance(each, nodes.TemplateData):
            each.data = change(each.data)
        elif isinstance(each, nodes.Const) and isinstance(each.value, str) and id(each) not in kept:
            each.value = change(each.value)
    return environment.from_string(tree)


def variables(chat_template: str) -> set[str]:
    """The names that a chat template reads from outside; none of one that is no Jinja."""
    environment = chat_environment()
    try:
        tree = environment.parse(chat_template)
    except (TemplateSyntaxError, RecursionError):  # transformers will say so
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


# The process that tries a template.


def _limit(seconds: float) -> None:
    """Let the system end this process, which a template can't."""
    # Seconds on the clock, of which a machine with other work may need more than of computing.
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 5 * seconds)
    else:  # only there: it reads the stack of a thread that goes on, which now and then is a crash
        nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - open till the end
        faulthandler.dump_traceback_later(5 * seconds, exit=True, file=nowhere)
    if resource is not None:
        with contextlib.suppress(OSError, ValueError):  # macOS knows them and refuses some
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            whole = math.ceil(seconds)
            resource.setrlimit(resource.RLIMIT_CPU, (whole, whole + 1))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _problem(chat: bool, text: str, examples: Sequence[dict[str, object]]) -> str | None:
    """Why a template must be refused, if it must; its other errors are told where it is used."""
    environment = chat_environment() if chat else prompt_environment()

    @cache
    def compiled() -> Template:
        _compute_constants(environment, text)
        return environment.from_string(text)

    for values in examples:
        try:
            written = compiled().render(values)
        except MemoryError:
            return f"it takes more than {MEMORY >> 30} GiB of memory"
        except Exception as error:  # noqa: BLE001 - a template may raise anything
            problem = _drawn(error)
        else:
            long = len(written) > MAX_CHARACTERS
            problem = f"it writes more than {MAX_CHARACTERS:,} characters" if long else None
        if problem:
            return problem
    return None


def _compute_constants(environment: ImmutableSandboxedEnvironment, text: str) -> None:
    """Do what Jinja does when it reads a template, but don't pass over a lack of memory as it does.

    Raises:
        MemoryError: a constant is too large, reached or not.
    """
    for node in environment.parse(text).find_all(nodes.Expr):
        try:
            node.as_const()
        except nodes.Impossible as error:
            if isinstance(error.__context__, MemoryError):
                raise error.__context__ from None


def _drawn(error: Exception) -> str | None:
    """What a template that failed would write, if that is another text each time."""
    words = str(error)
    if isinstance(error, UnrepeatableError):
        return words
    if any(f"No filter named '{name}'" in words for name in _DRAWING) or any(
        f"'{name}' is undefined" in words for name in _WRITING_AT_RANDOM
    ):
        return f"it draws by lot ({words.rstrip('.')}), so that a prompt would be another one each time"
    return None


def main() -> None:
    """Read a template and examples, write what has to be refused."""
    task, answer = json.load(sys.stdin), sys.stdout  # noqa: TID251 - the pipe to who asks
    answer.write(f"{READY}\n")
    answer.flush()
    _limit(task["seconds"])
    answer.write(json.dumps(_problem(task["chat"], task["template"], task["examples"])))


if __name__ == "__main__":
    main()
