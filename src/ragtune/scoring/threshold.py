"""Figures that must be reached, for continuous integration: `ragtune evaluate --at-least METRIC=RATE`."""

from __future__ import annotations

from collections.abc import Iterable

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.base.text import nearest, one_or_many, shortened
from ragtune.scoring.metrics import METRICS
from ragtune.scoring.score import Metrics


def thresholds(texts: Iterable[str]) -> dict[str, float]:
    """What each metric must reach, of METRIC=RATE; of one that is named twice the higher rate.

    Raises:
        UsageError: an unknown metric, or a rate that is none from 0 to 1.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise UsageError(
                f"--at-least {shortened(text)!r} names no rate.",
                "Write METRIC=RATE, such as --at-least squad_em=0.4.",
            )
        if name not in METRICS:
            near = nearest(name[:100], list(METRICS))
            raise UsageError(
                f"--at-least: there is no metric {shortened(name)!r}.",
                (f"Did you mean {near}? " if near else "") + f"There are {', '.join(METRICS)}.",
            )
        found[name] = max(_rate(name, value), found.get(name, 0.0))
    return found


def _rate(name: str, text: str) -> float:
    percent = text.removesuffix("%").strip()
    try:
        rate = float(percent)
    except ValueError:
        rate = -1.0
    if percent == text and 0 <= rate <= 1:
        return rate
    meant = f"{rate / 100:g}" if 0 <= rate <= 100 else "0.4"  # noqa: PLR2004 - percent
    raise UsageError(
        f"--at-least {name}={shortened(text)}: a rate is a number from 0 to 1.",
        f"Write --at-least {name}={meant}.",
    )


def require_reached(found: Metrics, wanted: dict[str, float]) -> None:
    """Raise unless every metric reaches what is wanted of it, over the answerable questions.

    Raises:
        RagtuneError: it names each that does not, with both figures.
    """
    values = found["metrics"]
    short = [
        f"{name} is {f'{values[name]:.6g}' if name in values else 'unknown'}, and --at-least wants {rate:g}"
        for name, rate in wanted.items()
        if values.get(name, -1.0) < rate
    ]
    if short:
        raise RagtuneError(
            f"Not reached over {one_or_many(found['n'], 'question')}: {'; '.join(short)}.",
            "All figures are above. A report shows the questions that are wrong: `ragtune report` with the "
            "same run, and the same data.eval.",
        )
