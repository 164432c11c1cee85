"""Ports for servers that are told theirs: nobody else is given them meanwhile."""

from __future__ import annotations

import socket

_KEPT: list[socket.socket] = []


def free_port() -> int:
    """A port of 127.0.0.1 at which a server may listen; who asks for any port gets another one.

    It is bound as long as these tests run: a second process that looked for one would else be given it, too.
    """
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, who then can have it
    one.bind(("127.0.0.1", 0))
    _KEPT.append(one)
    return int(one.getsockname()[1])
