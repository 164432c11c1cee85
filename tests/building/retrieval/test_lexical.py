"""The lexical index: found, replaced, removed, whole after a kill, and never silently empty."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.building.retrieval import lexical, segments
from ragtune.building.retrieval.lexical import LexicalIndex, in_order
from ragtune.building.retrieval.manifest import Manifest
from ragtune.building.retrieval.retriever import Entry, Hit
from ragtune.building.retrieval.terms import terms_of

FUJI = Entry("fuji", "富士山", "日本で一番高い山である。")
BIWA = Entry("biwa", "琵琶湖", "日本で一番大きい湖である。")


def found(index: LexicalIndex, question: str, k: int = 10) -> list[str]:
    return [hit.passage_id for hit in index.search([question], k)[0]]


def test_finds_best_first(tmp_path: Path) -> None:
    index = LexicalIndex.open(tmp_path, "ja")
    index.index([FUJI, BIWA])
    assert len(index) == 2
    first, second = index.search(["一番高い山は何ですか?", "琵琶湖"], 5)
    assert [hit.passage_id for hit in first] == ["fuji", "biwa"]
    assert first[0].score > first[1].score > 0
    assert [hit.passage_id for hit in second] == ["biwa"]
    assert index.search(["", "?!", "の", "存在"], 5) == [[], [], [], []]
    assert found(index, "一番", k=1) == ["fuji"]


def test_a_title_is_found(tmp_path: Path) -> None:
    index = LexicalIndex.open(tmp_path, "en")
    index.index([Entry("a", "Pumps", "How to mend one."), Entry("b", "Valves", "How to mend one.")])
    assert found(index, "pump") == ["a"]


def test_english_words_are_stemmed_and_width_does_not_matter(tmp_path: Path) -> None:
    index = LexicalIndex.open(tmp_path, "en")
    index.index([Entry("a", "", "She was running in ＴＯＫＹＯ, 東京."), Entry("b", "", "He sat.")])
    assert found(index, "Who runs in Tokyo?") == ["a"]
    assert found(index, "東京") == ["a"]


def test_passages_are_replaced_and_removed_in_place(tmp_path: Path) -> None:
    index = LexicalIndex.open(tmp_path, "ja")
    index.index([FUJI, BIWA])
    index.index(
        [
            Entry("fuji", "阿蘇山", "火口がある。"),
            Entry("aso", "", "火口"),
            Entry("aso", "", "外輪"),
        ]
    )
    assert len(index) == 3
    assert found(index, "高い山") == ["fuji"]  # 山 is in both titles, 高い no more
    assert found(index, "火口") == ["fuji"]
    assert found(index, "外輪") == ["aso"]
    index.remove(["fuji", "nowhere"])
    index.remove([])
    assert len(index) == 2
    assert found(index, "火口") == []


def test_it_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    LexicalIndex.open(tmp_path, "ja").index([FUJI, BIWA])
    assert found(LexicalIndex.open(tmp_path, "ja"), "琵琶湖") == ["biwa"]
    assert found(LexicalIndex.read(tmp_path), "琵琶湖") == ["biwa"]


def test_nothing_is_added_if_the_passages_end_in_an_error(tmp_path: Path) -> None:
    index = LexicalIndex.open(tmp_path, "ja")

    def broken() -> Iterator[Entry]:
        yield FUJI
        raise RuntimeError

    with pytest.raises(RuntimeError):
        index.index(broken())
    assert len(index) == 0
    index.index([BIWA])
    assert len(index) == 1


def test_equal_scores_follow_by_id_however_they_were_added(tmp_path: Path) -> None:
    entries = [Entry(f"p{n:03}", "富士", "日本の山と海と川の話") for n in range(60)]
    entries += [Entry(f"q{n:03}", "", "海と空の話、それに山") for n in range(30)]
    rows = []
    for name, slices in (("one", 1), ("many", 7)):
        index = LexicalIndex.open(tmp_path / name, "ja")
        mixed = random.Random(slices).sample(entries, len(entries))
        for start in range(slices):
            index.index(mixed[start::slices])
        rows.append(index.search(["日本の山", "海と山の話", "川"], 10))
    assert [[h.passage_id for h in hits] for hits in rows[0]] == [
        [h.passage_id for h in hits] for hits in rows[1]
    ]
    for hits in (*rows[0], *rows[1]):
        assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.passage_id))
    assert [hit.passage_id for hit in rows[0][0]] == [f"p{n:03}" for n in range(10)]


def test_scores_that_differ_by_rounding_are_equal() -> None:
    hits = [Hit("c", 9.0000001), Hit("a", 9.0), Hit("b", 8.0), Hit("d", 7.9999999)]
    assert in_order(hits) == [
        Hit("a", 9.0000001), Hit("c", 9.0000001), Hit("b", 8.0), Hit("d", 8.0),
    ]  # fmt: skip
    assert in_order([]) == []


_TEXTS = st.lists(
    st.text(alphabet="山川海ab0 のアー", min_size=2, max_size=12), min_size=1, max_size=6
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=_TEXTS)
def test_every_passage_with_terms_is_found_by_its_text(tmp_path: Path, texts: list[str]) -> None:
    folder = tmp_path / "reused"
    index = LexicalIndex.open(folder, "ja")
    index.index(Entry(str(n), "", text) for n, text in enumerate(texts))
    for n, text in enumerate(texts):
        if terms_of(text, None):
            assert str(n) in found(index, text, k=50)


def test_a_reader_sees_what_another_has_written(tmp_path: Path) -> None:
    writer = LexicalIndex.open(tmp_path, "ja")
    reader = LexicalIndex.read(tmp_path)
    assert found(reader, "富士山") == []
    with segments.writing(writer._index, tmp_path) as open_writer:
        open_writer.add("a", "富士")
        assert found(reader, "富士山") == []  # while it is being written
    assert found(reader, "富士山") == ["a"]
    for n in range(9):  # segments are merged, and files of old ones removed
        writer.index([Entry(f"n{n}", "", "湖")])
        assert len(found(reader, "湖", k=50)) == n + 1


def test_two_can_not_write_at_the_same_time(tmp_path: Path) -> None:
    first = LexicalIndex.open(tmp_path, "ja")
    second = LexicalIndex.open(tmp_path, "ja")
    with segments.writing(first._index, tmp_path), pytest.raises(UsageError) as error:
        second.index([FUJI])
    assert str(tmp_path) in error.value.message
    assert error.value.advice == (
        "Another process may be writing it: wait until it ends, then run the command again."
    )
    second.index([FUJI])


_CHILD = """
import sys
from pathlib import Path
from ragtune.building.retrieval.lexical import LexicalIndex
from ragtune.building.retrieval.retriever import Entry
index = LexicalIndex.open(Path(sys.argv[1]), "ja")
print("open", flush=True)
for n in range(10_000):
    index.index(Entry(f"{i}", "", f"{i}番目の{n}") for i in range(n, n + 40))
    print(n + 40, flush=True)
