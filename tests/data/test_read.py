"""Every kind of file gives the same records; a damaged one is named with its line."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.files import write_jsonl
from ragtune.data import aio
from ragtune.data.example import Example
from ragtune.data.formats.reading import How
from ragtune.data.read import locate, read_examples
from tests.conftest import make_records, write_records

RECORDS = make_records(5)


def lines_of(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()


def write_parquet(path: Path, records: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    pa.parquet.write_table(pa.Table.from_pylist(records), path)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Any]] = {
    "a.jsonl": lambda path, records: path.write_bytes(lines_of(records)),
    "a.jsonl.gz": lambda path, records: path.write_bytes(gzip.compress(lines_of(records))),
    "a.ndjson": lambda path, records: path.write_bytes(lines_of(records)),
    "a.json": lambda path, records: path.write_text(json.dumps(records), "utf-8"),
    "a.json.gz": lambda path, records: path.write_bytes(gzip.compress(json.dumps(records).encode())),
    "a.parquet": write_parquet,
}  # fmt: skip


def read(source: object) -> list[Example]:
    return list(read_examples(str(source), "train"))


def refusal(source: object) -> str:
    """What the user is told, with the file's folder left out."""
    with pytest.raises(UsageError) as raised:
        read(source)
    return raised.value.message.replace(f"{source}".rpartition("/")[0] + "/", "")


@pytest.fixture(params=WRITERS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    WRITERS[request.param](path, RECORDS)
    return path


def test_every_kind_of_file_gives_the_same_records(file: Path) -> None:
    assert [e.to_dict() for e in read(file)] == RECORDS


def test_progress_ends_at_the_total(file: Path) -> None:
    calls: list[tuple[int, int]] = []
    list(read_examples(str(file), "train", lambda done, total: calls.append((done, total))))
    assert all(done <= total for done, total in calls)
    if not file.name.endswith((".json", ".json.gz")):
        assert calls[-1][0] == calls[-1][1] > 0


def test_the_genuine_record_is_the_same_in_every_kind(
    record: dict[str, Any], tmp_path: Path
) -> None:
    for name, write in WRITERS.items():
        write(tmp_path / name, [record])
        assert [e.to_dict() for e in read(tmp_path / name)] == [record], name


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None
)
@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\u2028\u2029\x85\r\n")))
def test_any_text_survives_the_round_trip(tmp_path: Path, text: str) -> None:
    record = {**RECORDS[0], "question": f"?{text}", "answers": [f"a{text}"]}
    write_jsonl(tmp_path / "a.jsonl", [record])
    assert [e.to_dict() for e in read(tmp_path / "a.jsonl")] == [record]


@pytest.mark.parametrize("name", ["squad2.train", "squad2.dev", "jaquad.train", "jaquad.dev"])
def test_a_sample_is_shipped(name: str) -> None:
    example = next(read_examples(f"sample:{name}", "train"))
    assert example.question
    assert example.answers
    assert example.passages


def test_of_the_sample_for_refusing_half_has_no_answer() -> None:
    examples = list(read_examples("sample:squad2.refuse", "validation"))
    assert [bool(e.answers) for e in examples].count(True) == 60
    assert len(examples) == 120


def test_an_unknown_sample_lists_those_there_are() -> None:
    with pytest.raises(
        UsageError, match=r"no sample 'squad'\.\nThere are: jaquad\.dev, jaquad\.train, squad2"
    ):
        locate("sample:squad")


def test_a_copy_under_another_name_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy.jsonl.gz"
    shutil.copy(*locate("sample:squad2.dev"), copy)
    monkeypatch.chdir(tmp_path)
    assert read("copy.jsonl.gz") == read("sample:squad2.dev")


def test_a_downloaded_aio_file_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGTUNE_CACHE", str(tmp_path))
    path = tmp_path / "aio" / aio.FILES["eval"]
    path.parent.mkdir()
    WRITERS["a.jsonl.gz"](path, RECORDS)
    assert len(read(aio.fetch("eval", base_url="http://127.0.0.1:9"))) == len(RECORDS)


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_records(tmp_path / "a.jsonl", RECORDS)
    assert len(read("~/a.jsonl")) == len(RECORDS)


