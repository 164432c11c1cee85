"""Cutting documents into passages: how fast, by language and size, and how often in the middle of a sentence.

    python bench/cutting.py --ja jaquad_rag.train.jsonl.gz --en squad2_rag.train.jsonl.gz \\
        --out bench/results/cutting.json

A document is twenty paragraphs of the files; where these have fewer characters than are to be cut, they come
again. How passages end is counted on the first million characters, which langchain-text-splitters' default,
where it is installed, cuts with the same size and overlap. Whether a cut is in the middle of a sentence or
word is told by the signs beside it, not by ragtune's own sentences.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from machine import made_with
from ragtune.base.files import write_json
from ragtune.building.documents.document import Document
from ragtune.building.passages import Cutter
from ragtune.data.read import read_examples
from ragtune.recipe.corpus import Passages

PARAGRAPHS = 20
SIZES = (1, 4, 16)
"""Millions of characters."""
SIZE, OVERLAP = 400, 100
ENDED = re.compile(r"[。．！？｡.!?…][」』）)\]”’\"']*$|[」』）)\]”’\"']$")
SAME_WORD = re.compile(r"[a-zA-Z0-9]{2}|[一-龠々]{2}|[ァ-ヺー]{2}|[ぁ-ゖー]{2}|[一-龠々][ぁ-ゖ]")
"""The signs on both sides of a cut: within a word of Latin letters, or, in Japanese, of one kind of signs."""

Cut = tuple[str, int, int]
"""A document's text, and where a passage of it begins and ends."""


def documents(path: Path, characters: int) -> list[str]:
    paragraphs = list(
        dict.fromkeys(p.text for e in read_examples(str(path), "") for p in e.passages)
    )
    one = [
        "\n\n".join(paragraphs[i : i + PARAGRAPHS]) for i in range(0, len(paragraphs), PARAGRAPHS)
    ]
    found: list[str] = []
    length = 0
    while length < characters:
        text = one[len(found) % len(one)]
        found.append(text)
        length += len(text)
    return found


def ours(language: str) -> Callable[[str], list[Cut]]:
    cutter = Cutter(Passages(preset=None, size=SIZE, overlap=OVERLAP), language)

    def cut(text: str) -> list[Cut]:
        passages = cutter.cut(Document("d", "d", "", text))
        return [(text, p.place.start, p.place.end) for p in passages if p.place]

    return cut


def langchains() -> Callable[[str], list[Cut]] | None:
    try:
        module = importlib.import_module("langchain_text_splitters")
    except ModuleNotFoundError:
        return None
    splitter = module.RecursiveCharacterTextSplitter(
        chunk_size=SIZE, chunk_overlap=OVERLAP, add_start_index=True
    )

    def cut(text: str) -> list[Cut]:
        found = splitter.create_documents([text])
        starts = [one.metadata["start_index"] for one in found]
        return [
            (text, start, start + len(one.page_content))
            for start, one in zip(starts, found, strict=True)
        ]

    return cut


def timed(cut: Callable[[str], list[Cut]], texts: list[str]) -> tuple[dict[str, float], list[Cut]]:
    start = time.process_time()
    cuts = [one for text in texts for one in cut(text)]
    seconds = time.process_time() - start
    characters = sum(map(len, texts))
    row = {
        "million_characters": round(characters / 1e6, 2),
        "megabytes": round(sum(len(text.encode()) for text in texts) / 1e6, 2),
        "passages": len(cuts),
        "cpu_seconds": round(seconds, 3),
        "million_characters_a_second": round(characters / 1e6 / seconds, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    return row, cuts


def shares(cuts: list[Cut]) -> dict[str, float]:
    """How many passages end in a sentence or a word that goes on behind them."""
    inside = [
        (text, end)
        for text, _, end in cuts
        if text[end : end + 2].strip() and not ENDED.search(text[max(0, end - 8) : end])
    ]
    words = [end for text, end in inside if SAME_WORD.fullmatch(text[end - 1 : end + 1])]
    return {
        "end_within_a_sentence": round(len(inside) / len(cuts), 4),
        "end_within_a_word": round(len(words) / len(cuts), 4),
        "mean_characters": round(sum(end - start for _, start, end in cuts) / len(cuts), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ja", type=Path, required=True)
    parser.add_argument("--en", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    result: dict[str, object] = {
        **made_with("ja-sentence-segmenter", "sentencex"),
        "size": SIZE,
        "overlap": OVERLAP,
    }
    for language, path in (("ja", options.ja), ("en", options.en)):
        cut = ours(language)
        timed(cut, documents(path, 1))  # imports
        found = [timed(cut, documents(path, millions * 1_000_000)) for millions in SIZES]
        result[language] = {"by_size": [row for row, _ in found], "cuts": shares(found[0][1])}
        if other := langchains():
            row, cuts = timed(other, documents(path, 1_000_000))
            result[language] |= {"langchain-text-splitters": row | shares(cuts)}
            result["langchain-text-splitters"] = version("langchain-text-splitters")
        print(language, json.dumps(result[language]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, result)


if __name__ == "__main__":
    main()
