"""From a prompt to token ids. The only place that renders chat templates.

    style    text prompt "2+2="              conversation (system, user)
    chat     the template, as a user message the template
    plain    as it is                        the contents, stripped, joined by newlines
    auto     chat if the tokenizer has a template, else plain

A task's system prompt goes in front: as a system message (chat), or as a line of its own (plain). A conversation that
brings its own system message contradicts it, and that is an error: neither of the two is quietly thrown away.

Special tokens are never doubled: a chat template writes those that it wants, so its text is tokenized without adding
any; plain text gets those that the tokenizer puts in front of a text (BOS), but none behind it, for a prompt that ends
in EOS asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from groupwise.errors import TaskError
from groupwise.types import Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PromptStyle: TypeAlias = Literal["auto", "chat", "plain"]


def render(
    prompt: Prompt,
    tokenizer: PreTrainedTokenizerBase,
    *,
    style: PromptStyle = "auto",
    system_prompt: str | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    variables: Mapping[str, Any] | None = None,
) -> tuple[int, ...]:
    """The prompt's token ids, ready to be continued.

    A conversation that ends with an assistant message is continued inside of that message (a prefill); any other one
    gets the header of a new assistant message.

    `tools` are JSON schemas that the template shows the model, `variables` what else it may ask for, such as
    `{"enable_thinking": False}`; a plain prompt has no place for either.
    Example: `render("347+589=?", tokenizer, style="plain")`
    """
    messages = _messages(prompt, system_prompt)
    if style == "chat" or (style == "auto" and has_template(tokenizer)):
        return encoded(templated(messages, tokenizer, tools, variables), tokenizer, add_special_tokens=False)
    text = _joined(prompt, messages)
    return _without_end(
        encoded(text, tokenizer, add_special_tokens=True),
        encoded(text, tokenizer, add_special_tokens=False),
        tokenizer,
    )


def _messages(prompt: Prompt, system_prompt: str | None) -> list[Message]:
    said: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if not said:
        raise TaskError("a prompt is a conversation without a single message: remove the row")
    if system_prompt is None:
        return said
    own = [message["content"] for message in said if message["role"] == "system"]
    if own:
        raise TaskError(
            "a prompt has a system message of its own, and task.system_prompt is set too: leave the setting away, or "
            f"take the system messages out of the data. The prompt's: {ascii(own[0])[:80]}"
        )
    return [{"role": "system", "content": system_prompt}, *said]


def _joined(prompt: Prompt, messages: list[Message]) -> str:
    """The texts, one below the other; a text prompt is kept to the letter, and so is its last blank."""
    contents = [message["content"].strip() for message in messages]
    if isinstance(prompt, str):
        contents[-1] = prompt
    return "\n".join(contents)


def has_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether it has a chat template."""
    untyped: Any = tokenizer
    return untyped.chat_template is not None


def templated(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    tools: Sequence[Mapping[str, Any]] = (),
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The conversation as the template writes it, up to where the model goes on."""
    if not has_template(tokenizer):
        raise TaskError(
            "task.prompt_style is 'chat', but this model's tokenizer has no chat template: set it to 'plain' or "
            "'auto', or take an instruction-tuned model"
        )
    prefilled = messages[-1]["role"] == "assistant"
    untyped: Any = tokenizer
    try:
        return untyped.apply_chat_template(
            [dict(message) for message in messages],
            tools=[dict(tool) for tool in tools] or None,
            tokenize=False,
            add_generation_prompt=not prefilled,
            continue_final_message=prefilled,
            **(variables or {}),
        )
    except Exception as error:  # a template is a program that came with the model
        roles = ", ".join(str(message["role"]) for message in messages)
        raise TaskError(
            f"the chat template refuses a conversation with the roles {roles}: {error}. If it takes no system message, "
            "leave task.system_prompt away; or set task.prompt_style = 'plain'"
        ) from error


def encoded(text: str, tokenizer: PreTrainedTokenizerBase, *, add_special_tokens: bool) -> tuple[int, ...]:
    """The text's ids."""
    try:
        text.encode()  # tokenizers raise a bare TypeError on half characters, which says nothing
    except UnicodeEncodeError as error:
        raise TaskError(
            f"a prompt holds half a character, {text[error.start]!a} at position {error.start}, which no tokenizer "
            f"takes: {text[:60]!a}..."
        ) from error
    untyped: Any = tokenizer
    return tuple(untyped.encode(text, add_special_tokens=add_special_tokens))


def _without_end(ids: tuple[int, ...], bare: tuple[int, ...], tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids up to the end of the text: what the tokenizer adds behind it (EOS, SEP) is cut off."""
    for start in range(len(ids) - len(bare) + 1):
        if bare and ids[start : start + len(bare)] == bare:
            return ids[: start + len(bare)]
    return ids[:-1] if ids and not bare and ids[-1] == tokenizer.eos_token_id else ids
