"""The recipes that people copy, as they are written: with stand-ins for who starts things on a cluster."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.distributed.run import get_args_parser

from ragtune import __version__
from tests.ports import free_port
from tests.ready import Ready

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
NOTES = """\
#!{python}
import json, os, sys
with open({file!r}, "w") as file:
    json.dump([sys.argv[1:], dict(os.environ)], file)
"""
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def began(
    command: list[str], starter: str, folder: Path, **environment: str
) -> tuple[list[str], dict[str, str]]:
    """What a command begins with a program, which only notes it: arguments and environment."""
    noted, programs = folder / "noted.json", folder / "programs"
    programs.mkdir()
    made = {
        starter: NOTES.format(python=sys.executable, file=str(noted)),
        "scontrol": '#!/bin/sh\n[ "$*" = "show hostnames node[1-2]" ] && printf "node1\\nnode2\\n"\n',
    }
    for name, text in made.items():
        (programs / name).write_text(text, "utf-8")
        (programs / name).chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    done = subprocess.run(
        command, env=os.environ | environment | {"PATH": path}, cwd=folder,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    arguments, found = json.loads(noted.read_text("utf-8"))
    return arguments, found


def test_slurm_s_tasks_are_a_run(ready: Ready, tiny_recipe: dict[str, Any], tmp_path: Path) -> None:
    """With the port of the tests, and on this machine, which the others are called by as well."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe), "utf-8")
    script, given = str(RECIPES / "slurm.sbatch"), [str(recipe), "train.steps=1"]
    job = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "1234567"}
    arguments, environment = began(["bash", script, *given], "srun", tmp_path, **job)
    where = {name: environment[name] for name in ("MASTER_ADDR", "MASTER_PORT")}
    assert where == {"MASTER_ADDR": "node1", "MASTER_PORT": "34567"}
    options, module = arguments[:2], arguments[2:5]
    assert options == ["--kill-on-bad-exit=1", "--cpus-per-task=1"]
    assert module == ["python", "-m", "ragtune"]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "0", "GLOO_SOCKET_IFNAME": "lo"}
    tasks = [
        ready.start(
            arguments[5:], tmp_path, SLURM_PROCID=str(n), SLURM_LOCALID=str(n), **job, **step, **where
        )
        for n in (0, 1)
    ]  # fmt: skip
    first, second = (task.communicate() for task in tasks)
    assert [task.wait() for task in tasks] == [0, 0], first[1]
    assert "2 ranks share the work." in first[0]
    assert second == ("", "")
    assert (tmp_path / "runs" / "tiny" / "report.html").is_file()


@pytest.mark.parametrize("node", [0, 1])
def test_skypilot_s_nodes_begin_torchrun(tmp_path: Path, node: int) -> None:
    found = yaml.safe_load((RECIPES / "skypilot.yaml").read_text("utf-8"))
    sky = {
        "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": str(node), "SKYPILOT_NUM_GPUS_PER_NODE": "8",
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", **found["envs"], "RUNS": "/shared runs",
    }  # fmt: skip
    arguments, _ = began(["bash", "-euc", found["run"]], "torchrun", tmp_path, **sky)
    told = get_args_parser().parse_args(arguments)
    assert (told.nnodes, told.node_rank, told.nproc_per_node) == ("2", node, "8")
    assert (told.master_addr, told.master_port) == ("10.0.0.1", 29500)
    assert (told.module, told.training_script) == (True, "ragtune")
    assert told.training_script_args == ["run", "recipe.yaml", "--run-dir", "/shared runs/recipe"]
    (extra,) = re.findall(r"pip install -e '\.\[(\w+)\]'", found["setup"])
    assert extra in EXTRAS["optional-dependencies"]


def test_hugging_face_s_job_is_one_that_its_program_takes(tmp_path: Path) -> None:
    page = (RECIPES / "hf-job.md").read_text("utf-8")
    hf = shutil.which("hf", path=str(Path(sys.executable).parent))
    if hf is None:
        pytest.skip("huggingface_hub's program is not installed")
    (written,) = re.findall(r"^hf (jobs run .*?)\n```", page, re.MULTILINE | re.DOTALL)
    arguments = shlex.split(written.replace("\\\n", " "))
    arguments.insert(2, "--dry-run")
    (tmp_path / "job").mkdir()
    done = subprocess.run(
        [hf, *arguments], env=os.environ | {"HF_TOKEN": "hf_none", "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    inside = arguments[-1]
    assert subprocess.run(["bash", "-nc", inside], check=False).returncode == 0
    assert inside.endswith("ragtune run recipe.yaml --run-dir /runs/my-run")
    wheels = {*re.findall(r"ragtune-[\w.]+?-py3-none-any\.whl", page)}
    assert wheels == {f"ragtune-{__version__}-py3-none-any.whl"}
    (extra,) = re.findall(r"\.whl\[(\w+)\]", inside)
    assert extra in EXTRAS["optional-dependencies"]
