"""What a model is told: to write a question, to answer it with the passage, and without; in its language."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache

from ragtune.data.chat import Message
from ragtune.data.example import Passage

VERSION = "1"
"""Of the texts below: what was answered to another one is asked anew."""

_LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek",
    "es": "Spanish", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi",
    "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ko": "Korean", "nl": "Dutch",
    "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese",
    "zh": "Chinese",
}  # fmt: skip


@dataclass(frozen=True)
class Prompts:
    """The three texts, and what is shown as an example: without one, small models write no JSON."""

    write: str
    within: str
    without: str
    examples: tuple[list[Message], list[Message], list[Message]]
    """A turn before each, as it should end."""

    def to_write(self, passage: Passage) -> list[Message]:
        """Asks for a question about a passage, and its answer."""
        title = f"{passage.title}\n\n" if passage.title else ""
        return [*self.examples[0], _user(self.write, passage=title + passage.text)]

    def to_answer(self, question: str, passage: Passage) -> list[Message]:
        """Asks the question with its passage."""
        return [*self.examples[1], _user(self.within, question=question, passage=passage.text)]

    def to_remember(self, question: str) -> list[Message]:
        """Asks the question alone."""
        return [*self.examples[2], _user(self.without, question=question)]


@dataclass(frozen=True)
class _Example:
    """What the turn before shows."""

    passage: str
    question: str
    answer: str
    known: tuple[str, str]
    """A question that can be answered without a passage, and its answer."""

    def turns(
        self, write: str, within: str, without: str
    ) -> tuple[list[Message], list[Message], list[Message]]:
        asked, reply = self.question, {"question": self.question, "answer": self.answer}
        return (
            [_user(write, passage=self.passage), _said(json.dumps(reply, ensure_ascii=False))],
            [_user(within, question=asked, passage=self.passage), _said(self.answer)],
            [_user(without, question=self.known[0]), _said(self.known[1])],
        )


def _user(text: str, **values: str) -> Message:
    """A text with its places filled, in one pass: what is filled in has no places."""
    filled = re.sub("<(question|passage)>", lambda found: values[found[1]], text)
    return {"role": "user", "content": filled}


def _said(text: str) -> Message:
    return {"role": "assistant", "content": text}


_WRITE = (
    "---\n<passage>\n---\n\n"
    "Write one question that the text between the lines answers, and its answer.\n"
    "- The question can be understood by somebody who doesn't see the text: it names what it asks about, "
    "and doesn't speak of a text.\n"
    "- The answer is short: a name, a number, a date, or a few words. It is copied from the text, "
    "character for character.\n"
    "- The question doesn't hold the answer.\n"
    "{language}"
    'Write JSON and nothing else: {"question": "...", "answer": "..."}'
)
_WITHIN = (
    "---\n<passage>\n---\n\n"
    "Answer the question from the text between the lines. Write the answer alone, as briefly as possible, "
    "as it stands in the text.{language}\n\n"
    "Question: <question>"
)
_WITHOUT = (
    "Answer the question. Write the answer alone, as briefly as possible.{language}\n\n"
    "Question: <question>"
)
_ENGLISH = _Example(
    "The Dorva bridge was built in 1887 by Martha Lindt, an engineer from Belu. It is 214 metres long, and "
    "carries the road from the harbour to the old town.",
    "Who built the Dorva bridge?",
    "Martha Lindt",
    ("What is the highest mountain of Japan?", "Mount Fuji"),
)

_WRITE_JA = (
    "---\n<passage>\n---\n\n"
    "線の間の文章から答えられる質問を1つと、その答えを書いてください。\n"
    "・質問は、文章を見ていない人にも通じるように、何について尋ねているのかを明示してください。"
    "「この文章」「本文」などとは書かないでください。\n"
    "・答えは、名前、数、日付、または数語の短いものとし、文章から一字一句そのまま抜き出してください。\n"
    "・質問に答えを含めないでください。\n"
    'JSONのみを出力してください: {"question": "質問", "answer": "答え"}'
)
_WITHIN_JA = (
    "---\n<passage>\n---\n\n"
    "線の間の文章をもとに、質問に答えてください。"
    "文章中の言葉をそのまま使い、答えのみをできるだけ短く出力してください。\n\n"
    "質問: <question>"
)
_WITHOUT_JA = "質問に答えてください。答えのみをできるだけ短く出力してください。\n\n質問: <question>"
_JAPANESE = _Example(
    "ドルバ橋は、1887年にベル市の技師マルタ・リントによって建てられた。全長は214メートルで、港と旧市街を結ぶ道が通っている。",
    "ドルバ橋を建てた技師は誰ですか？",
    "マルタ・リント",
    ("日本で一番高い山は何ですか？", "富士山"),
)


@cache
def prompts_for(language: str) -> Prompts:
    """The texts for documents in a language (ja, en, de, …): in its own words, or in English that names it."""
    if language == "ja":
        texts = (_WRITE_JA, _WITHIN_JA, _WITHOUT_JA)
        return Prompts(*texts, _JAPANESE.turns(*texts))
    if language == "en":
        texts = _in("")
        return Prompts(*texts, _ENGLISH.turns(*texts))
    name = _LANGUAGES.get(language, f"the language of the text ({language})")
    return Prompts(*_in(name), _ENGLISH.turns(*_in("English")))


def _in(language: str) -> tuple[str, str, str]:
    """The English texts, which may name a language."""
    write, answer = f"Question and answer are in {language}.\n", f" Answer in {language}."
    return (
        _WRITE.replace("{language}", write * bool(language)),
        _WITHIN.replace("{language}", answer * bool(language)),
        _WITHOUT.replace("{language}", answer * bool(language)),
    )


CONTROL = re.compile(
    r"<[|｜][^|｜<>]{1,60}[|｜]>|</?s>|<(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>|\[/?INST\]"
    r"|<</?SYS>>|<\[[A-Z_]{2,40}\]>",
    re.IGNORECASE,
)
"""How the known families write their control tokens."""


def broken(message: Message) -> Message:
    """A message for a server, whose tokenizer isn't known here: what looks like a control token gets a blank.

    A server would read it as the token itself: `< |im_end|>` it reads as text.
    """
    content = CONTROL.sub(lambda found: f"{found[0][0]} {found[0][1:]}", message["content"])
    return {**message, "content": content}
