"""What the user is told when something is wrong: what, where, and what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from ragtune.base.screen.visible import visible
from ragtune.base.secrets import hide
from ragtune.base.text import first_line, shortened
from ragtune.base.windows import TOO_LONG


class RagtuneError(Exception):
    """A failure that the user can understand and act on (exit code 1).

    Args:
        message: what went wrong and where (file, line, field).
        advice: what to do about it, as an instruction.
    """

    exit_code = 1

    def __init__(self, message: str, advice: str = "") -> None:
        # Libraries and servers repeat what they were sent, and messages show what files hold.
        message, advice = hide(visible(message)), hide(visible(advice))
        super().__init__(message)
        self.message = message
        self.advice = advice

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in a notebook: forty frames of a library would hide what is to be done."""
        return [f"{type(self).__name__}: {self}"]

    def __str__(self) -> str:
        return f"{self.message}\n{self.advice}" if self.advice else self.message


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


def no_thread(error: BaseException) -> bool:
    """Whether an error means that the system lets this process start no more threads."""
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)


def is_panic(error: BaseException) -> bool:
    """Whether an error is a panic of a library in Rust, which is no Exception: tokenizers raises it."""
    kind = type(error)
    return f"{kind.__module__}.{kind.__name__}" == "pyo3_runtime.PanicException"


class UsageError(RagtuneError):
    """The recipe, the arguments or the data have to be changed (exit code 2)."""

    exit_code = 2


def in_words(error: BaseException) -> RagtuneError:
    """What a failure means to the user, whatever it is."""
    if isinstance(error, RagtuneError):
        return error
    if is_out_of_memory(error):
        return RagtuneError(f"There is too little memory: {first_line(error)}", _MEMORY_ADVICE)
    if no_thread(error):
        return RagtuneError(
            "The system lets this process start no more threads.",
            "Raise the limit (`ulimit -u`; of a container, how many processes it may have), or end what else "
            "runs there. What is finished is kept: the same command goes on.",
        )
    return lost_disk(error) or RagtuneError(
        f"{type(error).__name__}: {first_line(error)}",
        "This is a fault of ragtune, or of a library that it uses. The same command with --debug shows "
        "where; please report it.",
    )


def lost_disk(error: BaseException, path: Path | None = None) -> RagtuneError | None:
    """What an error means if a disk, or a Drive, is away, or has no such file or name; None otherwise."""
    if not isinstance(error, OSError):
        return None
    where = error.filename if isinstance(error.filename, str) else path
    if error.errno in _AWAY:
        return RagtuneError(
            f"{where or 'A file'} can't be reached any more ({error.strerror}).", CONNECT
        )
    if error.errno == errno.ENAMETOOLONG or getattr(error, "winerror", None) == TOO_LONG:
        return RagtuneError(
            f"{shortened(str(where))}: a name is too long for the file system.",
            "Choose a shorter one: the recipe's name, or another run directory with --run-dir.",
        )
    if error.errno in _NO_FILE and where:
        return RagtuneError(
            f"{where} can't be read: {error.strerror}.",
            "Put the file in its place that belongs there.",
        )
    return None


_NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.EINVAL, errno.EFBIG)
"""What `open_plain` says of a folder, a pipe or a device, and of a file that is too large."""
_AWAY = (errno.ENOTCONN, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO)
"""What a mounted Drive, a network's disk or a stick answers when it is gone."""
CONNECT = (
    "If its disk or Drive went away, connect it again: the same command then goes on from what is "
    "finished."
)
