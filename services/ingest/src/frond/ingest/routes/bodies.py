"""JSON bodies: what they may not have, and how much of that is told."""

from __future__ import annotations

from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from frond.runtime.problems import MOST_FIELDS


class Body(BaseModel):
    """A JSON body, or a part of one: a misspelt field must not pass in silence."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _no_more_than_is_told(cls, value: Any) -> Any:
        """Without the unknown fields beyond those that an answer tells of: pydantic makes an error of
        each, and a body has room for very many."""
        if not isinstance(value, dict) or len(value) <= MOST_FIELDS:
            return value
        known = {n for name, f in cls.model_fields.items() for n in (name, f.alias)}
        beyond = set(islice((k for k in value if k not in known), MOST_FIELDS, None))
        return {k: v for k, v in value.items() if k not in beyond}
