"""Figures and metrics in words, the same in the report, the summary and the model card."""

from __future__ import annotations

import re
from importlib import resources

from jinja2 import (
    Environment,
    FunctionLoader,
    StrictUndefined,
    pass_eval_context,
    select_autoescape,
)
from jinja2.nodes import EvalContext
from markupsafe import Markup, escape

from ragtune.base.screen.visible import BEGIN, END, named, visible
from ragtune.base.text import one_or_many
from ragtune.scoring.reasked import Reasked, is_other

METRICS = {
    "strict_em": (
        "Exact match, strict",
        "The answer is an accepted answer, character for character.",
    ),
    "squad_em": (
        "Exact match, SQuAD’s rule",
        "The answer is an accepted one but for case, punctuation and articles (SQuAD v1.1).",
    ),
    "aio_em": (
        "Exact match, AI王’s rule",
        "The answer after NFKC is an accepted one but for case, spaces, ・=- and 「」『』.",
    ),
    "jsquad_em": (
        "Exact match, JSQuAD’s rule",
        "The answer is an accepted one by the rule of JGLUE’s JSQuAD.",
    ),
    "token_f1": (
        "F1 over words",
        "How far the words of the answer are those of the accepted answer that fits best (SQuAD).",
    ),
    "char_f1": (
        "F1 over characters",
        "How far the characters of the answer are those of the accepted answer that fits best (JSQuAD).",
    ),
    "rouge_l": (
        "ROUGE-L",
        "How much of the accepted answer that fits best stands in the answer in the same order, as F1.",
    ),
    "contains": (
        "Contains an answer",
        "An accepted answer stands somewhere in the answer, both by AI王’s rule.",
    ),
}
GRADED = ("token_f1", "char_f1", "rouge_l")
"""Metrics with values between 0 and 1: an answer can become better without becoming right."""

ACCEPTED = {
    "first": "the first answer of each record",
    "all": "every answer of each record",
    "all+alternatives": "every answer of each record and the alternatives it names",
}
REFUSALS = {
    "unanswerable": (
        "Refused where the passages hold no accepted answer",
        "Each of these questions should be refused: higher is better.",
    ),
    "answerable": (
        "Refused although an answer stands in the passages",
        "None of these should be refused: lower is better.",
    ),
    "crag": (
        "CRAG’s score over all that were asked",
        "A right answer counts 1, a refusal 0, a wrong answer −1: from −100 to +100.",
    ),
}
CITATIONS = {
    "recall": (
        "Citation recall",
        "A passage that the answer cites supports it: one of the question’s positives, by string.",
    ),
    "precision": (
        "Citation precision",
        "The share of an answer’s citations that support it; 0 where it cites nothing.",
    ),
    "cited": ("Answers that cite", "At least one passage, whichever."),
}
"""After ALCE (scoring/citations.py); over the answered questions."""
QUOTES = {
    "quoted": ("Answers behind a quote", "In a line of its own that begins with >."),
    "verbatim": ("Quotes that stand in a passage", "Word for word; 0 for an answer without one."),
    "supporting": (
        "Quotes of a positive that hold the answer",
        "The answer that was given, be it right or wrong.",
    ),
}
"""scoring/quotes.py; over the answered questions."""
RECALL = {
    "answer": ("An answer stands in it", "As written, at word borders."),
    "gold": (
        "It is the one that the question names",
        "Or it is cut from the document that the question names.",
    ),
}
"""What makes a retrieved passage right."""
RECALL_OF = {"answer": "an answer stands", "gold": "the named passage or document is"}
CUT = "answers cut off (number)"
"""Those that went on until evaluate.max_new_tokens."""
UNSURE = "refused by refuse_below, of all (number)"
"""For which the model gave no answer that is probable enough."""
_MINUTE, _HOUR = 60, 3600
_TINY = 0.001


def rate(value: float) -> str:
    """0.4375 as 43.8 (percent)."""
    return f"{100 * value:.1f}"


def points(value: float) -> str:
    """A difference of rates in percentage points, with its sign: -0.02 as −2.0."""
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def count(value: float) -> str:
    """12345 as 12,345; a fraction keeps at most one digit."""
    return f"{value:,.1f}".removesuffix(".0")


