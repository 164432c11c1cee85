"""--offline makes no connection, and the libraries' telemetry is off without it, too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.errors import UsageError
from ragtune.base.web.network import is_offline, require_local_trackers, require_network
from ragtune.data import aio
from tests.safety.children import run_all, write_recipe

REFUSE_SOCKETS = """
import socket
def refuse(event, arguments):
    # Between a process and itself sockets have no address of the network.
    local = event == "socket.connect" and arguments[0].family == socket.AF_UNIX
    if not local and event in {
        "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
        "socket.sendto", "socket.sendmsg", "socket.bind", "urllib.Request", "http.client.connect",
    }:
        with open("connections", "a") as file:
            print(event, arguments[1:], file=file)
        raise ConnectionRefusedError("a connection was tried")
sys.addaudithook(refuse)
"""


def test_offline_makes_no_connection(tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    """The whole run, and everything that would need the network."""
    recipe = write_recipe(tmp_path / "r.yaml", tiny_recipe)
    served = ["evaluate.engine=openai", "evaluate.endpoint=http://localhost:1/v1"]
    names = ["evaluate.served_before=a", "evaluate.served_after=b"]
    off: dict[str, str | None] = {}
    commands = [
        (off, ["--offline", "run", recipe]),
        (off, ["report", recipe, "--offline"]),
        (off, ["--offline", "push", recipe, "publish.repo=alice/x"]),
        (off, ["--offline", "run", recipe, *served, *names, "name=served"]),
        (off, ["--offline", "run", recipe, "model.id=some/model", "name=model"]),
        (off, ["--offline", "run", recipe, "data.train=some/data", "name=data"]),
        (
            off,
            ["--offline", "run", recipe, "data.source=aio", "data.train=null", "data.eval=null", "name=aio"],
        ),
    ]  # fmt: skip
    environment = {
        "RAGTUNE_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "hf_" + "x" * 30,
        "NO_PROXY": "*",
    }
    out = tmp_path / "out"
    codes, _, errors = run_all(out, commands, environment, REFUSE_SOCKETS)
    connections = out / "connections"
    assert not connections.exists(), connections.read_text("utf-8")
    assert codes[:2] == [0, 0], errors
    assert all(codes[2:])
    assert "Publishing asks the Hub, and --offline allows no connection" in errors[2]
    assert "evaluate.engine: openai asks a server, and --offline" in errors[3]
    assert "some/model is not in the cache, and offline" in errors[4]
    assert "some/data can't be read" in errors[5]
    assert "has to be downloaded, and --offline" in errors[6]
    assert (out / "runs" / "tiny" / "report.html").exists()


def test_a_connection_would_be_noticed(tmp_path: Path) -> None:
    code = f"import sys\n{REFUSE_SOCKETS}\nsocket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert "a connection was tried" in done.stderr
    assert (tmp_path / "connections").exists()


def test_the_libraries_see_no_telemetry_and_no_network() -> None:
    code = (
        "import sys; from ragtune.cli import main\n"
        "try: main(['--offline', '--version'])\n"
        "except SystemExit: pass\n"
        "import huggingface_hub.constants as hub, datasets.config as data, os\n"
        "assert hub.HF_HUB_DISABLE_TELEMETRY and hub.HF_HUB_OFFLINE\n"
        "assert data.HF_HUB_OFFLINE and not data.HF_UPDATE_DOWNLOAD_COUNTS\n"
        "from transformers.utils import hub as theirs\n"
        "assert 'telemetry/off' in theirs.http_user_agent()\n"
        "assert os.environ['DISABLE_SAFETENSORS_CONVERSION'] == '1'\n"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_variable_is_the_option() -> None:
    code = "import ragtune, huggingface_hub.constants as hub; print(hub.HF_HUB_OFFLINE)"
    for value, offline in (("1", "True"), ("0", "False")):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**clean, "RAGTUNE_OFFLINE": value},
        )  # fmt: skip
        assert done.stdout.strip() == offline


def test_telemetry_is_off_however_the_package_is_used() -> None:
    code = "import ragtune, os; print(os.environ['HF_HUB_DISABLE_TELEMETRY'], os.environ['DO_NOT_TRACK'])"
    clean = {
        k: v for k, v in os.environ.items() if k not in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=True
    )
    assert done.stdout.split() == ["1", "1"]


def test_what_needs_the_network_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAGTUNE_CACHE", str(tmp_path))
    require_network("Asking")
    require_local_trackers(["mlflow"])
    for value in ("0", "false", ""):
        monkeypatch.setenv("RAGTUNE_OFFLINE", value)
        assert not is_offline()
    monkeypatch.setenv("RAGTUNE_OFFLINE", "1")
    with pytest.raises(UsageError, match=r"has to be downloaded, and --offline"):
        aio.fetch("eval", base_url="http://127.0.0.1:9")
    with pytest.raises(UsageError, match="mlflow may send"):
        require_local_trackers(["tensorboard", "mlflow"])
    require_local_trackers(["tensorboard", "wandb", "trackio"])
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/space")
    with pytest.raises(UsageError, match="trackio may send"):
        require_local_trackers(["trackio"])
