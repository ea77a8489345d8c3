"""Models and aliases as JSON, and the schema of that JSON for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from ..catalog.model_rows import ModelVersion, Status
from .lists import ListAnswer


class ModelAnswer(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    version: int
    aliases: dict[str, int]
    status: Status
    status_reason: str | None
    card: dict[str, Any]


class ModelList(ListAnswer):
    data: list[ModelAnswer]


class ModelDeleted(BaseModel):
    id: str
    object: Literal["model"]
    deleted: Literal[True]


class CalibrationAnswer(BaseModel):
    object: Literal["calibration"]
    model: str
    quantiles: list[float] | None = Field(
        description="Bits per character of held-out records, ascending, in equal steps from the "
        "least to the most surprising; null if none were held out."
    )


class AliasAnswer(BaseModel):
    id: str
    object: Literal["model.alias"]
    model: str
    alias: str
    version: int
    deleted: bool = False


def model_object(version: ModelVersion) -> dict[str, Any]:
    """A model as the API shows it, with one of its versions."""
    return {
        "id": version.name,
        "object": "model",
        "created": version.created_at,
        "owned_by": "charloom",
        "version": version.version,
        "aliases": version.aliases,
        "status": version.status,
        "status_reason": version.status_reason,
        "card": version.card,
    }


def version_object(version: ModelVersion) -> dict[str, Any]:
    """One of several versions of a model, named by its own id, with the aliases that mean it."""
    aliases = {alias: at for alias, at in version.aliases.items() if at == version.version}
    return {**model_object(version), "id": version.id, "aliases": aliases}


def calibration_object(model: str, quantiles: Sequence[float] | None) -> dict[str, Any]:
    """The held-out distribution that percentiles are taken from."""
    shown = None if quantiles is None else list(quantiles)
    return {"object": "calibration", "model": model, "quantiles": shown}


def alias_object(name: str, alias: str, version: int, *, deleted: bool = False) -> dict[str, Any]:
    """An alias as the API shows it."""
    return {
        "id": f"{name}@{alias}",
        "object": "model.alias",
        "model": name,
        "alias": alias,
        "version": version,
        "deleted": deleted,
    }
