"""Reading datasets of the Hub, streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.text import first_line, shortened
from ragtune.base.web.answers import AnswerError
from ragtune.base.web.hub_client import bound_client
from ragtune.base.web.refusals import SENSELESS, HTTPError, explain, root_of

_WAITS_LESS = {
    "STREAMING_READ_MAX_RETRIES": 1,
    "STREAMING_OPEN_MAX_RETRIES": 1,
    "STREAMING_READ_RATE_LIMIT_RETRY_INTERVAL": 1,
    "STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL": 1,
}
"""Settings of `datasets`: it waits up to twenty times a minute on top of what the Hub's client waited."""


def hub_rows(
    source: str, split: str, tick: Callable[[int, int], None]
) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a dataset: `owner/name`, `owner/name:split` or `owner/name:configuration:split`.

    Raises:
        RagtuneError: what the Hub refuses, and what it fails at.
    """
    import datasets  # noqa: PLC0415 - takes seconds, and only datasets of the Hub need it

    name, *named = source.split(":")
    configuration = named[:-1]
    bound_client()
    vars(datasets.config).update(_WAITS_LESS)
    try:
        rows = datasets.load_dataset(
            name, *configuration, split=named[-1] if named else split, streaming=True
        )
        for number, record in enumerate(rows, 1):
            tick(number, 0)
            yield f"{source}: row {number}", record
    # datasets stops an iteration of its own where a file is empty.
    except (RuntimeError, OSError, ValueError, StopIteration, HTTPError, *SENSELESS) as error:
        if isinstance(error, RuntimeError) and "script" in str(error):
            raise UsageError(
                f"{name} is a dataset with a script, which no current library runs.",
                "For llm-book/aio-retriever write data.source: aio, not data.train and data.eval.",
            ) from None
        raise _unread(source, error) from error


def _unread(source: str, error: Exception) -> RagtuneError:
    root: BaseException | None = root_of(error)
    if isinstance(root, FileNotFoundError):  # datasets tried this and that, and says it of the last
        while root and not isinstance(root, (HTTPError, AnswerError)):
            root = root.__cause__ or root.__context__
    reached = not isinstance(root, (RepositoryNotFoundError, OfflineModeIsEnabled))
    if isinstance(root, (HTTPError, AnswerError, ConnectionError, TimeoutError)) and reached:
        reason, advice = explain(root, source, writing=False)
        return RagtuneError(f"Dataset {source} can't be read. {reason}", advice)
    if "onfig" in first_line(error) and "[" in str(
        error
    ):  # those that there are stand in a list behind
        listed = str(error)[str(error).index("[") :].partition("]")[0]
        return UsageError(
            f"Dataset {source} can't be read: {shortened(first_line(error), 120)} {shortened(listed, 300)}]",
            f"Name the configuration before the split: {source.partition(':')[0]}:CONFIGURATION:SPLIT.",
        )
    return UsageError(
        f"Dataset {source} can't be read: {shortened(first_line(error), 300)}",
        "It is neither a file here nor a dataset that the Hub gives. Check the path; or the "
        "dataset's name, its splits (owner/name:split) and the network.",
    )