def test_blank_lines_a_byte_order_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + lines_of(RECORDS).replace(b"\n", b"\r\n\r\n  \n") + b"\n")
    assert [e.to_dict() for e in read(path)] == RECORDS


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of(RECORDS).rstrip())
    assert len(read(path)) == len(RECORDS)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz"])
def test_a_name_may_be_in_capitals(tmp_path: Path, name: str) -> None:
    path = tmp_path / name.upper()
    WRITERS[name](path, RECORDS)
    assert [e.to_dict() for e in read(path)] == RECORDS


def test_gzip_files_may_be_joined(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines_of(RECORDS[:2])) + gzip.compress(lines_of(RECORDS[2:])))
    assert len(read(path)) == len(RECORDS)


def test_records_come_before_the_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of(RECORDS[:1]) + b"no JSON\n")
    assert next(read_examples(str(path), "train")).qid == "q0"


# What is refused.


def test_a_line_that_is_no_json_is_shown_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of(RECORDS[:1]) + b"\n{'question': 1}\n")
    assert refusal(path) == (
        "a.jsonl:3: not JSON (Expecting property name enclosed in double quotes, column 2): "
        "{'question': 1}"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": ["b"]\n', "a.jsonl:1: not JSON (Expecting ',' delimiter, column 12): "),
        (b'"' + b"x" * 99, f'a.jsonl:1: not JSON (Unterminated string starting at, column 1): "{"x" * 58}…'),
        (b"[" * 100_000, "a.jsonl:1: not readable as JSON (maximum recursion depth exceeded"),
        (b"1" * 5000, "a.jsonl:1: not readable as JSON (Exceeds the limit (4300 digits)"),
        (b'{"question": "\xff"}', "a.jsonl:1: not UTF-8 (byte 14)."),
        ("\ufeff{}".encode("utf-16"), "a.jsonl:1: not UTF-8 (byte 0)."),
        (b"[]", "a.jsonl:1: a record must be a JSON object, this is a list."),
        (b'{"question": "\\ud800"}', "a.jsonl:1: question holds half of a surrogate pair"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "a.jsonl:1: nested more than 100 deep."),
        (b'{"a": ' + b"[" * 99 + b"]" * 99 + b"}", "a.jsonl:1: field question is missing"),
        (b"7", "a.jsonl:1: a record must be a JSON object, this is a number."),
    ],
)  # fmt: skip
def test_a_damaged_line_is_told(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(line)
    assert message in refusal(path)


def test_a_missing_field_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of([RECORDS[0], {"question": "?"}]))
    assert refusal(path) == "a.jsonl:2: field answers is missing (fields found: question)."


@pytest.mark.parametrize("name", ["a.json", "a.parquet"])
def test_a_bad_record_names_its_place_in_other_files(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, [RECORDS[0], {**RECORDS[1], "question": ""}])
    kind = {"a.json": "record", "a.parquet": "row"}[name]
    assert refusal(tmp_path / name) == f"{name}: {kind} 2: question is empty."


def test_a_qid_used_twice_names_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines_of([*RECORDS, RECORDS[1]]))
    assert refusal(path) == "a.jsonl:6: qid 'q1' was already used at a.jsonl:2."


def test_equal_records_without_qid_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    bare = {k: v for k, v in RECORDS[0].items() if k != "qid"}
    other = {k: v for k, v in RECORDS[1].items() if k != "qid"}
    path.write_bytes(lines_of([bare, other, bare | {"answers": ["another"]}, bare]))
    first, second, third, fourth = (e.qid for e in read(path))
    assert (third, fourth) == (f"{first}-2", f"{first}-3")
    path.write_bytes(lines_of([bare]))
    assert [e.qid for e in read(path)] == [first]
    path.write_bytes(lines_of([other, bare, bare]))
    assert [e.qid for e in read(path)] == [second, first, third]


