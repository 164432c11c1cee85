"""Words, vectors and both, on questions as they were asked and on the same questions in other words.

    python bench/dense.py --data squad2_rag.dev.jsonl.gz squad2_rag.train.jsonl.gz --model FOLDER \
        --out bench/results/dense.json

The collection is every passage of the records; right is a passage that holds an answer, as whole words.
SQuAD's questions were written by people who saw the paragraph, and share its words: that favours the search
for words. So they are asked again, changed by rules that look neither at the passages nor at what is found:

- synonyms: every word that `SYNONYMS` has is replaced. A table of 120 words, made by hand for this: the
  question means the same and is well readable, but most of its rare words stay.
- no_names: every word with a capital letter or a digit inside the question is left out, as somebody asks
  who doesn't know what it is called. Much harder, and for some questions nobody could know the answer.
- typos: in every other word of five letters or more (drawn) two letters inside are swapped.

None of them is what another person would have asked; what pays on real questions only those can show:
`ragtune build --compare lexical,dense,hybrid`. A cross-encoder is measured where `--reranker` names one.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machine import made_with
from ragtune.base.files import write_json
from ragtune.building.retrieval.compare import compare, verdicts
from ragtune.building.retrieval.dense import DenseIndex
from ragtune.building.retrieval.fused import fuse
from ragtune.building.retrieval.lexical import LexicalIndex
from ragtune.building.retrieval.rerank import Reranked
from ragtune.building.retrieval.retriever import Entry, Retriever
from ragtune.data.read import read_examples
from ragtune.data.words import stands

DEPTH = 100
_TABLE = """
started=began begin=start began=started founded=established established=founded created=made made=produced
built=constructed build=construct constructed=built big=large large=big largest=biggest biggest=largest
small=little smallest=tiniest city=town town=city country=nation nation=country nations=countries
countries=nations king=monarch war=conflict battle=fight fought=battled won=gained wrote=authored
written=authored author=writer book=volume called=named named=called name=title known=famous famous=known
people=persons population=inhabitants many=numerous kind=sort type=kind kinds=sorts types=kinds part=portion
area=region region=area job=occupation work=labour worked=laboured money=funds cost=price buy=purchase
bought=purchased sold=marketed pay=remunerate company=firm companies=firms leader=head led=headed
ruled=governed rule=governance law=statute laws=statutes government=administration school=college
students=pupils student=pupil teacher=instructor teachers=instructors church=congregation died=perished
death=demise born=delivered killed=slain ended=finished end=finish happened=occurred occurred=happened
occur=happen caused=provoked cause=reason reason=cause used=employed use=employ helped=aided help=aid
showed=demonstrated show=demonstrate found=discovered discovered=found gave=granted give=grant took=seized
take=seize moved=shifted changed=altered change=alteration increase=growth increased=grew decrease=decline
important=significant main=principal first=earliest last=final old=ancient new=novel near=close
believed=thought think=believe said=stated stated=said described=depicted needed=required required=needed
allowed=permitted often=frequently usually=normally speed=velocity power=strength water=moisture
"""
SYNONYMS = dict(pair.split("=") for pair in _TABLE.split())
_LONG = 5
"""Letters of a word that may get a typo."""
_WORD = re.compile(r"\w+|\W+")


def synonyms(question: str, _: random.Random) -> str:
    def other(word: str) -> str:
        found = SYNONYMS.get(word.lower(), word)
        return found.capitalize() if word[0].isupper() else found

    return "".join(other(part) for part in _WORD.findall(question))


def no_names(question: str, _: random.Random) -> str:
    first, *words = question.split()
    kept = [w for w in words if not any(c.isupper() or c.isdigit() for c in w)]
    return " ".join([first, *kept])


def typos(question: str, chance: random.Random) -> str:
    def wrong(word: str) -> str:
        if len(word) < _LONG or not word.isalpha() or chance.randrange(2):
            return word
        at = chance.randrange(1, len(word) - 2)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return "".join(wrong(part) for part in _WORD.findall(question))


CHANGES: dict[str, Callable[[str, random.Random], str]] = {
    "as asked": lambda question, _: question,
    "synonyms": synonyms,
    "no_names": no_names,
    "typos": typos,
}


def read(paths: list[Path]) -> tuple[dict[str, Entry], list[str], list[set[str]]]:
    """Passages by id, the questions that have an answer, and the passages that hold it."""
    entries: dict[tuple[str, str], Entry] = {}
    asked: dict[str, tuple[str, ...]] = {}
    for path in paths:
        for example in read_examples(str(path), "eval"):
            for p in example.passages:
                entries.setdefault(
                    (p.title, p.text), Entry(f"p{len(entries):05d}", p.title, p.text)
                )
            if example.answers:
                asked[example.question] = example.answers
    positives = [
        {e.passage_id for e in entries.values() if any(stands(e.text, a) for a in answers)}
        for answers in asked.values()
    ]
    return {e.passage_id: e for e in entries.values()}, list(asked), positives


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--language", default="en")
    parser.add_argument("--model", required=True)
    parser.add_argument("--reranker")
    parser.add_argument("--questions", type=int, help="so many, drawn by a seed; default: all")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    entries, questions, positives = read(arguments.data)
    if arguments.questions:
        drawn = random.Random(42).sample(range(len(questions)), arguments.questions)
        questions, positives = [questions[i] for i in drawn], [positives[i] for i in drawn]
    print(f"{len(entries):,} passages, {len(questions):,} questions")
    result: dict[str, object] = {
        **made_with("tantivy", "sentence-transformers"),
        "data": [path.name for path in arguments.data],
        "model": Path(arguments.model).parent.name,
        "passages": len(entries),
    }
    with tempfile.TemporaryDirectory() as folder:
        lexical = LexicalIndex.open(Path(folder) / "lexical", arguments.language)
        dense = DenseIndex.open(Path(folder) / "dense", arguments.model)
        for name, index in (("lexical", lexical), ("dense", dense)):
            begun = time.perf_counter()
            index.index(entries.values())
            result[f"seconds_to_index_{name}"] = round(time.perf_counter() - begun, 1)
        retrievers: dict[str, Retriever] = {
            "lexical": lexical, "dense": dense,
        }  # fmt: skip
        if arguments.reranker:
            result["reranker"] = arguments.reranker
            retrievers["reranked"] = Reranked.open(
                lexical, arguments.reranker, lambda one: entries[one].text
            )
        for name, change in CHANGES.items():
            chance = random.Random(42)
            changed = [change(question, chance) for question in questions]
            found = {}
            for kind, retriever in retrievers.items():
                begun = time.perf_counter()
                found[kind] = retriever.search(changed, DEPTH)
                took = time.perf_counter() - begun
                result.setdefault("ms_a_question", {})[kind] = round(1000 * took / len(changed), 2)  # type: ignore[attr-defined]
            pairs = zip(found["lexical"], found["dense"], strict=True)
            found["hybrid"] = [fuse(pair) for pair in pairs]  # as Fused does it
            comparison = compare(found, positives, seed=42)
            print(f"\n{name}: {changed[0]}")
            for kind, figures in {**comparison.recall, **comparison.differences}.items():
                values = (
                    f"{v['value']:.3f} ({v['low']:.3f} … {v['high']:.3f})" for v in figures.values()
                )
                print(f"{kind:18}", *values, sep="  ")
            print("\n".join(verdicts(comparison)))
            result[name] = {
                "changed": sum(a != b for a, b in zip(changed, questions, strict=True)),
                "examples": changed[:5],
                **comparison.to_dict(),
            }
    if arguments.out:
        write_json(arguments.out, result)
    else:
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
