"""The ranks of a run on one machine: this process, which is rank 0, and those beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace

from ragtune.base.errors import RagtuneError
from ragtune.distributed.followers import HERE, LOOPBACK, Followers
from ragtune.distributed.place import Place
from ragtune.distributed.store import serve
from ragtune.distributed.world import World

_LIMITS = (
    "Raise the limit (`ulimit -a` lists them; of a container, how many processes it may have), or set "
    "devices=1. What is finished is kept: the same command goes on."
)


@contextlib.contextmanager
def launched(followers: Followers) -> Iterator[World]:
    """Let the others begin, unless they have, and tell them where this process is.

    torch's own launcher makes a child of every rank, this one too, and takes over the signals: a notebook
    couldn't be rank 0, and Ctrl-C would reach the ranks one by one.

    Yields:
        The world of rank 0. The others are killed when it is left.

    Raises:
        RagtuneError: the system starts no more processes.
    """
    place = Place(0, len(followers.devices), followers.devices[0], HERE, 0)
    server = serve(place)
    before = {name: os.environ.get(name) for name in LOOPBACK}
    os.environ |= LOOPBACK
    try:
        with followers:
            try:
                followers.begin()
            except OSError as error:
                raise RagtuneError(
                    f"Another process can't be started here: {error.strerror or error}.", _LIMITS
                ) from error
            followers.tell(server.port)
            world = World(replace(place, port=server.port), server, followers)
            try:
                yield world
            finally:
                followers.kill()
                world.close()
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ |= {name: value} if value is not None else {}
