"""The trackers of train.report_to: which there are, and whether they are installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import Trainer
from transformers.integrations import integration_utils

from ragtune.base.commands import install
from ragtune.base.errors import UsageError
from ragtune.base.text import nearest
from ragtune.base.web.network import require_local_trackers

PACKAGES = {
    "azure_ml": ("azureml-core",),
    "dagshub": ("dagshub", "mlflow"),
    "flyte": ("flytekit", "flytekitplugins-deck-standard"),
}
"""What pip calls a tracker's packages, where it is not the tracker's name."""

_UNKNOWN = (
    "Which package that needs is not known to ragtune: transformers' page of callbacks says it."
)


@contextmanager
def keeping_logs(trainer: Trainer, folder: Path) -> Iterator[None]:
    """Keep here what trackers would write into the unfinished work: TensorBoard's events, files of others."""
    for callback in trainer.callback_handler.callbacks:
        # Else TENSORBOARD_LOGGING_DIR says where.
        if isinstance(callback, integration_utils.TensorBoardCallback) and not callback.logging_dir:
            callback.logging_dir = str(folder)
    try:
        yield
    finally:
        # Checkpoints are folders; CodeCarbon's emissions.csv is a file, and it is told no other place.
        for file in [p for p in Path(trainer.args.output_dir).glob("*") if p.is_file()]:
            folder.mkdir(parents=True, exist_ok=True)
            file.replace(folder / file.name)


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
        how = install(*(package for name in missing for package in PACKAGES.get(name, (name,))))
        raise UsageError(
            f"train.report_to: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed.",
            f"{f'Run: {how}.' if how else _UNKNOWN} {_NONE}",
        )
