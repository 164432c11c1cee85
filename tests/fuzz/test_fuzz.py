"""The readers, against a corpus of malformed inputs, Hypothesis, atheris, and inputs without end.

Longer, by hand: python -m tests.fuzz.run --minutes 10
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ragtune.base.errors import RagtuneError
from tests.fuzz.inputs import FAILED, corpus
from tests.fuzz.readers import KINDS, NoPlaceError, Reader
from tests.fuzz.run import Outcome, with_atheris, with_hypothesis

AT_LEAST = 500
"""Malformed inputs that the corpus must hold."""


def test_the_corpus_is_large_and_the_same_every_time() -> None:
    first = corpus()
    assert first == corpus()
    names = [(i.kind, i.name) for i in first]
    assert len(set(names)) == len(names)
    assert len({(i.kind, i.content) for i in first}) >= AT_LEAST
    assert {i.kind for i in first} == set(KINDS)
    assert FAILED.stat().st_size < 200_000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(120)
def test_the_corpus_ends_in_records_or_a_message(kind: str, tmp_path: Path) -> None:
    reader = Reader(kind, tmp_path)
    refused = 0
    for known in corpus():
        if known.kind == kind:
            try:
                refused += reader(known.content) is not None
            except Exception as error:
                raise AssertionError(f"{kind}, {known.name}: {error!r}") from error
    assert refused >= 20  # the inputs are malformed indeed


def test_a_reader_that_fails_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader("jsonl", tmp_path)

    def crash() -> None:
        raise KeyError("x")

    def without_place() -> None:
        raise RagtuneError("Something is wrong.")

    monkeypatch.setattr(reader, "read", crash)
    with pytest.raises(KeyError):
        reader(b"")
    monkeypatch.setattr(reader, "read", without_place)
    with pytest.raises(NoPlaceError):
        reader(b"")


def test_fuzzing_notices_a_reader_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: Reader) -> None:
        if b"\0" in self.path.read_bytes():
            raise KeyError("x")

    monkeypatch.setattr(Reader, "read", crash)
    outcome = with_hypothesis("jsonl", 0, seed=0)
    assert outcome.failed is not None
    assert b"\0" in outcome.failed.content
    assert len(outcome.failed.content) < 500  # made small


@pytest.mark.parametrize("kind", KINDS)
def test_hypothesis_finds_nothing(kind: str) -> None:
    outcome = with_hypothesis(kind, 0, seed=0)
    assert outcome.failed is None, f"{outcome.why} {outcome.failed}"
    assert outcome.calls >= 200


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Callable[[str], Outcome]]:
    """What became of a reader under atheris; all that come before it are called before it, too."""
    begun, done = with_atheris(list(KINDS), 2, seed=1), {}

    def outcome(kind: str) -> Outcome:
        while kind not in done:
            one, done[one] = next(begun)
        return done[kind]

    yield outcome
    begun.close()


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris has no wheel for this Python or system; Hypothesis alone has fuzzed",
)
@pytest.mark.parametrize("kind", KINDS)
def test_atheris_finds_nothing(kind: str, fuzzed: Callable[[str], Outcome]) -> None:
    outcome = fuzzed(kind)
    assert outcome.failed is None, f"{outcome.why} {outcome.failed}"
    assert outcome.calls > 50


ENDLESS = """
import gzip, resource, sys
from pathlib import Path
from ragtune.data.read import read_examples, records
from ragtune.recipe.load import load_recipe
import pyarrow.parquet
from ragtune.base.errors import UsageError
folder = Path(sys.argv[1])
piece = gzip.compress(bytes(16 << 20), mtime=0)
lines = gzip.compress(b"\\n" * (16 << 20), mtime=0)
blank = gzip.compress((b" " * ((16 << 20) - 1) + b"\\n"), mtime=0)
start = gzip.compress(b'[{"question": "', mtime=0)
def sparse(name):
    with (folder / name).open("wb") as file:
        file.write(b'{"question": "')
        file.truncate(1 << 30)
for name in ("line.jsonl", "large.json", "large.yaml", "large.parquet", "large.csv", "large.xlsx"):
    sparse(name)
(folder / "wide.csv").write_bytes(("q,a\\n" + "山," * 5_000_000 + "\\n").encode())
(folder / "shut.tsv").write_bytes(b"q\\ta\\n" + b'"' + b"x\\t" * 9_000_000)
(folder / "kanji.json").write_bytes(("[\\"" + "山" * 40_000_000).encode())
(folder / "line.jsonl.gz").write_bytes(start + piece * 64)
(folder / "bomb.json.gz").write_bytes(start + gzip.compress(b"x" * (16 << 20), mtime=0) * 40)
(folder / "empty.jsonl.gz").write_bytes(lines * 640)
(folder / "blank.jsonl.gz").write_bytes(blank * 640)
(folder / "nested.jsonl.gz").write_bytes(gzip.compress(piece * 64, mtime=0))
table = pyarrow.table({"question": ["x" * (200 << 20)]})
pyarrow.parquet.write_table(table, folder / "row.parquet")
places = pyarrow.array([0] * 9999, pyarrow.int32())
texts = pyarrow.DictionaryArray.from_arrays(places, pyarrow.array(["x" * (1 << 20)]))
texts = pyarrow.StructArray.from_arrays([texts], ["text"])
passages = pyarrow.ListArray.from_arrays(pyarrow.array([0, 9999], pyarrow.int32()), texts)
table = pyarrow.table({"question": ["q"], "passages": passages})
pyarrow.parquet.write_table(table, folder / "bomb.parquet", store_schema=False)
assert (folder / "bomb.parquet").stat().st_size < 200_000
del table, passages, texts, places
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30), size + (1 << 30)))
for path in sorted(folder.iterdir()):
    try:
        load_recipe(path) if path.suffix == ".yaml" else list(records(str(path)))
        print("no message:", path)
    except UsageError as error:
        assert error.message.startswith((str(path), f"Recipe {path}")), error.message
        print(path.name, error.message.replace(str(path), ""))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")
def test_lines_and_files_without_end_end_in_a_message(tmp_path: Path) -> None:
    """In a process that gets 1 GiB beyond what it has with the libraries loaded."""
    done = subprocess.run(
        [sys.executable, "-c", ENDLESS, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(line.partition(" ")[::2] for line in done.stdout.splitlines())
    assert found == {
        "blank.jsonl.gz": ":2: 16 MiB of empty lines in a row.",
        "bomb.json.gz": ": a record of more than 128 MiB of JSON.",
        "bomb.parquet": ": the 1 row after row 0 holds more than 128 MiB.",
        "empty.jsonl.gz": ":100001: 100,000 empty lines in a row.",
        "kanji.json": found["kanji.json"],
        "large.csv": ": a table of more than 128 MiB.",
        "large.json": found["large.json"],
        "large.xlsx": ": no .xlsx file (File is not a zip file).",
        "large.parquet": found["large.parquet"],
        "large.yaml": "Recipe  can't be read: it has more than 256 KiB.",
        "line.jsonl": ":1: a line of more than 16 MiB.",
        "line.jsonl.gz": ":1: a line of more than 16 MiB.",
        "nested.jsonl.gz": found["nested.jsonl.gz"],
        "row.parquet": ": the 1 row after row 0 holds more than 128 MiB.",
        "shut.tsv": ":2: a row of more than 8 MiB.",
        "wide.csv": ":2: a row of more than 8 MiB.",
    }
    assert found["large.parquet"].startswith(": can't be read (Parquet magic bytes not found")
    assert ":1: not UTF-8" in found["nested.jsonl.gz"]
