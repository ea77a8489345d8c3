"""``charloom models``."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli import console
from app.cli.sources import source


def models(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    url: Annotated[str | None, typer.Option(help="A server, instead of the local store.")] = None,
) -> None:
    """List the models: what they are, how good, how big."""
    with source(url, console.settings()) as found:
        listed = found.models()
    if as_json:
        console.write(json.dumps(listed, ensure_ascii=False, indent=2) + "\n")
        return
    if not listed:
        console.err.print("There are no models yet: charloom train FILE --name NAME makes one.")
        return
    table = Table("model", "network", "corpus", "bits/char", "size", "trained", box=None)
    for each in listed:
        table.add_row(*_row(each))
    console.show(table)


def _row(model: dict[str, Any]) -> list[str]:
    card = model["card"]
    measured = card.get("test") or card.get("validation")
    aliases = "".join(f", {alias}={version}" for alias, version in model["aliases"].items())
    return [
        f"{model['id']}@{model['version']}{aliases}",
        f"{card['cell']} {card['layers']} × {card['hidden_size']}",
        card["corpus_format"],
        f"{measured['bits_per_character']:.3f}" if measured else "-",
        f"{card['size_bytes'] / 1e6:.2f} MB",
        time.strftime("%Y-%m-%d", time.gmtime(card["created_at"])),
    ]
