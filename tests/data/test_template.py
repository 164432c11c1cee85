"""Templates reach nothing outside, and end: in a text or in a message."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.data import trial
from ragtune.data.encode import Encoder
from ragtune.data.example import Example, Passage
from ragtune.data.prompt import PromptBuilder
from ragtune.data.template import compiled, variables
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.data.trial import TooLongError, limited, refused
from ragtune.recipe.data import Prompt
from ragtune.recipe.load import load_recipe
from tests.conftest import CHATML, build_tokenizer

ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ question.__init__.__globals__ }}",
    "{{ passages.__class__.__base__.__subclasses__() }}",
    "{{ passages|map(attribute='__class__')|join }}",
    "{{ passages|map(attribute='text.__class__.__mro__')|list }}",
    "{{ self.__init__.__globals__.__builtins__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.popen('id') }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ range.__self__ }}",
    "{{ dict.mro() }}",
    "{{ '{0.__class__}'.format(question) }}",
    "{{ '{0.__class__.__mro__}'|format(question) ~ '{0.__class__}'.format_map({'0': 1}) }}",
    "{% macro f() %}{% endmacro %}{{ f.__globals__ }}",
    "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}",
    "{{ passages.append(1) }}",
    "{{ passages[0].update(text='x') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends 'x' %}",
    "{{ environment }}",
    "{{ context }}",
    "{{ _tick() }}",
]

BIG = "{% set b = 'a' * 8000000 %}{% for i in range(99999) %}"
LONG = "{% set n = namespace(x='xx', l=[1]) %}{% for i in range(99) %}"
WITHOUT_END = [
    "{% for i in range(10**9) %}{% endfor %}",
    "{% set r = range(99999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}",
    "{% set r = range(99999) %}{% for i in r %}{% for j in r if j < 0 %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) recursive %}{{ loop([1, 2] * 9) }}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for i in range(99999) %}" + "x" * 5000 + "{% endfor %}",
    BIG + "{% if 'ab' in b %}{% endif %}{% endfor %}",
    BIG + "{% set c = b|sort %}{% endfor %}",
    BIG + "{% set c = b.count('aa') %}{% endfor %}",
    BIG + "{% set c = b[1:] %}{% endfor %}",
    BIG + "{% if b != b ~ 'a' %}{% endif %}{% endfor %}",
    "{% for i in range(99999) %}{% set c = range(99999)|sum %}{% endfor %}",
    "{{ 'x' * 10**10 }}",
    "{{ [[1] * 9999] * 9999 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ 'x'.center(10**10) }}",
    LONG + "{% set n.x = n.x + n.x %}{% endfor %}",
    LONG + "{% set n.x = n.x.join([n.x, n.x]) %}{% endfor %}",
    LONG + "{% set x %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = x %}{% endfor %}",
    LONG + "{% set n.l = {1: n.l, 2: n.l} %}{% endfor %}{{ n.l|tojson }}",
    "{{ [1] * 10**9 }}",
    "{{ 10**(10**9) }}",
    "{{ 'x'|center(10**10) }}",
    "{{ 'x'.zfill(10**10) }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ '{:{}}'.format(1, 10**10) }}",
    "{{ ('x\n' * 99999)|indent(99999) }}",
    "{{ (('x' * 9999)|wordwrap(1, wrapstring='x' * 9999)) }}",
    "{{ ('\t' * 99999).expandtabs(99999) }}",
    LONG + "{% set n.x = n.x ~ n.x %}{% endfor %}",
    LONG + "{% set n.x = n.x.replace('x', n.x) %}{% endfor %}",
    LONG + "{% set n.x = [n.x, n.x]|join %}{% endfor %}",
    LONG + "{% set n.l = n.l + n.l %}{% endfor %}",
    LONG + "{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
]
REASONS = (
    "goes on for more than",
    "of memory",
    "writes more than",
    "recursion",
    "Range too big",
    "Exceeds the limit",
)
UNLIKE = {
    "{{ [1, 2]|random }}": "it draws by lot (No filter named 'random'",
    "{{ lipsum(1) }}": "it draws by lot ('lipsum' is undefined)",
    **dict.fromkeys(
        [
            "{{ [1]|map('string') }}",
            "{{ joiner() }}",
            "{{ cycler('a') }}",
            "{{ cycler('a')|string|upper }}",
            "{{ ([1]|map('string')|string)[-8:] }}",
            "{{ joiner()|string|reverse }}",
            "{% if '7' in (question.upper|string) %}a{% else %}b{% endif %}",
            "{{ [[1]|select]|string }}",
            "{{ [[1]|select] ~ '' }}",
            "{{ {'a': [1]|reverse} }}",
            "{{ '%s' % ([1]|batch(1)) }}",
            "{{ '%r'|format(question.strip) }}",
            "{{ '{}'.format([1]|slice(1)) }}",
            "{{ [question|attr('upper')]|join }}",
            "{{ [question]|map(attribute='upper')|join }}",
            "{{ question['upper']|title|length }}",
            "{{ range|string|wordcount }}",
            "{{ {'a': 1}|items }}",
            "{% for x in [1] %}{{ loop.cycle|pprint|length }}{% endfor %}",
            "{% block b %}{% endblock %}{{ self.b|lower }}",
            "{% macro f(x) %}{{ x }}{% endmacro %}{{ f([1]|reject)|length }}",
        ],
        "it writes an iterator, a function or another object that is no text, which is another text each time",
    ),
}


def builder(template: str) -> PromptBuilder:
    return PromptBuilder.of(Prompt(template=template + "{{ question }}"))


@pytest.mark.parametrize("template", ESCAPES)
def test_nothing_outside_is_reached(template: str) -> None:
    with pytest.raises(UsageError, match=r"^prompt\.template: "):
        builder(template)


def test_what_has_no_end_ends_in_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 0.1)  # half a second on the clock

    def refusal(template: str) -> str:
        with pytest.raises(UsageError) as raised:
            builder(template)
        return raised.value.message

    with ThreadPoolExecutor(2) as pool:
        for template, message in zip(WITHOUT_END, pool.map(refusal, WITHOUT_END), strict=True):
            assert message.startswith("prompt.template: "), template
            assert any(reason in message for reason in REASONS), (template, message)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% for p in passages %}{{ loop.index }}. {{ p.title ~ ': ' ~ p.text }}\n{% endfor %}", "1. t: x\n2. t: y\n"),
        ("{{ passages | map(attribute='text') | join('\n\n') }}", "x\n\ny"),
        ("{{ '%s (%d)' % (question, 3 * 4) }}", "Q (12)"),
        ("{{ '%.2f'|format(1.5) }} {{ '{:>4}'.format(question) }}", "1.50    Q"),
        ("{{ question|replace('Q', 'q')|upper|center(5)|trim }}", "Q"),
        ("{{ passages|length }}{{ (passages|first).text }}{{ passages[1:]|length }}", "2x1"),
        ("{% set n = namespace(c=0) %}{% for p in passages %}{% set n.c = n.c + 1 %}{% endfor %}{{ n.c }}", "2"),
        ("{% macro f(p) %}[{{ p.text }}]{% endmacro %}{{ f(passages[0]) }}", "[x]"),
        ("{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }}{% endfor %}", "37"),
        ("{{ {'a': [1, 2]}|tojson }}", '{"a": [1, 2]}'),
        ("{{ ('a b c'|wordcount) }}{{ ['b', 'a']|sort|join }}{{ 'x\ny'|indent(2) }}", "3abx\n  y"),
        ("{% set a, b = 1, 2 %}{{ a }}{{ b }}", "12"),
        ("{% for c in 'ab' if c != 'b' %}{{ c }}{% else %}-{% endfor %}", "a"),
        ("{% set s = joiner(', ') %}{% set c = cycler('a', 'b') %}{% for p in passages %}{{ s() }}{{ c.next() }}{{ c.current }}{{ loop.cycle(1, 2) }}{% endfor %}", "ab1, ba2"),
        ("{{ ['b', 'a']|map('upper')|reverse|list }}{% for k, v in {'x': 1}|items %}{{ k }}{{ v }}{% endfor %}", "['A', 'B']x1"),
        ("{% for x in range(3)|batch(2) %}{{ loop.revindex }}{{ x }}{% endfor %}{{ range(3)|select('odd')|first }}", "2[0, 1]1[2]1"),
        ("{% set f = question.lower %}{{ f() }}{{ f is callable }}{{ ([]|map('upper')) is iterable }}{{ [question]|map('lower')|join }}", "qTrueTrueq"),
        ("{% for p in [[1, [2]]] recursive %}{% for q in p %}{{ loop.index ~ loop }}{% endfor %}{% endfor %}", "1<LoopContext 1/2>2<LoopContext 2/2>"),
        ("{% block b %}x{% endblock %}{{ self.b() }}{{ question is string }}", "xxTrue"),
        ("{{ passages|groupby('title')|length }}{{ 7 % 4 }}{{ 2 ** 5 }}", "1332"),
    ],
)  # fmt: skip
def test_what_templates_do_is_done(template: str, text: str) -> None:
    passages = [{"title": "t", "text": "x"}, {"title": "t", "text": "y"}]
    values = {"question": "Q", "passages": passages}
    assert compiled(template).render(values) == text
    assert refused(template, [values]) is None


def test_a_long_prompt_is_no_template_without_end() -> None:
    passages = [Passage("word " * 20_000, "title")] * 100
    own = builder("{% for p in passages %}{{ p.text|trim }}{{ p.title|upper }}\n{% endfor %}")
    own.require_end("Q", passages)
    assert len(own.text("Q", passages)) > 9_000_000


@pytest.mark.parametrize("template", UNLIKE)
def test_a_prompt_that_would_be_another_one_each_time_is_refused(template: str) -> None:
    with pytest.raises(UsageError) as raised:
        builder(template)
    assert raised.value.message.startswith(f"prompt.template: {UNLIKE[template]}")
    chat = refused(template, [{"question": "Q"}], chat=True)
    assert chat is None or chat.startswith(UNLIKE[template])


def test_chat_templates_are_tried_before_transformers_renders_them(
    tiny_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "SECONDS", 1)
    loop = "{% for i in r %}{% for j in r %}{% if 1 %}{% continue %}{% endif %}{% endfor %}{% endfor %}"
    bombs = {
        "{% set r = range(9999) %}{% generation %}" + loop + "{% endgeneration %}": "goes on for",
        "{% if messages[0].content is not string %}{{ 'x' * 10**10 }}{% endif %}": "more than 1 GiB",
        "{{ 'x' * 2**24 ~ 'x' }}": "it writes more than 16,777,216 characters",
        "{{ lipsum() }}": "it draws by lot",
    }
    specials = {"eos_token": "<|im_end|>", "start": "<|im_start|>"}
    for bomb, reason in bombs.items():
        tokenizer = build_tokenizer(specials=specials, template=CHATML + bomb)
        with pytest.raises(UsageError, match=f"The chat template can't be used: .*{reason}"):
            prepare_tokenizer(tokenizer, load_recipe(tiny_recipe))


def test_a_template_that_has_no_end_for_one_example_alone_names_it(
    tiny_recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried on the longest example; for another one it is stopped in this process."""
    monkeypatch.setattr(trial, "SECONDS", 1)
    loop = "{% set r = range(9999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}"
    for name, prompt, chat in (
        ("prompt.template", "{% if question == 'bad?' %}" + loop + "{% endif %}{{ question }}", CHATML),
        ("The chat template", "{{ question }}", "{% if 'bad?' == messages[0].content %}" + loop + "{% endif %}" + CHATML),
    ):  # fmt: skip
        recipe = load_recipe({**tiny_recipe, "prompt": {"template": prompt}})
        specials = {"eos_token": "<|im_end|>", "start": "<|im_start|>"}
        tokenizer = prepare_tokenizer(build_tokenizer(specials=specials, template=chat), recipe)
        encoder = Encoder(tokenizer, recipe, 1024)
        bad, long = (Example("q", q, ("a",), (), (), ()) for q in ("bad?", "longer? " * 9))
        assert encoder.prompt(long)
        with monkeypatch.context() as patch:
            patch.setattr(trial, "RENDERING", 0.5)
            with pytest.raises(UsageError, match=name) as raised:
                encoder.prompts([bad, long])
        assert "goes on for more than 0.5 s" in raised.value.message
        longest = Example("q", "bad?", ("a",), (Passage("x" * 999),), (0,), ())
        with pytest.raises(UsageError, match=f"{name}.* goes on for more than 1 s"):
            encoder.prompts([longest])


