"""The trackers of train.report_to: which there are, and whether they are installed."""

from __future__ import annotations

from transformers.integrations import integration_utils

from ragtune.base.errors import UsageError
from ragtune.base.network import require_local_trackers
from ragtune.base.text import nearest

PACKAGES = {
    "azure_ml": "azureml-core",
    "comet_ml": "comet_ml",
    "dagshub": "dagshub mlflow",
    "flyte": "flytekit flytekitplugins-deck-standard",
}
"""What pip calls a tracker's package, where it is not the tracker's name."""

_NONE = "For no tracker set train.report_to=[]."


def require_trackers(names: list[str]) -> None:
    """Let only those trackers be in `train.report_to` that transformers knows and that are installed.

    Raises:
        UsageError: one is unknown, not installed, or would need the network with --offline.
    """
    if not names:
        return
    known = sorted(integration_utils.INTEGRATION_TO_CALLBACK)
    for name in names:
        if name not in known:
            near = nearest(name.lower(), known)
            raise UsageError(
                f"train.report_to: transformers knows no tracker {name}.",
                (f"Did you mean {near}? " if near else "")
                + f"Known are {', '.join(known)}. {_NONE}",
            )
    require_local_trackers(names)
    available = set(integration_utils.get_available_reporting_integrations())
    if integration_utils.is_flytekit_available():  # which that list leaves out
        available.add("flyte")
    missing = [name for name in dict.fromkeys(names) if name not in available]
    if "kubeflow" in missing:
        raise UsageError(
            "train.report_to: kubeflow reports to the job that a Kubeflow Trainer runs, and this is none.",
            f"Start it there, or leave kubeflow out. {_NONE}",
        )
    if missing:
        packages = " ".join(PACKAGES.get(name, name) for name in missing)
        raise UsageError(
            f"train.report_to: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed.",
            f"Run: pip install {packages}. {_NONE}",
        )
