"""The model of a TRL script, whatever form it has, as a policy: an id, a folder, a model, a model with adapters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from peft import PeftModel, get_peft_model
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from groupwise.config import Recipe
from groupwise.errors import ModelError
from groupwise.models.load import DTYPES, load_model, pick_device, pick_dtype, prepare_adapted, prepare_policy
from groupwise.models.policy import Policy


@dataclass(frozen=True, slots=True)
class Brought:
    """What a script gave: a model in one of its forms, a tokenizer or none, adapters or none.

    Example: `Brought("Qwen/Qwen2.5-0.5B-Instruct", None, LoraConfig(r=8)).policy(recipe)`
    """

    model: str | PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase | None
    adapters: Any
    told: Callable[[str], None]
    no_router_loss: bool = False
    """Whether the script said itself that a mixture's routers get no loss of their own."""

    @property
    def name(self) -> str:
        """The id or folder that it came from, as far as it is known."""
        return self.model if isinstance(self.model, str) else str(self.model.config.name_or_path)

    def policy(self, recipe: Recipe) -> Policy:
        """Load what is only named, put the adapters in, and check that it runs as it should."""
        model, tokenizer = self._given(recipe)
        self._tell_of_routers(model)
        if self.adapters is not None:
            if isinstance(model, PeftModel):
                raise ModelError("peft_config is given, and the model carries adapters already: give one of the two")
            model = cast(PeftModel, get_peft_model(model, self.adapters))
        if isinstance(model, PeftModel):
            return prepare_adapted(model, tokenizer, recipe.model)
        return prepare_policy(model, tokenizer, recipe.model)

    def _tell_of_routers(self, model: PreTrainedModel | PeftModel) -> None:
        """TRL adds it where the model's configuration has a coefficient."""
        settings = vars(model.config.get_text_config())
        share = settings.get("router_aux_loss_coef") or 0.0
        if "output_router_logits" in settings and share and not self.no_router_loss:
            self.told(
                f"router_aux_loss_coef = {share} of the model's configuration changes nothing here: the loss that "
                "keeps a mixture's experts evenly used is not computed. router_aux_loss_coef=0 says that you know"
            )

    def _given(self, recipe: Recipe) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
        if isinstance(self.model, str):
            model, tokenizer = load_model(recipe.model)
            return model, self.tokenizer or tokenizer
        self._compute_in(recipe)
        return self.model, self.tokenizer or self._own_tokenizer()

    def _compute_in(self, recipe: Recipe) -> None:
        """TRL keeps the weights and casts at every operation; here the weights themselves are in 16 bits, and the
        optimizer keeps them in 32. Adapters stay in 32."""
        model = cast(nn.Module, self.model)
        device = pick_device(recipe.model.device)
        model.to(device)
        assert not isinstance(self.model, str)
        base = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        now, wanted = cast(PreTrainedModel, base).dtype, pick_dtype(recipe.model.dtype, device)
        if recipe.model.dtype == "fp32" or (recipe.model.dtype == "auto" and now in DTYPES.values()):
            return
        if now is not wanted:
            self.told(f"the model's weights are in {now} and are made {wanted}, in which training computes")
            for name, parameter in model.named_parameters():
                if parameter.is_floating_point() and "lora_" not in name:
                    parameter.data = parameter.data.to(wanted)

    def _own_tokenizer(self) -> PreTrainedTokenizerBase:
        try:
            return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(self.name))
        except (OSError, ValueError) as error:
            raise ModelError(
                f"the model says that it came from {self.name!r}, where no tokenizer could be loaded: give it as "
                "processing_class"
            ) from error
