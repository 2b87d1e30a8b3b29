"""Values in messages are short, in one line and printable, whatever they are."""

import numpy as np
import pytest

from efface.base.shown import LONGEST, LONGEST_WORD, cut, key_shown, shown, unprintable


class Odd:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [
        "7" * 5000,
        10**5000,
        -(10**5000),
        [10**5000],
        list(range(5000)),
        {"a": "b" * 5000},
        np.zeros(5000),
        "a\nb\0c\ud800" * 500,
        Odd(),
        "\x1b[31m",
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_is_short_in_one_line_and_printable(value):
    text = shown(value)
    assert 0 < len(text) <= 1.5 * LONGEST
    assert text.isprintable()


@pytest.mark.parametrize("value", ["word", 3, 0.5, None, True, [1, 2], "Ångström"])
def test_a_short_value_is_as_python_writes_it(value):
    assert shown(value) == repr(value)


def test_a_key_is_as_it_was_written_unless_it_is_long_or_odd():
    assert key_shown("fit.epochs") == "fit.epochs"
    assert len(key_shown("7" * 5000)) < 1.5 * LONGEST
    assert key_shown("a\x1bb").isprintable()


def test_a_message_keeps_its_words_but_long_ones_and_shows_control_characters():
    message = "runs/x/maps/ig.h5: row 3\n\tis damaged"
    assert cut(message) == message
    assert len(cut(f"at {'7' * 5000}: wrong")) < LONGEST_WORD
    assert cut("a\x1b[31mb\ud800") == "a\\x1b[31mb\\ud800"


@pytest.mark.parametrize("text", ["a\0", "\x1b", "\ud800", "\uffff"])
def test_characters_that_no_page_holds_are_found(text):
    assert unprintable(text) == ascii(text[-1])[1:-1]


def test_texts_of_any_language_are_printable():
    assert unprintable("Ångström\n\t\N{NO-BREAK SPACE}\N{ZERO WIDTH NON-JOINER}\N{GRINNING FACE}") is None
