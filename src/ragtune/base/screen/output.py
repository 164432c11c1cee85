"""Standard output and error: all that is written there is escaped, has characters that fit, and never raises.

What rich lays out goes through `base/screen/console.py`, all else through here; nothing goes around both.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import IO, TextIO

from ragtune.base.screen.visible import visible, visible_json

_FITTING = "ragtune-fitting"
_PLAIN = {
    "…": "...", "–": "-", "−": "-", "→": "->", "⏎": "\\n", "“": '"', "”": '"', "‘": "'", "’": "'", "·": "-",
    "✓": "+", "✗": "x",
}  # fmt: skip
"""Signs of ours, for encodings that lack them."""

_MOVES = re.compile(r"(\n|\x1b\[A)+")
_PART = 1 << 16
_above: list[Callable[[str], None]] = []
"""What writes above the bars that move, the innermost last."""
Lost = Callable[[OSError], None]


def _fitting(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for characters that an encoding lacks: a plain sign, or an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = (
        _PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode("ascii") for c in lacking
    )
    return "".join(plain), error.end


codecs.register_error(_FITTING, _fitting)


def fit(stream: IO[str]) -> IO[str]:
    """Let a stream write characters that its encoding lacks as others, where it would raise otherwise."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors != _FITTING:
        try:
            "…".encode(stream.encoding, _FITTING)
            stream.reconfigure(errors=_FITTING)
        except UnicodeError:  # idna, say, which is for names and takes no way out
            stream.reconfigure(encoding="ascii", errors=_FITTING)
    return stream


class _Stream(io.TextIOBase):
    """A stream in the place of another, without its `buffer`: there is no way around it."""

    def __init__(self, stream: TextIO | io.TextIOBase) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        self._stream.flush()


class Enduring(_Stream):
    """A stream that raises nothing when its reader went away or its disk is full, and then is silent.

    Args:
        stream: where everything goes.
        lost: told what happened, now and at every later attempt to write.
    """

    def __init__(self, stream: TextIO, lost: Lost) -> None:
        fit(stream)
        super().__init__(stream)
        self._lost = lost
        self._error: OSError | None = None

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        if self._error is None:
            try:
                action()
            except OSError as error:
                self._error = error
                self._discard()
        if self._error is not None:
            self._lost(self._error)

    def end(self) -> None:
        """Write what is left, if that can be written."""
        self._lost = lambda _: None
        self.flush()

    def _discard(self) -> None:
        """Send what is still buffered nowhere: Python would fail with it at its end."""
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class Escaping(_Stream):
    """In the place of `sys.stdout` and `sys.stderr` while the command line is at work.

    Typer's help and errors, the libraries' warnings, logs and bars, and tracebacks are escaped as what is
    ours. tqdm's moves are let through: the start of the line before and after a text, and a write of lines
    up and down alone. rich writes its own sequences to the stream behind it.
    """

    def __init__(self, stream: TextIO | Enduring) -> None:
        super().__init__(stream)
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        if _MOVES.fullmatch(text):
            self._stream.write(text)
        else:
            start, end = ("\r" * found for found in (text.startswith("\r"), text.endswith("\r")))
            self._stream.write(start + visible(text.strip("\r")) + end)
        return len(text)


@contextlib.contextmanager
def guarded(lost: Lost) -> Iterator[None]:
    """Put `Escaping` in the place of standard output and error.

    Args:
        lost: told when standard output can't be written any more. An error output that is gone changes
            nothing.
    """
    before = sys.stdout, sys.stderr
    _open_closed()
    out = Enduring(sys.stdout or _nowhere(), lost)
    errors = Enduring(sys.stderr or _nowhere(), lambda _: None)
    sys.stdout, sys.stderr = Escaping(out), Escaping(errors)  # type: ignore[assignment]
    try:
        yield
    finally:
        out.end()
        errors.end()
        sys.stdout, sys.stderr = before


@contextlib.contextmanager
def silent(*, but_libraries: bool = False) -> Iterator[None]:
    """Let nothing be seen of what is written within.

    Args:
        but_libraries: whether what libraries in C++ write goes to standard error.
    """
    kept = [os.dup(number) for number in (1, 2)]
    with _nowhere() as ours:
        for number in (1, 2):
            os.dup2(kept[1] if but_libraries else ours.fileno(), number)
        try:
            with contextlib.redirect_stdout(ours), contextlib.redirect_stderr(ours):
                yield
        finally:
            for number, before in zip((1, 2), kept, strict=True):
                os.dup2(before, number)
                os.close(before)


def _open_closed() -> None:
    """Open standard descriptors that are closed: the next file would get their number, and what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - it is no path


def own(stream: IO[str]) -> IO[str]:
    """The stream behind `Escaping` and rich's, for what is escaped already; fitted to its encoding."""
    while behind := getattr(stream, "rich_proxied_file", None):
        stream = behind
    return fit(stream)


def passing_on(out: IO[bytes], errors: IO[bytes]) -> list[threading.Thread]:
    """Write what another program says, as it comes, escaped as libraries' words, until its end."""
    pairs = ((out, sys.stdout), (errors, sys.stderr))
    threads = [threading.Thread(target=_pass_on, args=pair, daemon=True) for pair in pairs]
    for one in threads:
        one.start()
    return threads


def _pass_on(said: IO[bytes], to: TextIO | None) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    out = to if to is None or isinstance(to, Escaping) else Escaping(to)
    with said:
        while part := os.read(said.fileno(), _PART):
            if out is not None:
                out.write(decoder.decode(part).replace("\r\n", "\n"))
                out.flush()


def flush() -> None:
    """Write what is still buffered of standard output."""
    if sys.stdout is not None:
        sys.stdout.flush()


def say(text: str, end: str = "\n") -> None:
    """Write an answer to standard output, without layout."""
    _write(sys.stdout, visible(text) + end)


def say_json(value: object, indent: int | None = None) -> None:
    """Write an answer as JSON; it has the same value in any encoding, and does nothing to a terminal."""
    text = visible_json(json.dumps(value, ensure_ascii=False, indent=indent))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeError:
        text = json.dumps(value, indent=indent)
    _write(sys.stdout, text + "\n")


def complain(text: str) -> None:
    """Write to standard error."""
    _write(sys.stderr, visible(text))


def interject(text: str) -> None:
    """Say a line in the middle of whatever is shown: above a bar that moves, else on standard error."""
    if innermost := _above[-1:]:  # which may end meanwhile: a thread says this
        innermost[0](text)
    else:
        complain(f"\n{text}\n")


@contextlib.contextmanager
def interjecting(above: Callable[[str], None]) -> Iterator[None]:
    """Within, a bar moves on the terminal; `above` writes a line that it doesn't write over."""
    _above.append(above)
    try:
        yield
    finally:
        _above.pop()


def _write(stream: TextIO | None, text: str) -> None:
    if stream is not None:
        out = own(stream)
        out.write(text)
        out.flush()
