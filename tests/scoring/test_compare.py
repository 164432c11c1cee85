"""Figures, intervals and what changed between two sets of answers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.base.errors import RagtuneError
from ragtune.data.example import Example, Passage
from ragtune.recipe.load import load_recipe
from ragtune.scoring.compare import compare, compare_answers, gain_columns
from ragtune.scoring.controls import AS_ASKED, control_figures, key
from ragtune.scoring.score import Answers, Scored, metrics_of, score_answers
from ragtune.scoring.statistics import figures, mcnemar


def recipe(**sections: dict[str, Any]) -> Any:
    values = {
        "name": "x",
        "model": {"id": "some/model"},
        "data": {"train": "a", "eval": "b"},
        "prompt": {"preset": "english"},
        "train": {"steps": 1},
    }
    return load_recipe({k: {**v, **sections.get(k, {})} if isinstance(v, dict) else v for k, v in values.items()}
                       | {k: v for k, v in sections.items() if k not in values})  # fmt: skip


def question(qid: str, *answers: str, selected: bool = True) -> Example:
    return Example(qid, "?", answers, (), (), (), {"selected": selected})


def scored(predictions: list[str | None], examples: list[Example], **sections: Any) -> Scored:
    """None: not asked."""
    answers = {e.qid: p for e, p in zip(examples, predictions, strict=True) if p is not None}
    return score_answers(recipe(**sections), examples, Answers(answers))


FIVE = [question(f"q{i}", "gold") for i in range(5)]


def test_interval_of_a_rate_is_near_the_normal_one() -> None:
    found = figures({"x": [1.0] * 40 + [0.0] * 60}, seed=1)["x"]
    error = 1.96 * np.sqrt(0.4 * 0.6 / 100)
    assert found["value"] == pytest.approx(0.4)
    assert found["low"] == pytest.approx(0.4 - error, abs=0.015)
    assert found["high"] == pytest.approx(0.4 + error, abs=0.015)


def test_many_questions_are_drawn_in_parts_and_give_the_same_kind_of_interval() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=30_000)
    found = figures({"x": values.tolist()}, seed=1)["x"]
    assert found["value"] == pytest.approx(values.mean())
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 2 / math.sqrt(30_000), rel=0.05)


def test_intervals_are_seeded() -> None:
    values = {"x": np.random.default_rng(0).normal(size=50).tolist()}
    assert figures(values, seed=3) == figures(values, seed=3)
    assert figures(values, seed=3) != figures(values, seed=4)


def test_a_column_has_the_same_interval_in_any_company() -> None:
    one, two = [0.0, 1.0] * 20, [0.3, 0.9, 0.1, 0.2] * 10
    together = figures({"one": one, "two": two}, 5)
    assert together["one"] == pytest.approx(figures({"one": one}, 5)["one"])
    assert figures({"one": []}, 5) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_holds_within_what_was_seen(values: list[float]) -> None:
    found = figures({"x": values}, 1)["x"]
    slack = 1e-9
    if max(values) - min(values) < slack:  # then what was not seen is all that could be otherwise
        assert 0 <= found["low"] < found["high"] <= 1 + slack
    else:
        assert min(values) - slack <= found["low"] <= found["high"] <= max(values) + slack


@pytest.mark.parametrize(
    ("fixed", "broken", "p"),
    [(0, 0, 1.0), (5, 0, 2 / 2**5), (3, 1, 2 * (1 + 4) / 2**4), (2, 2, 1.0)],
)
def test_mcnemar_by_hand(fixed: int, broken: int, p: float) -> None:
    assert mcnemar(fixed, broken) == pytest.approx(p)
    assert mcnemar(broken, fixed) == pytest.approx(p)


def test_the_interval_is_paired() -> None:
    """Two raters that agree a hundred times have a difference near none, however uncertain each is."""
    examples = [question(f"q{i}", "gold") for i in range(100)]
    same = scored(["gold", "no"] * 50, examples)
    found = compare(same, same)
    near = {"value": 0, "low": -0.036217, "high": 0.036217}  # 1 - 0.025^(1/100)
    assert found["difference"]["strict_em"] == pytest.approx(near, abs=1e-6)
    assert found["intervals"]["before"]["strict_em"]["high"] > 0.55
    assert found["mcnemar_p"] == 1


def test_what_no_question_shows_is_not_excluded() -> None:
    """Three alike, asked twice with the same answers: of others 1 - 0.025^(1/3) = 0.7076 could be otherwise."""
    examples = [question(f"q{i}", "gold") for i in range(3)]
    same = scored(["gold"] * 3, examples, data={"refusal": "not said"})
    found = compare(same, same)
    every = [
        *found["difference"].values(),
        found["all"]["intervals"]["difference"]["squad_em"],
        found["by_answers"]["first"]["difference"],
        found["refusals"]["difference"]["answerable"],
    ]
    for one in every:
        assert one == pytest.approx({"value": 0, "low": -0.707598, "high": 0.707598}, abs=1e-6)
    none, all_ = {"value": 0, "low": 0, "high": 0.707598}, {"value": 1, "low": 0.292402, "high": 1}
    assert found["intervals"]["gain"]["lost"] == pytest.approx(none, abs=1e-6)
    assert found["intervals"]["after"]["squad_em"] == pytest.approx(all_, abs=1e-6)
    assert found["all"]["ceiling"] == pytest.approx(all_, abs=1e-6)
    crag = found["refusals"]["after"]["crag"]
    assert (crag["low"], crag["high"]) == pytest.approx((1 - 2 * 0.707598, 1), abs=1e-6)
    crag = found["refusals"]["difference"]["crag"]
    assert (crag["low"], crag["high"]) == pytest.approx((-1.415196, 1.415196), abs=1e-6)
    assert found["length"]["after"] == {"value": 4, "low": 4, "high": 4}  # nothing bounds a length


def test_what_no_control_shows_is_not_excluded() -> None:
    examples = [question(f"q{i}", "gold") for i in range(3)]
    given = {key(name, e.qid): "gold" for e in examples for name in (AS_ASKED, "no_passages")}
    found = control_figures(recipe(), examples, {"before": given, "after": given}, {})
    (effect,) = found["effects"]
    for one in (found["conditions"][1]["difference"]["squad_em"], effect["after"]):
        assert one == pytest.approx({"value": 0, "low": -0.707598, "high": 0.707598}, abs=1e-6)


def test_fixed_broken_changed_and_the_parts_of_the_gain_are_counted() -> None:
    before = scored(["it is gold", "x", "gold", "gold", "x"], FIVE)
    after = scored(["gold", "gold", "x", "gold", "y"], FIVE)
    found = compare(before, after)
    assert (found["n"], found["fixed"], found["broken"], found["changed"]) == (5, 2, 1, 4)
    assert found["before"]["strict_em"] == pytest.approx(0.4)
    assert found["difference"]["strict_em"]["value"] == pytest.approx(0.2)
    assert found["gain"] == pytest.approx({"format": 0.2, "reading": 0.2, "lost": 0.2})
    assert found["mcnemar_p"] == 1
    assert found["denominators"] == {"answerable": 5, "all": 5}


words = st.sampled_from(["gold", "it is gold", "x", ""])


@given(st.lists(st.tuples(words, words), min_size=1, max_size=12))
def test_the_parts_add_up_to_the_gain(pairs: list[tuple[str, str]]) -> None:
    examples = [question(f"q{i}", "gold") for i in range(len(pairs))]
    before = scored([a for a, _ in pairs], examples)
    after = scored([b for _, b in pairs], examples)
    parts = {k: sum(v) for k, v in gain_columns(before.values, after.values).items()}
    gain = sum(after.values["strict_em"]) - sum(before.values["strict_em"])
    assert parts["format"] + parts["reading"] - parts["lost"] == gain


def test_what_was_not_asked_counts_as_wrong_among_all() -> None:
    examples = [*FIVE, question("late", "gold", selected=False), question("no", selected=False)]
    found = metrics_of(scored(["gold"] * 4 + [None] * 3, examples))
    assert found["n"] == 4
    assert found["metrics"]["strict_em"] == 1
    whole = found["all"]
    assert (whole["n"], whole["asked"], whole["lower_bound"]) == (7, 4, True)
    assert whole["ceiling"]["value"] == whole["reachable"] == pytest.approx(5 / 7)
    assert whole["intervals"]["strict_em"]["value"] == pytest.approx(4 / 7)


def test_what_is_asked_of_the_others_counts_among_all_alone() -> None:
    examples = [question("a", "gold"), question("late", "gold", selected=False)]
    found = metrics_of(scored(["x", "gold"], examples))
    assert found["metrics"]["strict_em"] == 0
    assert found["all"]["intervals"]["strict_em"]["value"] == 0.5
    assert not found["all"]["lower_bound"]


def test_refusals_are_counted_where_there_was_no_answer_and_where_there_was_one() -> None:
    examples = [
        question("right", "gold"), question("shy", "gold"), question("wrong", "gold"),
        question("well", selected=False), question("made up", selected=False),
    ]  # fmt: skip
    sections = {"data": {"refusal": "I don't know."}}
    after = scored(["gold", "I don't know", "x", "i don't know.", "y"], examples, **sections)
    before = scored(["x"] * 5, examples, **sections)
    refusals = compare(before, after)["refusals"]
    assert refusals["refusal"] == "I don't know."
    assert refusals["after"]["unanswerable"]["n"] == 2
    assert refusals["after"]["unanswerable"]["value"] == 0.5
    assert refusals["after"]["answerable"]["value"] == pytest.approx(1 / 3)
    assert refusals["after"]["crag"]["value"] == pytest.approx((1 + 0 - 1 + 0 - 1) / 5)
    assert refusals["before"]["crag"]["value"] == -1
    assert refusals["difference"]["unanswerable"]["value"] == 0.5
    # Among all questions a refusal is right where there is no answer.
    assert metrics_of(after)["all"]["intervals"]["strict_em"]["value"] == pytest.approx(2 / 5)
    assert compare(scored(["x"] * 5, examples), scored(["x"] * 5, examples))["refusals"] is None
    # What can be right: three with an answer, two to be refused.
    assert metrics_of(after)["all"]["ceiling"]["value"] == pytest.approx(3 / 5)
    assert metrics_of(after)["all"]["reachable"] == 1


def test_the_headline_is_given_under_every_way_to_accept_answers() -> None:
    one = Example(
        "q", "?", ("a", "b"), (), (), (),
        {"selected": True, "competition": "第2回AI王", "original_additional_info": "c"},
    )  # fmt: skip
    for text, expected in (("a", (1, 1, 1)), ("b", (0, 1, 1)), ("c", (0, 0, 1))):
        found = metrics_of(scored([text], [one], evaluate={"answers": "first"}))
        assert tuple(f["value"] for f in found["by_answers"].values()) == expected
        assert found["metrics"]["strict_em"] == expected[0]
        assert found["answers"] == "first"


def test_the_length_is_in_characters() -> None:
    found = metrics_of(scored(["東京", "four"], FIVE[:2]))
    assert found["length"]["value"] == 3


def test_the_length_is_of_the_answers_that_there_are() -> None:
    two = Answers({"q0": "four", "q1": "x"})
    found = metrics_of(score_answers(recipe(), FIVE, two, {e.qid for e in FIVE}))
    assert found["n"] == 5
    assert found["length"]["value"] == 2.5


def test_an_accepted_alternative_is_within_the_ceiling() -> None:
    """Nothing that is read can be right beyond it."""
    hidden = Example(
        "q", "Who?", ("Isaac Newton",), (Passage("It was Newton."), Passage("Leibniz, too")), (), (),
        {"selected": False, "also": "Newton, Leibniz"},
    )  # fmt: skip
    for choice, count, ceiling in (("all", 1, 0.5), ("all+alternatives", 1, 1.0)):
        data = {"alternatives": "also", "max_passages": count}
        found = scored(
            ["gold", "Newton"], [FIVE[0], hidden], data=data, evaluate={"answers": choice}
        )
        whole = metrics_of(found)["all"]
        assert whole["ceiling"]["value"] == whole["reachable"] == ceiling
        assert whole["intervals"]["squad_em"]["value"] <= ceiling
    far = dataclasses.replace(hidden, passages=(Passage("?"), *hidden.passages))
    data = {"alternatives": "also", "max_passages": 1}
    found = scored(
        ["gold", "x"], [FIVE[0], far], data=data, evaluate={"answers": "all+alternatives"}
    )
    assert metrics_of(found)["all"]["ceiling"]["value"] == 0.5


def test_answers_that_were_cut_off_are_counted_over_the_chosen() -> None:
    texts = {e.qid: "x" for e in FIVE}
    before = score_answers(recipe(), FIVE, Answers(texts, texts.keys()))
    after = score_answers(recipe(), FIVE, Answers(texts, set()))
    assert compare(before, after)["cut"] == {"before": 5, "after": 0}
    unknown = scored(["x"], FIVE[:1])
    assert compare(unknown, unknown)["cut"] == {"before": None, "after": None}


def test_two_sets_must_answer_the_same_questions() -> None:
    one, other = Answers({"q0": "x"}, name="run/before"), Answers({"q1": "x"}, name="run/after")
    with pytest.raises(RagtuneError, match="run/before and run/after answer different questions"):
        compare_answers(recipe(), FIVE, one, other)
    assert compare_answers(recipe(), FIVE, one, one)["changed"] == 0


@dataclasses.dataclass
class Given:
    qid: str
    prediction: str
    token_ids: list[int]
    stopped: bool
    probability: float | None = None
    unsure: bool = False


def test_what_an_engine_says_of_its_answers_is_counted() -> None:
    late = question("late", "gold", selected=False)
    given = [
        Given("q0", "gold", [1, 2], True),
        Given("q1", "x", [3], False),
        Given("late", "x", [], True),
    ]
    found = metrics_of(score_answers(recipe(), [*FIVE, late], Answers.of(given)))
    counts = {k: found[k] for k in ("asked", "stopped", "cut", "new_tokens")}
    assert counts == {"asked": 3, "stopped": 1, "cut": 1, "new_tokens": 4}
    silent = Answers.of(dataclasses.replace(one, token_ids=[]) for one in given)
    assert metrics_of(score_answers(recipe(), [*FIVE, late], silent))["new_tokens"] is None
    assert "asked" not in metrics_of(scored(["gold"], FIVE[:1]))


def test_what_the_threshold_refused_has_no_part_in_calibration() -> None:
    refusing = recipe(data={"refusal": "not said"}, evaluate={"refuse_below": 0.5})
    given = [
        Given("q0", "gold", [1], True, 0.9),
        Given("q1", "not said", [2], True, None, unsure=True),
        Given("q2", "x", [3], True, 0.7),
    ]
    found = score_answers(refusing, FIVE, Answers.of(given)).confidence
    assert found is not None
    assert (found["n"], found["left_out"]) == (2, 1)
    assert "refuse_below" not in found  # of what was hidden, none can be found
    # All refused: there is no calibration, and still it is said.
    given = [dataclasses.replace(one, probability=None, unsure=True) for one in given]
    scored_all = score_answers(refusing, FIVE, Answers.of(given))
    assert scored_all.confidence is None
    assert metrics_of(scored_all)["unsure"] == 3
    assert compare(scored_all, scored_all)["unsure"] == {"before": 3, "after": 3}
    one = Answers.of([Given("q0", "gold", [1], True, 0.9)])
    for below, suggested in ((None, False), (0, True)):  # with 0 everything is answered
        asked = recipe(data={"refusal": "not said"}, evaluate={"refuse_below": below})
        found = score_answers(asked, FIVE, one).confidence
        assert ("refuse_below" in (found or {})) is suggested
