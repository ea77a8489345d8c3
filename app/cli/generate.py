"""``charloom generate``."""

from __future__ import annotations

import secrets
from typing import Annotated

import typer

from ..bounds import EXACT, Bound
from ..charlm.sampling import SAMPLING_BOUNDS
from ..engine.limits import MOST_CHOICES, MOST_SYMBOLS
from ..wiring.environment import read_settings
from . import console
from .options import Url, command, within
from .texts import texts_of


def generate(
    name: Annotated[str, typer.Argument(help="A model: name, name@version or name@alias.")],
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "",
    count: Annotated[int, within(Bound(1, MOST_CHOICES), "How many texts.", "--count", "-n")] = 1,
    max_tokens: Annotated[int, within(Bound(1, MOST_SYMBOLS), "Most characters per text.")] = 256,
    temperature: Annotated[
        float,
        within(SAMPLING_BOUNDS["temperature"], "0 takes the likeliest; 1 is the network's own."),
    ] = 1.0,
    top_k: Annotated[
        int, within(SAMPLING_BOUNDS["top_k"], "Only the k likeliest; 0 turns it off.")
    ] = 0,
    top_p: Annotated[
        float, within(SAMPLING_BOUNDS["top_p"], "Only the likeliest, up to probability p.")
    ] = 1.0,
    min_p: Annotated[
        float,
        within(SAMPLING_BOUNDS["min_p"], "Only those at least p times as likely as the likeliest."),
    ] = 0.0,
    seed: Annotated[
        int | None, within(SAMPLING_BOUNDS["seed"], "The same seed gives the same text.")
    ] = None,
    url: Url = None,
) -> None:
    """Write new text.

    A line model writes one line per text, a text model a passage.
    """
    body = {
        "prompt": prompt,
        "n": count,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "seed": secrets.randbelow(EXACT) if seed is None else seed,
    }
    with texts_of(url, read_settings()) as texts:
        for text in texts.generate(name, body):
            console.write(f"{prompt}{text}\n")


app = command(generate)
