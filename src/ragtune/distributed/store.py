"""The store that rank 0 keeps (torch's TCPStore): JSON of any size, under keys that anyone can read."""

from __future__ import annotations

import json
import socket
import zlib
from datetime import timedelta

from pydantic import JsonValue
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from ragtune.base.errors import UsageError
from ragtune.distributed.place import Place

_PART = 4 << 20
"""Bytes of a value that go at a time: of more than 8 MiB the store says that the connection broke."""


def serve(place: Place) -> TCPStore:
    """The store that the ranks share; port 0 for one that is free.

    Raises:
        UsageError: the port is taken.
    """
    try:
        return TCPStore(place.address, place.port, is_master=True, wait_for_workers=False)
    except RuntimeError as error:
        raise UsageError(
            f"{_here(place)}: port {place.port} of {place.address} can't be had: "
            f"{str(error).splitlines()[0]}",
            "Another program uses it, perhaps another run: choose another MASTER_PORT (torchrun: "
            "--master-port).",
        ) from error


def connect(place: Place, patience: float) -> Store:
    """A connection to the store, for what this attempt leaves there.

    Raises:
        UsageError: it can't be reached in so many seconds.
    """
    limit = timedelta(seconds=patience)
    try:
        store = TCPStore(place.address, place.port, is_master=False, timeout=limit)
    except RuntimeError as error:
        raise _unreached(place) from error
    return own(place, store)


def _unreached(place: Place) -> UsageError:
    return UsageError(
        f"{_here(place)} can't reach rank 0 at {place.address}:{place.port}.",
        "See that MASTER_ADDR names the first machine as the others reach it, that its firewall lets "
        "MASTER_PORT through, and that every rank was started.",
    )


def come(place: Place, store: Store) -> None:
    """Say in the store that this rank has come: in another run's it would wait for what is told there.

    Raises:
        UsageError: it has come before, or the store can't be reached any more.
    """
    try:
        first = store.add(f"came/{place.rank}", 1) == 1
    except RuntimeError as error:
        raise _unreached(place) from error
    if not first:
        raise UsageError(
            f"{_here(place)} has come already: another run uses port {place.port} of {place.address}.",
            "Choose another MASTER_PORT (torchrun: --master-port).",
        )


def _here(place: Place) -> str:
    """This rank, with its machine: a launcher's log has the words of all."""
    return f"Rank {place.rank} on {socket.gethostname()}"


def own(place: Place, store: TCPStore) -> Store:
    """Of a store what this attempt leaves there."""
    return PrefixStore(f"ragtune/{place.attempt}", store)


def write(store: Store, key: str, value: JsonValue) -> None:
    """Leave a value; the key is there when all of it is."""
    packed = zlib.compress(json.dumps(value).encode(), 1)  # others wait for it
    parts = range(0, len(packed), _PART)
    for start in reversed(parts):
        head = b"%d " % len(parts) if start == 0 else b""
        store.set(_part(key, start), head + packed[start : start + _PART])  # type: ignore[arg-type]  # it takes bytes


def read(store: Store, key: str) -> JsonValue:
    """The value under a key that is there."""
    count, _, packed = store.get(key).partition(b" ")
    for start in range(_PART, int(count) * _PART, _PART):
        packed += store.get(_part(key, start))
    return json.loads(zlib.decompress(packed))  # type: ignore[no-any-return]


def delete(store: Store, key: str) -> None:
    """Forget what is under a key that is there."""
    count = int(store.get(key).partition(b" ")[0])
    for start in range(0, count * _PART, _PART):
        store.delete_key(_part(key, start))


def _part(key: str, start: int) -> str:
    return f"{key}+{start}" if start else key
