"""The report on a text: counts that mean the same in every language."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any

WORDS_PER_MINUTE = 230
IDEOGRAMS_PER_MINUTE = 500
_ENDS = frozenset(".!?…؟۔।॥。！？")
_ENDS_ALONE = frozenset("。！？।॥")  # end a sentence with no space after them
_CLOSERS = frozenset("\"'”’»)]」』")
_JOINERS = frozenset("'’-\u200c\u200d\u00b7")


def analyse(text: str) -> dict[str, Any]:
    """Count words, sentences and characters, estimate the reading time, list the most frequent words."""
    text = unicodedata.normalize("NFC", text)
    words = list(_words(text))
    ideograms = sum(1 for word in words if _ideogram(word[0]))
    minutes = (len(words) - ideograms) / WORDS_PER_MINUTE + ideograms / IDEOGRAMS_PER_MINUTE
    frequent = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))[:10]
    return {
        "words": len(words),
        "unique_words": len(set(words)),
        "sentences": _sentences(text) if words else 0,
        "characters": len(text),
        "characters_without_spaces": sum(1 for character in text if not character.isspace()),
        "reading_seconds": math.ceil(minutes * 60),
        "frequent_words": [{"word": word, "count": count} for word, count in frequent],
    }


def _ideogram(character: str) -> bool:
    """Han and kana are written without spaces: each counts as a word."""
    return "\u3041" <= character <= "\u30ff" or "\u3400" <= character <= "\u9fff" or character >= "\U00020000"


def _words(text: str) -> Iterator[str]:
    """Yield casefolded runs of letters, digits and marks; an inner apostrophe or hyphen belongs to it."""
    start = 0
    length = len(text)
    for position in range(length + 1):
        character = text[position] if position < length else " "
        inside = unicodedata.category(character)[0] in "LNM"
        if inside and not _ideogram(character):
            continue
        if (
            character in _JOINERS
            and start < position < length - 1
            and unicodedata.category(text[position + 1])[0] in "LNM"
        ):
            continue
        if start < position:
            yield text[start:position].casefold()
        if inside:
            yield character
        start = position + 1


def _sentences(text: str) -> int:
    """Count runs of end marks that close something; text with no end mark, or after the last, is one more."""
    count = 0
    pending = False  # a letter or digit since the last end
    for position, character in enumerate(text):
        if character.isalnum():
            pending = True
        elif pending and character in _ENDS:
            following = text[position + 1] if position + 1 < len(text) else " "
            if character in _ENDS_ALONE or following.isspace() or following in _CLOSERS or following in _ENDS:
                count += 1
                pending = False
    return count + pending
