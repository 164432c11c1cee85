"""What is no plain file, or larger than meant, is refused at once: nothing is waited for, nothing is filled."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ragtune
from ragtune.answering.prediction import Prediction, partial_line, read_partial
from ragtune.base import lock
from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import read_json, read_jsonl
from ragtune.base.lock import Holder, locked, refusal
from ragtune.base.reading import open_plain, read_bytes, read_text
from ragtune.data.read import read_examples
from ragtune.model.safety import require_safe_folder
from ragtune.recipe.load import load_recipe
from ragtune.recipe.template import read_template
from ragtune.store.proof import damage
from ragtune.store.seal import sealed

pytestmark = pytest.mark.timeout(60)

TERABYTE = 1 << 40


def sparse(path: Path) -> None:
    """A file of terabytes that takes no room."""
    with path.open("wb") as file:
        file.truncate(TERABYTE)


def device(name: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(name)


STRANGE = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "zeros": device("/dev/zero"),
    "random": device("/dev/random"),
    "large": sparse,
}


@pytest.fixture(params=STRANGE)
def strange(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        STRANGE[request.param](path)
        return path

    return make


Make = Callable[[Path], Path]


def test_bytes_and_text(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a\r\nb\rc\n")
    assert read_text(path, 7) == "a\nb\nc\n"
    assert read_bytes(path, 7) == b"a\r\nb\rc\n"
    with pytest.raises(OSError, match="more than 1 KiB"):
        read_bytes(path, 6)
    (tmp_path / "link").symlink_to(path)  # what a user names may be a link
    assert open_plain(tmp_path / "link").read() == b"a\r\nb\rc\n"


def test_a_recipe(strange: Make, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"recipe\.yaml (is a folder|can't be read: it (is no|has))"
    ):
        load_recipe(strange(tmp_path / "recipe.yaml"))


def test_a_template(strange: Make, tmp_path: Path) -> None:
    path = str(strange(tmp_path / "a.jinja"))
    with pytest.raises(
        UsageError, match=r"prompt\.template: .*a\.jinja can't be read \(it (is|has)"
    ):
        read_template(path, "prompt.template")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz", "a.parquet"])
def test_data_and_predictions(strange: Make, tmp_path: Path, name: str) -> None:
    path = str(strange(tmp_path / name))
    words = r"is (a folder|no plain file)|can't be read|a line of more than|not JSON"
    with pytest.raises(UsageError, match=words):
        list(read_examples(path, ""))
    record = {"qid": "q", "question": "?", "answers": ["a"], "passages": [{"text": "a"}]}
    (tmp_path / "eval.jsonl").write_text(json.dumps(record))
    recipe = {
        "name": "x",
        "model": {"id": "a/b"},
        "data": {"train": "sample:squad2.train", "eval": str(tmp_path / "eval.jsonl")},
        "prompt": {"preset": "english"},
        "train": {"steps": 1, "batch_size": 1, "learning_rate": 0.1},
    }
    with pytest.raises(UsageError, match=words):
        ragtune.evaluate(recipe, run_dir=tmp_path / "run", predictions=path)


def test_what_ragtune_wrote(strange: Make, tmp_path: Path) -> None:
    path = strange(tmp_path / "stage.json")
    with pytest.raises(RagtuneError, match=r"stage\.json can't be read: it (is|has)"):
        read_json(path)
    assert "stage.json can't be read" in str(damage(tmp_path))
    strange(tmp_path / "manifest.json")
    assert sealed(tmp_path) is None
    with pytest.raises((RagtuneError, OSError), match=r"line|it is"):
        list(read_jsonl(path))


@pytest.mark.parametrize("name", ["run.lock", "lock.json"])
def test_a_lock(strange: Make, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEASE", 3.0)
    monkeypatch.setattr(lock, "BEAT", 1.0)
    path = strange(tmp_path / name)
    before = os.lstat(path).st_ino
    if path.is_file() and not path.is_symlink():
        with locked(tmp_path):  # damaged, so taken over
            assert (tmp_path / "run.lock").stat().st_size < 1000
        assert (name == "lock.json") == path.exists()
    else:
        with pytest.raises(UsageError, match=f"{name} is no lock: it is"), lock.locked(tmp_path):
            pass
        assert os.lstat(path).st_ino == before


@pytest.mark.parametrize(
    "text",
    [
        '{"pid": 1, "host": ["x"], "token": {}}', "{" + '"a":{' * 600, "[" * 4000, "pid=" + "9" * 4000,
        "pid=99999999999999999999\nhost=x\ntoken=t\n", "pid=-1\nhost=x\ntoken=t\n",
        "pid=1\nhost=x\ntoken=t\nsince=1e400\n", "pid=1\nhost=x\ntoken=t\nsince=nan\n", "\0" * 4000, "=" * 4000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["run.lock", "lock.json"])
def test_a_lock_that_says_what_no_lock_says(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert lock._read(tmp_path / name) == Holder()
    told = str(refusal(tmp_path))
    assert told == "None" if name == "lock.json" else "process ? on an unknown host" in told


def test_a_lock_file_of_somebody_else_is_left_there(tmp_path: Path) -> None:
    """A project's lock.json: --run-dir may be any folder."""
    own = tmp_path / "lock.json"
    own.write_text('{"packages": []}')
    os.utime(own, (1, 1))
    with locked(tmp_path):
        pass
    assert own.read_text() == '{"packages": []}'


def test_a_model_with_settings_without_end(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    sparse(tmp_path / "tokenizer.json")
    with pytest.raises(UsageError, match=r"tokenizer\.json has 1024\.0 GiB: no model's"):
        require_safe_folder(tmp_path)


def test_answers_that_were_kept(tmp_path: Path, capsys: pytest.CaptureFixture[Any]) -> None:
    path = tmp_path / "before.jsonl"
    one = Prediction("q", "a", [1], True)
    path.write_text(partial_line(one))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(TERABYTE)
    assert list(read_partial(path)) == [one]
    assert path.stat().st_size == size
