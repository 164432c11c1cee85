"""What can be tried here of Windows: names, refused renames, missing system calls, consoles, command lines."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import pytest

from ragtune.base import commands, windows
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.data.read import locate
from ragtune.recipe.load import load_recipe
from ragtune.store.folder import RunFolder
from ragtune.store.sets import set_name
from tests.test_house import SRC, modules, name_of

RECIPE = {
    "name": "x", "model": {"id": "a/b"}, "data": {"train": "a.jsonl", "eval": "b.jsonl"},
    "prompt": {"preset": "aio"}, "train": {"steps": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    "name", ["con", "CON", "nul.x", "Aux", "COM1", "lpt9.tar.gz", "prn.", "run."]
)
def test_a_name_that_windows_reserves_is_refused_on_every_system(name: str) -> None:
    with pytest.raises(
        UsageError, match=r"name: Windows can have no folder '.*', and runs are copied"
    ):
        load_recipe(RECIPE | {"name": name})


@pytest.mark.parametrize("name", ["console", "com10", "a.con", "nulls", "com"])
def test_other_names_are_not(name: str) -> None:
    assert load_recipe(RECIPE | {"name": name}).name == name


def test_a_name_that_can_t_be_seen_is_refused() -> None:
    with pytest.raises(UsageError, match=r"has characters that can't be seen"):
        load_recipe(RECIPE | {"name": "a\u200db"})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (r"C:\data\aux.jsonl", "aux-set"),
        ("con.parquet", "con-set"),
        (r"D:\x\y.JSONL.gz", "y"),
        ("C:eval.json", "C-eval"),
        ("a/b:test", "b-test"),
        ('x<>|?*".jsonl', "x"),
    ],
)
def test_an_evaluation_set_s_folder_can_be_made_there(source: str, expected: str) -> None:
    recipe = load_recipe(RECIPE, [f"data.eval={source}"])
    assert set_name(recipe) == expected
    folder = RunFolder(Path("runs/x"), set_name(recipe))
    for path in (p for p in vars(folder).values() if isinstance(p, Path)):
        assert not any(windows.is_reserved(p) or re.search(r'[<>:"|?*]', p) for p in path.parts)


def test_paths_of_windows_in_a_recipe(tmp_path: Path) -> None:
    path = r"C:\data\new\train.jsonl"
    recipe = load_recipe(RECIPE, [f"data.train={path}", f"model.id={path}"])
    assert recipe.data.train == recipe.model.id == path
    assert PureWindowsPath(path).name == "train.jsonl"
    for source in (path, "C:/data/x.jsonl", "C:x", r"\\server\share\x.jsonl"):
        with pytest.raises(UsageError, match="does not exist"):
            locate(source)
    with pytest.raises(UsageError) as raised:
        locate("C:\new\train.jsonl")  # what YAML makes of it in double quotes
    assert "single quotes" in raised.value.advice
    bad = tmp_path / "recipe.yaml"
    bad.write_text('data: {train: "C:\\data\\x.jsonl"}\n', "utf-8")
    with pytest.raises(UsageError) as raised:
        load_recipe(bad)
    assert "unknown escape character" in raised.value.message
    assert "single quotes" in raised.value.advice


def test_a_rename_that_is_refused_for_a_moment_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, replace, refused = tmp_path / "a", Path.replace, []
    source.write_text("x", "utf-8")

    def held(path: Path, target: Path) -> Path:
        if len(refused) < 3:
            refused.append(path)
            raise PermissionError(13, "The process cannot access the file", str(path))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", held)
    monkeypatch.setattr(windows, "_PAUSES", (0, 0, 0, 0))
    with pytest.raises(PermissionError):
        windows.rename(source, tmp_path / "b")
    monkeypatch.setattr(windows, "WINDOWS", True)
    windows.rename(source, tmp_path / "b")
    assert len(refused) == 3
    assert (tmp_path / "b").read_text("utf-8") == "x"


def test_commands_are_those_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("ragtune", "push", r"C:\my runs\x", r"C:\a&b", r"C:\x", "publish.repo=a/b")
    quoted = r"ragtune push 'C:\my runs\x' 'C:\a&b' 'C:\x' publish.repo=a/b"
    assert commands.command_line(*words) == quoted
    monkeypatch.setattr(commands, "WINDOWS", True)
    quoted = r'ragtune push "C:\my runs\x" "C:\a&b" C:\x publish.repo=a/b'
    assert commands.command_line(*words) == quoted


def test_a_path_that_is_too_long_is_told() -> None:
    from ragtune.base.errors import lost_disk

    error = FileNotFoundError(2, "The filename or extension is too long", "C:\\x")
    error.winerror = windows.TOO_LONG  # type: ignore[attr-defined]
    told = lost_disk(error)
    assert isinstance(told, RagtuneError)
    assert "a name is too long for the file system" in told.message


def test_ctrl_break_stops_as_ctrl_c_does_and_no_alarm_is_needed() -> None:
    """In a process whose `signal` has what Windows has: another signal stands for SIGBREAK."""
    code = (
        "import signal, os, sys\n"
        "signal.SIGBREAK = signal.SIGUSR1\n"
        "del signal.SIGALRM, signal.setitimer, signal.SIGKILL, signal.SIGHUP\n"
        "from ragtune.base import stopping\n"
        "stopping.install()\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "except stopping.Stopped:\n"
        "    code = stopping.farewell(['train', 'x'])\n"
        "stopping.uninstall()\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode > 128
    assert done.stderr == (
        "\nStopped by Ctrl-Break. What is finished is kept. The same command goes on: ragtune train x\n"
    )


POSIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": r"O_(NOFOLLOW|DIRECTORY|CLOEXEC|NONBLOCK|SYNC|NOCTTY|PATH|TMPFILE)|f?chown|lchown|fchmod|fork(pty)?|killpg"
    r"|get(e?[ug]id|pgid|sid|loadavg|groups|pgrp|priority)|set(e?[ug]id|sid|pgid)|f?statvfs|nice|uname|mkfifo|mknod"
    r"|sched_\w+|posix_\w+|p(read|write)v?|sendfile|sysconf|wait[34]|W[A-Z]+|pathconf|fdatasync|sync|EX_\w+"
    r"|openpty|ttyname|\w*xattr",
    "signal": r"SIG(KILL|HUP|USR[12]|ALRM|CHLD|PIPE|QUIT|STOP|CONT|TSTP|WINCH)|alarm|[gs]etitimer|ITIMER_\w+|pause"
    r"|pthread_\w+|sig\w+",
    "socket": r"AF_UNIX|socketpair|send_fds|recv_fds",
    "time": r"tzset|pthread_\w+",
}
GUARDS = ("hasattr", "WINDOWS", "os.name", "sys.platform", "_ALARM")


def unguarded(tree: ast.AST, guarded: bool = False) -> Iterator[str]:
    """What only POSIX has, outside of an `if` or a `try` that asks for it; `getattr` asks by itself."""
    if isinstance(tree, ast.If | ast.IfExp) and any(g in ast.unparse(tree.test) for g in GUARDS):
        guarded = True
    if isinstance(tree, ast.FunctionDef) and tree.name == "_look_again":  # called by an alarm
        return
    if isinstance(tree, ast.Try) and any("ImportError" in ast.unparse(h) for h in tree.handlers):
        guarded = True
    if isinstance(tree, ast.Import | ast.ImportFrom) and not guarded:
        names = (
            [a.name for a in tree.names] if isinstance(tree, ast.Import) else [tree.module or ""]
        )
        yield from POSIX_MODULES.intersection(names)
    if isinstance(tree, ast.Attribute) and isinstance(tree.value, ast.Name) and not guarded:
        pattern = POSIX_NAMES.get(tree.value.id)
        if pattern and re.fullmatch(pattern, tree.attr) and tree.attr not in ("W_OK", "signal"):
            yield ast.unparse(tree)
    if (
        isinstance(tree, ast.keyword)
        and tree.arg in ("dir_fd", "src_dir_fd", "dst_dir_fd")
        and not guarded
    ):
        yield tree.arg
    for child in ast.iter_child_nodes(tree):
        yield from unguarded(child, guarded)


def test_nothing_that_only_posix_has_is_used_without_asking() -> None:
    found = {
        f"{name_of(path)}: {name}"
        for path in modules()
        for name in unguarded(ast.parse(path.read_text("utf-8")))
    }
    assert found == set()
    assert set(unguarded(ast.parse("import fcntl\nos.open(x, os.O_NOFOLLOW, dir_fd=3)\nsignal.SIGKILL"))) == {
        "fcntl", "os.O_NOFOLLOW", "dir_fd", "signal.SIGKILL",
    }  # fmt: skip
    assert not [
        *unguarded(ast.parse("if hasattr(os, 'fork'):\n    os.fork()\ngetattr(os, 'O_X', 0)"))
    ]


def test_every_file_is_opened_in_utf_8_and_no_name_is_replaced_around_the_retry() -> None:
    """Windows' own encoding is another; ruff's rule for that is still a preview."""
    ruff = Path(sys.executable).with_name("ruff")
    done = subprocess.run(
        [ruff, "check", "--preview", "--select", "PLW1514", "--no-cache", "--quiet", SRC],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    texts = [line for path in modules() for line in path.read_text("utf-8").splitlines()]
    assert [line for line in texts if ".write_text(" in line and "newline=" not in line] == []
    around = [
        name_of(path)
        for path in modules()
        if name_of(path) != "base/windows.py"
        and re.search(
            r"os\.(replace|rename)\(|\.replace\((path|place|target|old|aside)\)",
            path.read_text("utf-8"),
        )
    ]
    assert around == []
