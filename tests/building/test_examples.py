import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.building.examples import Gold, example, judge, side_of_unanswered, sides_of
from ragtune.building.questions import Question
from ragtune.data.example import Passage, parse_example

PASSAGES = [
    Passage("In Paris stands a tower.", "a", "a#1"),
    Passage("Parisian bread.", "a", "a#2"),
    Passage("Lyon is smaller than Paris.", "b", "b#1"),
]
DOCUMENTS = {"a#1": "a", "a#2": "a", "b#1": "b"}


def question(*answers: str) -> Question:
    return Question("q", "Where?", answers or ("Paris",), (), (), {"level": 3}, "q.csv:2")


@pytest.mark.parametrize(
    ("gold", "positive"),
    [
        (Gold(), (0, 2)),  # at word borders
        (Gold(frozenset("b")), (2,)),
        (Gold(frozenset("a")), (0,)),  # the passage of the document in which the answer stands
        (Gold(frozenset(), frozenset({"a#2"})), (1,)),  # what is named is believed
        (Gold(frozenset("c")), ()),
    ],
)
def test_positives_are_by_the_answer_or_what_is_named(
    gold: Gold, positive: tuple[int, ...]
) -> None:
    judged = judge(question(), gold, PASSAGES, DOCUMENTS)
    assert judged.positive == positive
    assert judged.by_answer == (0, 2)


def test_an_example_says_both_and_is_read_as_it_was_written() -> None:
    judged = judge(question(), Gold(frozenset("b")), PASSAGES, DOCUMENTS)
    each = example(question(), PASSAGES, judged)
    assert each.extra == {
        "level": 3,
        "positives_by": "gold",
        "answer_passage_indices": [0, 2],
        "gold_passage_indices": [2],
    }
    # A passage with the answer is no hard negative, even where another one is named.
    assert (each.positive_passage_indices, each.negative_passage_indices) == ((2,), (1,))
    assert parse_example(each.to_dict(), "x") == each


def test_a_question_without_answers_has_the_named_document_s_passages() -> None:
    nothing = Question("q", "Where?", (), (), (), {}, "q.csv:2")
    assert judge(nothing, Gold(frozenset("a")), PASSAGES, DOCUMENTS).positive == (0, 1)
    assert judge(nothing, Gold(), PASSAGES, DOCUMENTS).positive == ()


@given(st.sets(st.text(), min_size=2), st.floats(0.01, 0.99), st.integers(0, 99))
def test_both_sides_get_documents_with_questions(names: set[str], share: float, seed: int) -> None:
    sides = sides_of(names, names, share, seed)
    assert set(sides) == names
    assert set(sides.values()) == {"train", "eval"}
    assert sides == sides_of(sorted(names), names, share, seed)


def test_a_document_stays_on_its_side_when_others_come() -> None:
    few = [f"d{i}" for i in range(50)]
    before, after = (
        sides_of(names, names, 0.2, 42) for names in (few, [*few, *map(str, range(500))])
    )
    assert sum(before[one] != after[one] for one in few) <= 2
    assert 0.1 < [*after.values()].count("eval") / len(after) < 0.3


def test_one_document_can_t_be_parted() -> None:
    with pytest.raises(UsageError, match="All questions are answered by one document, a") as raised:
        sides_of("ab", "a", 0.2, 42)
    assert "questions.eval" in raised.value.advice


def test_questions_that_nothing_answers_are_drawn_by_their_qid() -> None:
    sides = [side_of_unanswered(str(i), 0.2, 42) for i in range(500)]
    assert 70 < sides.count("eval") < 130