"""


def test_a_kill_at_any_moment_leaves_it_whole(tmp_path: Path) -> None:
    draw = random.Random(0)
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        time.sleep(draw.uniform(0.05, 0.6))
        child.send_signal(signal.SIGKILL)
        lines = child.stdout.read().split("\n")
        child.wait()
        whole = [int(line) for line in lines[:-1]]
        index = LexicalIndex.read(tmp_path)
        if whole:
            assert len(index) >= whole[-1]
        assert len(found(index, "番目", k=1)) == min(1, len(index))
        opened = LexicalIndex.open(tmp_path, "ja")  # and it goes on
        assert len(opened) == len(index)
        opened.index([FUJI])
        assert found(opened, "富士山")[0] == "fuji"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"language": "en"}, "language en, now ja"),
        ({"engine_version": "0.1.0"}, "engine version 0.1.0, now "),
        ({"terms": 0}, "terms 0, now 1"),
        ({"k1": 0.9, "b": 0.4}, "k1 0.9, now 1.2, b 0.4, now 0.75"),
    ],
)
def test_an_index_of_something_else_is_made_again_and_that_is_said(
    tmp_path: Path, change: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    LexicalIndex.open(tmp_path, "ja").index([FUJI])
    replace(Manifest.here("ja"), **change).write(tmp_path)  # type: ignore[arg-type]
    if "language" not in change:
        with pytest.raises(UsageError, match="can't be used: it was made with") as error:
            LexicalIndex.read(tmp_path)
        assert said in error.value.message
        assert (
            error.value.advice == "Run ragtune build again: it makes the index from the documents."
        )
    capsys.readouterr()
    again = LexicalIndex.open(tmp_path, "ja")
    told = capsys.readouterr().out.replace("\n", " ")
    assert "is made again: it was made with" in told
    assert said in told
    assert len(again) == 0
    again.index([FUJI])
    assert found(LexicalIndex.read(tmp_path), "富士山") == ["fuji"]


def test_other_rules_of_the_same_version_are_noticed_by_the_canary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    LexicalIndex.open(tmp_path, "ja").index([FUJI])
    monkeypatch.setattr(lexical, "terms_of", lambda text, _: text.split())
    with pytest.raises(UsageError, match="is damaged: what is in it is not found"):
        LexicalIndex.read(tmp_path)
    assert len(LexicalIndex.open(tmp_path, "ja")) == 0
    assert "what is in it is not found" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize("ending", [".term", ".store", ".pos", "meta.json"])
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_damage_is_said(
    tmp_path: Path, ending: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    LexicalIndex.open(tmp_path, "ja").index([FUJI])
    for path in (tmp_path / "segments").glob(f"*{ending}"):
        if path.name == ".managed.json":
            continue
        if how == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match=r"is damaged: |its files are gone"):
        LexicalIndex.read(tmp_path)
    index = LexicalIndex.open(tmp_path, "ja")
    assert "is made again" in capsys.readouterr().out.replace("\n", " ")
    index.index([FUJI])
    assert found(index, "富士山") == ["fuji"]


@pytest.mark.parametrize("how", ["gone", "cut"])
def test_what_is_damaged_while_it_is_open_is_said(tmp_path: Path, how: str) -> None:
    LexicalIndex.open(tmp_path, "ja").index([FUJI])
    index = LexicalIndex.read(tmp_path)
    if how == "gone":
        shutil.rmtree(tmp_path / "segments")
    else:
        (tmp_path / "segments" / "meta.json").write_bytes(b"")
    with pytest.raises(RagtuneError, match="is damaged: "):
        index.search(["富士山"], 1)


def test_no_panic_of_tantivy_gets_through(tmp_path: Path) -> None:
    LexicalIndex.open(tmp_path, "ja").index([FUJI])
    for path in (tmp_path / "segments").iterdir():
        whole = path.read_bytes()
        for place in range(len(whole) - 8, len(whole)) if whole else ():
            for bits in (1, 0x55, 0xFF):
                damaged = bytearray(whole)
                damaged[place] ^= bits
                path.write_bytes(damaged)
                with suppress(RagtuneError):
                    LexicalIndex.read(tmp_path).search(["富士山"], 5)
        path.write_bytes(whole)
    assert found(LexicalIndex.open(tmp_path, "ja"), "富士山") == ["fuji"]


def test_no_index_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no index of passages"):
        LexicalIndex.read(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_its_manifest_it_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    LexicalIndex.open(tmp_path, "ja").index([FUJI])
    (tmp_path / "manifest.json").write_text("{", "utf-8")
    assert len(LexicalIndex.open(tmp_path, "ja")) == 0
    assert "nothing says what it was made with" in capsys.readouterr().out.replace("\n", " ")


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    index = LexicalIndex.open(tmp_path, "ja")
    index.index([FUJI])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(RagtuneError, match="can't be written") as error:
            index.index(Entry(f"{n}", "", f"{n}番目の山") for n in range(5_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "disk is full" in error.value.advice
    assert found(index, "富士山") == ["fuji"]
    index.index([BIWA])
    assert len(index) == 2


@pytest.mark.parametrize("name", ["", "x" * 1001, "あ" * 400])
def test_an_id_that_can_not_be_kept_is_refused(tmp_path: Path, name: str) -> None:
    index = LexicalIndex.open(tmp_path, "ja")
    with pytest.raises(UsageError, match=r"is empty or longer than 1,000 bytes"):
        index.index([FUJI, Entry(name, "", "山")])
    assert len(index) == 0


def test_without_tantivy_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tantivy", None)
    with pytest.raises(UsageError) as error:
        LexicalIndex.open(tmp_path, "ja")
    assert error.value.message == (
        "retrieval.retriever: lexical needs tantivy, which is not installed."
    )
    assert error.value.advice == "Run: pip install tantivy"


def test_a_question_without_end_takes_no_time_without_end(tmp_path: Path) -> None:
    index = LexicalIndex.open(tmp_path, "ja")
    index.index([FUJI])
    assert found(index, "富士山" + "".join(map(chr, range(0x4E00, 0x9000))) * 40) == ["fuji"]
