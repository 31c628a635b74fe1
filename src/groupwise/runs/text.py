"""Text of a model is hostile until shown otherwise: make it storable in UTF-8, and harmless on a terminal.

    well_formed("a\\ud800b")               ->  "a\\\\ud800b"     (a lone surrogate, spelled out)
    safe_text("\\x1b]0;title\\x07hi\\x1b[31m")  ->  "hi"

Nothing here changes what a run trains on: token ids are stored beside every text and stay the truth.
"""

from __future__ import annotations

import re

_STRINGS = r"\x1b[\]PX^_][^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
_CONTROL_SEQUENCE = r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
_OTHER_ESCAPE = r"\x1b[ -/]*[0-~]?"
_SEQUENCES = re.compile(f"{_STRINGS}|{_CONTROL_SEQUENCE}|{_OTHER_ESCAPE}")

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]
# Marks that reorder or hide what is around them (U+202E makes "txt.exe" out of "exe.txt"); joiners stay, as emoji and
# many scripts need them.
_DIRECTIONS = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_INVISIBLE = [0xFEFF, *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)]
_DROP: dict[int, str | None] = dict.fromkeys([*_CONTROLS, *_DIRECTIONS, *_INVISIBLE])
_TRANSLATE = _DROP | {0x09: " ", 0x0A: "\n", 0x0D: "\n", 0x0B: "\n", 0x0C: "\n", 0x85: "\n", 0x2028: "\n", 0x2029: "\n"}


def well_formed(text: str) -> str:
    """Spell lone surrogates out (`\\ud800`), so that the text can be written as UTF-8; all else, NUL too, stays.

    A byte-level tokenizer never makes them, but rows of JSON can hold them, and pyarrow refuses them.
    """
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def safe_text(text: str) -> str:
    """The text as a terminal may show it: no escape sequences, control characters or marks that reorder it.

    Lines stay lines (every kind of line end becomes a newline), a tab becomes a space, a lone surrogate is spelled out.
    Takes time linear in the text, whatever is in it. Example: `safe_text("a\\x1b[2Jb\\rc")` is `"ab\\nc"`.
    """
    without_sequences = _SEQUENCES.sub("", text.replace("\r\n", "\n"))
    return well_formed(without_sequences.translate(_TRANSLATE))
