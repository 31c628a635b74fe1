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
    try:
        with warnings.catch_warnings():
            # Told about by the self-check and by the export, where it matters.
            warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")
            return cast(PeftModel, get_peft_model(model, config))
    except ValueError as error:
        first = f"{error}".splitlines()[0]
        linear = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if "Linear" in type(m).__name__})
        raise ModelError(
            f"lora.targets = {section.targets!r} does not fit {type(model).__name__}: {first} "
            f'Its linear layers are called: {", ".join(linear) or "(none)"}. "all-linear" takes all but the head.'
        ) from error


def adapter_base(folder: str) -> str | None:
    """The model that the adapter in this folder belongs to; `None` if the folder holds no adapter."""
    path = Path(folder) / "adapter_config.json"
    if not path.is_file():
        return None
    try:
        base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError) as error:
        raise ModelError(f"{path} is not the configuration of an adapter: {error!r}") from error
    if not base:
        raise ModelError(f"{path} does not say which model the adapter belongs to (base_model_name_or_path is empty)")
    return str(base)


def apply_adapter(model: PreTrainedModel, folder: str) -> PreTrainedModel:
    """Merge the adapter in `folder` into the weights of its base."""
    return merged(PeftModel.from_pretrained(model, folder))


def merged(adapted: PeftModel) -> PreTrainedModel:
    """The model with the adapter added to its weights and taken out of its layers. Changes the model in place."""
    return cast(PreTrainedModel, adapted.merge_and_unload())
