"""LoRA through peft: low-rank adapters inside the model's own layers (arXiv 2106.09685).

peft puts the adapters into the model in place, so the policy keeps running the transformers model it knows; the peft
wrapper is kept for what it is good at: switching the adapter off, merging, and its file format.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import cast

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from groupwise.config.sections import LoraSection
from groupwise.errors import ModelError


def add_lora(model: PreTrainedModel, section: LoraSection) -> PeftModel:
    """Put trainable adapters into `model` and freeze the rest. At first they change nothing: B is zero.

    Adapter weights are fp32 whatever the model's precision, as small updates vanish in 16 bits.
    """
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=section.r,
        lora_alpha=cast(int, section.alpha),
        lora_dropout=section.dropout,
        target_modules=section.targets,
    )
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    linear = sorted({name.rpartition(".")[2] for name, kind in kinds.items() if "Linear" in kind or kind == "Conv1D"})

    def misfit(why: str) -> ModelError:
        hint = "" if isinstance(section.targets, list) else " A list holds names; a text is a regular expression."
        return ModelError(
            f"lora.targets = {section.targets!r} does not fit {type(model).__name__}: {why}. Its linear layers are "
            f'called: {", ".join(linear) or "(none)"}. "all-linear" takes all but the head.{hint}'
        )

    listed = section.targets if isinstance(section.targets, list) else []
    if unknown := [t for t in listed if not any(name == t or name.endswith(f".{t}") for name in kinds)]:
        raise misfit(f"it has no layer called {', '.join(unknown)}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")  # refused below
            adapted = cast(PeftModel, get_peft_model(model, config))
    except ValueError as error:
        raise misfit(f"{error}".splitlines()[0].rstrip(".")) from error
    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if model.config.get_text_config().tie_word_embeddings and any(isinstance(end, BaseTunerLayer) for end in ends):
        raise misfit("its head and its embeddings are one matrix, and an adapter can change but one of them")
    return adapted


def has_a_base(adapted: PeftModel) -> bool:
    """Whether the adapter alone can be loaded again: its base has a name, on the hub or of a folder."""
    return bool(adapted.peft_config["default"].base_model_name_or_path)


def adapter_base(folder: str) -> str | None:
    """The model that the adapter in this folder belongs to; `None` if the folder holds no adapter."""
    path = Path(folder) / "adapter_config.json"
    if not path.is_file():
        return None
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not the configuration of an adapter: {error!r}") from error
    if not base:
        raise ModelError(f"{path} does not say which model the adapter belongs to (base_model_name_or_path is empty)")
    return str(base)


def apply_adapter(model: PreTrainedModel, folder: str) -> PreTrainedModel:
    """Merge the adapter in `folder` into the weights of its base. What comes of it is stored nowhere under a name."""
    if not (Path(folder) / "adapter_model.safetensors").is_file():
        raise ModelError(
            f"the adapter in {folder} has no adapter_model.safetensors. Weights as a pickle (*.bin) are code that "
            "would run when they are read, so only safetensors is loaded: save it anew with peft where you trust it"
        )
    try:
        whole = merged(PeftModel.from_pretrained(model, folder))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        first = f"{error}".strip().partition("\n")[0]
        raise ModelError(f"the adapter in {folder} cannot be put into {type(model).__name__}: {first}") from error
    whole.name_or_path = ""
    return whole


def merged(adapted: PeftModel) -> PreTrainedModel:
    """The model with the adapter added to its weights and taken out of its layers. Changes the model in place."""
    return cast(PreTrainedModel, adapted.merge_and_unload())


def at_work(model: nn.Module) -> list[object]:
    """What the adapters in this model's layers do at the moment: which of them are active, merged or switched off, and
    by what each is multiplied. No tensor says so."""
    layers = (layer for layer in model.modules() if isinstance(layer, BaseTunerLayer))
    names = ("disable_adapters", "active_adapters", "merged_adapters", "scaling")
    return [repr([getattr(layer, name, None) for name in names]) for layer in layers]
