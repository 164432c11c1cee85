"""The audit of what ragtune depends on can fail, and says it when it checked nothing."""

from __future__ import annotations

import email.message
import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "audit.py"


@pytest.fixture
def audit() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package(name: str, **fields: str) -> Any:
    metadata = email.message.Message()
    metadata["Name"] = name
    for field, value in fields.items():
        metadata[field.replace("_", "-")] = value
    return types.SimpleNamespace(metadata=metadata, version="1.0+cpu")


def test_the_licences_of_what_is_installed_are_known(
    audit: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main(["licences"]) == 0, capsys.readouterr().err
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert {"torch", "transformers", "peft", "numpy", "Jinja2", "hf-xet"} <= listed
    assert "ragtune" not in listed


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"License_Expression": "MIT"}, 0),
        ({"License_Expression": "MIT AND (Apache-2.0 WITH LLVM-exception OR GPL-3.0-only)"}, 0),
        ({"License_Expression": "GPL-3.0-or-later OR MIT"}, 0),
        ({"License": "BSD 3-Clause\nmore"}, 0),
        ({"Classifier": "License :: OSI Approved :: Apache Software License"}, 0),
        ({"License_Expression": "GPL-3.0-only"}, 1),
        ({"License_Expression": "MIT AND AGPL-3.0-only"}, 1),
        ({"Classifier": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"}, 1),
        ({"Classifier": "License :: Other/Proprietary License"}, 1),
        ({"License": "see LICENSE"}, 1),
        ({}, 1),
    ],
)
def test_a_licence_that_does_not_go_together_fails(
    audit: types.ModuleType, fields: dict[str, str], code: int
) -> None:
    assert audit.licences(iter([package("x", **fields)])) == code
    assert audit.licences(iter([package("nvidia-x", **fields)])) == 0  # is listed as looked at


def answers(monkeypatch: pytest.MonkeyPatch, audit: types.ModuleType, out: str, code: int) -> None:
    def run(command: list[str], **_: Any) -> Any:
        listed = Path(command[command.index("-r") + 1]).read_text("utf-8")
        assert listed == "a==1.0\nb==1.0\n"
        assert "--strict" in command
        return subprocess.CompletedProcess(command, code, out, "pip-audit says why")

    monkeypatch.setattr(audit.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(audit.subprocess, "run", run)


def checked(*faults: str) -> str:
    found = [{"name": n, "version": "1.0", "vulns": []} for n in ("a", "b")]
    found[0]["vulns"] = [{"id": fault} for fault in faults]
    return json.dumps({"dependencies": found})


@pytest.mark.parametrize(
    ("out", "theirs", "code", "said"),
    [
        (checked(), 0, 0, "2 dependencies checked, 0 known vulnerabilities"),
        (checked("CVE-1"), 1, 1, "a 1.0: CVE-1"),
        (checked(), 1, 1, "2 dependencies checked"),
        ("", 1, 3, "NOTHING WAS CHECKED: pip-audit says why"),
        ('{"dependencies": []}', 0, 3, "of 2 packages only 0 were looked up"),
        ('{"dependencies": [{"name": "a", "skip_reason": "x"}, {"name": "b", "vulns": []}]}', 0, 3, "NOTHING"),
    ],
)  # fmt: skip
def test_what_the_service_says(
    audit: types.ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    out: str,
    theirs: int,
    code: int,
    said: str,
) -> None:
    answers(monkeypatch, audit, out, theirs)
    assert audit.vulnerabilities(iter([package("a"), package("b")])) == code
    captured = capsys.readouterr()
    assert said in captured.out + captured.err


def test_without_the_tool_or_its_service_nothing_is_checked_and_that_is_no_pass() -> None:
    """Both ways end the same; the service can't be reached through a proxy that isn't there."""
    nowhere = "http://127.0.0.1:9"
    environment = {**os.environ, "HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere, "NO_PROXY": ""}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "vulnerabilities"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment | {"https_proxy": nowhere, "no_proxy": ""},
    )
    assert done.returncode == 3
    assert "NOTHING WAS CHECKED" in done.stderr
    assert "no pass" in done.stderr
