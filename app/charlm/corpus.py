"""A training text as ids, in one of two formats with one interface.

``TextCorpus`` is one running stream, ``LineCorpus`` a set of independent
records. Both offer ``training_windows``, ``evaluation_windows``, ``records``,
``characters`` and ``typical_length``; what a window is stands in ``windows.py``.
"""

from __future__ import annotations

from app.charlm.line_corpus import LineCorpus
from app.charlm.text_corpus import TextCorpus

Corpus = TextCorpus | LineCorpus

__all__ = ["Corpus", "LineCorpus", "TextCorpus"]
