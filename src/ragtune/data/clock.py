"""The date that some chat templates write: one for the whole run, and kept with its template."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any

from ragtune.data.chat import Message, render

_UNLIKE = (datetime(1999, 1, 2, 3, 4, 5), datetime(2031, 12, 30, 20, 51, 52))  # noqa: DTZ001 - as templates do
"""Two moments that no format writes alike."""
_DIRECTIVES = "aAbBcdDeFgGhHIjlmMnpPrRStTuUVwWxXyYZ"


def today() -> date:
    """The date here, as a template would write it."""
    return datetime.now().astimezone().date()


def asks_clock(tokenizer: Any, messages: Sequence[Message]) -> bool:
    """Whether the chat template writes a conversation otherwise at another time."""
    template = tokenizer.chat_template
    first, second = (
        render(tokenizer, messages, template=_at(template, moment)) for moment in _UNLIKE
    )
    return first != second


def with_date(template: str, day: date) -> str:
    """A chat template to which it is always midnight of this day."""
    return f"{{# the date: {day.isoformat()} #}}" + _at(template, datetime.combine(day, time()))


def date_of(template: str) -> date | None:
    """The day of a template of `with_date`; None for others."""
    found = re.search(r"\{# the date: (\d{4}-\d\d-\d\d) #\}", template)
    return date.fromisoformat(found[1]) if found else None


def _at(template: str, moment: datetime) -> str:
    """A chat template with a clock of its own, which stands still.

    The macro hides the function of this name that transformers, and servers like it, offer. They have
    no other clock. It is a matter of text alone, so that it can be saved with the template.
    """
    steps = ""
    for sign in ("", "-"):
        for directive in _DIRECTIVES:
            written = f"%{sign}{directive}"
            if written in template:
                steps += f" | replace({written!r}, {moment.strftime(written)!r})"
    return f"{{% macro strftime_now(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}\n{template}"