def test_a_written_qid_is_never_given_to_another_record(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    bare = {k: v for k, v in RECORDS[0].items() if k != "qid"}
    path.write_bytes(lines_of([bare]))
    (first,) = (e.qid for e in read(path))
    path.write_bytes(lines_of([RECORDS[1] | {"qid": f"{first}-2"}, bare, bare]))
    assert [e.qid for e in read(path)] == [f"{first}-2", first, f"{first}-3"]
    path.write_bytes(lines_of([bare, RECORDS[1] | {"qid": first}]))
    assert refusal(path) == f"a.jsonl:2: qid '{first}' was already used at a.jsonl:1."
    with pytest.raises(UsageError, match="give one of the two another, or remove it"):
        read(path)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz"])
def test_a_file_that_is_no_gzip_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(lines_of(RECORDS))
    assert f"{name}: can't be read" in refusal(tmp_path / name)
    assert "Not a gzipped file" in refusal(tmp_path / name)
    with pytest.raises(
        UsageError, match=r"The file is cut off or no gzip: download or write it again"
    ):
        read(tmp_path / name)


def test_a_gzip_that_was_cut_off_is_told_with_the_last_good_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines_of(RECORDS))[:-4])
    assert refusal(path) == (
        "a.jsonl.gz: can't be read after line 5 (Compressed file ended before the "
        "end-of-stream marker was reached)."
    )


def test_a_gzip_with_a_flipped_bit_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    content = bytearray(gzip.compress(lines_of(RECORDS)))
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.jsonl\.gz"):
        read(path)


def test_blanks_may_stand_between_records_but_not_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    blanks = (b" " * (1 << 20) + b"\n") * 10
    path.write_bytes(b"".join(line + b"\n" + blanks for line in lines_of(RECORDS).splitlines()))
    assert len(read(path)) == len(RECORDS)
    path.write_bytes(lines_of(RECORDS) + blanks * 2)
    assert refusal(path) == "a.jsonl:21: 16 MiB of empty lines in a row."


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet"])
def test_an_empty_split_is_told(tmp_path: Path, name: str) -> None:
    if name == "a.parquet":
        import pyarrow as pa
        import pyarrow.parquet

        pa.parquet.write_table(pa.table({"question": pa.array([], pa.string())}), tmp_path / name)
    else:
        WRITERS[name](tmp_path / name, [])
    assert refusal(tmp_path / name) == f"{name} holds no record."


def test_an_empty_parquet_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    assert refusal(tmp_path / "a.parquet").startswith(
        "a.parquet: can't be read (Parquet file size is 0"
    )


def test_json_must_be_a_list(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert refusal(tmp_path / "a.json") == "a.json: a JSON file must hold a list of records."


def test_a_missing_file_is_told_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as raised:
        read("data/a.jsonl")
    assert str(raised.value) == (
        f"data/a.jsonl does not exist.\nPaths are relative to the current folder, {tmp_path}. "
        "A dataset of the Hub is owner/name."
    )
    assert refusal("./no file") == "./no file does not exist.".replace("./", "")


def test_a_folder_and_an_unknown_suffix_are_told(tmp_path: Path) -> None:
    assert refusal(f"{tmp_path}/").endswith(" is a folder.")
    (tmp_path / "a.txt").touch()
    assert refusal(tmp_path / "a.txt") == "a.txt: unknown kind of file."


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_file_that_may_not_be_read_is_told(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    WRITERS[name](tmp_path / name, RECORDS)
    monkeypatch.setattr(
        "ragtune.data.files.open_plain", refuse
    )  # root, who may run this, may read everything
    assert refusal(tmp_path / name) == f"{name}: can't be read (Permission denied)."


# Several files.


@pytest.mark.parametrize("name", ["jsonl", "json", "parquet"])
def test_shards_are_read_one_after_the_other(tmp_path: Path, name: str) -> None:
    for number in range(12):
        WRITERS[f"a.{name}"](tmp_path / f"train-{number}.{name}", make_records(2, f"{number}-"))
    calls: list[tuple[int, int]] = []
    found = read_examples(f"{tmp_path}/train-*.{name}", "train", lambda *now: calls.append(now))
    assert [e.qid for e in found] == [f"{n}-{i}" for n in range(12) for i in range(2)]
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1] > 0
    assert len({total for _, total in calls}) == 1


def test_a_qid_is_unique_over_all_of_them(tmp_path: Path) -> None:
    for name in "ab":
        write_records(tmp_path / f"{name}.jsonl", RECORDS[:1])
    with pytest.raises(UsageError) as raised:
        read(f"{tmp_path}/*.jsonl")
    assert "b.jsonl:1: qid 'q0' was already used at" in raised.value.message


def test_a_name_for_several_that_fits_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"/train-\*\.jsonl names no file\.\nPaths are relative to"
    ):
        read(f"{tmp_path}/train-*.jsonl")


