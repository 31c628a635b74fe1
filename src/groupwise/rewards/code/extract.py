"""Find the program in what a model wrote: its last fenced block, or all of it if there is no fence.

    "Here it is:\\n```python\\nprint(1)\\n```\\nDone."   ->   "print(1)\\n"

A block that was never closed counts: the token limit cut it off, and running it says so better than we could. One
pass over the lines, whatever the text is.
"""

from __future__ import annotations

_FENCES = ("```", "~~~")


def program_of(text: str) -> str:
    """The program; "" if there is none.

    Example: `program_of("print(1)") == "print(1)"`; of two blocks the second
    """
    found, block, fence = None, list[str](), ""
    for line in text.splitlines(keepends=True):
        mark = line.strip()
        if not fence and mark.startswith(_FENCES):
            fence, block = mark[:3], []
            found = block
        elif fence and mark == fence:
            fence = ""
        elif fence:
            block.append(line)
    program = text if found is None else "".join(found)
    return program if program.strip() else ""
