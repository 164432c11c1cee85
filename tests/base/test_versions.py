"""What `ragtune --version` tells of this machine, without importing torch."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from pathlib import Path
from types import ModuleType

import pytest

import ragtune
from ragtune.base import versions
from ragtune.cli import main


def rows(text: str) -> dict[str, str]:
    return {name: rest.strip() for name, _, rest in (x.partition(" ") for x in text.splitlines())}


def test_the_first_line_is_for_scripts_and_the_rest_for_a_bug_report(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert not end.value.code
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"ragtune {ragtune.__version__}"
    found = rows(out)
    assert found["python"].startswith(platform.python_version())
    assert found["transformers"] == importlib.metadata.version("transformers")
    assert found["torch"].startswith(importlib.metadata.version("torch"))
    assert {
        "system",
        "gpu",
        "peft",
        "accelerate",
        "datasets",
        "bitsandbytes",
        "tantivy",
    } <= found.keys()
    assert str(Path.home()) not in out


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> str:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    monkeypatch.setattr(versions, "_found", {})
    found = rows(versions.told("1.2"))
    assert found["ragtune"] == "1.2"
    assert found["torch"] == found["bitsandbytes"] == "not installed"


def test_versions_are_read_once_and_again_but_for_what_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = {"torch": "1", "liger-kernel": "1"}
    asked: list[str] = []

    def version(name: str) -> str:
        asked.append(name)
        if name == "triton":
            raise importlib.metadata.PackageNotFoundError
        return installed.get(name, "0")

    monkeypatch.setattr(versions, "_found", {})
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    monkeypatch.delitem(sys.modules, "liger_kernel", raising=False)
    first = versions.versions()
    assert installed.items() <= first.items()
    assert "triton" not in first
    installed |= {"torch": "2", "liger-kernel": "2"}
    first["torch"] = "3"  # a caller's own
    again = versions.versions()
    assert (again["torch"], again["liger-kernel"]) == ("1", "1")
    assert len(asked) == len({*asked})  # what isn't there is not looked for twice, either
    versions.read_again()
    found = versions.versions()
    assert (found["torch"], found["liger-kernel"]) == ("1", "2")

    class Forgetting(dict[str, str | None]):
        """As if another thread let them be read again, between any two steps."""

        def __setitem__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(versions, "_found", Forgetting())
    assert versions.versions()["torch"] == "2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", "CUDA 13.0"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '7.2.1'\n", "ROCm 7.2.1"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", "without CUDA"),
        (None, "no torch/version.py"),
    ],
)
def test_for_which_cuda_torch_was_built(
    text: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "version.py"
    if text is not None:
        file.write_text(text, "utf-8")
    monkeypatch.setattr(importlib.metadata.Distribution, "locate_file", lambda *_: file)
    monkeypatch.setattr(importlib.metadata.PathDistribution, "locate_file", lambda *_: file)
    assert f"({said})" in rows(versions.told("1"))["torch"]


@pytest.mark.skipif(
    sys.platform == "win32", reason="a shell's script stands for the driver's program"
)
@pytest.mark.parametrize(
    ("script", "patience", "said"),
    [
        (
            'echo "NVIDIA H200, 143771 MiB, 570.1"; echo "NVIDIA H200, 143771 MiB, 570.1"',
            60,
            "NVIDIA H200, 143771 MiB, 570.1; NVIDIA H200, 143771 MiB, 570.1",
        ),
        ('echo "couldn\'t communicate with the driver"; exit 9', 60, "nvidia-smi names none"),
        ("exec sleep 600", 0.3, "nvidia-smi didn't answer (TimeoutExpired)"),
    ],
)
def test_the_gpus_are_the_drivers(
    script: str, patience: float, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(versions, "_PATIENCE", patience)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert rows(versions.told("1"))["gpu"] == said
