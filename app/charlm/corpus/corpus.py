"""A training text as ids, in one of two formats with one interface.

``TextCorpus`` is one running text, ``LineCorpus`` a set of independent records. Both
offer ``training_windows``, ``evaluation_windows``, ``records`` and ``characters``;
``windows.py`` defines a window.
"""

from __future__ import annotations

from .lines import LineCorpus
from .text import TextCorpus

Corpus = TextCorpus | LineCorpus
