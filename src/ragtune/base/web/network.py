"""What goes over the network: the libraries' telemetry never, and with --offline nothing at all."""

from __future__ import annotations

import os
import sys

from ragtune.base.errors import UsageError

PASSING = {408, 429, 500, 502, 503, 504}
"""HTTP statuses that may be gone at the next attempt."""
_NO_TELEMETRY = {
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub, transformers, trl: usage, and what is installed
    "DO_NOT_TRACK": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets counts what is read
    "RAY_USAGE_STATS_ENABLED": "0",
    "GRADIO_ANALYTICS_ENABLED": "False",  # gradio: what is launched, and a look for newer versions
    "DISABLE_SAFETENSORS_CONVERSION": "1",  # transformers asks a server to convert a repository
}
_OFFLINE = {
    "RAGTUNE_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "WANDB_MODE": "offline",
}
_LOCAL_TRACKERS = {"tensorboard", "wandb"}
"""Those that write files here, the latter with WANDB_MODE=offline; Trackio, too, but where it is told."""


def no_telemetry() -> None:
    """Switch the libraries' telemetry off, before they are imported."""
    os.environ.update(_NO_TELEMETRY)


def go_offline() -> None:
    """Let nothing of this process ask the network; before the libraries are imported."""
    os.environ.update(_OFFLINE)


def is_offline() -> bool:
    """Whether --offline was given (or RAGTUNE_OFFLINE is set)."""
    return _is_set("RAGTUNE_OFFLINE")


def hub_is_offline() -> bool:
    """Whether the Hub must not be asked: nobody may be, or HF_HUB_OFFLINE is set."""
    constants = sys.modules.get("huggingface_hub.constants")  # once imported, it no longer looks
    hub = _is_set("HF_HUB_OFFLINE") if constants is None else bool(constants.HF_HUB_OFFLINE)
    return is_offline() or hub


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() not in ("", "0", "false", "no", "off")


def require_network(what: str, advice: str = "") -> None:
    """Refuse what needs a connection when there is to be none.

    Raises:
        UsageError: --offline was given.
    """
    if is_offline():
        raise UsageError(
            f"{what}, and --offline allows no connection.",
            advice or "Leave out --offline (and RAGTUNE_OFFLINE).",
        )


def require_local_trackers(names: list[str]) -> None:
    """Refuse trackers that would send anything, with --offline. Raises as `require_network` does."""
    for name in names:
        if name not in _LOCAL_TRACKERS and (name != "trackio" or _trackio_is_sent()):
            require_network(f"train.report_to: {name} may send what it tracks", "Or leave it out.")


def _trackio_is_sent() -> bool:
    """Whether the environment names a Space, a bucket, a data set or a server for what Trackio writes."""
    return any(
        value and name.startswith("TRACKIO_") and name.endswith(("_ID", "_URL"))
        for name, value in os.environ.items()
    )
