"""A section of a recipe or of a corpus: typed, and strict."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

Scalar = str | int | float | bool | None
"""A value of JSON that holds no others."""


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,  # no true for 1, no "50" for 50
        allow_inf_nan=False,
        validate_default=True,
        protected_namespaces=(),
    )
