"""Which ranks begin at once with a command, and that `Ranks` takes or ends them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ragtune
from ragtune.base.errors import RagtuneError
from ragtune.cli import main
from ragtune.distributed import followers
from ragtune.distributed.place import Place
from ragtune.recipe.load import load_recipe
from ragtune.stages import early
from ragtune.stages.ranks import Ranks
from ragtune.store import inputs

FOLLOW = "ragtune.stages.begin"


@pytest.fixture
def recipe(tiny_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """On a machine with so many processors, and without a GPU."""
    monkeypatch.setattr(early, "_DEVICES", tmp_path)
    monkeypatch.setattr("ragtune.stages.early.cores", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe), "utf-8")
    return path


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What begins early, which here is nothing but written down."""
    found: list[tuple[object, ...]] = []

    @contextmanager
    def note(*given: object) -> Iterator[None]:
        found.append(given)
        yield

    monkeypatch.setattr(early, "early", note)
    for command in ("run", "train", "evaluate", "merge", "check", "prepare", "report"):
        monkeypatch.setitem(vars(ragtune), command, _does_nothing)
    return found


def _does_nothing(*_: object, **__: object) -> Any:
    raise RagtuneError("Nothing is done here.")


def command(*arguments: str) -> None:
    with pytest.raises(SystemExit):
        main(list(arguments))


@pytest.mark.usefixtures("begun")
def test_the_models_files_are_read_while_libraries_are_imported(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless their checksums are there: the first stage keeps them."""
    ahead: list[str] = []
    monkeypatch.setattr(inputs, "read_ahead", lambda one: ahead.append(one.name))
    command("run", str(recipe), "--run-dir", str(tmp_path / "run"))
    assert ahead == ["tiny"]
    (tmp_path / "run" / "data").mkdir(parents=True)
    command("run", str(recipe), "--run-dir", str(tmp_path / "run"))
    assert ahead == ["tiny"]


@pytest.mark.parametrize("name", ["run", "train", "evaluate", "merge"])
def test_they_begin_with_a_command_that_shares_its_work(
    recipe: Path, begun: list[tuple[object, ...]], name: str
) -> None:
    command(name, str(recipe), "devices=2")
    command(name, str(recipe), "devices=[3, 0, 1]", "--run-dir", "elsewhere")
    assert begun == [([0, 1], FOLLOW), ([3, 0, 1], FOLLOW)]


def test_they_are_told_what_they_would_be_told_later(
    recipe: Path, begun: list[tuple[object, ...]]
) -> None:
    changes = ("devices=2", "train.optimizer=adamw_8bit")
    command("run", str(recipe), *changes)
    assert begun == [([0, 1], FOLLOW, "ahead")]
    with Ranks(load_recipe(recipe, [*changes])) as ranks:
        assert ranks._followers.command == [FOLLOW, "ahead"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "recipe.yaml"),
        ("run", "recipe.yaml", "devices=1"),
        ("run", "recipe.yaml", "devices=9"),  # more than there are processors
        ("run", "recipe.yaml", "devices=[1, 1]"),
        ("run", "recipe.yaml", "devices=2", "train.stps=3"),
        ("run", "missing.yaml", "devices=2"),
        ("evaluate", "recipe.yaml", "devices=2", "--predictions", "theirs.jsonl"),
        ("evaluate", "recipe.yaml", "devices=2", "evaluate.engine=openai",
         "evaluate.endpoint=http://127.0.0.1:1/v1", "evaluate.served_before=a", "evaluate.served_after=b"),
        ("check", "recipe.yaml", "devices=2"),
        ("prepare", "recipe.yaml", "devices=2"),
        ("report", "recipe.yaml", "devices=2"),
    ],
)  # fmt: skip
def test_nothing_begins_where_it_is_not_sure_that_work_will_be_shared(
    recipe: Path, begun: list[tuple[object, ...]], arguments: tuple[str, ...]
) -> None:
    command(*arguments)
    assert begun == []


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("run", "adapter"),
        ("train", "adapter"),
        ("evaluate", "eval/eval/after"),
        ("merge", "merged"),
    ],
)
def test_nothing_begins_where_what_is_asked_for_is_there(
    recipe: Path, begun: list[tuple[object, ...]], name: str, made: str
) -> None:
    (recipe.parent / "runs" / "tiny" / made).mkdir(parents=True)
    command(name, str(recipe), "devices=2")
    assert begun == []
    command(name, str(recipe), "devices=2", "--run-dir", "another")
    assert len(begun) == 1


def test_nothing_begins_beside_what_a_launcher_started(
    recipe: Path, begun: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early, "take_place", lambda: Place(0, 2, 0, "node0", 29500))
    command("run", str(recipe), "devices=2")
    assert begun == []


@pytest.mark.parametrize(
    ("there", "visible", "devices"),
    [
        (0, None, None),
        (1, None, None),
        (3, None, [0, 1, 2]),
        (11, None, None),  # of eight processors
        (4, "2,3", [0, 1]),
        (4, "3", None),
        (4, "", None),
        (4, "-1", None),
        (4, "0,0", None),
        (4, "0, 1", None),
        (1, "0,1", None),
        (4, "GPU-5,GPU-6", None),
        (4, "MIG-7/1/0", None),
    ],
)
def test_gpus_are_counted_without_torch(
    recipe: Path,
    begun: list[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
    there: int,
    visible: str | None,
    devices: list[int] | None,
) -> None:
    for name in ("nvidiactl", "nvidia-uvm", *(f"nvidia{number}" for number in range(there))):
        (recipe.parent / name).touch()
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    command("run", str(recipe))
    assert begun == ([(devices, FOLLOW)] if devices else [])


@pytest.mark.parametrize(
    ("devices", "expected"),
    [("2", [0, 1]), ("[1, 0]", [1, 0]), ("3", None), ("[0, 2]", None)],
)
def test_gpus_that_are_not_there_are_left_to_the_command(
    recipe: Path, begun: list[tuple[object, ...]], devices: str, expected: list[int] | None
) -> None:
    for number in range(2):
        (recipe.parent / f"nvidia{number}").touch()
    command("run", str(recipe), f"devices={devices}")
    assert begun == ([(expected, FOLLOW)] if expected else [])


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The ranks that are started: they only wait to be told something."""
    found: list[subprocess.Popen[bytes]] = []

    def start(*_: object) -> followers.Follower:
        waits = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]
        found.append(subprocess.Popen(waits, stdin=subprocess.PIPE))
        hears = found[-1].stdin
        assert hears is not None
        return followers.Follower(found[-1], hears, tempfile.TemporaryFile())

    monkeypatch.setattr(followers, "start", start)
    return found