@pytest.mark.parametrize(
    "template",
    [CHATML, "{% generation %}x{% endgeneration %}", "{{ raise_exception('no') }}", "{{ x.y.z }}", "{% broken",
     "{{ strftime_now('%Y') }}{{ messages|tojson(indent=2) }}", "{{ " + "(" * 9999],
)  # fmt: skip
def test_other_chat_templates_are_left_to_transformers(template: str) -> None:
    assert refused(template, [{"messages": [{"role": "user", "content": "x"}]}], chat=True) is None
    assert isinstance(variables(template), set)


def test_where_no_process_can_be_started_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RagtuneError, match=r"/nowhere/python can't be started: .*No such file"):
        refused("{{ nowhere }}", [{}])
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RagtuneError, match="/bin/false can't be started"):
        refused("{{ nowhere }}", [{}])


def test_the_process_has_no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    def run(*_: object, env: dict[str, str], **__: object) -> subprocess.CompletedProcess[bytes]:
        seen.update(env)
        return subprocess.CompletedProcess([], 0, b"ready\nnull", b"")

    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    monkeypatch.setattr(subprocess, "run", run)
    assert refused("{{ seen }}", [{}]) is None
    assert "PATH" in seen
    assert "HF_TOKEN" not in seen


def test_each_template_is_tried_once_with_the_same_examples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert refused("{{ once }}", [{"once": 1}]) is None
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert refused("{{ once }}", [{"once": 1}]) is None


def test_a_limit_is_over_with_its_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def endless() -> None:
        now[0] += 2 * trial.RENDERING
        all(iter(lambda: True, False))

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep)
    monkeypatch.setattr(trial, "time", clock)
    with limited():
        pass
    now[0] += 2 * trial.RENDERING
    time.sleep(3 * trial._LOOK)
    with pytest.raises(TooLongError), limited():
        endless()
