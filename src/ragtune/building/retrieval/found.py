"""What a retriever of the user's own returns for a question, read as hits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ragtune.base.errors import UsageError
from ragtune.building.retrieval.known import Known
from ragtune.building.retrieval.retriever import Hit

_IDS = ("passage_id", "id")
_TEXTS = ("text", "page_content", "content")
_PAIR = 2
_FORMS = (
    "Return a list for each question, best first, of: ids; (id, score); {passage_id or id, text, score}; "
    "texts; Documents of LangChain; or NodeWithScores of LlamaIndex."
)


@dataclass(frozen=True, slots=True)
class _Named:
    """Something that was found, by what may name it."""

    ids: tuple[str, ...] = ()
    text: str | None = None
    score: float | None = None


def read_found(items: object, known: Known, where: str) -> tuple[list[Hit], list[str]]:
    """The passages in what was returned for a question, and what in it is none of this corpus.

    Their order counts. Scores are kept if they fall along it, and made by rank otherwise: some engines
    give distances. Of a passage that is there twice the first counts.

    Args:
        items: a list, best first, of ids, (id, score), {passage_id or id, text, score}, texts,
            LangChain's Documents or LlamaIndex's NodeWithScores.
        known: the passages of the corpus.
        where: who returned it, for messages.

    Raises:
        UsageError: it is no such list.
    """
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Sequence):
        raise UsageError(
            f"retriever: {where} returned {type(items).__name__}, which is no list of passages.",
            _FORMS,
        )
    scores: dict[str, float | None] = {}
    unknown = []
    for position, item in enumerate(items):
        named = _named(item, f"{where}: [{position}]")
        found = _resolved(named, known)
        if found is None:
            unknown.append(next(iter(named.ids), None) or named.text or "")
        else:
            scores.setdefault(found, named.score)
    given = [s for s in scores.values() if s is not None and math.isfinite(s)]
    if len(given) < len(scores) or not all(a >= b for a, b in itertools.pairwise(given)):
        given = [1 / rank for rank in range(1, len(scores) + 1)]
    return [Hit(one, score) for one, score in zip(scores, given, strict=True)], unknown


def _resolved(named: _Named, known: Known) -> str | None:
    by_id = next((one for one in named.ids if known.has(one)), None)
    if by_id is not None or named.text is None:
        return by_id
    return known.with_text(named.text)


def _named(item: object, where: str) -> _Named:
    if isinstance(item, str):
        return _Named((item,), item)
    if isinstance(item, Hit):
        return _Named((item.passage_id,), score=item.score)
    if isinstance(item, int) and not isinstance(item, bool):
        return _Named((str(item),))
    if isinstance(item, tuple | list) and len(item) == _PAIR:
        inner = _named(item[0], where)
        return _Named(inner.ids, inner.text, _score(item[1], where))
    if isinstance(item, Mapping):
        text = next((item[key] for key in _TEXTS if isinstance(item.get(key), str)), None)
        named = _Named(_ids(item), text, _score(item.get("score"), where))
    else:
        named = _of_object(item, where)
    if not named.ids and named.text is None:
        raise UsageError(
            f"retriever: {where} is {type(item).__name__}, which names no passage.", _FORMS
        )
    return named


def _of_object(item: object, where: str) -> _Named:
    """A Document of LangChain, or a NodeWithScore (or node) of LlamaIndex."""
    node = getattr(item, "node", item)
    metadata = getattr(node, "metadata", None)
    ids = _ids(metadata) if isinstance(metadata, Mapping) else ()
    own = getattr(node, "node_id", None) or getattr(node, "id", None)
    content = getattr(node, "get_content", None)
    text = content() if callable(content) else getattr(node, "page_content", None)
    return _Named(
        (*ids, own) if isinstance(own, str) else ids,
        text if isinstance(text, str) else None,
        _score(getattr(item, "score", None), where),
    )


def _ids(values: Mapping[str, object]) -> tuple[str, ...]:
    found = (values.get(key) for key in _IDS)
    return tuple(str(one) for one in found if isinstance(one, str | int))


def _score(value: object, where: str) -> float | None:
    if value is None:
        return None
    try:  # numpy's numbers are none of Python's
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UsageError(
            f"retriever: {where} has a score that is no number: {type(value).__name__}.", _FORMS
        ) from None
