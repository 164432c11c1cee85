from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ragtune.data.read import locate
from ragtune.model.source import ModelSource
from ragtune.publish.licences import Licence, base_licence, data_origins
from ragtune.recipe.data import Data
from ragtune.recipe.schema import Model


def of_folder(folder: Path, card: str | bytes) -> Licence | None:
    (folder / "README.md").write_bytes(card if isinstance(card, bytes) else card.encode())
    return base_licence(Model(id=str(folder)), ModelSource(str(folder), None), ask=True)


def test_a_folders_card(tmp_path: Path) -> None:
    assert of_folder(tmp_path, "---\nlicense: Apache-2.0\n---\n# x") == Licence("apache-2.0")
    assert of_folder(tmp_path, "---\r\nlicense:\r\n- mit\r\n---\r\n") == Licence("mit")
    other = (
        "---\nlicense: other\nlicense_name: house 1.0\nlicense_link: https://example.org/l\n---\n"
    )
    found = of_folder(tmp_path, other)
    assert found == Licence("other", "house 1.0", "https://example.org/l")
    assert str(found) == "house 1.0 (https://example.org/l)"


@pytest.mark.parametrize(
    "card",
    [
        "# no metadata",
        "---\nlicense:\n---\n",
        "---\nlicense: [a, b]\n---\n",
        "---\nlicense: 3\n---\n",
        "---\n- a list\n---\n",
        "---\n: : [\n---\n",
        "---\nlicense: 'mit | <script>'\n---\n",
        "---\nlicense: !!python/object/apply:os.getcwd []\n---\n",
        b"\xff\xfe---\n",
        "---\nlicense: mit\ndate: 2024-13-45\n---\n",
        "---\nlicense: mit\ndate: 0000-00-00\n---\n",
        "---\nlicense: mit\nx: " + "[" * 3000 + "\n---\n",
        "---\nlicense: mit\na: &a {x: 1}\nb: {<<: [*a, *a]}\n---\n",  # repeated, it fills the memory
        "---\nlicense: mit\n" + "a: [x, y, z]\n" * 100_000 + "---\n",
    ],
)
@pytest.mark.timeout(10)
def test_a_card_that_says_nothing_that_can_be_used(tmp_path: Path, card: str | bytes) -> None:
    assert of_folder(tmp_path, card) is None


def test_a_long_card_with_short_metadata(tmp_path: Path) -> None:
    text = "\u3042" * 200_000  # what is read of it ends within a character
    assert of_folder(tmp_path, f"---\nlicense: mit\n---\n{text}") == Licence("mit")


def test_odd_names_and_addresses_are_left_out(tmp_path: Path) -> None:
    card = "---\nlicense: other\nlicense_name: 'a|b'\nlicense_link: 'javascript:alert(1)'\n---\n"
    assert of_folder(tmp_path, card) == Licence("other")


def test_no_card(tmp_path: Path) -> None:
    assert base_licence(Model(id=str(tmp_path)), ModelSource(str(tmp_path), None), ask=True) is None


@pytest.mark.parametrize("licence", ["apache-2.0", None])
def test_a_gguf_file(tmp_path: Path, licence: str | None) -> None:
    gguf: Any = pytest.importorskip("gguf")
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    if licence:
        writer.add_license(licence)
    for write in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{write}_to_file")()
    writer.close()
    found = base_licence(Model(id=str(path)), ModelSource(str(tmp_path), None), ask=False)
    assert found == (Licence(licence) if licence else None)


def test_a_gguf_files_licence_is_noted_when_it_is_converted(tmp_path: Path) -> None:
    """Its header takes seconds to parse."""
    model, source = Model(id=str(tmp_path / "model.gguf")), ModelSource(str(tmp_path), None)
    Path(model.id).write_bytes(b"not to be read")
    (tmp_path / "source.json").write_text('{"format": 1, "licence": ["mit", null, null]}', "utf-8")
    assert base_licence(model, source, ask=False) == Licence("mit")


def test_a_model_of_the_hub_is_not_asked_for_unless_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("ragtune.publish.licences.api", None)  # would fail
    source = ModelSource("owner/base", "owner/base")
    assert base_licence(Model(id="owner/base"), source, ask=False) is None
    snapshot = tmp_path / "models--owner--base/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("---\nlicense: gemma\n---\n", "utf-8")
    (tmp_path / "models--owner--base/refs").mkdir()
    (tmp_path / "models--owner--base/refs/main").write_text("abc", "utf-8")
    assert base_licence(Model(id="owner/base"), source, ask=False) == Licence("gemma")


def test_the_samples_licences_are_those_that_they_are_shipped_with() -> None:
    (folder,) = locate("sample:squad2.dev")
    assert folder
    shipped = {
        found[1]: found[2].lower()
        for page in folder.parent.glob("LICENSE-*.md")
        if (found := re.search(r"`(\w+)\.\*\.jsonl\.gz`.*SPDX: ([\w.-]+)\)", page.read_text("utf-8"), re.DOTALL))
    }  # fmt: skip
    names = {p.name.removesuffix(".jsonl.gz") for p in folder.parent.glob("*.jsonl.gz")}
    for name in names:
        origin = data_origins(Data(train=f"sample:{name}", eval="x.jsonl"), {})["train"]
        assert origin.licence
        assert origin.licence.id == shipped[name.partition(".")[0]]


def test_a_sample_that_is_gone_is_only_named() -> None:
    origin = data_origins(Data(train="sample:old.train", eval="/a/b/x.jsonl"), {})
    assert (origin["train"].name, origin["train"].licence) == ("ragtune’s sample old.train", None)
    assert (origin["eval"].name, origin["eval"].licence) == ("x.jsonl", None)
