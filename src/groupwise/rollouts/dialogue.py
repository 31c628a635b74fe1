"""From what an environment says to token ids: the words of the tokenizer's own template, never a token twice.

Ids are only ever appended. What a model drew is not rendered again, for its ids would come back as others: a template
may strip blanks, drop thoughts of earlier turns, or split a word in another place. So the template is asked what it
puts *behind* an assistant's message, with a mark in the place of what the model said:

    template([user ?, assistant MARK, tool 4])   ...MARK<|im_end|>|<|im_start|>user|4<|im_end|>|<|im_start|>assistant|
    appended                                                      |<|im_start|>user|4<|im_end|>|<|im_start|>assistant|

The end token is left out where the model drew it itself. Without a template a message stands on lines of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from groupwise.errors import TaskError
from groupwise.rollouts.chat import PromptStyle, encoded, has_template, render, templated
from groupwise.types import Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "groupwise0mark"


@dataclass(frozen=True, slots=True)
class Dialogue:
    """How a conversation is written for a model.

    Example: `Dialogue(tokenizer, "auto").reply_ids([{"role": "user", "content": "higher"}], drawn=(17, 1))`
    """

    tokenizer: PreTrainedTokenizerBase
    style: PromptStyle = "auto"
    system_prompt: str | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    variables: Mapping[str, Any] | None = None
    _known: dict[Any, tuple[int, ...]] = field(default_factory=dict[Any, tuple[int, ...]])

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """A prompt's ids, as before the first turn."""
        return render(
            prompt,
            self.tokenizer,
            style=self.style,
            system_prompt=self.system_prompt,
            tools=self.tools,
            variables=self.variables,
        )

    def reply_ids(self, messages: Sequence[Message], drawn: Sequence[int]) -> tuple[int, ...]:
        """The ids to append behind the turn that the model drew: the messages and the header of its next turn."""
        if not messages:
            raise TaskError(
                "the environment neither said anything nor ended the conversation: a Reply needs one of them"
            )
        ids = self._behind(
            tuple((str(m["role"]), str(m.get("name", "")), str(m["content"])) for m in messages), messages
        )
        # The template closes the model's message; where the model did that itself, it is closed once.
        return ids[1:] if drawn and ids[:1] == tuple(drawn[-1:]) else ids

    def _behind(self, key: tuple[tuple[str, str, str], ...], messages: Sequence[Message]) -> tuple[int, ...]:
        if key not in self._known:
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[key] = self._rendered(messages)
        return self._known[key]

    def _rendered(self, messages: Sequence[Message]) -> tuple[int, ...]:
        if self.style == "plain" or (self.style == "auto" and not has_template(self.tokenizer)):
            text = "".join(f"\n{message['content']}" for message in messages) + "\n"
        else:
            before: list[Message] = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
            whole = templated([*before, *messages], self.tokenizer, self.tools, self.variables)
            if whole.count(_MARK) != 1:
                raise TaskError(
                    "the chat template does not write what the assistant said: set task.prompt_style = 'plain'"
                )
            text = whole[whole.index(_MARK) + len(_MARK) :]
        return encoded(text, self.tokenizer, add_special_tokens=False)
