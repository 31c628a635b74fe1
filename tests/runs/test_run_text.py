"""Text of a model, made storable and harmless."""

import time

import pytest

from groupwise.runs.text import safe_text, well_formed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 你好 é", "plain 你好 é"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hcleared", "cleared"),
        ("\x9b31mred", "red"),
        ("\x1b]0;your title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;never closed", "52;c;never closed"),
        ("\x1bPdevice\x1b\\x", "x"),
        ("\x1bc\x1b(0reset", "reset"),
        ("end\x1b", "end"),
        ("over\rwritten\r\nline", "over\nwritten\nline"),
        ("bell\x07\x00\x08\x7f\x85next", "bell\nnext"),
        ("tab\tbed", "tab bed"),
        ("exe.\u202etxt\u2066\u200f", "exe.txt"),
        ("hidden\U000e0041\ufeff", "hidden"),
        ("family 👨\u200d👩", "family 👨\u200d👩"),
        ("line\u2028line", "line\nline"),
        ("lone \ud800 half", "lone \\ud800 half"),
    ],
)
def test_safe_text_shows_the_words_and_nothing_that_acts(text, shown):
    assert safe_text(text) == shown


def test_no_mixture_of_escapes_leaves_a_control_character():
    pieces = ["\x1b", "[", "]", "\x9b", "\x07", "\\", "0;", "m", "P", "\n", "x", "\x1b]", "\x9d", "\x90"]
    for first in pieces:
        for second in pieces:
            for third in pieces:
                shown = safe_text(first + second + third)
                assert all(letter == "\n" or letter >= " " for letter in shown)
                assert not any("\x7f" <= letter <= "\x9f" for letter in shown)


@pytest.mark.parametrize("piece", ["\x1b]", "\x1b[", "\x1b[1;", "\x1bP0", "\x9b;", "\x1b]0;a\x1b"])
def test_safe_text_takes_linear_time(piece):
    hostile = piece * (1_000_000 // len(piece))
    begun = time.perf_counter()
    safe_text(hostile)
    assert time.perf_counter() - begun < 5


def test_well_formed_spells_out_lone_surrogates_and_keeps_the_rest():
    assert well_formed("a\ud800b\udfff") == "a\\ud800b\\udfff"
    assert well_formed("nul \x00, 你好, 😀") == "nul \x00, 你好, 😀"
