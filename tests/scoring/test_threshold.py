"""--at-least METRIC=RATE: what is refused, and what isn't reached."""

from __future__ import annotations

from typing import Any, cast

import pytest

from ragtune.base.errors import RagtuneError, UsageError
from ragtune.scoring.threshold import require_reached, thresholds


def test_the_higher_of_two_rates_counts() -> None:
    found = thresholds(["squad_em=0.4", "contains = 1", "squad_em=.2", "token_f1=1e-1"])
    assert found == {"squad_em": 0.4, "contains": 1.0, "token_f1": 0.1}


@pytest.mark.parametrize(
    ("text", "message", "advice"),
    [
        ("squad_em", "names no rate", "Write METRIC=RATE, such as --at-least squad_em=0.4."),
        ("squad=0.3", "there is no metric 'squad'", "Did you mean squad_em? There are strict_em,"),
        ("=0.3", "there is no metric ''", "There are strict_em,"),
        ("squad_em=40", "a rate is a number from 0 to 1", "Write --at-least squad_em=0.4."),
        ("squad_em=40%", "a rate is a number from 0 to 1", "Write --at-least squad_em=0.4."),
        ("squad_em=0.4%", "a rate is a number from 0 to 1", "Write --at-least squad_em=0.004."),
        ("squad_em=-1", "a rate is a number from 0 to 1", "Write --at-least squad_em=0.4."),
        ("squad_em=nan", "a rate is a number from 0 to 1", "Write --at-least squad_em=0.4."),
        ("squad_em=", "a rate is a number from 0 to 1", "Write --at-least squad_em=0.4."),
    ],
)
def test_what_is_no_threshold(text: str, message: str, advice: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        thresholds([text])
    assert error.value.advice.startswith(advice)


def test_every_metric_that_is_too_low_is_named() -> None:
    metrics = cast("Any", {"n": 1200, "metrics": {"squad_em": 0.3999999, "contains": 0.5}})
    require_reached(metrics, {"contains": 0.5})
    with pytest.raises(RagtuneError) as error:
        require_reached(metrics, {"squad_em": 0.4, "contains": 0.6, "token_f1": 0.0})
    assert error.value.exit_code == 1
    assert error.value.message == (
        "Not reached over 1,200 questions: squad_em is 0.4, and --at-least wants 0.4; "
        "contains is 0.5, and --at-least wants 0.6; token_f1 is unknown, and --at-least wants 0."
    )
