"""``charloom generate``."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from app.cli import console
from app.cli.sources import source


def generate(
    name: Annotated[str, typer.Argument(help="A model: name, name@version or name@alias.")],
    prompt: Annotated[str, typer.Option(help="What comes before.")] = "",
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=128, help="How many.")] = 1,
    max_tokens: Annotated[
        int, typer.Option(min=1, max=100_000, help="Characters at most, each.")
    ] = 256,
    temperature: Annotated[
        float, typer.Option(min=0, max=5, help="0 takes the likeliest; 1 is the network's own.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Only the k likeliest; 0 is off.")] = 0,
    top_p: Annotated[float, typer.Option(min=0, max=1, help="Only the likeliest p of all.")] = 1.0,
    min_p: Annotated[
        float, typer.Option(min=0, max=1, help="Only those at least so likely, beside the first.")
    ] = 0.0,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same text.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="A server, instead of the local store.")] = None,
) -> None:
    """Write new text: a line each from a line model, a passage from a text model."""
    body = {
        "prompt": prompt,
        "n": count,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "seed": secrets.randbelow(1 << 53) if seed is None else seed,
    }
    with source(url, console.settings()) as models:
        for text in models.generate(name, body):
            console.write(f"{prompt}{text}\n")
