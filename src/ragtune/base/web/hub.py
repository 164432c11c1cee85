"""Asking the Hub: bounded in size and time, with retries that are said, and with failures in words."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from huggingface_hub import HfApi, errors
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.screen.progress import busy, moves
from ragtune.base.web.hub_client import bound_client, failing_at_once, pause_after, wait
from ragtune.base.web.refusals import SENSELESS, HTTPError, explain, root_of

T = TypeVar("T")


def api() -> HfApi:
    """The Hub's client, at `HF_ENDPOINT` if that is set."""
    bound_client()
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)


def ask(act: Callable[[], T], repo: str, finish: str = "") -> T:
    """Call the Hub, and call it again after a failure that may pass; say what is waited for.

    Args:
        act: what to do, which must do no harm when it is done twice.
        repo: owner/name, for the messages.
        finish: how to go on after a failure, for the messages.

    Raises:
        UsageError, RagtuneError: as `hub_errors`.
    """
    with hub_errors(repo, finish), failing_at_once(), busy(f"waiting for the Hub ({repo})"):
        for attempt in itertools.count(1):
            try:
                return act()
            except Exception as error:
                pause = pause_after(error, attempt)
                if pause is None:
                    raise
                wait(error, repo, attempt, pause)
    raise AssertionError  # the loop ends by a return or a raise


@contextmanager
def own_bars() -> Iterator[None]:
    """Let huggingface_hub's bars be where they can move: a log would get a line of each state."""
    there = not are_progress_bars_disabled() and not moves()
    if there:
        disable_progress_bars()
    try:
        yield
    finally:
        if there:
            enable_progress_bars()


@contextmanager
def hub_errors(repo: str, finish: str) -> Iterator[None]:
    """Turn what the Hub or the network answers into a message and the command that goes on.

    Raises:
        UsageError: the Hub takes no such name.
        RagtuneError: anything else.
    """
    again = f" Nothing is lost: {finish}" if finish else ""
    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise RagtuneError(
            "The Hub can't be asked: HF_HUB_OFFLINE is set.", f"Unset it to publish.{again}"
        ) from error
    except errors.HFValidationError as error:
        raise UsageError(
            f"publish.repo: {error}",
            "Name it owner/name: letters, digits, and single - _ . inside.",
        ) from error
    except (HTTPError, OSError, RuntimeError, ValueError, *SENSELESS) as error:
        root = root_of(error)
        if isinstance(root, OSError) and root.filename is not None:
            raise  # a file here, not the Hub
        reason, advice = explain(error, repo)
        raise RagtuneError(reason, (advice + again).strip()) from error
