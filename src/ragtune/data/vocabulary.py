"""Token ids against the rows of a model's embedding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ragtune.base.errors import UsageError


def see_ids(tokenizer: Any, ids: Iterable[int], rows: int, where: str) -> None:
    """See that a model has a row for every token id: a GPU would read beyond the embedding.

    Args:
        tokenizer: that made the ids.
        ids: what is read or trained.
        rows: of the model's embedding.
        where: whose ids they are, for the message.

    Raises:
        UsageError: an id has no row.
    """
    beyond = max(ids, default=-1)
    if beyond < rows:
        return
    raise UsageError(
        f"{where} has the token {tokenizer.convert_ids_to_tokens(beyond)!r} with the id {beyond}, and the "
        f"model's embedding has {rows:,} rows.",
        "The tokenizer belongs to another model, or tokens were added to it: take the tokenizer that came "
        "with the model, or save the model again after model.resize_token_embeddings(len(tokenizer)).",
    )
