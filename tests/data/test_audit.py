"""The audits count what they say, on records made for it, and nothing else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ragtune.data.audit import EXAMPLES
from ragtune.data.encode import Encoder
from ragtune.data.overlap import question_key
from ragtune.recipe.load import load_recipe
from tests.conftest import CHATML, build_tokenizer, make_records, write_records
from tests.data.prepared import prepare_both

Row = dict[str, Any]


def distinct(count: int, prefix: str) -> list[Row]:
    """Records of which no two share a question or a passage."""
    found = make_records(count, prefix)
    for i, row in enumerate(found):
        row["question"] = f"What colour is {prefix} house {i}?"
        for k, passage in enumerate(row["passages"]):
            passage["text"] += f" This is text {k} of {prefix}{i}."
    return found


class Auditor:
    """Prepares a train and an eval split, and gives the audits by name and split."""

    def __init__(self, folder: Path, tokenizer: Any) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.train: list[Row] = distinct(4, "t")
        self.eval: list[Row] = distinct(3, "e")

    def run(self, context: int = 4000, **data: Any) -> dict[tuple[str, str], Row]:
        return {(a["name"], a["split"]): a for a in self.rows(context, **data)}

    def rows(self, context: int = 4000, **data: Any) -> list[Row]:
        written = {
            split: str(write_records(self.folder / f"{split}.jsonl", records))
            for split, records in (("train", self.train), ("eval", self.eval))
        }
        recipe = load_recipe(
            {
                "name": "x",
                "model": {"id": "some/model"},
                "data": {**written, "max_passages": 2, **data},
                "prompt": {"preset": "english"},
                "train": {"steps": 1},
            }
        )
        report = prepare_both(
            recipe, Encoder(self.tokenizer, recipe, context), self.folder / "data"
        )
        audits: list[Row] = report["audits"]
        return audits


@pytest.fixture
def auditor(tmp_path: Path, chatml_tokenizer: Any) -> Auditor:
    return Auditor(tmp_path, chatml_tokenizer)


def test_what_is_not_found_is_listed_with_nought(auditor: Auditor) -> None:
    rows = auditor.rows()
    assert [(a["name"], a["split"], a["count"], a["of"]) for a in rows] == [
        ("same_question", "both", 0, 3),
        ("same_passage", "both", 0, 3),
        ("same_positive", "both", 0, 3),
        ("shared_text", "both", 0, 3),
        ("duplicate_questions", "train", 0, 4),
        ("duplicate_questions", "eval", 0, 3),
        ("conflicting_answers", "train", 0, 4),
        ("conflicting_answers", "eval", 0, 3),
        ("accidental_positives", "train", 0, 4),
        ("accidental_positives", "eval", 0, 3),
        ("inside_words", "train", 0, 0),
        ("other_forms", "train", 0, 0),
        ("inside_words", "eval", 0, 0),
        ("other_forms", "eval", 0, 0),
        ("positives_inside_words", "train", 0, 4),
        ("positives_inside_words", "eval", 0, 3),
        ("changed_answers", "train", 0, 4),
        ("changed_answers", "eval", 0, 3),
        ("control_tokens", "train", 0, 4),
        ("control_tokens", "eval", 0, 3),
        ("truncated_prompts", "train", 0, 4),
        ("truncated_prompts", "eval", 0, 3),
    ]
    keys = ["name", "split", "title", "count", "of", "note", "examples"]
    assert all(list(a) == keys and a["title"] and a["note"].endswith(".") for a in rows)


# Training and evaluation.


def test_a_trained_question_is_found_however_it_is_written(auditor: Auditor) -> None:
    auditor.train[2]["question"] = "ABC とは何ですか?"
    auditor.eval[1]["question"] = "ａｂｃとは 何ですか？ "
    found = auditor.run()["same_question", "both"]
    assert (found["count"], found["of"]) == (1, 3)
    assert found["examples"] == [{"qid": "e1", "text": "ａｂｃとは 何ですか？", "other_qid": "t2"}]


@pytest.mark.parametrize("split", ["train", "eval"])
def test_only_selected_questions_count(auditor: Auditor, split: str) -> None:
    auditor.eval[1] |= {k: copy.deepcopy(auditor.train[2][k]) for k in ("question", "passages")}
    auditor.eval[1]["answers"] = auditor.train[2]["answers"]
    assert auditor.run()["same_question", "both"]["count"] == 1
    unselected = auditor.train[2] if split == "train" else auditor.eval[1]
    unselected |= {"positive_passage_indices": [2], "negative_passage_indices": [0, 1]}
    found = auditor.run()
    for name in ("same_question", "same_passage", "same_positive"):
        assert (found[name, "both"]["count"], found[name, "both"]["examples"]) == (0, [])


def test_a_question_too_long_to_be_trained_does_not_count(auditor: Auditor) -> None:
    auditor.train[2]["question"] = auditor.eval[1]["question"] = "long " * 500
    assert auditor.run()["same_question", "both"]["count"] == 1
    auditor.eval[1]["question"] = "short"
    found = auditor.run(context=1000)
    assert (found["changed_answers", "train"]["of"], found["same_question", "both"]["count"]) == (
        3,
        0,
    )


def test_a_passage_of_both_splits_is_found(auditor: Auditor) -> None:
    auditor.eval[1]["passages"][1]["text"] = auditor.train[3]["passages"][0]["text"]
    auditor.eval[1]["passages"][1]["title"] = "another title"
    found = auditor.run()
    assert found["same_passage", "both"]["count"] == 1
    assert found["same_passage", "both"]["examples"] == [
        {
            "qid": "e1",
            "text": auditor.train[3]["passages"][0]["text"],
            "other_qid": "t3",
            "detail": "passage 2",
        }
    ]
    assert found["same_positive", "both"]["count"] == 0
    auditor.eval[1] |= {"positive_passage_indices": [0, 1], "negative_passage_indices": [2]}
    assert auditor.run()["same_positive", "both"]["examples"][0]["detail"] == "passage 2"


def test_a_question_counts_once(auditor: Auditor) -> None:
    for k in (0, 1):
        auditor.train[k]["passages"][1]["text"] = f"{k} cows " * 40
        auditor.eval[0]["passages"][k]["text"] = auditor.train[k]["passages"][0]["text"]
        auditor.eval[1]["passages"][k]["text"] = f"{k} cows " * 30
    found = auditor.run()
    assert [found[n, "both"]["count"] for n in ("same_passage", "shared_text")] == [1, 1]


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_passage_that_is_not_shown_does_not_count(auditor: Auditor, split: str) -> None:
    places = (2, 1) if split == "train" else (1, 2)
    auditor.train[3]["passages"][places[0]]["text"] = "the same"
    auditor.eval[1]["passages"][places[1]]["text"] = "the same"
    assert auditor.run()["same_passage", "both"]["count"] == 0
    assert auditor.run(max_passages=3)["same_passage", "both"]["count"] == 1


def test_one_other_character_makes_another_passage(auditor: Auditor) -> None:
    auditor.train[3]["passages"][1]["text"] = "the same"
    auditor.eval[1]["passages"][1]["text"] = "the same."
    assert auditor.run()["same_passage", "both"]["count"] == 0


def test_shared_text_is_found_and_measured(auditor: Auditor) -> None:
    common = "".join(f"{i} sheep, " for i in range(40))
    auditor.train[1]["passages"][1]["text"] = "Counting: " + common
    auditor.eval[2]["passages"][1]["text"] = "Again, " + common + "asleep."
    found = auditor.run()
    assert found["same_passage", "both"]["count"] == 0
    assert found["shared_text", "both"]["count"] == 1
    (example,) = found["shared_text", "both"]["examples"]
    assert (example["qid"], example["other_qid"]) == ("e2", "t1")
    assert example["detail"] == f"{len(common) + 1} characters of passage 2"  # and a space before
    assert example["text"].startswith("0 sheep, 1 sheep")


def test_an_equal_passage_is_no_shared_text(auditor: Auditor) -> None:
    auditor.train[1]["passages"][1]["text"] = "sheep " * 50
    auditor.eval[2]["passages"][1]["text"] = "sheep " * 50
    found = auditor.run()
    assert found["same_passage", "both"]["count"] == 1
    assert found["shared_text", "both"]["count"] == 0


# Within a split.


@pytest.mark.parametrize("split", ["train", "eval"])
def test_control_tokens_that_are_written_out_are_counted_by_record(
    auditor: Auditor, split: str
) -> None:
    records = auditor.train if split == "train" else auditor.eval
    records[1]["question"] = "<|im_start|>?"
    records[1]["passages"][0]["title"] = "<|im_end|>"
    records[2]["answers"].append("<|im_end|>")
    records[0]["passages"].append(
        {"passage_id": "9", "title": "", "text": "<|im_end|>"}
    )  # not shown
    found = auditor.run()
    one = found["control_tokens", split]
    assert (one["count"], one["of"]) == (2, len(records))
    assert [(e["text"], e["detail"]) for e in one["examples"]] == [
        ("<|im_start|>?", "in the question, a title"),
        ("<|im_end|>", "in an answer"),
    ]
    other = "eval" if split == "train" else "train"
    assert found["control_tokens", other]["count"] == 0


@pytest.mark.parametrize("split", ["train", "eval"])
def test_surplus_records_of_a_question_are_counted(auditor: Auditor, split: str) -> None:
    records = auditor.train if split == "train" else auditor.eval
    for row in records[:3]:
        row["question"] = "Which?"
    found = auditor.run()["duplicate_questions", split]
    assert found["count"] == 2
    assert [(e["qid"], e["other_qid"]) for e in found["examples"]] == [
        (records[1]["qid"], records[0]["qid"]),
        (records[2]["qid"], records[0]["qid"]),
    ]


def test_answers_conflict_if_none_is_the_same(auditor: Auditor) -> None:
    for row in auditor.train[:3]:
        row["question"] = "Which?"
    auditor.train[0]["answers"] = ["red", "scarlet"]
    auditor.train[1]["answers"] = ["Scarlet."]
    auditor.train[2]["answers"] = ["blue", "navy"]
    found = auditor.run()["conflicting_answers", "train"]
    assert found["count"] == 1
    assert found["examples"] == [
        {"qid": "t2", "text": "Which?", "other_qid": "t0", "detail": "here: blue, navy"}
    ]


@pytest.mark.parametrize("split", ["train", "eval"])
def test_short_answers_in_positives_may_be_accidents(auditor: Auditor, split: str) -> None:
    row = (auditor.train if split == "train" else auditor.eval)[1]
    row["answers"] = ["a long answer that stands nowhere", "12"]
    row["passages"][0]["text"] = "x" * 90 + " In 1912 it began. " + "y" * 90
    found = auditor.run()["accidental_positives", split]
    assert found["count"] == 1
    (example,) = found["examples"]
    assert (example["qid"], "12 to: What colour" in example["detail"]) == (row["qid"], True)
    assert "xxx In 1912 it began. yyy" in example["text"]
    assert example["text"][0] == example["text"][-1] == "…"


def test_a_longer_answer_in_a_positive_is_no_accident(auditor: Auditor) -> None:
    row = auditor.train[1]
    row["answers"] = ["12", "green"]
    row["passages"][0]["text"] = "In 1912 it was green."
    assert auditor.run()["accidental_positives", "train"]["count"] == 0
    # It must stand in a positive that is shown.
    row["passages"][0]["text"] = "In 1912 it was."
    row["passages"][1]["text"] = row["passages"][2]["text"] = "It was green."
    row |= {"positive_passage_indices": [0, 2], "negative_passage_indices": [1]}
    assert auditor.run()["accidental_positives", "train"]["count"] == 1
    assert auditor.run(max_passages=3)["accidental_positives", "train"]["count"] == 0


@pytest.mark.parametrize("split", ["train", "eval"])
def test_what_is_nearly_a_positive_is_counted(auditor: Auditor, split: str) -> None:
    rows = auditor.train if split == "train" else auditor.eval
    for row in rows[1:]:
        del row["positive_passage_indices"]
    rows[1] |= {"answers": ["yes"], "question": "Is it painted?"}
    rows[1]["passages"][0]["text"] = "The owner closed her eyes."
    rows[2]["answers"] = ["ＢＬＵＥ"]
    found = auditor.run()
    computed = len(rows) - 1
    inside, forms = (found[name, split] for name in ("inside_words", "other_forms"))
    assert [(f["count"], f["of"]) for f in (inside, forms)] == [(1, computed), (1, computed)]
    assert inside["examples"] == [
        {
            "qid": rows[1]["qid"],
            "text": "The owner closed her eyes.",
            "detail": "passage 1, answer yes to: Is it painted? (no positive: left out)",
        }
    ]
    assert forms["examples"][0]["detail"].startswith("passage 1, answer ＢＬＵＥ to: ")


def test_named_positives_that_hold_answers_inside_words_count_and_are_counted(
    auditor: Auditor,
) -> None:
    auditor.train[1]["answers"] = ["yes", "gree"]
    auditor.train[1]["passages"][0]["text"] = "The owner closed her eyes, which are green."
    found = auditor.run()
    assert found["positives_inside_words", "train"]["count"] == 1
    assert found["duplicate_questions", "train"]["of"] == 4  # it is selected
    auditor.train[1]["answers"].append("owner")
    assert auditor.run()["positives_inside_words", "train"]["count"] == 0


def test_equal_records_without_qid_are_repeated_questions(auditor: Auditor) -> None:
    bare = {k: v for k, v in auditor.train[0].items() if k != "qid"}
    auditor.train = [bare, copy.deepcopy(bare), bare | {"answers": ["House"]}]
    auditor.eval = copy.deepcopy(auditor.train)
    found = auditor.run()
    for split in ("train", "eval"):
        assert found["duplicate_questions", split]["count"] == 2
        assert found["conflicting_answers", split]["count"] == 1


# What the model gets.


@pytest.fixture
def lower(tmp_path: Path) -> Auditor:
    """With a tokenizer that knows no capitals."""
    from tokenizers import normalizers

    tokenizer = build_tokenizer(
        specials={"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "start": "<|im_start|>"},
        template=CHATML,
    )
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return Auditor(tmp_path, tokenizer)


def test_answers_that_the_tokenizer_changes_are_found(lower: Auditor) -> None:
    lower.train[1]["answers"] = ["NATO pact", "green"]
    lower.eval[2]["answers"] = ["UNO", "blue"]
    found = lower.run()
    assert [found["changed_answers", split]["count"] for split in ("train", "eval")] == [1, 1]
    assert found["changed_answers", "train"]["examples"] == [
        {"qid": "t1", "text": "NATO pact", "detail": "'NATO pact' comes back as 'nato pact'"}
    ]


def test_of_the_evaluation_the_first_answer_is_looked_at_whatever_is_trained(
    lower: Auditor,
) -> None:
    for row in lower.eval:
        row["answers"] = ["paris", *["Other"] * 30]
    for row in lower.train:
        row["answers"] = ["other " * 2, *["Paris"] * 30]
    found = lower.run(target="random")
    assert found["changed_answers", "eval"]["count"] == 0
    assert found["changed_answers", "train"]["examples"][0]["text"] == "Paris"


def test_what_was_cut_off_is_listed(auditor: Auditor) -> None:
    auditor.train[0]["passages"][1]["text"] = "more " * 300
    found = auditor.run(context=1000)["truncated_prompts", "train"]
    assert (found["count"], found["of"]) == (1, 4)
    assert found["examples"] == [
        {
            "qid": "t0",
            "text": "What colour is t house 0?",
            "detail": "passages lost: 1, characters lost: 0",
        }
    ]


# How it is given.


def test_examples_are_few_and_short(auditor: Auditor) -> None:
    auditor.train = auditor.train[:1] + distinct(EXAMPLES + 5, "m")
    for row in auditor.train:
        row["question"] = "Which " * 100 + "\n?"
    found = auditor.run()["duplicate_questions", "train"]
    assert (found["count"], len(found["examples"])) == (EXAMPLES + 5, EXAMPLES)
    assert {len(e["text"]) for e in found["examples"]} == {160}
    assert "\n" not in found["examples"][0]["text"]


def test_the_screen_names_what_was_found_and_warns_of_leaks(
    auditor: Auditor, capsys: pytest.CaptureFixture[str]
) -> None:
    auditor.run()
    assert "!" not in capsys.readouterr().out
    auditor.train[1]["question"] = auditor.train[0]["question"] = auditor.eval[0]["question"]
    auditor.run()
    told = capsys.readouterr().out
    assert "! Evaluation questions that are trained, too: 1 of 3. The model has seen" in told
    assert "\nQuestions that occur again (train): 1 of 4.\n" in told


def test_the_samples_have_nothing_in_common(auditor: Auditor) -> None:
    dev = "sample:jaquad.dev"
    found = auditor.run(context=8000, train="sample:jaquad.train", eval=dev)
    for name in ("same_question", "same_passage", "shared_text"):
        assert found[name, "both"]["count"] == 0
        assert found[name, "both"]["of"] > 150
    found = auditor.run(context=8000, train=dev, eval=dev)
    for name in ("same_question", "same_passage", "same_positive"):
        assert found[name, "both"]["count"] == found[name, "both"]["of"]
    assert found["shared_text", "both"]["count"] == 0


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("What is it?", "what is it"),
        ("ＡＢＣとは？", "abcとは"),
        ("Straße", "STRASSE"),
        ("a b\u3000c\n", "abc"),
        ("何。」", "何"),
    ],
)
def test_questions_that_are_the_same(one: str, two: str) -> None:
    assert question_key(one) == question_key(two)


@pytest.mark.parametrize(
    ("one", "two"), [("(a) b", "a b"), ("a.b", "ab"), ("?", "!"), ("が", "か"), ("C+", "C")]
)
def test_questions_that_are_not(one: str, two: str) -> None:
    assert question_key(one) != question_key(two)
