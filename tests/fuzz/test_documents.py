"""The readers of documents, against malformed files and Hypothesis: they end in documents or a message."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.documents import DocumentReader, corpus
from tests.fuzz.readers import DOCUMENTS
from tests.fuzz.run import with_hypothesis
from tests.fuzz.strategies import changed


def test_the_corpus_is_large_and_the_same_every_time() -> None:
    names = [(i.kind, i.name) for i in corpus()]
    assert len(set(names)) == len(names) > 1000
    assert {i.kind for i in corpus()} == set(DOCUMENTS)


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.timeout(120)
def test_the_corpus_ends_in_documents_or_a_message(kind: str, tmp_path: Path) -> None:
    reader = DocumentReader(kind, tmp_path)
    refused = 0
    for known in corpus():
        if known.kind == kind:
            try:
                refused += reader(known.content) is not None
            except Exception as error:
                raise AssertionError(f"{kind}, {known.name}: {error!r}") from error
    assert refused >= 3


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_hypothesis_finds_nothing(kind: str, tmp_path: Path) -> None:
    reader = DocumentReader(kind, tmp_path)

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(changed([i for i in corpus() if i.kind == kind]) | st.binary(max_size=200))
    def once(content: bytes) -> None:
        reader(content)

    once()


def test_the_program_calls_them(tmp_path: Path) -> None:
    assert with_hypothesis("doc.md", 0, seed=0).failed is None
