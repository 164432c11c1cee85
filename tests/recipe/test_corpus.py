from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.recipe.corpus import Corpus
from ragtune.recipe.keys import all_keys, describe_key, field_of, sections
from ragtune.recipe.load import load_corpus, load_recipe, save
from ragtune.recipe.starter import CORPUS_STARTER, commented

CORPORA = sorted((Path(__file__).parents[2] / "recipes").glob("*.corpus.yaml"))
SMALL: dict[str, Any] = {
    "name": "small",
    "documents": {"files": ["docs"]},
    "questions": {"files": ["q.csv"]},
}


@pytest.mark.parametrize("path", CORPORA, ids=lambda p: p.stem)
def test_shipped_corpora_are_valid(path: Path, tmp_path: Path) -> None:
    corpus = load_corpus(path)
    save(corpus, tmp_path / "again.yaml")
    assert load_corpus(tmp_path / "again.yaml") == corpus


def test_the_starter_is_a_corpus_with_every_key(tmp_path: Path) -> None:
    path = tmp_path / "corpus.yaml"
    text = commented(Corpus, CORPUS_STARTER)
    path.write_text(text, "utf-8")
    assert load_corpus(path) == load_corpus(CORPUS_STARTER)
    assert all(f"{key.rpartition('.')[2]}:" in text for key in all_keys(Corpus))


def test_every_key_is_described() -> None:
    assert sections(Corpus).keys() >= {"documents", "questions", "questions.generate"}
    for key in all_keys(Corpus):
        assert field_of(key, Corpus) is not None
        assert describe_key(key, Corpus), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("passages.sise=300", "unknown key passages.sise. Did you mean passages.size?"),
        ("documents.size=300", "unknown key documents.size. Did you mean passages.size?"),
        ("questions.generate.modle=x", "Did you mean questions.generate.model?"),
        ("questions.eval_share=1", "questions.eval_share = 1"),
        ("retrieval.retriever=dense", "retriever: dense needs model"),
        ("retrieval.retriever=file", "retriever: file and retrieved go together"),
        ("retrieval.shards=4", "shards needs ray"),
        ("passages.overlap=300", "overlap"),
        ("retrieval={retriever: file, retrieved: f, reranker: m}", "file has its order"),
        ("retrieval={retriever: dense, model: m, ray: auto}", "ray searches the index of words"),
        ("passages.unit=tokens", "unit: tokens needs tokenizer"),
        ("name=a/b", "name = 'a/b'"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(change: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        load_corpus(SMALL, [change])
    assert message in raised.value.message
    assert "--corpus" in raised.value.advice


def test_a_place_is_named_within_sections(tmp_path: Path) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_text(
        "name: a\ndocuments:\n  files: [d]\nquestions:\n  files: [q]\n  generate:\n    model: m\n    count: 0\n",
        "utf-8",
    )
    with pytest.raises(UsageError, match=r"corpus\.yaml:8: questions\.generate\.count = 0"):
        load_corpus(path)


def test_a_section_within_a_section_can_be_changed() -> None:
    corpus = load_corpus(SMALL, ["questions.generate.model=m", "questions.generate.count=5"])
    assert corpus.questions.generate is not None
    assert corpus.questions.generate.count == 5


@pytest.mark.parametrize("sign", ["|", "#", ",", ";", "、"])
def test_a_separator_is_what_stands_there(sign: str) -> None:
    assert load_corpus(SMALL, [f"questions.separator={sign}"]).questions.separator == sign
    assert load_corpus(SMALL, ["questions.separator=null"]).questions.separator is None


def test_questions_of_a_model_alone_leave_nothing_to_evaluate_with() -> None:
    alone = {**SMALL, "questions": {"generate": {"model": "m"}}}
    with pytest.raises(UsageError, match=r"leaves? no questions to evaluate with"):
        load_corpus(alone)
    assert load_corpus(alone, ["questions.generate.evaluate=true"]).questions.files == []


def test_questions_of_a_model_are_not_evaluated_with_beside_named_ones() -> None:
    both = {**SMALL["questions"], "eval": ["q2"], "generate": {"model": "m"}}
    named = {**SMALL, "questions": both}
    assert load_corpus(named).questions.eval == ["q2"]
    with pytest.raises(UsageError, match=r"eval names the questions to evaluate with"):
        load_corpus(named, ["questions.generate.evaluate=true"])


def test_a_token_is_refused() -> None:
    with pytest.raises(UsageError, match="holds"):
        load_corpus(SMALL, ["questions.generate.endpoint=http://x/?key=hf_" + "a" * 34])


@pytest.mark.parametrize(
    "address", ["http://h/v1?q=s3cret", "//me:s3cret@h/v1", "http://h/#s3cret"]
)
def test_an_address_with_more_than_one_is_refused_and_not_shown(
    address: str, tiny_recipe: dict[str, Any]
) -> None:
    refused = "endpoint: the address holds a user's name or password, or something behind"
    with pytest.raises(UsageError, match=refused) as corpus:
        load_corpus({**SMALL, "questions": {"generate": {"model": "m", "endpoint": address}}})
    tiny_recipe["evaluate"]["endpoint"] = address
    with pytest.raises(UsageError, match=refused) as recipe:
        load_recipe(tiny_recipe)
    assert "s3cret" not in f"{corpus.value!r} {recipe.value!r}"


@given(st.sampled_from(all_keys(Corpus)))
def test_the_nearest_key_is_named(key: str) -> None:
    with pytest.raises(UsageError, match=r"unknown key|is not a section|no override"):
        load_corpus(SMALL, [f"{key}x.y=1"])
