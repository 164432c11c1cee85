"""Recall of the lexical index on JaQuAD and SQuAD 2, and what each of its rules is worth.

A collection is every passage of the records of both splits; JaQuAD's has 10,457. A gold passage is one that
holds an answer by the project's rule for positives (`data/words.py:stands`); for JaQuAD also the one
paragraph that was asked about, by the question's own number (`bench/passages.py:questions_of`). Some
of those are in no record, so in no collection: they count as not found. Rules were chosen on train;
dev is what counts. Intervals are 95 %, by bootstrap over questions.

python bench/retrieval.py --jaquad jaquad_rag.train.jsonl.gz jaquad_rag.dev.jsonl.gz \
    --squad squad2_rag.train.jsonl.gz squad2_rag.dev.jsonl.gz --out bench/results/retrieval.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tantivy

from machine import made_with
from passages import Asked, passages_of, questions_of
from ragtune.building.retrieval.lexical import LexicalIndex
from ragtune.building.retrieval.retriever import Entry
from ragtune.building.retrieval.terms import normalised, stemmer, terms_of, weights_of
from ragtune.data.words import stands

CUTS = (1, 3, 10)
Terms = Callable[[str], list[str]]
Weights = Callable[[str], dict[str, float]]
Measured = dict[str, Any]


def recall(found: np.ndarray) -> Measured:
    """By cut, with intervals.

    Args:
        found: (questions,): the rank of the first gold passage, from 0; a large number if none was found.
    """
    draw = np.random.default_rng(0)
    samples = draw.integers(0, len(found), (2000, len(found)))
    values: Measured = {}
    for cut in CUTS:
        hit = found < cut
        low, high = np.percentile(hit[samples].mean(1), (2.5, 97.5))
        values[f"recall_at_{cut}"] = round(float(hit.mean()), 4)
        values[f"interval_at_{cut}"] = [round(float(low), 4), round(float(high), 4)]
    return {"n": len(found), **values}


def first(good: list[bool]) -> int:
    return good.index(True) if True in good else 10**6


@dataclass(frozen=True)
class Collection:
    entries: dict[str, Entry]
    train: list[Asked]
    dev: list[Asked]

    @classmethod
    def of(cls, paths: list[Path]) -> Collection:
        train, dev = map(questions_of, paths)
        return cls(passages_of(paths), train, dev)

    def ranks(self, asked: list[Asked], found: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Of the first passage that holds an answer, and of the one that was asked about."""
        answered, meant = [], []
        for one, hits in zip(asked, found, strict=True):
            texts = [self.entries[name].text for name in hits]
            answered.append(first([any(stands(text, a) for a in one.answers) for text in texts]))
            meant.append(first([name == one.passage for name in hits]))
        return np.array(answered), np.array(meant)


def measured(collection: Collection, language: str) -> Measured:
    """With the index as it is used."""
    with tempfile.TemporaryDirectory() as folder:
        index = LexicalIndex.open(Path(folder), language)
        started = time.process_time()
        index.index(collection.entries.values())
        indexing = time.process_time() - started
        started = time.process_time()
        results: Measured = {}
        for name, asked in (
            ("dev", collection.dev),
            ("train", collection.train),
            ("both", collection.train + collection.dev),
        ):
            hits = index.search([one.question for one in asked], max(CUTS))
            found = [[hit.passage_id for hit in some] for some in hits]
            answered, meant = collection.ranks(asked, found)
            results[name] = {"answer": recall(answered)}
            if asked[0].passage is not None:
                missing = sum(one.passage not in collection.entries for one in asked)
                results[name]["paragraph_asked_about"] = {
                    "not_in_collection": missing,
                    **recall(meant),
                }
    return {
        "passages": len(collection.entries),
        "indexing_cpu_seconds": round(indexing, 1),
        **results,
    }


def without(rule: Terms, dropped: Callable[[str], bool]) -> Terms:
    return lambda text: [term for term in rule(text) if not dropped(term)]


def counted(rule: Terms, power: float) -> Weights:
    """A question's terms count as often as they are there, to this power."""
    return lambda question: {term: count**power for term, count in Counter(rule(question)).items()}


