"""The counts, in several scripts."""

from __future__ import annotations

import pytest

from textreport.analysis import analyse


@pytest.mark.parametrize(
    ("text", "words", "sentences"),
    [
        ("Hello world. Hello again!", 4, 2),
        ("No end mark", 3, 1),
        ("It costs 3.14 euros... Really?! Yes.", 7, 3),
        ("“Is it?” she asked.", 4, 2),
        ("Don't split well-known words -- but split here-", 7, 1),
        ("東京は大きい。日本の首都です。", 13, 2),
        ("हिन्दी भाषा। किताब", 3, 2),
        ("Ça va\u0301 bien", 3, 1),
        ("ما هذا؟ كتاب.", 3, 2),
        ("!!! ...", 0, 0),
    ],
)
def test_words_and_sentences(text: str, words: int, sentences: int) -> None:
    """Marks, joiners and scripts without spaces are counted as a reader would."""
    result = analyse(text)
    assert (result["words"], result["sentences"]) == (words, sentences)


def test_figures() -> None:
    """Characters, reading time and frequent words."""
    result = analyse("The cat. THE dog! the end\n" + "word " * 230)
    assert result["frequent_words"][:2] == [{"word": "word", "count": 230}, {"word": "the", "count": 3}]
    assert result["unique_words"] == 5
    assert result["reading_seconds"] == 62
    assert analyse("a b")["characters"] == 3
    assert analyse("a b")["characters_without_spaces"] == 2


def test_composed_and_decomposed_are_one_word() -> None:
    """The same word typed on two systems counts twice, not as two words."""
    assert analyse("e\u0301te\u0301 \u00e9t\u00e9")["frequent_words"] == [{"word": "été", "count": 2}]
