"""The text of a completion, whichever of TRL's two shapes it has.

    "4"                                        a plain prompt's completion
    [{"role": "assistant", "content": "4"}]    a conversation's completion

`len()` of the second is a number of messages, never of characters: every built-in reward measures `text_of` it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

Answer: TypeAlias = str | Sequence[Mapping[str, Any]]
"""One completion as a reward function receives it."""


def text_of(completion: Answer) -> str:
    """The text: of a conversation, what the assistant said, its messages joined by newlines.

    Example: `text_of([{"role": "assistant", "content": "4"}]) == "4"`
    """
    if isinstance(completion, str):
        return completion
    said = [message for message in completion if message.get("role", "assistant") == "assistant"]
    return "\n".join(_content(message.get("content")) for message in said)


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    # Content in parts: [{"type": "text", "text": "..."}, {"type": "image"}].
    parts = cast(Sequence[Mapping[str, Any]], content)
    return "".join(str(part.get("text", "")) for part in parts)