def test_folders_that_datasets_saved_are_read(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    whole = Dataset.from_list(RECORDS)
    whole.save_to_disk(tmp_path / "one", num_shards=3)
    assert [e.to_dict() for e in read(tmp_path / "one")] == RECORDS
    whole.select([4, 0]).save_to_disk(tmp_path / "some")
    assert [e.qid for e in read(tmp_path / "some")] == ["q4", "q0"]
    splits = {"train": whole, "validation": whole.select([1])}
    DatasetDict(splits).save_to_disk(tmp_path / "both")
    assert len(read(tmp_path / "both")) == len(RECORDS)
    assert [e.qid for e in read_examples(f"{tmp_path}/both", "validation")] == ["q1"]
    assert [e.qid for e in read(tmp_path / "both" / "validation")] == ["q1"]
    with pytest.raises(UsageError) as raised:
        list(read_examples(f"{tmp_path}/both", "test"))
    assert str(raised.value).replace(str(tmp_path), "") == (
        "/both holds no split test.\nName one of its splits: /both/train, /both/validation."
    )


def test_a_damaged_folder_of_datasets_is_told(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list(RECORDS).save_to_disk(tmp_path / "one")
    (file,) = (tmp_path / "one").glob("*.arrow")
    whole = file.read_bytes()
    for content in (b"", whole[:-200], b"ARROW1" + whole[6:], whole[:300]):
        file.write_bytes(content)
        with pytest.raises(UsageError, match=r"\.arrow: can't be read"):
            read(tmp_path / "one")
    file.unlink()
    with pytest.raises(UsageError, match=r"\.arrow is missing, which .*/one names"):
        read(tmp_path / "one")


# Fields that are called otherwise.

NAMED = How(
    fields={"question": "q", "answers": "gold.text", "passages": "ctxs", "text": "body", "title": "head",
            "passage_id": "no", "positive": "right"},
    say=lambda _: None,
)  # fmt: skip


def test_fields_are_read_by_their_names(tmp_path: Path) -> None:
    row = {
        "id": 7, "q": "Who?", "gold": [{"text": "Ann"}, {"text": "Anne"}], "note": "n",
        "ctxs": [{"body": "Bob is.", "head": "B", "no": 1, "right": False},
                 {"body": "Ann is.", "head": "A", "no": 2, "right": 1}],
    }  # fmt: skip
    for name in ("a.jsonl", "a.json", "a.parquet"):
        rows = json.loads(json.dumps([row]).replace('"right": 1', '"right": true'))
        WRITERS[name](tmp_path / name, rows)
        (example,) = read_examples(str(tmp_path / name), "train", how=NAMED)
        assert example.to_dict() == {
            "qid": "7", "question": "Who?", "answers": ["Ann", "Anne"], "note": "n",
            "passages": [{"passage_id": 1, "title": "B", "text": "Bob is."},
                         {"passage_id": 2, "title": "A", "text": "Ann is."}],
            "positive_passage_indices": [1], "negative_passage_indices": [0],
        }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "fields", "message"),
    [
        ({"q": "?!", "answer": "a"}, {"question": "Q"}, "there is no field Q (fields found: q, answer)."),
        ({"q": "?!", "answers": ["a"], "ctxs": 7}, {"question": "q", "passages": "ctxs"}, "ctxs must be a list of passages, this is 7."),
        ({"q": "?!", "answers": ["a"], "ctxs": [7]}, {"question": "q", "passages": "ctxs"}, "ctxs[0] must be text or an object, this is 7."),
        ({"q": "?!", "answers": ["a"], "ctxs": [{"body": "b"}]}, {"question": "q", "passages": "ctxs"}, "ctxs[0]: there is no field text (fields found: body)."),
        ({"q": "?!", "answers": ["a"], "ctxs": [{"text": "b", "gold": "x"}]}, {"question": "q", "passages": "ctxs", "positive": "gold"},
         "ctxs[0].gold is 'x', where true or false is wanted."),
        ({"q": ["?!"], "answers": ["a"], "passages": []}, {"question": "q"}, "q must be text, this is ['?!']."),
        ({"q": "?!", "answers": {"a": 1}, "passages": []}, {"question": "q"}, "answers must be text, this is {'a': 1}."),
        (7, {"question": "q"}, "a record must be an object of fields."),
    ],
)  # fmt: skip
def test_fields_that_are_not_as_they_should_be_are_told(
    tmp_path: Path, row: Any, fields: dict[str, str], message: str
) -> None:
    write_records(tmp_path / "a.jsonl", [row])
    with pytest.raises(UsageError) as raised:
        list(read_examples(str(tmp_path / "a.jsonl"), "train", how=How(fields=fields)))
    assert raised.value.message.partition("a.jsonl:1: ")[2] == message


