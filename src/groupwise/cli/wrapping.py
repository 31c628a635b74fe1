r"""Chinese in lines of a terminal: it breaks between any two characters, before no closing mark and after no opening.

wrapped("比值是 ratio，不变", 10)      "比值是\nratio，不\n变"
"""

from __future__ import annotations

import re

from rich.cells import cell_len

_CHINESE = "\u3000-\u303f\u4e00-\u9fff\uff00-\uffef"
_OPENS, _CLOSES = "（“《【", "，。；：、）”》】！？"
_PIECE = re.compile(
    rf"\s+|[{_OPENS}]*(?:[^\s{_CHINESE}{_OPENS}{_CLOSES}]+|[{_CHINESE}])[{_CLOSES}]*|[{_OPENS}{_CLOSES}]+"
)
"""What stays together: a Latin word or one Chinese character, with the marks that belong to it."""


def wrapped(text: str, width: int) -> str:
    """The text with its line ends; a text without Chinese is left to whoever prints it."""
    if not re.search(f"[{_CHINESE}]", text):
        return text
    lines = [""]
    for piece in _PIECE.findall(text):
        if lines[-1] and cell_len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece if lines[-1] else piece.lstrip()
    return "\n".join(line.rstrip() for line in lines)
