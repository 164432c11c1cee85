"""Templates reach nothing outside, and end: in a text or in a message."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from ragtune.base.errors import UsageError
from ragtune.data.prompt import PRESETS, PromptBuilder
from ragtune.data.template import MAX_REPEATS, compiled, unbounded
from ragtune.data.tokenizer import prepare_tokenizer
from ragtune.recipe.load import load_recipe
from ragtune.recipe.schema import Prompt
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

LONG = "{% set n = namespace(x='xx', l=[1]) %}{% for i in range(99) %}"
WITHOUT_END = [
    "{% for i in range(10**9) %}{% endfor %}",
    "{% set r = range(99999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) recursive %}{{ loop([1, 2] * 9) }}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for i in range(99999) %}" + "x" * 5000 + "{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ [1] * 10**9 }}",
    "{{ [[1] * 9999] * 9999 }}",
    "{{ 10**10**9 }}",
    "{{ 'x'|center(10**9) }}",
    "{{ 'x'.center(10**9) }}",
    "{{ 'x'.zfill(10**9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 10**9) }}",
    "{{ '{0:{1}}'.format(1, 10**9) }}",
    "{{ lipsum(10**6) }}",
    "{{ ('x\n' * 99999)|indent(9999) }}",
    "{{ (('x' * 9999)|wordwrap(1, wrapstring='x' * 9999)) }}",
    "{{ ('\t' * 9999).expandtabs(99999) }}",
    LONG + "{% set n.x = n.x ~ n.x %}{% endfor %}",
    LONG + "{% set n.x = n.x + n.x %}{% endfor %}",
    LONG + "{% set n.x = n.x.replace('x', n.x) %}{% endfor %}",
    LONG + "{% set n.x = n.x|replace('x', n.x) %}{% endfor %}",
    LONG + "{% set n.x = n.x.join([n.x, n.x]) %}{% endfor %}",
    LONG + "{% set n.x = [n.x, n.x]|join %}{% endfor %}",
    LONG + "{% set x %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = x %}{% endfor %}",
    LONG + "{% set n.l = n.l + n.l %}{% endfor %}",
    LONG + "{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
    LONG + "{% set n.l = {1: n.l, 2: n.l} %}{% endfor %}{{ n.l|tojson }}",
    LONG + "{% set n.l = (n.l, n.l) %}{% endfor %}{{ n.l == (n.l, n.l) }}",
]


def builder(template: str) -> PromptBuilder:
    return PromptBuilder.of(Prompt(template=template + "{{ question }}"))


@pytest.mark.parametrize("template", ESCAPES)
def test_nothing_outside_is_reached(template: str) -> None:
    with pytest.raises(UsageError, match=r"^prompt\.template: "):
        builder(template)


def test_what_has_no_end_ends_in_a_message() -> None:
    """All in one process that may hold only so much, so that a limit that is missing is noticed."""
    code = (
        "import resource\n"
        "from tests.data.test_template import WITHOUT_END, UsageError, builder\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "for template in WITHOUT_END:\n"
        "    try:\n        builder(template)\n        print('no message:', template)\n"
        "    except UsageError as error:\n"
        "        assert error.message.startswith('prompt.template: '), error.message\n"
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("peak "), done.stdout


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
        ("{{ passages|groupby('title')|length }}{{ 7 % 4 }}{{ 2 ** 5 }}", "1332"),
    ],
)  # fmt: skip
def test_what_templates_do_is_done(template: str, text: str) -> None:
    environment, found = compiled(template)
    passages = [{"title": "t", "text": "x"}, {"title": "t", "text": "y"}]
    assert environment.rendered(found, question="Q", passages=passages) == text


def test_a_long_prompt_is_no_template_without_end() -> None:
    passages = [{"title": "title", "text": "word " * 2000}] * 100
    for preset in PRESETS.values():
        environment, found = compiled(preset)
        for _ in range(3):  # what one rendering used up is not counted to the next
            assert len(environment.rendered(found, question="Q", passages=passages)) > 10**6


def test_repeats_are_counted_to_the_limit() -> None:
    environment, found = compiled("{% for i in r %}{% endfor %}")
    environment.rendered(found, r=range(MAX_REPEATS))
    with pytest.raises(Exception, match="repeats something"):
        environment.rendered(found, r=range(MAX_REPEATS + 1))


def test_chat_templates_are_looked_at_before_transformers_renders_them(
    tiny_recipe: dict[str, Any],
) -> None:
    bomb = (
        CHATML + "{% set r = range(9999) %}{% for i in r %}{% for j in r %}{% endfor %}{% endfor %}"
    )
    tokenizer = build_tokenizer(
        specials={"eos_token": "<|im_end|>", "start": "<|im_start|>"}, template=bomb
    )
    with pytest.raises(UsageError, match="The chat template can't be used: the template repeats"):
        prepare_tokenizer(tokenizer, load_recipe(tiny_recipe))


@pytest.mark.parametrize(
    "template",
    [CHATML, "{% generation %}x{% endgeneration %}", "{{ raise_exception('no') }}", "{{ x.y.z }}", "{% broken"],
)  # fmt: skip
def test_other_chat_templates_are_left_to_transformers(template: str) -> None:
    assert unbounded(template, messages=[{"role": "user", "content": "x"}]) is None


def test_a_bomb_within_transformers_own_tags_is_seen() -> None:
    inner = "{% set r = range(9999) %}{% for i in r %}{% for j in r %}{% if 1 %}{% continue %}{% endif %}{% endfor %}{% endfor %}"
    assert unbounded("{% generation %}" + inner + "{% endgeneration %}")
