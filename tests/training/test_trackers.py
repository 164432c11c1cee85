"""The trackers of train.report_to: known names, the nearest one, and the package to install."""

from __future__ import annotations

import pytest
from transformers.integrations import integration_utils

from ragtune.base.errors import UsageError
from ragtune.training.trackers import require_trackers


@pytest.fixture(autouse=True)
def _none_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", list)
    monkeypatch.setattr(integration_utils, "is_flytekit_available", lambda: False)


@pytest.mark.parametrize(
    ("name", "near"),
    [("wanbd", "wandb"), ("WandB", "wandb"), ("tensorbord", "tensorboard"), ("comet", "comet_ml")],
)
def test_a_misspelt_name_gets_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError) as raised:
        require_trackers([name])
    assert raised.value.message == f"train.report_to: transformers knows no tracker {name}."
    assert raised.value.advice.startswith(f"Did you mean {near}? Known are ")
    assert "pip install" not in raised.value.advice


def test_a_name_like_none_gets_the_list() -> None:
    with pytest.raises(UsageError) as raised:
        require_trackers(["xyz"])
    assert raised.value.advice.startswith("Known are ")
    assert raised.value.advice.endswith("For no tracker set train.report_to=[].")


@pytest.mark.parametrize(
    ("names", "said", "packages"),
    [
        (["wandb"], "wandb is not installed", "wandb"),
        (["azure_ml"], "azure_ml is not installed", "azureml-core"),
        (["dagshub", "wandb"], "dagshub, wandb are not installed", "dagshub mlflow wandb"),
    ],
)
def test_a_missing_one_gets_its_package(names: list[str], said: str, packages: str) -> None:
    with pytest.raises(UsageError) as raised:
        require_trackers(names)
    assert raised.value.message == f"train.report_to: {said}."
    assert raised.value.advice.startswith(f"Run: pip install {packages}. ")


def test_kubeflow_is_no_package() -> None:
    if "kubeflow" not in integration_utils.INTEGRATION_TO_CALLBACK:
        pytest.skip("this transformers knows no kubeflow")
    with pytest.raises(UsageError, match="this is none"):
        require_trackers(["kubeflow"])


def test_what_is_there_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        integration_utils, "get_available_reporting_integrations", lambda: ["wandb"]
    )
    require_trackers([])
    require_trackers(["wandb"])
