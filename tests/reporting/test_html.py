"""The report says what was measured, shows any text as text, and needs nothing from outside."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ragtune.base.screen.visible import named, visible
from ragtune.data.example import Passage
from ragtune.reporting import markdown
from ragtune.reporting.answers import AnswerRow, island, outcomes, pieces
from ragtune.reporting.plots import controls_chart, gain_chart
from ragtune.reporting.wording import METRICS, count, duration, points, probability
from tests.base.screen.payloads import PAYLOADS
from tests.reporting import made
from tests.reporting.made import STATE, a_recipe, compared, controls, rows


def render(folder: Path, **changes: Any) -> str:
    return made.render(folder, **changes).read_text(encoding="utf-8")


class Reader(HTMLParser):
    """The visible text, and the tags: opened and closed in order."""

    APART = frozenset({"td", "th", "small", "dt", "dd", "li", "p", "span"})
    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.text.append(" " if tag in self.APART else "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text.append(data)

    @classmethod
    def of(cls, page: str) -> Reader:
        reader = cls()
        reader.feed(page)
        reader.close()
        assert reader.open == []
        return reader


def read(page: str) -> tuple[str, set[str]]:
    """The text, white space collapsed, and the names of the elements; every one is closed."""
    reader = Reader.of(page)
    return " ".join("".join(reader.text).split()), reader.tags


def listed(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="rows">(.*?)</script>', page, re.DOTALL)
    assert found
    value: list[dict[str, Any]] = json.loads(found[1])
    return value


def opened(page: str) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json" class="chunk">(.*?)</script>', page)
    return [row for chunk in found for row in json.loads(chunk)]


def test_headline_and_figures(tmp_path: Path) -> None:
    text, _ = read(render(tmp_path))
    found = compared(a_recipe(), rows(), unasked=1)
    old = found["intervals"]["before"]["contains"]
    assert (
        "Exact match, AI王’s rule aio_em 50.0 % before tuning (0.0 … 100.0) → 50.0 % after" in text
    )
    assert "Difference 0.0 points, 95 % interval" in text
    assert "n = 4 questions. The interval includes 0." in text
    assert "1 fixed, 1 broken: McNemar’s exact p = 1.000." in text
    assert "Accepted: every answer of each record (evaluate.answers: all)." in text
    assert (
        f"contains {100 * old['value']:.1f} {100 * old['low']:.1f} … {100 * old['high']:.1f}"
        in text
    )
    assert "1 right both times 1 fixed 1 broken 1 still wrong" in text
    assert re.search(
        r"The text of 3 of 4 answers changed; mean length 2\.8 \(\d.* … \d.*\) → 8\.5 \(\d.* … \d.*\) "
        r"characters\.", text
    )  # fmt: skip
    for name in METRICS:
        assert text.count(name) >= 2  # in the table and defined


def test_a_length_that_all_answers_have_is_given_without_an_interval(tmp_path: Path) -> None:
    comparison = compared(a_recipe(), rows())
    comparison["length"]["before"] = {"value": 7.0, "low": 7.0, "high": 7.0}
    assert "mean length 7.0 → 8.5 (" in read(render(tmp_path, comparison=comparison))[0]


def test_a_graded_headline_has_its_own_words(tmp_path: Path) -> None:
    text, _ = read(render(tmp_path, recipe=a_recipe(metric="token_f1")))
    assert "became better" in text
    assert "1 right both times 1 fixed" in text


def test_what_the_figures_are_over(tmp_path: Path) -> None:
    text, _ = read(render(tmp_path))
    assert (
        "Of 20 evaluation questions 9 are selected: those with a passage among the first 3 that "
        "holds one of its answers. 4 of these 9 were asked (evaluate.limit: 4)." in text
    )
    assert "4 answerable questions that were selected and asked 50.0" in text
    assert "Retrieval ceiling 100.0 %" in text
    assert "5 questions, all of the set" in text
    assert (
        "the 1 not asked counts as wrong, also in the intervals: before and after are lower bounds, the "
        "difference is no bound 40.0" in text
    )
    assert "Asked besides" not in text
    every = [*rows(), made.unanswerable()]
    text, _ = read(render(tmp_path, answers=every, comparison=compared(a_recipe(), every)))
    assert "Retrieval ceiling 80.0 %" in text
    assert "the dashed line is what can be right." in text  # with refusals more than the ceiling
    assert "all were asked 40.0" in text
    assert "lower bound" not in text
    assert "Asked besides, without being selected: 1." in text


def test_the_headline_under_each_choice_of_answers(tmp_path: Path) -> None:
    changed = dataclasses.replace(rows()[0], after="東京都")  # the second of two answers
    text, _ = read(render(tmp_path, answers=[changed, *rows()[1:]]))
    figure = r"(\S+) \S+ … \S+ "
    for words, expected in (
        ("first the first answer of each record ", ("50.0", "25.0", "−25.0")),
        ("every answer of each record: the headline ", ("50.0", "50.0", "0.0")),
    ):
        found = re.search(words + figure * 3, text)
        assert found
        assert found.groups() == expected


def test_what_the_gain_is_made_of(tmp_path: Path) -> None:
    text, tags = read(render(tmp_path))
    assert (
        "Strict exact match went from 50.0 % to 50.0 %: 0.0 points = format 0.0 + reading 25.0 − lost 25.0."
        in text
    )
    assert "the answer before already held an accepted one" in text
    assert "svg" in tags
    drawing = gain_chart(compared(a_recipe(), rows()), width=9.0)
    assert re.findall(r">([+−]?[\d.]+)</text>", drawing)[-5:] == [
        "50.0",
        "+0.0",
        "+25.0",
        "−25.0",
        "50.0",
    ]


def test_controls_are_shown(tmp_path: Path) -> None:
    text, _ = read(render(tmp_path, controls=controls()))
    assert (
        "As asked 4 25.0 20.0 … 30.0 50.0 45.0 … 55.0 +25.0 +20.0 … +30.0 12.5 0.0 … 25.0 → –"
        in text
    )
    assert "No passages 2 left out: prompt too long 3 – 10.0 5.0 … 15.0 – –" in text
    assert "what the passages add 3 – +40.0 +10.0 … +70.0" in text
    assert "Controls" not in read(render(tmp_path))[0]


def test_a_control_without_figures_is_not_drawn() -> None:
    empty = [{**c, "before": None, "after": None} for c in controls()["conditions"]]
    assert controls_chart({"metric": "aio_em", "conditions": empty}, width=9.0) is None
    drawing = controls_chart(controls("$a_b$ <b> --> 'x'"), width=3.7)
    assert drawing is not None
    assert "$a_b$ &lt;b&gt; --&gt; 'x'</text>" in drawing


def test_refusals_are_shown(tmp_path: Path) -> None:
    every = [*rows(), made.unanswerable()]
    text, _ = read(render(tmp_path, answers=every))
    assert "A refusal is the answer 回答できません." in text
    assert "higher is better. 1 0.0 0.0 … 97.5 100.0 2.5 … 100.0 +100.0 −95.0 … +100.0" in text
    assert "lower is better. 4 0.0" in text
    assert "from −100 to +100. 5 −20.0" in text
    # A kind may be missing, and all of it.
    text, _ = read(render(tmp_path))
    assert "Refused where the passages hold no accepted answer" not in text
    without = a_recipe().model_copy(
        update={"data": a_recipe().data.model_copy(update={"refusal": None})}
    )
    assert "A refusal is" not in read(render(tmp_path, recipe=without))[0]


def test_citations_are_shown(tmp_path: Path) -> None:
    assert "Citations" not in read(render(tmp_path))[0]
    comparison = made.compared(a_recipe(), rows())
    comparison["citations"] = {"before": None, "after": made.citation_figures()}
    text, _ = read(render(tmp_path, comparison=comparison))
    assert "over the answers that are no refusals: 0 before, 1,234 after." in text
    assert "Citations of numbers that no passage has: 0 before, 2 after." in text
    assert "one of the question’s positives, by string. – 75.0 50.0 … 90.0" in text


def test_quotes_are_shown(tmp_path: Path) -> None:
    assert "Quotes" not in read(render(tmp_path))[0]
    comparison = made.compared(a_recipe(), rows())
    comparison["quotes"] = {"before": None, "after": made.quote_figures()}
    text, _ = read(render(tmp_path, comparison=comparison))
    assert "and counted as they stand: 0 before, 617 after." in text
    assert "Word for word; 0 for an answer without one. – 50.0 25.0 … 75.0" in text


def test_what_was_forgotten_is_shown(tmp_path: Path) -> None:
    page = render(tmp_path, general=made.general())
    text, _ = read(page)
    assert '<a href="#general">' in page
    assert "as lm-evaluation-harness 0.4.13 asks them: the first 200 documents of each." in text
    assert "arc acc 1,200 50.0 45.0 … 55.0 25.0 20.0 … 30.0 −25.0 −30.0 … −20.0" in text
    assert "arc bits, not in % 1,200 0.5 0.45 … 0.55 0.25 0.2 … 0.3 -0.25 -0.3 … -0.2" in text
    assert "mmlu acc, 57 tasks pooled" in text
    assert "bleu gives a document no figure of its own" in text


def test_what_a_judge_made_of_the_answers_is_shown(tmp_path: Path) -> None:
    judges = {"before": made.judged_run(again=None), "after": made.judged_run()}
    page = render(tmp_path, judges=judges)
    text, _ = read(page)
    assert '<a href="#judge">' in page
    assert "Says what an accepted answer says 75.0 70.0 … 80.0" in text
    assert "Agrees with aio_em n 40; Cohen’s kappa 0.50 75.0" in text
    assert "12 verdicts failed, 8 refusals aren&#39;t" not in text
    assert (
        "12 verdicts failed, 8 refusals aren't judged; 200 requests, 50 kept ones (1,000 + 200 tokens)."
        in text
    )
    assert text.count("Agrees with itself") == 1
    assert text.count("the judge's own doubt is not in the intervals") == 1
    assert 'href="#judge"' not in render(tmp_path)


def test_how_sure_the_model_is_is_shown(tmp_path: Path) -> None:
    """Of four answers q1 (20 %) and q3 (60 %) are right after tuning, q2 (40 %) and q4 (80 %) wrong."""
    page = render(tmp_path)
    text, _ = read(page)
    assert "all 4 answers, to questions without an answer, too" in text
    # 0.8, 0.4, 0.4 and 0.8 apart, of which before tuning other answers are right.
    assert "before 50.0 % (" in text
    assert "after 60.0 % (" in text
    assert "20.0 … 30.0 1 20.0 100.0" in text
    assert re.search(r"the surest 50\.0 2 50\.0 ?0\.0 … 100\.0 60\.0", text)
    assert page.count('aria-label="The share of right answers over their probability') == 2
    assert "Left out" not in text
    refusing = compared(a_recipe(), rows())
    refusing["confidence"]["after"]["left_out"] = 2
    text, _ = read(render(tmp_path, comparison=refusing))
    assert "Left out: 2 answers that evaluate.refuse_below refused" in text
    silent = compared(a_recipe(), rows())
    assert "Of all questions refused" not in text
    silent["unsure"] = {"before": 0, "after": 4}
    refused = "Of all questions refused by evaluate.refuse_below: 0 before, 4 after"
    assert refused in read(render(tmp_path, comparison=silent))[0]
    assert "Of all questions refused by `evaluate.refuse_below`: 0 → 4." in markdown.summary(
        "x", silent
    )
    silent["confidence"] = {"before": None, "after": None}
    assert "Confidence" not in render(tmp_path, comparison=silent)


def test_audits_and_alternatives(tmp_path: Path) -> None:
    also = dataclasses.replace(rows()[0], alternatives=("東亰", "Tokyo"), others=("東亰", "Tokyo"))
    data = made.data_report(audits=made.audits())
    page = render(tmp_path, answers=[also, *rows()[1:]], data=data)
    text, _ = read(page)
    assert (
        "Asked in training, too evaluation 1 of 20 By the text."
        "1 example 日本の首都は？ 東京 q1 and t1" in text
    )
    assert "Odd training 0 of 9" in text
    assert (
        "1 asked question names accepted answers beside answers. They do not count as right here"
        in text
    )
    assert "東亰 · Tokyo" in text
    assert opened(page)[0]["others"] == ["東亰", "Tokyo"]
    text, _ = read(render(tmp_path))
    assert "Audits" not in text
    assert "Alternatives" not in text


def test_the_rows_are_there_for_the_script(tmp_path: Path) -> None:
    every = [dataclasses.replace(r, prompt=f"<s>{r.question}") for r in rows()]
    page = render(tmp_path, answers=[*every, made.unanswerable()])
    found = listed(page)
    assert [r["outcome"] for r in found] == ["fixed", "broken", "right", "wrong", "fixed"]
    assert [r["kinds"] for r in found] == [
        ["fixed"], ["broken"], ["right"], ["wrong"], ["refused", "unanswerable"],
    ]  # fmt: skip
    assert [r["lang"] for r in found] == ["ja", None, None, None, None]
    details = opened(page)
    assert details[0]["passages"] == [
        ["東京", ["", "東京都", "は日本の首都である。", "東京", "の人口は多い。"]]
    ]
    assert [d["prompt"] for d in details] == [*(r.prompt for r in every), None]
    assert re.findall(r'data-kind="(\w*)"', page) == [
        "", "fixed", "broken", "wrong", "right", "refused", "unanswerable",
    ]  # fmt: skip
    assert "scripts are switched off" in page


def test_it_says_that_prompts_are_missing(tmp_path: Path) -> None:
    missing = "The prompts are not shown"
    assert missing in render(tmp_path)
    with_prompt = [dataclasses.replace(rows()[0], prompt="?"), *rows()[1:]]
    assert missing not in render(tmp_path, answers=with_prompt)


def test_many_rows_lie_in_chunks(tmp_path: Path) -> None:
    many = [dataclasses.replace(rows()[2], qid=f"m{i}", prompt=f"p{i}") for i in range(60)]
    page = render(tmp_path, answers=many, comparison=None)
    assert page.count('class="chunk"') == 3
    assert [d["prompt"] for d in opened(page)] == [f"p{i}" for i in range(60)]


def test_data_recipe_and_machine(tmp_path: Path) -> None:
    text, _ = read(render(tmp_path))
    assert "Dropped: no passage contains an answer 7" in text
    assert "prompt 2 5.5 9 1,234 12,345" in text
    assert "3 prompts were too long and lost 2 passages and 71 characters (q7, …)." in text
    assert "20 records had no positive_passage_indices" in text
    assert "system: 簡潔に <答え> を" in text
    assert "training 1 min 23 s 9.5" in text
    assert "Memory that was planned for training 9.2 GiB, answering 4.5 GiB" in text
    assert "4,884,480" in text
    assert "one sample each: softcap" in text
    assert "step 4: out of memory, 2 samples a row" in text
    assert (
        "The merged model gives 1 of 4 answers otherwise than the run itself; aio_em 50.0 % where the run has "
        "75.0 % (25.0 … 100.0), −25.0 points (−75.0 … 0.0: the paired 95 % interval over 4 questions): no "
        "detectable difference." in text
    )


HOSTILE = "</script><!--<script>x\u2028y\u2029&'\"<img src=x onerror=alert(1)>"
SEEN = HOSTILE.replace("\u2028", "U+2028").replace("\u2029", "U+2029")


def test_what_was_cut_is_counted(tmp_path: Path) -> None:
    found = made.compared(made.a_recipe(), rows()) | {"cut": {"before": 3, "after": 1}}
    data = made.data_report()
    data["train"] |= {
        "positives_cut": {"examples": 2, "done": "left out", "qids": ["q1", "q2"]},
        "too_long": {"max_new_tokens": 6, "of": 9, "count": 4, "longest": 43, "qids": ["q3"]},
    }
    text, _ = read(render(tmp_path, comparison=found, data=data))
    assert "Cut off at 32 tokens (evaluate.max_new_tokens): 3 before, 1 after." in text
    assert "2 prompts lost every passage with an answer: left out (q1, q2)." in text
    assert (
        "4 of 9 trained answers have more than 6 tokens (the longest has 43) and can’t be given "
        "whole (q3, …)." in text
    )


def test_one_of_each_is_no_plural(tmp_path: Path) -> None:
    data = made.data_report()
    data["train"] |= {
        "truncated": {"examples": 1, "passages_dropped": 1, "characters_cut": 1, "qids": ["q7"]},
        "too_long": {"max_new_tokens": 6, "of": 9, "count": 1, "longest": 43, "qids": ["q3"]},
    }
    data["eval"] |= {"selected": 9}
    judged = {"after": made.judged_run(n=1)}
    found = made.compared(made.a_recipe(), rows()) | {"n": 1}
    text, _ = read(render(tmp_path, data=data, judges=judged, comparison=found))
    assert "1 prompt was too long and lost 1 passage and 1 character (q7)." in text
    assert "1 of 9 trained answers has more than 6 tokens" in text
    assert "1 of these 9 was asked (evaluate.limit: 4)." in text
    assert "Of 1 answer, %" in text
    data["eval"] |= {"selected": 1}
    assert "Of 20 evaluation questions 1 is selected:" in read(render(tmp_path, data=data))[0]


def test_data_are_text_everywhere(tmp_path: Path) -> None:
    row = AnswerRow(
        HOSTILE, HOSTILE, (HOSTILE,), (Passage(HOSTILE, HOSTILE),), HOSTILE, HOSTILE, True, True,
        prompt=HOSTILE, others=(HOSTILE,), alternatives=(HOSTILE,),
    )  # fmt: skip
    recipe = a_recipe()
    recipe = recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"id": HOSTILE}),
            "data": recipe.data.model_copy(update={"refusal": HOSTILE}),
        }
    )
    audit = {"split": HOSTILE, "title": HOSTILE, "count": 1, "of": 1, "note": HOSTILE}
    example = {"qid": HOSTILE, "text": HOSTILE, "detail": HOSTILE, "other_qid": HOSTILE}
    page = render(
        tmp_path,
        recipe=recipe,
        answers=[row],
        data=made.data_report(audits=[{**audit, "examples": [example]}]),
        controls=controls(HOSTILE),
        general=made.general(HOSTILE),
        judges={"after": made.judged_run(HOSTILE)},
    )
    text, tags = read(page)
    assert "<!--" not in page
    assert "img" not in tags
    assert page.count("</script>") == page.count("<script") == 3  # rows, one chunk, the script
    assert SEEN in "".join(Reader.of(page).text)
    assert listed(page)[0]["qid"] == named(HOSTILE)
    assert opened(page)[0]["prompt"] == named(HOSTILE)
    inside = "".join(re.findall(r'<script type="application/json".*?</script>', page, re.DOTALL))
    assert "\u2028" not in inside
    assert "\u2029" not in inside
    assert "U+2028" in inside
    assert text


def test_what_can_t_be_seen_is_marked(tmp_path: Path) -> None:
    shown = [
        AnswerRow(
            text, text, (text,), (Passage(f"a {text} b", text),), text, text, True, True,
            prompt=text, others=(text,), alternatives=(text,),
        )
        for text in PAYLOADS.values()
    ]  # fmt: skip
    text = "|".join(PAYLOADS.values())
    recipe = a_recipe()
    model = recipe.model.model_copy(update={"id": text})
    prompt = recipe.prompt.model_copy(update={"system": text})
    changes = {"model": model, "prompt": prompt}
    changes["data"] = recipe.data.model_copy(update={"refusal": text})
    example = {"qid": text, "text": text, "detail": text, "other_qid": text}
    audit = {"split": text, "title": text, "count": 1, "of": 1, "note": text}
    found = made.data_report(audits=[{**audit, "examples": [example]}], stop_token=text)
    found["train"] |= {"source": text, "truncated": {**found["train"]["truncated"], "qids": [text]}}
    page = render(
        tmp_path, recipe=recipe.model_copy(update=changes), answers=shown, data=found,
        general=made.general(text), judges={"after": made.judged_run(text)},
    )  # fmt: skip
    assert visible(page) == page
    read(page)
    assert page.count('<bdi class="odd" title="') > 9 * len(PAYLOADS)
    assert [row["qid"] for row in listed(page)] == [*map(named, PAYLOADS.values())]
    assert opened(page)[0]["passages"][0][0] == named(shown[0].qid)
    summary = markdown.summary(text, compared(recipe, rows()), general=made.general(text))
    assert visible(summary) == summary


def test_what_is_written_from_right_to_left_is_isolated(tmp_path: Path) -> None:
    data = made.data_report()
    data["train"] |= {"source": "קובץ.jsonl"}
    data["train"]["truncated"] |= {"qids": ["שאלה", "2"]}
    page = render(tmp_path, data=data)
    assert "<bdi>קובץ.jsonl</bdi>" in page
    assert "<bdi><bdi>שאלה</bdi></bdi>, <bdi>2</bdi>" in page


def test_an_island_reads_back() -> None:
    assert json.loads(island(["</script>", "\u2028", "&lt;"])) == ["</script>", "\u2028", "&lt;"]
    assert not set("<>&\u2028\u2029") & set(island(["<!--", "-->", "\u2028\u2029&"]))


def test_nothing_is_fetched_and_one_script_may_run(tmp_path: Path) -> None:
    page = render(tmp_path, controls=controls())
    for sign in ("http://", "https://", "src=", "@import", "url(", "<link", "javascript:"):
        assert sign not in page
    sections = (
        "results",
        "gain",
        "controls",
        "refusals",
        "confidence",
        "answers",
        "training",
        "data",
    )
    assert set(re.findall(r'href="([^"]*)"', page)) <= {
        *(f"#{s}" for s in (*sections, "recipe", "machine")),
        *re.findall(r'"(#m[0-9a-f]+)"', page),  # markers within the drawings
    }
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].startswith("default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;;")
    assert f"script-src &#39;sha256-{digest}&#39;" in policy[1]


def test_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    assert render(tmp_path, controls=controls()) == render(tmp_path, controls=controls())


def test_before_alone(tmp_path: Path) -> None:
    alone = [dataclasses.replace(r, after=None, after_right=False) for r in rows()]
    page = render(tmp_path, log=[], answers=alone, summary={})
    text, tags = read(page)
    assert "There is no comparison yet" in text
    assert "2 of 4 answers before tuning are right." in text
    assert "answers after tuning are right" not in text
    assert listed(page)[0]["after"] is None
    assert 'data-kind="fixed"' not in page
    assert "There is no training log yet." in text
    assert "svg" not in tags


def test_nothing_yet(tmp_path: Path) -> None:
    text, _ = read(render(tmp_path, log=[], answers=[], summary={}))
    assert "No question has been asked yet." in text


@pytest.mark.parametrize("key", ["versions", "plan", "times", "peak_gib", "train", "merge"])
def test_any_part_of_the_state_may_be_missing(tmp_path: Path, key: str) -> None:
    read(render(tmp_path, summary={k: v for k, v in STATE.items() if k != key}))
    read(render(tmp_path, summary={key: STATE[key]}))
    read(render(tmp_path, summary={key: {}}))


def test_outcomes_are_over_the_selected() -> None:
    found = outcomes([*rows(), made.unanswerable()])
    assert found == {"right": 1, "fixed": 1, "broken": 1, "wrong": 1}


def test_pieces_keep_the_text() -> None:
    assert pieces("a東京都b", ("東京", "東京都")) == ["a", "東京都", "b"]
    assert pieces("eyes: yes", ("yes",)) == ["eyes: ", "yes", ""]
    assert pieces("東京 USA", ("東京 U", "東京")) == ["", "東京", " USA"]
    assert pieces("1+1", ("+", "")) == ["1", "+", "1"]
    assert pieces("text", ("", " ")) == ["text"]


def test_figures_in_words() -> None:
    assert [points(v) for v in (0.125, -0.02, 0.0, -0.0001)] == ["+12.5", "−2.0", "0.0", "0.0"]
    assert [count(v) for v in (12345, 301.29999, 213.0)] == ["12,345", "301.3", "213"]
    assert [probability(p) for p in (1.0, 0.0312, 0.0004)] == [
        "p = 1.000",
        "p = 0.031",
        "p < 0.001",
    ]
    assert [duration(v) for v in (1.09, 59.97, 83, 3725)] == [
        "1.1 s",
        "60.0 s",
        "1 min 23 s",
        "1 h 2 min",
    ]