def test_one_passage_may_be_a_column_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "質問,正解,段落,表題\nどこ?,富士山,富士山は高い。,山\n", "utf-8"
    )
    fields = {"passages": "段落", "title": "表題"}
    (example,) = read_examples(str(tmp_path / "a.csv"), "train", how=How(fields=fields))
    assert [(p.title, p.text) for p in example.passages] == [("山", "富士山は高い。")]
    assert (example.answers, example.positive_passage_indices) == (("富士山",), (0,))
    assert example.positives_computed


# The Hub, with a stand-in for `datasets`.


def stand_in(monkeypatch: pytest.MonkeyPatch, load: Callable[..., Any]) -> None:
    made = types.SimpleNamespace(load_dataset=load, config=types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "datasets", made)


def test_a_hub_dataset_whose_file_is_empty_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> Any:
        raise StopIteration

    stand_in(monkeypatch, load)
    with pytest.raises(UsageError, match="Dataset owner/name can't be read: StopIteration"):
        list(read("owner/name"))


def test_a_hub_dataset_is_streamed_with_its_split(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load(name: str, *, split: str, streaming: bool) -> Any:
        calls.append((name, split, streaming))
        return iter(RECORDS)

    stand_in(monkeypatch, load)
    assert [e.to_dict() for e in read("owner/name")] == RECORDS
    assert [e.to_dict() for e in read("owner/name:dev")] == RECORDS
    assert calls == [("owner/name", "train", True), ("owner/name", "dev", True)]


def test_a_hub_dataset_with_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load(*names: str, split: str, streaming: bool) -> Any:
        calls.append((*names, split, streaming))
        return iter(RECORDS)

    stand_in(monkeypatch, load)
    assert [e.to_dict() for e in read("owner/name:distractor:dev")] == RECORDS
    assert calls == [("owner/name", "distractor", "dev", True)]
    with pytest.raises(UsageError, match="does not exist"):
        read("owner/name:a:b:c")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("Dataset scripts are no longer supported, but found x.py"),
            "owner/name is a dataset with a script, which no current library runs.\nFor llm-book/aio-retriever write",
        ),
        (RuntimeError("boom"), "Dataset owner/name can't be read: boom"),
        (ValueError("Bad split: dev.\nmore"), "Dataset owner/name can't be read: Bad split: dev."),
        (
            ValueError("Config name is missing.\nPlease pick one among the available configs: ['fullwiki', 'distractor']\nmore"),
            "Dataset owner/name can't be read: Config name is missing. ['fullwiki', 'distractor']",
        ),
        (ConnectionError("no network"), "Dataset owner/name can't be read. The connection to the Hub was cut: ConnectionError: no network."),
    ],
)  # fmt: skip
def test_what_the_hub_refuses_is_told(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise error

    stand_in(monkeypatch, load)
    with pytest.raises(RagtuneError) as raised:
        read("owner/name")
    assert str(raised.value).startswith(message)
