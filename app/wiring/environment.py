"""The settings that the environment gives."""

from __future__ import annotations

from pydantic import ValidationError

from ..errors import InvalidInput
from ..settings import Settings
from ..validation import complaint


def read_settings() -> Settings:
    """The settings of the environment; raises InvalidInput naming the variable."""
    try:
        return Settings()
    except ValidationError as error:
        first = complaint(error)
        name = f"CHARLOOM_{first.field.upper()}"
        raise InvalidInput(f"{first.sentence(name)}.", param=name, code=first.code) from error