def variant(collection: Collection, rule: Terms, asking: Weights, most: float = 1.0) -> Measured:
    """Recall of the paragraph that was asked about, or else of an answer, by other rules.

    Args:
        collection: what is searched.
        rule: makes a passage's terms.
        asking: makes a question's, and says how much each counts.
        most: share of the passages that a term may stand in; others are not searched for.
    """
    schema = tantivy.SchemaBuilder()
    schema.add_text_field("id", stored=True, tokenizer_name="raw")
    schema.add_text_field("text", tokenizer_name="tabs", index_option="freq")
    index = tantivy.Index(schema.build())
    tabs = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(r"[^\t]+")).build()
    index.register_tokenizer("tabs", tabs)
    writer = index.writer(128_000_000, 1)
    terms = 0
    for entry in collection.entries.values():
        some = rule(f"{entry.title}\n{entry.text}")
        terms += len(some)
        writer.add_document(tantivy.Document(id=entry.passage_id, text="\t".join(some)))
    writer.commit()
    index.reload()
    searcher, query = index.searcher(), tantivy.Query
    values: Measured = {"terms_a_passage": round(terms / len(collection.entries))}
    for name, asked in (("train", collection.train), ("dev", collection.dev)):
        found, started = [], time.process_time()
        for one in asked:
            parts = [
                query.boost_query(query.term_query(index.schema, "text", term), weight)
                for term, weight in asking(one.question).items()
                if searcher.doc_freq("text", term) <= most * len(collection.entries)
            ]
            whole = query.boolean_query([(tantivy.Occur.Should, part) for part in parts])
            hits = searcher.search(whole, max(CUTS), count=False).hits
            found.append([searcher.doc(address)["id"][0] for _, address in hits])
        spent = (time.process_time() - started) / len(asked)
        answered, meant = collection.ranks(asked, found)
        rates = recall(answered if asked[0].passage is None else meant)
        values[name] = [rates[f"recall_at_{cut}"] for cut in CUTS]
        values[f"{name}_cpu_milliseconds_a_question"] = round(1000 * spent, 2)
    return values


def variants(collection: Collection) -> dict[str, Measured]:
    """Of rules for Japanese, on every fourth question of train and on dev."""
    collection = replace(collection, train=collection.train[::4])

    def chosen(text: str) -> list[str]:
        return terms_of(text, None)

    def plain(text: str) -> list[str]:
        text = normalised(text).replace("\t", " ")
        return [*text, *map("".join, itertools.pairwise(text))]

    def single(term: str) -> bool:
        return len(term) == 1

    def longer(term: str) -> bool:
        return len(term) > len("東京")

    longest = without(chosen, longer)
    pairs = without(chosen, single)
    rules: dict[str, tuple[Terms, Weights]] = {
        "chosen": (chosen, counted(chosen, 0.5)),
        "n times as much for a term that a question has n times": (chosen, counted(chosen, 1)),
        "once, however often a question has it": (chosen, counted(chosen, 0)),
        "no runs of more than two characters": (longest, counted(longest, 0.5)),
        "no single characters in questions": (chosen, counted(pairs, 0.5)),
        "no single characters at all": (pairs, counted(pairs, 0.5)),
        "ngram(1, 2) of everything": (plain, counted(plain, 1)),
        "ngram(1, 2) of everything, square root": (plain, counted(plain, 0.5)),
    }
    results = {name: variant(collection, *rule) for name, rule in rules.items()}
    for most in (0.3, 0.1, 0.03):
        results[f"no terms that more than {most:.0%} have"] = variant(
            collection, chosen, counted(chosen, 0.5), most
        )
    return results


def variants_of_english(collection: Collection) -> dict[str, Measured]:
    stem = stemmer("en")

    def chosen(text: str) -> list[str]:
        return terms_of(text, stem)

    def unstemmed(text: str) -> list[str]:
        return terms_of(text, str)

    def characters(text: str) -> list[str]:
        return terms_of(text, None)

    stems = without(chosen, lambda term: term.startswith("^"))
    rules: dict[str, tuple[Terms, Weights]] = {
        "chosen": (chosen, lambda question: weights_of(question, stem, "en")),
        "words that only ask count": (chosen, lambda question: weights_of(question, stem, "")),
        "stems alone": (stems, counted(stems, 0.5)),
        "words as they are, and their heads": (
            unstemmed,
            lambda question: weights_of(question, str, "en"),
        ),
        "characters and pairs, as for Japanese": (characters, counted(characters, 0.5)),
    }
    return {name: variant(collection, *rule) for name, rule in rules.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jaquad", type=Path, nargs=2, required=True, help="records: train, dev")
    parser.add_argument("--squad", type=Path, nargs=2, required=True, help="records: train, dev")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    made = made_with("tantivy")
    japanese, english = Collection.of(args.jaquad), Collection.of(args.squad)
    jaquad, squad = measured(japanese, "ja"), measured(english, "en")
    result = {
        **made,
        "retrieval": {
            "of": f"JaQuAD dev: a passage that holds an answer, of {jaquad['passages']:,}",
            **jaquad["dev"]["answer"],
        },
        "jaquad": jaquad,
        "squad2": squad,
        "variants_on_jaquad": {
            "of": "the paragraph asked about: recall at 1, 3, 10",
            **variants(japanese),
        },
        "variants_on_squad2": {
            "of": "a passage that holds an answer: recall at 1, 3, 10",
            **variants_of_english(english),
        },
    }
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
