"""Turn pieces of ids into the text and logprobs of the completions protocol.

A ``Transcript`` follows one choice: it takes the engine's pieces as they come and
returns what each adds: text, the four parallel arrays, the finish reason. The result
is the same whether pieces are joined or come one at a time. Knows no HTTP.

Symbols that are not text (boundary, unknown) appear by name, in the arrays only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..charlm.vocabulary import BOUNDARY, RESERVED, Ids, Vocabulary
from ..engine.sequence import Piece
from ..rendering.scores import LEAST_LOGPROB, Top


@dataclass(frozen=True)
class Prompt:
    """A prompt as given: its ids, and the text of each.

    ``led`` is true if the given ids began with the boundary. Every text begins with
    it, so it is read only once.
    """

    ids: Ids
    parts: Sequence[str]
    led: bool = False

    @classmethod
    def of_text(cls, text: str, vocabulary: Vocabulary) -> Prompt:
        """Unknown characters are echoed as written."""
        return cls(vocabulary.encode(text), text)

    @classmethod
    def of_ids(cls, ids: Sequence[int], vocabulary: Vocabulary) -> Prompt:
        led = ids[:1] == [BOUNDARY]
        rest = ids[1:] if led else ids
        return cls(np.array(rest, dtype=np.int32), vocabulary.decode_each(rest), led)

    @property
    def symbols(self) -> int:
        return len(self.ids) + self.led


class Transcript:
    """One choice: what it has produced so far."""

    def __init__(
        self, vocabulary: Vocabulary, prompt: Prompt, *, echo: bool, logprobs: int | None
    ) -> None:
        self._vocabulary = vocabulary
        self._prompt = prompt
        self._with_arrays = logprobs is not None
        self._to_echo = echo
        self._offset = 0
        self._read = 0
        self.drawn = 0
        self.logprob = 0.0

    @property
    def mean_logprob(self) -> float:
        """Per character; −inf if nothing was drawn, which ranks last."""
        return self.logprob / self.drawn if self.drawn else -math.inf

    def add(self, piece: Piece) -> dict[str, Any]:
        """What a piece adds: ``text``, ``logprobs``, ``finish_reason``."""
        arrays = _Arrays(self._vocabulary) if self._with_arrays else None
        text = self._echo(piece, arrays) if self._to_echo else ""
        self._offset += len(text)
        text += self._vocabulary.decode(piece.ids)
        if arrays is not None:
            tops = piece.tops or [[]] * len(piece.ids)
            for symbol, logprob, top in zip(piece.ids, piece.logprobs, tops, strict=True):
                arrays.append(symbol, logprob, top, self._offset)
                self._offset += symbol >= RESERVED
        self.drawn += len(piece.ids)
        self.logprob += sum(piece.logprobs)
        return {
            "text": text,
            "logprobs": None if arrays is None else arrays.fields,
            "finish_reason": None if piece.finish is None else piece.finish.value,
        }

    def _echo(self, piece: Piece, arrays: _Arrays | None) -> str:
        """The part of the prompt that can be echoed now; with arrays, as far as it is scored.

        The first entry is null: in the protocol, nothing comes before it.
        """
        prompt = self._prompt
        if arrays is None:
            self._to_echo = False
            return "".join(prompt.parts)
        start, count = self._read, len(piece.read_logprobs)
        if start == 0 and prompt.led:
            arrays.append_first(BOUNDARY)
        tops = piece.read_tops or [[]] * count
        offset = self._offset
        for place, (logprob, top) in enumerate(zip(piece.read_logprobs, tops, strict=True), start):
            symbol = int(prompt.ids[place])
            if place == 0 and not prompt.led:
                arrays.append_first(symbol)
            else:
                arrays.append(symbol, logprob, top, offset)
            offset += len(prompt.parts[place])
        self._read += count
        self._to_echo = self._read < len(prompt.ids)
        return "".join(prompt.parts[start : start + count])


class _Arrays:
    """``tokens``, ``token_logprobs``, ``top_logprobs`` and ``text_offset``, side by side."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.fields: dict[str, list[Any]] = {
            "tokens": [],
            "token_logprobs": [],
            "top_logprobs": [],
            "text_offset": [],
        }

    def append_first(self, symbol: int) -> None:
        self._add(self._vocabulary.symbol(symbol), None, None, 0)

    def append(self, symbol: int, logprob: float, top: Top, offset: int) -> None:
        """The symbol itself is always among its alternatives, with the same logprob."""
        token, logprob = self._vocabulary.symbol(symbol), max(logprob, LEAST_LOGPROB)
        named = {self._vocabulary.symbol(each): max(value, LEAST_LOGPROB) for each, value in top}
        self._add(token, logprob, named | {token: logprob}, offset)

    def _add(self, *entry: Any) -> None:
        for array, value in zip(self.fields.values(), entry, strict=True):
            array.append(value)
