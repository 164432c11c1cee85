"""The prompts' text, the templates' sandbox and the chat templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragtune.base.errors import UsageError
from ragtune.data.example import Passage, parse_example
from ragtune.data.prompt import CHAT_TEMPLATES, PromptBuilder, chat_template
from ragtune.recipe.data import Prompt
from ragtune.recipe.template import read_template
from tests.conftest import FIXTURES, build_tokenizer

TWO = (Passage("One text.", "One"), Passage("Another.\n", "Two"))
text = st.text(st.characters(exclude_categories=["Cs"]))


def builder(template: str | None = None, **values: Any) -> PromptBuilder:
    return PromptBuilder.of(Prompt(template=template, **values))


def refusal(template: str) -> str:
    with pytest.raises(UsageError) as raised:
        builder(template)
    return raised.value.message


def test_the_aio_prompt_is_what_the_notebook_printed(record: dict[str, Any]) -> None:
    example = parse_example(record, "x")
    prompt = builder(preset="aio").text(example.question, example.passages[:3])
    printed = (FIXTURES / "aio_prompt.printed.txt").read_bytes().decode("utf-8")
    assert len(printed) == 704
    assert prompt[:704] == printed
    assert len(prompt) == 897


@given(text, st.lists(text, max_size=4))
def test_the_aio_prompt_is_the_notebook_s_for_any_text(question: str, passages: list[str]) -> None:
    notebook = "".join(  # cell 7
        [
            "あなたには今からクイズに答えてもらいます。",
            "問題を与えますので、その解答のみを簡潔に出力してください。\n",
            "また解答の参考になりうるテキストを与えます。",
            "解答を含まない場合もあるのでその場合は無視してください。\n\n",
            "---\n",
            "\n\n".join(passages),
            "\n---\n\n",
            f"問題: {question}",
        ]
    )
    assert builder(preset="aio").text(question, [Passage(p) for p in passages]) == notebook


def test_the_english_prompt_is_this() -> None:
    assert builder(preset="english").text("Who?", TWO) == (
        "Answer the question with the answer alone, as briefly as possible.\n"
        "The following texts may help. Ignore them if they don't hold the answer.\n"
        "\n"
        "---\n"
        "One text.\n"
        "\n"
        "Another.\n"
        "\n"
        "---\n"
        "\n"
        "Question: Who?"
    )


def test_a_template_of_one_s_own_has_titles_and_texts() -> None:
    template = (
        "{% for p in passages %}[{{ p.title }}] {{ p.text | trim }}\n{% endfor %}{{ question }}"
    )
    assert builder(template).text("Who?", TWO) == "[One] One text.\n[Two] Another.\nWho?"


def test_a_template_may_lie_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my.jinja"
    path.write_text("F: {{ question }}\n", "utf-8")
    assert builder(str(path)).text("Who?", TWO) == "F: Who?"
    path.write_text("{{ quesiton }}", "utf-8")
    assert refusal(str(path)) == f"{path}: 'quesiton' is undefined."


def test_a_template_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "my.jinja"
    assert (
        refusal(str(path)) == f"prompt.template: {path} can't be read (No such file or directory)."
    )
    path.write_bytes("{{ question }} 東".encode("shift_jis"))
    assert refusal(str(path)) == f"prompt.template: {path} can't be read (not UTF-8)."


def test_a_template_file_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "my.jinja"
    path.mkdir()
    assert refusal(str(path)) == f"prompt.template: {path} can't be read (it is a folder)."
    (tmp_path / "device.jinja").symlink_to("/dev/zero")
    assert refusal(str(tmp_path / "device.jinja")).endswith(
        "(it is no plain file, but a pipe or a device)."
    )
    (tmp_path / "large.jinja").write_text("{{ question }}" + "x" * 2**20, "utf-8")
    assert refusal(str(tmp_path / "large.jinja")).endswith("(it has more than 256 KiB).")


def test_the_system_prompt_comes_first_and_is_no_template() -> None:
    user = {"role": "user", "content": "Who?"}
    assert builder("{{ question }}").messages("Who?", TWO) == [user]
    assert builder("{{ question }}", system="Be {{ brief }}.").messages("Who?", TWO) == [
        {"role": "system", "content": "Be {{ brief }}."},
        user,
    ]


@pytest.mark.parametrize(
    "code", ["{{ 7*7 }}", "{% for i in x %}", "{# note #}", "{{", "<b>&amp;</b>"]
)
def test_what_looks_like_jinja_in_the_data_is_shown_as_it_is(code: str) -> None:
    prompt = builder(preset="english").text(f"Q {code}?", [Passage(f"P {code}.")])
    assert f"P {code}." in prompt
    assert f"Q {code}?" in prompt


@pytest.mark.parametrize("filters", ["upper", "lower", "tojson", "replace('a', 'b')", "trim"])
def test_a_changed_question_is_a_shown_question(filters: str) -> None:
    assert builder(f"{{{{ question | {filters} }}}}").text("A", TWO)


@pytest.mark.parametrize(
    "template", ["hello", "{{ question | length }}", "{% if question %}x{% endif %}", ""]
)
def test_a_template_without_the_question_is_refused(template: str) -> None:
    assert refusal(template) == "prompt.template: the template never shows the question."


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ quesiton }}", "'quesiton' is undefined."),
        ("{{ question }}{{ passages[0].txt }}", "'dict object' has no attribute 'txt'."),
        ("{{ question }}{{ passages[5].text }}", "list object has no element 5."),
        ("{{ question", "line 1: unexpected end of template, expected 'end of print statement'."),
        ("a\n{% for %}", "line 2: Expected an expression, got 'end of statement block'."),
        ("{{ question | nosuch }}", "line 1: No filter named 'nosuch'."),
        ("{{ 1 / 0 }}", "division by zero."),
        ("{{ passages | sum(attribute='text') }}", "unsupported operand type(s) for +: 'int' and 'str'."),
        ("{{ '%d' % question }}", "%d format: a real number is required, not str."),
    ],
)  # fmt: skip
def test_a_template_s_fault_is_told(template: str, problem: str) -> None:
    assert refusal(template) == f"prompt.template: {problem}"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ question.__init__.__globals__ }}",
        "{{ question | attr('__class__') }}",
        "{{ question['__class__'] }}",
        "{{ '{0.__class__}'.format(question) }}",
        "{{ '{0.__class__}'.format_map({'0': question}) }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ lipsum.__globals__ }}",
        "{{ joiner.__init__.__builtins__ }}",
        "{{ passages.append(1) }}",
        "{{ passages[0].update(text='x') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.system('true') }}",
        "{% extends '/etc/passwd' %}",
        "{{ open('/etc/passwd').read() }}",
        "{{ __import__('os') }}",
        "{% for i in range(10**9) %}{{ i }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'x' * 10**18 }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(template: str) -> None:
    with pytest.raises(UsageError, match=r"^prompt\.template: "):
        builder(template + "{{ question }}")


# Chat templates.

TURNS = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "U"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "V"},
]


def rendered(name: str, messages: list[dict[str, str]], specials: dict[str, str]) -> str:
    tokenizer = build_tokenizer(specials=specials, template=chat_template(name))
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


BOTH = {"bos_token": "<s>", "eos_token": "</s>"}


def test_the_aio_chat_template_is_the_book_s() -> None:
    assert rendered("aio", TURNS[1:], BOTH) == (
        "<s>ユーザ：U</s><s>アシスタント：A</s><s>ユーザ：V</s><s>アシスタント："
    )
    assert rendered("aio", TURNS[:2], BOTH) == "<s>システム：S</s><s>ユーザ：U</s><s>アシスタント："


def test_the_plain_chat_template_is_this() -> None:
    turns = "System:\nS\n\nUser:\nU\n\nAssistant:\nA</s>\n\nUser:\nV\n\nAssistant:\n"
    assert rendered("plain", TURNS, BOTH) == "<s>" + turns
    assert rendered("plain", TURNS, {"eos_token": "</s>"}) == turns


def test_a_chat_template_may_lie_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text("{{ messages }}\n", "utf-8")
    assert chat_template(str(path)) == "{{ messages }}"
    with pytest.raises(
        UsageError, match=r"^prompt\.chat_template: .*no\.jinja can't be read \(No such file"
    ):
        chat_template(str(tmp_path / "no.jinja"))


def test_an_unknown_chat_template_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError) as raised:
        chat_template("chatml")
    assert str(raised.value) == (
        "prompt.chat_template: there is no template 'chatml'.\n"
        "Choose aio, plain, or give the path of a .jinja file."
    )
    assert list(CHAT_TEMPLATES) == ["aio", "plain"]


@pytest.mark.parametrize("key", ["prompt.template", "prompt.chat_template"])
def test_an_empty_file_is_no_template(key: str, tmp_path: Path) -> None:
    (tmp_path / "empty.jinja").write_text("\n", "utf-8")
    with pytest.raises(UsageError, match=f"{key}: .*empty.jinja is empty"):
        read_template(str(tmp_path / "empty.jinja"), key)
