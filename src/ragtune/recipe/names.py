"""Names of what is kept in a folder, such as every system can have, and addresses of servers."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from ragtune.base.screen.visible import visible
from ragtune.base.secrets import ADDRESS_ADVICE, BESIDE_ADDRESS, IN_ADDRESS
from ragtune.base.windows import is_reserved


def _portable(name: str) -> str:
    if is_reserved(name):  # on every system: runs are copied between machines
        raise ValueError(
            f"Windows can have no folder {name!r}, and runs are copied: choose another"
        )
    if visible(name) != name:
        raise ValueError(f"{visible(name)!r} has characters that can't be seen: choose another")
    return name


def _without_key(address: str) -> str:
    if BESIDE_ADDRESS.search(address):
        raise ValueError(f"the address {IN_ADDRESS}. {ADDRESS_ADVICE.rstrip('.')}")
    return address


Name = Annotated[str, Field(max_length=100, pattern=r"^\w[\w.-]*$"), AfterValidator(_portable)]
"""Of a folder that something is kept in."""
Endpoint = Annotated[str, AfterValidator(_without_key)]
"""Of a server; its key is elsewhere."""