def duration(seconds: float) -> str:
    """83 as 1 min 23 s."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def probability(p: float) -> str:
    """A p-value: 0.0312 as p = 0.031."""
    return "p < 0.001" if p < _TINY else f"p = {p:.3f}"


def not_asked(number: int, *, sides: str = "") -> str:
    """What figures over all questions of a set are, if so many of these were not asked.

    Args:
        number: of these questions.
        sides: `before and after`, where there is a difference beside the two.
    """
    bounds = (
        f"{sides} are lower bounds, the difference is no bound"
        if sides
        else "these are lower bounds"
    )
    count_as = "counts" if number == 1 else "count"
    return f"the {count(number)} not asked {count_as} as wrong, also in the intervals: {bounds}"


def cell(text: object) -> str:
    """Text as it can stand in a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


NOT_COMPARABLE = (
    "These are not comparable: the run's own answers were confined (evaluate.copy, evaluate.refuse_below) or "
    "chosen among several (evaluate.orders), and here the model writes freely, with the passages in one order."
)


def asked_again(who: str, found: Reasked) -> str:
    """What changed where a run's questions were asked again of `who`, in a sentence."""
    verdict = f"{who} is not what was measured: it" if is_other(found) else who
    words = f"{verdict} gives {found['changed']} of {found['asked']} answers otherwise than the run itself"
    metric, some = found["metric"], ""
    if found.get("confined"):
        some = f" {NOT_COMPARABLE}"
    if found["asked"] < found["of"]:
        some += (
            f" {count(found['asked'])} of {count(found['of'])} questions were asked again, drawn by the seed: "
            "of all, with a certainty of 95 %, at most "
            f"{one_or_many(found['at_most'], 'answer is', 'answers are')} otherwise."
        )
    if metric not in found["difference"]:
        return f"{words}.{some}"
    own, again, difference = (found[side][metric] for side in ("own", "again", "difference"))
    low, high = points(difference["low"]), points(difference["high"])
    return (
        f"{words}; {metric} {rate(again['value'])} % where the run has {rate(own['value'])} % "
        f"({rate(own['low'])} … {rate(own['high'])}), {points(difference['value'])} points "
        f"({low} … {high}: the paired 95 % interval over {one_or_many(found['n'], 'question', 'questions')})"
        f"{_detected(found)}.{some}"
    )


def _detected(found: Reasked) -> str:
    """What a difference shows, unless it was said that this is another model, or nothing follows from it."""
    if is_other(found) or found.get("confined"):
        return ""
    return ": no detectable difference"


def rendered(template: str, **values: object) -> str:
    """One of this package's templates with values in it, which are escaped in HTML.

    What can't be seen in them, or would turn what stands beside it, is shown as what it is: in HTML marked,
    elsewhere escaped as Python and YAML write it.
    """
    text = _ENVIRONMENT.get_template(template).render(values)
    return text if template.endswith("html.j2") else visible(text)


@pass_eval_context
def _shown(context: EvalContext, value: object) -> object:
    """A value as a page shows it: hidden characters as badges, and from right to left only by itself."""
    if not context.autoescape or not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = str(escape(named(value))).replace(BEGIN, _BADGE).replace(END, "</bdi>")
    return Markup(f"<bdi>{text}</bdi>" if _FROM_RIGHT.search(value) else text)  # noqa: S704 - escaped above


def plain(text: str) -> Markup:
    """Text for a place that takes no elements, as a page's title."""
    return escape(visible(text))


HINT = "Can't be seen, or would change how the text around it looks"
_BADGE = f'<bdi class="odd" title="{HINT}">'
_FROM_RIGHT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)


def package_text(name: str) -> str:
    """A file of this package, as text."""
    return resources.files("ragtune.reporting").joinpath("templates", name).read_text("utf-8")


_ENVIRONMENT = Environment(
    # Markdown and Python have nothing to escape; whatever else there is, is escaped.
    autoescape=select_autoescape(disabled_extensions=("md.j2", "py.j2"), default=True),
    undefined=StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
    loader=FunctionLoader(package_text),
)
for _function in (rate, points, count, duration, probability, one_or_many, cell, plain):
    _ENVIRONMENT.filters[_function.__name__] = _function
_ENVIRONMENT.filters["literal"] = repr
_ENVIRONMENT.globals |= {
    "METRICS": METRICS, "GRADED": GRADED, "ACCEPTED": ACCEPTED, "REFUSALS": REFUSALS, "CITATIONS": CITATIONS,
    "QUOTES": QUOTES,
    "RECALL": RECALL, "RECALL_OF": RECALL_OF, "asked_again": asked_again, "not_asked": not_asked,
}  # fmt: skip
