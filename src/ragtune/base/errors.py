"""What the user is told when something is wrong: what, where, and what to do."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from ragtune.base.secrets import hide
from ragtune.base.text import first_line, shortened


class RagtuneError(Exception):
    """A failure that the user can understand and act on (exit code 1).

    Args:
        message: what went wrong and where (file, line, field).
        advice: what to do about it, as an instruction.
    """

    exit_code = 1

    def __init__(self, message: str, advice: str = "") -> None:
        # Libraries and servers repeat what they were sent, and messages show what files hold.
        message, advice = hide(showable(message)), hide(showable(advice))
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}\n{self.advice}" if self.advice else self.message


def showable(text: str) -> str:
    """A text that a terminal shows as it is: control characters and halves of surrogates escaped."""
    text = _CONTROLS.sub(lambda match: repr(match[0])[1:-1], text)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


_MEMORY_ADVICE = (
    "Set train.samples_per_row=1, evaluate.batch_size=1 or prompt.max_tokens to something short, or use "
    "a smaller model or a larger machine. What is finished is kept."
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the machine's or the GPU's memory is used up.

    torch raises a class of its own on a GPU and a plain RuntimeError on a CPU.
    """
    text = str(error)
    # torch is not imported for it; that its class has this name: tests/training/test_out_of_memory.py.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(sign in text for sign in _OUT_OF_MEMORY)
    )


class UsageError(RagtuneError):
    """The recipe, the arguments or the data have to be changed (exit code 2)."""

    exit_code = 2


def in_words(error: Exception) -> RagtuneError:
    """What a failure means to the user, whatever it is."""
    if isinstance(error, RagtuneError):
        return error
    if is_out_of_memory(error):
        return RagtuneError(f"There is too little memory: {first_line(error)}", _MEMORY_ADVICE)
    return lost_disk(error) or RagtuneError(
        f"{type(error).__name__}: {first_line(error)}",
        "This is a fault of ragtune, or of a library that it uses. The same command with --debug shows "
        "where; please report it.",
    )


def lost_disk(error: Exception, path: Path | None = None) -> RagtuneError | None:
    """What an error means if a disk, or a Drive, is away, or can't have such a name; None otherwise."""
    if not isinstance(error, OSError):
        return None
    where = error.filename if isinstance(error.filename, str) else path
    if error.errno in _AWAY:
        return RagtuneError(
            f"{where or 'A file'} can't be reached any more ({error.strerror}).", CONNECT
        )
    if error.errno == errno.ENAMETOOLONG:
        return RagtuneError(
            f"{shortened(str(where))}: a name is too long for the file system.",
            "Choose a shorter one: the recipe's name, or another run directory with --run-dir.",
        )
    return None


_AWAY = (errno.ENOTCONN, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO)
"""What a mounted Drive, a network's disk or a stick answers when it is gone."""
CONNECT = (
    "If its disk or Drive went away, connect it again: the same command then goes on from what is "
    "finished."
)
