"""``charloom models``."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.table import Table

from ..wiring.environment import read_settings
from . import console
from .options import AsJson, Url, command


def models(as_json: AsJson = False, url: Url = None) -> None:
    """List the models with their network, quality and size."""
    listed = _local() if url is None else _remote(url)
    if as_json:
        console.write(json.dumps(listed, ensure_ascii=False, indent=2) + "\n")
        return
    if not listed:
        console.err.print("There are no models yet. Train one: charloom train FILE --name NAME.")
        return
    table = Table("model", "network", "corpus", "bits/char", "size", "trained", box=None)
    for each in listed:
        table.add_row(*_row(each))
    console.show(table)


def _local() -> list[dict[str, Any]]:
    """The models of the local store, including files copied into it by hand."""
    from ..rendering.models import model_object
    from ..wiring.installation import Installation

    with Installation(read_settings()) as installation:
        installation.registry.synchronise()
        registry = installation.registry
        return [model_object(version) for version in registry.looked_at(registry.list())]


def _remote(url: str) -> list[dict[str, Any]]:
    from .remote import connected, every

    with connected(url) as client:
        return list(every(client, "/v1/models"))


def _row(model: dict[str, Any]) -> list[str]:
    card = model["card"]
    measured = card.get("test") or card.get("validation")
    aliases = "".join(f", {alias}={version}" for alias, version in model["aliases"].items())
    usable = model.get("status", "available") == "available"  # older servers do not say
    return [
        f"{model['id']}@{model['version']}{aliases}",
        f"{card['cell']} {card['layers']} × {card['hidden_size']}",
        card["corpus_format"],
        f"{measured['bits_per_character']:.3f}" if measured else "-",
        f"{card['size_bytes'] / 1e6:.2f} MB" if usable else model["status"],
        time.strftime("%Y-%m-%d", time.gmtime(card["created_at"])),
    ]


app = command(models)
