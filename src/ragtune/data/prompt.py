"""From a question and passages to the messages that a chat template renders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jinja2 import TemplateSyntaxError

from ragtune.base.errors import UsageError
from ragtune.data.citations import FORM
from ragtune.data.example import Passage
from ragtune.data.template import compiled, rewritten
from ragtune.data.trial import SAMPLE, limited, refused
from ragtune.recipe.data import Prompt
from ragtune.recipe.template import read_template

PRESETS = {
    # The notebook's text (cell 7), character for character.
    "aio": (
        "あなたには今からクイズに答えてもらいます。"
        "問題を与えますので、その解答のみを簡潔に出力してください。\n"
        "また解答の参考になりうるテキストを与えます。"
        "解答を含まない場合もあるのでその場合は無視してください。\n\n"
        "---\n"
        "{{ passages | map(attribute='text') | join('\\n\\n') }}"
        "\n---\n\n"
        "問題: {{ question }}"
    ),
    "english": (
        "Answer the question with the answer alone, as briefly as possible.\n"
        "The following texts may help. Ignore them if they don't hold the answer.\n\n"
        "---\n"
        "{{ passages | map(attribute='text') | join('\\n\\n') }}"
        "\n---\n\n"
        "Question: {{ question }}"
    ),
}

_JOINED = "{{ passages | map(attribute='text') | join('\\n\\n') }}"
_NUMBERED = (
    "{% for passage in passages %}[{{ loop.index }}] {{ passage.text }}"
    "{{ '\\n\\n' if not loop.last }}{% endfor %}"
)
_ASKED = {
    "aio": "解答の後には、その根拠となるテキストの番号を [1] のように付けてください。",
    "english": "Behind the answer, give the numbers of the texts that it stands in, such as [1].",
}
CITING = {
    name: text.replace("\n\n---", f"\n{_ASKED[name]}\n\n---", 1).replace(_JOINED, _NUMBERED)
    for name, text in PRESETS.items()
}
"""The presets with prompt.citations."""
_QUOTED = {
    "aio": "解答の前に、その解答を含む一文を、「> 」で始まる一行としてそのまま書き写してください。",
    "english": 'Before the answer, copy the sentence that it stands in, as a line that begins with "> ".',
}


def _with_quote(texts: dict[str, str]) -> dict[str, str]:
    return {n: t.replace("\n\n---", f"\n{_QUOTED[n]}\n\n---", 1) for n, t in texts.items()}


_OURS = {
    (False, False): PRESETS, (True, False): CITING,
    (False, True): _with_quote(PRESETS), (True, True): _with_quote(CITING),
}  # fmt: skip
"""The presets, by whether prompt.citations and prompt.quote are set."""

CHAT_TEMPLATES = {
    # The book's (chapter 11): every turn between bos and eos, with the speaker's name. A tokenizer
    # without bos has turns without one.
    "aio": (
        "{% set bos = bos_token | default('', true) %}{% for message in messages %}"
        "{{ bos + {'system': 'システム：', 'user': 'ユーザ：', 'assistant': 'アシスタント：'}"
        "[message['role']] + message['content'] + eos_token }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ bos + 'アシスタント：' }}{% endif %}"
    ),
    "plain": (
        "{{ bos_token | default('', true) }}"
        "{% for message in messages %}"
        "{{ {'system': 'System', 'user': 'User', 'assistant': 'Assistant'}[message['role']]"
        " + ':\\n' + message['content']"
        " + (eos_token if message['role'] == 'assistant' else '') + '\\n\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
    ),
}


@dataclass(frozen=True)
class PromptBuilder:
    """Renders a recipe's prompt.

    Templates run in Jinja's immutable sandbox: they can't reach Python, files or the network. The
    user's own is tried in a process that can be stopped before it is rendered in this one.
    """

    template: str
    system: str | None
    where: str

    @classmethod
    def of(cls, prompt: Prompt) -> PromptBuilder:
        """The builder for a recipe's prompt section.

        Raises:
            UsageError: the template has a syntax error, uses unknown names or no question, or it goes
                on without end.
        """
        if prompt.preset:
            presets = _OURS[prompt.citations, prompt.quote]
            text, where = presets[prompt.preset], f"preset {prompt.preset}"
        else:
            text, where = read_template(prompt.template or "", "prompt.template")
        builder = cls(text, prompt.system, where)
        passages = [Passage("text", "title")]
        builder.require_end("1", passages)
        builder.require_end(SAMPLE[:50], [Passage(SAMPLE, "title")] * 20)
        if builder.text("1", passages) == builder.text("2", passages):
            raise UsageError(
                f"{where}: the template never shows the question.", "Use {{ question }}."
            )
        if prompt.citations and not builder.numbers_passages:
            raise UsageError(
                f"{where}: prompt.citations needs passages with numbers, and no [1] stands before the first.",
                "Write {% for passage in passages %}[{{ loop.index }}] {{ passage.text }} … {% endfor %}.",
            )
        return builder

    @property
    def numbers_passages(self) -> bool:
        """Whether every passage has its number, in the form of a citation, before its text."""
        text = self.text("?", [Passage("\ue001"), Passage("\ue002")])
        places = [
            text.find(FORM.format(1)),
            text.find("\ue001"),
            text.find(FORM.format(2)),
            text.find("\ue002"),
        ]
        return min(places) >= 0 and places == sorted(places)

    def require_end(self, question: str, passages: Sequence[Passage]) -> None:
        """Try an example's prompt in a process that can be stopped; the presets are known to end.

        Raises:
            UsageError: it takes too long or too much memory, or would be another one each time.
        """
        if any(self.template in presets.values() for presets in _OURS.values()):
            return
        if problem := refused(self.template, [_values(question, passages)]):
            raise UsageError(
                f"{self.where}: {problem}.",
                "Simplify the template: a prompt needs the passages' texts, one after the other, and the "
                "question.",
            )

    def text(
        self,
        question: str,
        passages: Sequence[Passage],
        change: Callable[[str], str] | None = None,
    ) -> str:
        """The user's message; with what `change` makes of the template's own words."""
        try:
            with limited():
                template = rewritten(self.template, change) if change else compiled(self.template)
                return template.render(_values(question, passages))
        except TemplateSyntaxError as error:
            problem = f"line {error.lineno}: {error.message}"
        except Exception as error:  # noqa: BLE001 - what a template computes may raise anything
            problem = str(error) or type(error).__name__
        raise UsageError(f"{self.where}: {problem.rstrip('.')}.", _TEMPLATE_ADVICE)

    def messages(self, question: str, passages: Sequence[Passage]) -> list[dict[str, str]]:
        """The conversation up to the model's turn."""
        user = {"role": "user", "content": self.text(question, passages)}
        return [{"role": "system", "content": self.system}, user] if self.system else [user]


def _values(question: str, passages: Sequence[Passage]) -> dict[str, object]:
    """What a prompt template reads."""
    return {"question": question, "passages": [p.to_dict() for p in passages]}


_TEMPLATE_ADVICE = (
    "A prompt template is Jinja over `question` and `passages`; a passage has `title` and `text`."
)


def chat_template(name: str) -> str:
    """A chat template by name (`aio`, `plain`), path or text.

    Raises:
        UsageError: neither a known name nor a file nor a template.
    """
    if name in CHAT_TEMPLATES:
        return CHAT_TEMPLATES[name]
    if "{" in name:
        return name
    if not name.endswith((".jinja", ".j2")):
        raise UsageError(
            f"prompt.chat_template: there is no template {name!r}.",
            f"Choose {', '.join(CHAT_TEMPLATES)}, or give the path of a .jinja file.",
        )
    return read_template(name, "prompt.chat_template")[0]
