"""On which line of a TOML text each name stands. tomllib does not tell.

    [train]                  ("train",): 1
    steps = 5                ("train", "steps"): 2
    [[rewards]]              ("rewards",): 3   ("rewards", 0): 3
    settings = {target = 1}  ("rewards", 0, "settings"): 4   ("rewards", 0, "settings", "target"): 4

Only for texts that tomllib has accepted: what is malformed is for tomllib to say.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

from groupwise.config.names import Name

_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANKS = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""")
_TEXT = re.compile(
    r'''"""(?:\\.|(?!""").)*"{3,5}|\'\'\'(?:(?!\'\'\').)*\'{3,5}|"(?:\\.|[^"\\])*"|'[^']*\'''',
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}#\n]+")


def line_numbers(text: str) -> dict[Name, int]:
    """The first line of every table, key and list item of a valid TOML text."""
    return _Scanner(text).scan()


def read_key(text: str) -> tuple[tuple[str, ...], int]:
    """Read a dotted key from the start of `text`: its parts and where it ends. Raises ValueError if there is none.

    Example: `read_key('task.columns."a.b" = 1') == (("task", "columns", "a.b"), 18)`
    """
    scanner = _Scanner(text)
    return scanner.key(), scanner.at


class _Scanner:
    """Walks once through the text and notes where names begin."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.lines: dict[Name, int] = {}
        self.lengths: dict[Name, int] = {}

    def scan(self) -> dict[Name, int]:
        table: Name = ()
        while not self._at_end():
            if self._follows("["):
                table = self._header()
            else:
                self._pair(table)
        return self.lines

    def key(self) -> tuple[str, ...]:
        parts: list[str] = []
        while True:
            self._skip(_BLANKS)
            raw = self._take(_KEY)
            parts.append(tomllib.loads(f"key = {raw}")["key"] if raw[0] in "\"'" else raw)
            self._skip(_BLANKS)
            if not self._follows("."):
                return tuple(parts)
            self.at += 1

    def _header(self) -> Name:
        line = self._line()
        is_list = self._follows("[[")
        self.at += 2 if is_list else 1
        parts = self.key()
        self.at += 2 if is_list else 1
        name: Name = ()
        for place, part in enumerate(parts):
            name = self._note((*name, part), line)
            if is_list and place == len(parts) - 1:
                self.lengths[name] = self.lengths.get(name, 0) + 1
            if name in self.lengths:
                name = self._note((*name, self.lengths[name] - 1), line)
        return name

    def _pair(self, table: Name) -> None:
        line = self._line()
        name = table
        for part in self.key():
            name = self._note((*name, part), line)
        self.at += 1  # the equals sign
        self._value(name)

    def _value(self, name: Name) -> None:
        self._skip(_BLANKS)
        if self._follows("["):
            self._list(name)
        elif self._follows("{"):
            self._inline_table(name)
        else:
            self._take(_TEXT if self.text[self.at] in "\"'" else _PLAIN)

    def _list(self, name: Name) -> None:
        self.at += 1
        place = 0
        while not self._closes("]"):
            self._value(self._note((*name, place), self._line()))
            place += 1

    def _inline_table(self, name: Name) -> None:
        self.at += 1
        while not self._closes("}"):
            self._pair(name)

    def _closes(self, bracket: str) -> bool:
        """Step over a comma or the closing bracket; true at the bracket."""
        self._skip(_GAP)
        if self._follows(","):
            self.at += 1
            self._skip(_GAP)
        if not self._follows(bracket):
            return False
        self.at += 1
        return True

    def _note(self, name: Name, line: int) -> Name:
        self.lines.setdefault(name, line)
        return name

    def _line(self) -> int:
        return bisect_right(self.starts, self.at)

    def _at_end(self) -> bool:
        self._skip(_GAP)
        return self.at >= len(self.text)

    def _follows(self, text: str) -> bool:
        return self.text.startswith(text, self.at)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.at)
        assert match is not None  # these patterns match nothing at all, too
        self.at = match.end()

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise ValueError(f"no TOML at character {self.at}")
        self.at = match.end()
        return match.group()
