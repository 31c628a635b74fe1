"""Rewards from a network: any sequence-classification model of transformers, by id, folder or object.

    [[rewards]]
    function = "reward_model"
    settings = {model = "OpenAssistant/reward-model-deberta-v3-large-v2", batch = 16}

    RewardModel(my_module, my_tokenizer)          # in Python, as a reward function like any other

As in TRL: the text is prompt and completion through the tokenizer's chat template for a conversation, joined otherwise;
padded at the right; no special tokens added; the reward is the first logit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field

from groupwise.errors import RewardError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

Dtype = Literal["auto", "fp32", "bf16", "fp16"]


class RewardModel:
    """A module whose first logit is the reward. Rows are graded longest first, in batches, on the module's device.
    `variables` are for its chat template."""

    def __init__(
        self,
        module: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch: int = 16,
        longest: int | None = None,
        name: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.batch, self.longest, self.variables = batch, longest, dict(variables or {})
        self.__name__ = name or _name_of(module)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        config: Any = vars(module).get("config")
        if config is not None:
            # By it the model knows which token is the last: it has to be the one that the tokenizer pads with.
            config.get_text_config().pad_token_id = config.pad_token_id = tokenizer.pad_token_id

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """One reward per row."""
        texts = [self._text(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        rewards = [0.0] * len(texts)
        for first in range(0, len(order), self.batch):
            rows = order[first : first + self.batch]
            for row, reward in zip(rows, self._graded([texts[row] for row in rows]), strict=True):
                rewards[row] = reward
        return rewards

    def _text(self, prompt: Any, completion: Any) -> str:
        if isinstance(prompt, str):
            return prompt + completion
        messages = [*prompt, *completion]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **self.variables))

    def _graded(self, texts: list[str]) -> list[float]:
        import torch

        device = next(self.module.parameters()).device
        encoded = self.tokenizer(
            [text.encode("utf-8", "replace").decode() for text in texts],
            return_tensors="pt",
            padding=True,
            padding_side="right",
            add_special_tokens=False,
            truncation=self.longest is not None,
            max_length=self.longest,
        )
        inputs = {name: cast(torch.Tensor, encoded[name]).to(device) for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            logits = self.module(**inputs).logits
        if logits.ndim != 2:
            raise RewardError(
                f"reward model {self.__name__!r} gives logits of shape {tuple(logits.shape)}: it is no "
                "sequence-classification model, whose logits are [rows, labels]"
            )
        return [float(value) for value in logits[:, 0].float().cpu()]


def _name_of(module: nn.Module) -> str:
    config: Any = vars(module).get("config")
    name = "" if config is None else str(config.name_or_path or "")
    return name.rstrip("/").rpartition("/")[2] or type(module).__name__


def reward_model(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    model: str = "",
    revision: str | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    batch: Annotated[int, Field(ge=1)] = 16,
    longest: Annotated[int, Field(ge=1)] | None = None,
) -> list[float]:
    """The first logit of a sequence-classification model (`model`: an id on the hub or a folder).

    `longest` cuts longer texts at the right. `device = "auto"`: cuda, then mps, then cpu.
    """
    if not model:
        raise RewardError("reward 'reward_model' needs settings = {model = \"...\"}: an id on the hub, or a folder")
    return _loaded(model, revision, device, dtype, batch, longest)(prompts, completions)


@cache
def _loaded(
    model: str, revision: str | None, device: str, dtype: Dtype, batch: int, longest: int | None
) -> RewardModel:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    kinds = {"auto": "auto", "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        module: Any = AutoModelForSequenceClassification.from_pretrained(model, revision=revision, dtype=kinds[dtype])
        tokenizer: Any = AutoTokenizer.from_pretrained(model, revision=revision)
    except (OSError, ValueError) as error:
        raise RewardError(f"reward model {model!r} cannot be loaded: {str(error)[:500]}") from error
    return RewardModel(module.to(device), tokenizer, batch=batch, longest=longest, name="reward_model")
