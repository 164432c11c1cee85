"""A record of each public format, as its source writes it, and what it becomes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """A record of a format."""

    name: str
    """In data.format."""
    title: str
    """As which it is said to be read."""
    record: dict[str, Any]
    becomes: list[dict[str, Any]]
    """Of each question: qid, question, answers, the passages as (title, text), their ids where there are
    any, positives (None: found by text), documents."""


def one(
    qid: str | None,
    question: str,
    answers: list[str],
    passages: list[tuple[str, str]] | None = None,
    positive: list[int] | None = None,
    **more: Any,
) -> dict[str, Any]:
    return {
        "qid": qid,
        "question": question,
        "answers": answers,
        "passages": passages,
        "positive": positive,
        **more,
    }


NORMANS = "The Normans were the people who gave their name to Normandy, a region in France."
TSUYU = "梅雨（つゆ、ばいう）は、北海道と小笠原諸島を除く日本に見られる気象現象。"
ARTHUR = "Arthur's Magazine (1844–1846) was an American literary periodical."
FIRST = "First for Women is a woman's magazine. The magazine was started in 1989."
MARIE = "She named the first chemical element polonium, after her native country."

SQUAD2_ARTICLE = {
    "title": "Normans",
    "paragraphs": [
        {
            "qas": [
                {
                    "question": "In what country is Normandy located?",
                    "id": "56ddde6b9a695914005b9628",
                    "answers": [
                        {"text": "France", "answer_start": 73},
                        {"text": "France", "answer_start": 73},
                    ],
                    "is_impossible": False,
                },
                {
                    "plausible_answers": [{"text": "Normans", "answer_start": 4}],
                    "question": "What is France a region of?",
                    "id": "5ad39d53604f3c001a3fe8d1",
                    "answers": [],
                    "is_impossible": True,
                },
            ],
            "context": NORMANS,
        }
    ],
}

CASES = [
    Case("squad", "SQuAD 2", SQUAD2_ARTICLE, [
        one("56ddde6b9a695914005b9628", "In what country is Normandy located?", ["France"],
            [("Normans", NORMANS)], [0]),
        one("5ad39d53604f3c001a3fe8d1", "What is France a region of?", [], [("Normans", NORMANS)], []),
    ]),
    Case("squad", "SQuAD", {
        "title": "Normans",
        "paragraphs": [{"context": NORMANS, "qas": [
            {"answers": [{"answer_start": 73, "text": "France"}], "question": "Where is Normandy?", "id": "5733"}
        ]}],
    }, [one("5733", "Where is Normandy?", ["France"], [("Normans", NORMANS)], [0])]),
    Case("squad", "SQuAD", {  # the Hub's
        "id": "5733", "title": "Normans", "context": NORMANS, "question": "Where is Normandy?",
        "answers": {"text": ["France", "Normandy"], "answer_start": [73, 51]},
    }, [one("5733", "Where is Normandy?", ["France", "Normandy"], [("Normans", NORMANS)], [0])]),
    Case("squad", "SQuAD", {  # the Hub's squad_v2, without an answer
        "id": "5ad3", "title": "Normans", "context": NORMANS, "question": "What is France a region of?",
        "answers": {"text": [], "answer_start": []},
    }, [one("5ad3", "What is France a region of?", [], [("Normans", NORMANS)], [])]),
    Case("squad", "SQuAD 2", {  # JSQuAD's
        "id": "a10336p0q0", "title": "梅雨", "context": f"梅雨 [SEP] {TSUYU}",
        "question": "日本で梅雨がないのは北海道とどこか。",
        "answers": {"text": ["小笠原諸島"], "answer_start": [25]}, "is_impossible": False,
    }, [one("a10336p0q0", "日本で梅雨がないのは北海道とどこか。", ["小笠原諸島"], [("梅雨", TSUYU)], [0])]),
    Case("squad", "SQuAD", {  # JaQuAD's
        "id": "tr-000-00-000", "title": "梅雨", "context": TSUYU, "question": "梅雨がないのは北海道とどこ?",
        "question_type": "Syntactic variation",
        "answers": {"text": ["小笠原諸島"], "answer_start": [16], "answer_type": ["Location"]},
    }, [one("tr-000-00-000", "梅雨がないのは北海道とどこ?", ["小笠原諸島"], [("梅雨", TSUYU)], [0],
            extra={"question_type": "Syntactic variation"})]),
    Case("hotpotqa", "HotpotQA", {
        "_id": "5a7a06935542990198eaf050",
        "answer": "Arthur's Magazine",
        "question": "Which magazine was started first Arthur's Magazine or First for Women?",
        "supporting_facts": [["Arthur's Magazine", 0], ["First for Women", 0]],
        "context": [
            ["Radio City (Indian radio station)", ["Radio City is India's first private FM station.", " It plays songs."]],
            ["Arthur's Magazine", [ARTHUR]],
            ["First for Women", ["First for Women is a woman's magazine.", " The magazine was started in 1989."]],
        ],
        "type": "comparison",
        "level": "medium",
    }, [one("5a7a06935542990198eaf050", "Which magazine was started first Arthur's Magazine or First for Women?",
            ["Arthur's Magazine"],
            [("Radio City (Indian radio station)", "Radio City is India's first private FM station. It plays songs."),
             ("Arthur's Magazine", ARTHUR), ("First for Women", FIRST)], [1, 2],
            extra={"type": "comparison", "level": "medium"})]),
    Case("hotpotqa", "HotpotQA", {  # the Hub's
        "id": "5a7a", "question": "Were both started in America?", "answer": "yes", "type": "comparison",
        "level": "medium",
        "supporting_facts": {"title": ["Arthur's Magazine"], "sent_id": [0]},
        "context": {"title": ["Arthur's Magazine", "First for Women"],
                    "sentences": [[ARTHUR], ["First for Women is a woman's magazine.", " The magazine was started in 1989."]]},
    }, [one("5a7a", "Were both started in America?", ["yes"],
            [("Arthur's Magazine", ARTHUR), ("First for Women", FIRST)], [0])]),
    Case("hotpotqa", "HotpotQA", {  # 2WikiMultihopQA's: sentences without a space between them
        "_id": "13f5", "type": "compositional", "question": "Who founded it?", "answer": "Bob",
        "context": [["Bob", ["Bob is a man.", "He founded it."]]],
        "supporting_facts": [["Bob", 0]], "evidences": [["it", "founded by", "Bob"]],
    }, [one("13f5", "Who founded it?", ["Bob"], [("Bob", "Bob is a man. He founded it.")], [0])]),
    Case("nq-open", "Natural Questions (open)", {
        "question": "when was the last time anyone was on the moon", "answer": ["14 December 1972 UTC", "December 1972"],
    }, [one(None, "when was the last time anyone was on the moon", ["14 December 1972 UTC", "December 1972"])]),
    Case("triviaqa", "TriviaQA", {
        "Answer": {"Aliases": ["Park Grove (1895)", "York UA"], "MatchedWikiEntityName": "York",
                   "NormalizedAliases": ["york"], "NormalizedMatchedWikiEntityName": "york",
                   "NormalizedValue": "york", "Type": "WikipediaEntity", "Value": "York"},
        "EntityPages": [{"DocSource": "TagMe", "Filename": "England.txt", "Title": "England"}],
        "Question": "Where in England was Dame Judi Dench born?", "QuestionId": "tc_3",
        "QuestionSource": "http://www.triviacountry.com/",
        "SearchResults": [{"Description": "Judi Dench, an English actress.", "DisplayUrl": "x", "Filename": "39/1.txt",
                           "Rank": 0, "Title": "Judi Dench", "Url": "http://x"}],
    }, [one("tc_3", "Where in England was Dame Judi Dench born?", ["York", "Park Grove (1895)", "York UA"],
            documents=["England"])]),
    Case("triviaqa", "TriviaQA", {  # the Hub's rc
        "question": "Where in England was Dame Judi Dench born?", "question_id": "tc_3",
        "question_source": "http://www.triviacountry.com/",
        "entity_pages": {"doc_source": ["TagMe"], "filename": ["England.txt"], "title": ["England"],
                         "wiki_context": ["England is a country. York is a city."]},
        "search_results": {"description": ["x"], "filename": ["39/1.txt"], "rank": [0], "title": ["Judi Dench"],
                           "url": ["http://x"], "search_context": ["Judi Dench was born in York."]},
        "answer": {"aliases": ["York UA"], "normalized_aliases": ["york ua"], "matched_wiki_entity_name": "",
                   "normalized_matched_wiki_entity_name": "", "normalized_value": "york",
                   "type": "WikipediaEntity", "value": "York"},
    }, [one("tc_3", "Where in England was Dame Judi Dench born?", ["York", "York UA"],
            [("England", "England is a country. York is a city."), ("Judi Dench", "Judi Dench was born in York.")],
            documents=["England"])]),
    Case("triviaqa", "TriviaQA", {  # the Hub's rc.nocontext
        "question": "Where?", "question_id": "tc_4", "question_source": "http://x",
        "entity_pages": {"doc_source": [], "filename": [], "title": [], "wiki_context": []},
        "search_results": {"description": [], "filename": [], "rank": [], "title": [], "url": [], "search_context": []},
        "answer": {"aliases": [], "normalized_aliases": [], "matched_wiki_entity_name": "",
                   "normalized_matched_wiki_entity_name": "", "normalized_value": "york", "type": "FreeForm",
                   "value": "York"},
    }, [one("tc_4", "Where?", ["York"])]),
    Case("msmarco", "MS MARCO", {  # the Hub's
        "answers": ["Approximately $15,000 per year."],
        "passages": {"is_selected": [0, 1],
                     "passage_text": ["A company that recycles.", "It is approximately $15,000 per year."],
                     "url": ["http://a", "http://b"]},
        "query": "walgreens store sales average", "query_id": 9652, "query_type": "numeric", "wellFormedAnswers": [],
    }, [one("9652", "walgreens store sales average", ["Approximately $15,000 per year."],
            [("", "A company that recycles."), ("", "It is approximately $15,000 per year.")], [1])]),
    Case("msmarco", "MS MARCO", {  # v1.1's JSONL
        "passages": [{"is_selected": 0, "url": "http://a", "passage_text": "A company that recycles.", "passage_id": 3}],
        "query_id": 12, "answers": ["No Answer Present."], "query_type": "numeric", "query": "sales",
    }, [one("12", "sales", [], [("", "A company that recycles.")], [])]),
    Case("miracl", "MIRACL", {
        "query_id": "0#0", "query": "合気道の開祖は誰?",
        "positive_passages": [{"docid": "1#0", "title": "合気道", "text": "植芝盛平が創始した。"}],
        "negative_passages": [{"docid": "2#1", "title": "剣道", "text": "竹刀を使う。"}],
    }, [one("0#0", "合気道の開祖は誰?", [], [("合気道", "植芝盛平が創始した。"), ("剣道", "竹刀を使う。")], [0],
            ids=["1#0", "2#1"])]),
    Case("miracl", "MIRACL", {  # Tevatron's, with answers
        "query_id": "7", "query": "who founded aikido", "answers": ["Morihei Ueshiba"],
        "positive_passages": [{"docid": "1", "title": "Aikido", "text": "Founded by Morihei Ueshiba."}],
        "negative_passages": [],
    }, [one("7", "who founded aikido", ["Morihei Ueshiba"], [("Aikido", "Founded by Morihei Ueshiba.")], [0])]),
    Case("kilt", "KILT", {
        "id": "6915606477668963399",
        "input": "what do the 3 dots mean in math",
        "meta": {"left_context": "", "mention": "", "obj_surface": {"text": []}, "partial_evidence": [],
                 "right_context": "", "sub_surface": {"text": []}, "subj_aliases": {"text": []}, "template_questions": {"text": []}},
        "output": [
            {"answer": "the therefore sign ( ∴ )", "meta": {"score": 0},
             "provenance": [{"bleu_score": 1.0, "end_character": 204, "end_paragraph_id": 1, "meta": {"annotation_id": "-1"},
                             "section": "Section::::Abstract.", "start_character": 21, "start_paragraph_id": 1,
                             "title": "Therefore sign", "wikipedia_id": "10593264"}]},
            {"answer": "", "meta": {"score": 0}, "provenance": []},
            {"answer": "therefore sign", "meta": {"score": 0}, "provenance": []},
        ],
    }, [one("6915606477668963399", "what do the 3 dots mean in math", ["the therefore sign ( ∴ )", "therefore sign"],
            documents=["Therefore sign"])]),
    Case("dpr", "DPR", {
        "dataset": "nq_train_psgs_w100", "question": "who named polonium", "answers": ["Marie Curie", "She"],
        "positive_ctxs": [{"title": "Marie Curie", "text": MARIE, "score": 1000, "title_score": 1, "passage_id": "52"}],
        "negative_ctxs": [{"title": "Trees", "text": "Trees stand.", "score": 0, "title_score": 0, "passage_id": "9"}],
        "hard_negative_ctxs": [{"title": "Poland", "text": "Poland is a country.", "score": 9.5, "title_score": 0, "passage_id": "7"}],
    }, [one(None, "who named polonium", ["Marie Curie", "She"],
            [("Marie Curie", MARIE), ("Poland", "Poland is a country."), ("Trees", "Trees stand.")], [0],
            ids=["52", "7", "9"], extra={"dataset": "nq_train_psgs_w100"})]),
    Case("fid", "FiD", {
        "id": "0", "question": "What element did Marie Curie name after her native land?", "target": "Polonium",
        "answers": ["Polonium", "Po (chemical element)", "polonium"],
        "ctxs": [{"title": "Trees", "text": "Trees stand."}, {"title": "Marie Curie", "text": MARIE}],
    }, [one("0", "What element did Marie Curie name after her native land?", ["Polonium", "Po (chemical element)", "polonium"],
            [("Trees", "Trees stand."), ("Marie Curie", MARIE)])]),
    Case("fid", "FiD", {  # what DPR's retriever writes
        "question": "who named polonium", "answers": ["Polonium"],
        "ctxs": [{"id": "wiki:52", "title": "Marie Curie", "text": MARIE, "score": "80.1", "has_answer": True}],
    }, [one(None, "who named polonium", ["Polonium"], [("Marie Curie", MARIE)], ids=["wiki:52"])]),
    Case("flashrag", "FlashRAG", {
        "id": "dev_0", "question": "who got the first nobel prize in physics?",
        "golden_answers": ["Wilhelm Conrad Röntgen"], "metadata": {},
    }, [one("dev_0", "who got the first nobel prize in physics?", ["Wilhelm Conrad Röntgen"])]),
    Case("flashrag", "FlashRAG", {  # its HotpotQA
        "id": "dev_1", "question": "Which came first?", "golden_answers": ["Arthur's Magazine"],
        "metadata": {"type": "comparison", "level": "hard",
                     "supporting_facts": {"title": ["Arthur's Magazine"], "sent_id": [0]},
                     "context": {"title": ["First for Women", "Arthur's Magazine"],
                                 "sentences": [["First for Women is a woman's magazine.", " The magazine was started in 1989."], [ARTHUR]]}},
    }, [one("dev_1", "Which came first?", ["Arthur's Magazine"],
            [("First for Women", FIRST), ("Arthur's Magazine", ARTHUR)], [1])]),
    Case("flashrag", "FlashRAG", {  # what a pipeline saves
        "id": "test_0", "question": "Who named it?", "golden_answers": ["Marie Curie"],
        "output": {"retrieval_result": [{"id": "17", "contents": f'"Marie Curie"\n{MARIE}'}], "pred": "x", "prompt": "y"},
    }, [one("test_0", "Who named it?", ["Marie Curie"], [("Marie Curie", MARIE)], ids=["17"])]),
    Case("raft", "RAFT", {
        "id": "seed_task_0", "type": "general", "question": "What did she name?",
        "context": {"sentences": [["Trees stand.", MARIE]], "title": [["placeholder_title", "placeholder_title"]]},
        "oracle_context": MARIE,
        "cot_answer": "##Reason: ##begin_quote## named polonium ##end_quote## ##Answer: so <ANSWER>: polonium",
        "instruction": f"<DOCUMENT>Trees stand.</DOCUMENT>\n<DOCUMENT>{MARIE}</DOCUMENT>\nWhat did she name?",
    }, [one("seed_task_0", "What did she name?", ["polonium"], [("", "Trees stand."), ("", MARIE)], [1])]),
    Case("raft", "RAFT", {  # without the oracle
        "id": "seed_task_1", "type": "general", "question": "What did she name?",
        "context": {"sentences": [["Trees stand."]], "title": [["placeholder_title"]]},
        "oracle_context": MARIE, "cot_answer": "polonium", "instruction": "x",
    }, [one("seed_task_1", "What did she name?", ["polonium"], [("", "Trees stand.")], [])]),
    Case("rag-fit", "RAG-FiT", {
        "query": "What did she name?", "answers": ["polonium"],
        "positive_passages": [f"Marie Curie: {MARIE}"], "negative_passages": [["Trees: Trees stand."]],
        "prompt": "Question: What did she name?",
    }, [one(None, "What did she name?", ["polonium"], [("", f"Marie Curie: {MARIE}"), ("", "Trees: Trees stand.")])]),
    Case("rag-fit", "RAG-FiT", {  # before its documents are joined
        "query": "What did she name?", "answers": ["polonium"],
        "positive_passages": [{"content": MARIE, "title": "Marie Curie"}],
    }, [one(None, "What did she name?", ["polonium"], [("Marie Curie", MARIE)])]),
    Case("messages", "messages", {
        "messages": [{"role": "system", "content": "You are helpful."},
                     {"role": "user", "content": "What is the capital of France?"},
                     {"role": "assistant", "content": "Paris"},
                     {"role": "user", "content": "And of Spain?"}, {"role": "assistant", "content": "Madrid"}],
    }, [one(None, "What is the capital of France?", ["Paris"])]),
    Case("messages", "messages", {  # content in parts
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]},
                     {"role": "assistant", "content": [{"type": "text", "text": "Paris"}]}],
    }, [one(None, "What is the capital of France?", ["Paris"])]),
    Case("sharegpt", "ShareGPT", {
        "id": "QWJhYvA_0",
        "conversations": [{"from": "system", "value": "Be short."}, {"from": "human", "value": "What is the capital of France?"},
                          {"from": "gpt", "value": "Paris"}],
    }, [one("QWJhYvA_0", "What is the capital of France?", ["Paris"])]),
    Case("aio", "AI王", {  # of the TSV
        "qid": "AIO02-0101", "competition": "第2回AI王", "timestamp": "2021/01/29", "section": "開発データ問題",
        "number": "101", "original_question": "日本一高い山は何？", "original_answer": "富士山",
    }, [one("AIO02-0101", "日本一高い山は何？", ["富士山"], extra={"competition": "第2回AI王", "number": "101"})]),
    Case("aio", "AI王", {  # of the JSONL
        "qid": "AIO02-0101", "competition": "第2回AI王", "timestamp": "2021/01/29", "section": "開発データ問題",
        "number": "101", "original_question": "日本一高い山は何？", "original_answer": "富士山",
        "original_additional_info": "", "question": "日本一高い山は何?", "answers": ["富士山"],
    }, [one("AIO02-0101", "日本一高い山は何?", ["富士山"])]),
    Case("feedback", "feedback of ragtune demo", {  # a thumb up
        "question": "What did she name?", "said": "polonium", "thumb": "up", "right": ["polonium"],
        "unanswerable": False, "passages": [], "model": "m", "at": "2026-11-29T07:14:13+00:00",
    }, [one(None, "What did she name?", ["polonium"], extra={"model": "m", "at": "2026-11-29T07:14:13+00:00"})]),
    Case("feedback", "feedback of ragtune demo", {  # a thumb down, the right answer, and pasted passages
        "question": "What did she name?", "said": "radium", "thumb": "down", "right": ["polonium"],
        "unanswerable": False, "passages": [{"title": "", "text": "Trees stand."}, {"title": "", "text": MARIE}],
        "model": "m", "at": "",
    }, [one(None, "What did she name?", ["polonium"], [("", "Trees stand."), ("", MARIE)], [1])]),
    Case("feedback", "feedback of ragtune demo", {  # the passages don't say it
        "question": "Why?", "said": "radium", "thumb": "down", "right": [], "unanswerable": True, "passages": [],
        "model": "m", "at": "",
    }, [one(None, "Why?", [])]),
]  # fmt: skip


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()