@pytest.mark.parametrize(("there", "taken"), [(0, True), (3, True), (1, False), (2, False)])
def test_ranks_takes_them_or_ends_them(
    recipe: Path,
    processes: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    there: int,
    taken: bool,
) -> None:
    """They end at once where torch finds others than the system has, and with the command in any case."""
    asked = "devices=3" if there == 0 else "devices=all"
    for number in range(3 if there else 0):
        (recipe.parent / f"nvidia{number}").touch()
    seen = []

    def run(*_: object, **__: object) -> None:
        assert len(processes) == 2
        monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with Ranks(load_recipe(recipe, [asked])) as ranks:
            ranks._followers.begin()
            seen.append([one.poll() is None for one in processes])
        raise RagtuneError("What it had to do failed.")

    monkeypatch.setitem(vars(ragtune), "run", run)
    with pytest.raises(SystemExit) as raised:
        main(["run", str(recipe), asked])
    assert raised.value.code == 1
    begun_later = [] if taken else [True] * (there - 1)
    assert seen == [[taken] * 2 + begun_later]
    assert all(one.returncode is not None for one in processes[:2])
    for one in processes[2:]:  # those of a `Ranks` that was left before it met them
        one.kill()
        one.communicate()


def test_a_rank_ends_where_nobody_is_that_could_tell_it_anything() -> None:
    """Also while it imports: what it would import takes longer than it lives."""
    begun = [sys.executable, "-P", "-m", "ragtune.stages.begin"]
    done = subprocess.run(begun, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
