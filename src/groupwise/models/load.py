"""From a folder, an id on the hub or an object to a policy that is ready to sample and to learn."""

from __future__ import annotations

import logging
import re
from collections.abc import Container
from pathlib import Path
from typing import Any, Literal, cast

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from groupwise.config.sections import LoraSection, ModelSection
from groupwise.errors import ModelError
from groupwise.models.hub import check_reachable
from groupwise.models.lora import adapter_base, add_lora, apply_adapter
from groupwise.models.policy import Policy
from groupwise.models.selfcheck import choose_attention

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")

DROPOUT = re.compile(r"(?:^|_)(?:dropout|pdrop|layerdrop)(?:_prob)?$")
"""Settings that make a forward pass random. All are set to 0: the probability that the learner sees must be the one
that the sampler drew with. (LoRA's own dropout is a choice of the recipe and stays.)"""


def load_policy(section: ModelSection, lora: LoraSection | None = None) -> Policy:
    """Load, adapt, check. Says in one line which way of running was chosen.

    `section.id` may be a model folder, a folder with a LoRA adapter (which is applied to its base), or an id on the
    hub.

    Example: `load_policy(ModelSection(id="Qwen/Qwen2.5-0.5B-Instruct"), LoraSection(r=16))`
    """
    model, tokenizer = load_model(section)
    return prepare_policy(model, tokenizer, section, lora)


def load_model(section: ModelSection) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, an adapter merged into its base, and the tokenizer, as they are: nothing is adapted or checked."""
    device = pick_device(section.device)
    base_id = adapter_base(section.id)
    check_reachable(base_id or section.id, section.revision)
    # An adapter is a folder and has no revision: the one that is named pins its base.
    base = section if base_id is None else section.model_copy(update={"id": base_id})
    own_tokenizer = base_id is None or (Path(section.id) / "tokenizer_config.json").is_file()
    tokenizer = _load_tokenizer(section if own_tokenizer else base)
    model = _load_model(base, pick_dtype(section.dtype, device), device)
    if base_id is not None:
        model = apply_adapter(model, section.id)
    return model, tokenizer


def stored_dtype(section: ModelSection) -> Literal["fp32", "bf16", "fp16"]:
    """The precision that the weights have where they are stored; of an adapter, those of its base."""
    base_id = adapter_base(section.id)
    check_reachable(base_id or section.id, section.revision)
    try:
        config = AutoConfig.from_pretrained(
            base_id or section.id, revision=section.revision, trust_remote_code=section.trust_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(_explain(section, error)) from error
    names: dict[Any, Literal["bf16", "fp16"]] = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    return names.get(config.dtype, "fp32")


def prepare_policy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, section: ModelSection, lora: LoraSection | None = None
) -> Policy:
    """Make a policy of objects that are already there. The model is changed in place."""
    if model.get_output_embeddings() is None:
        raise ModelError(f"{type(model).__name__} has no language-model head: a causal language model is needed")
    _silence_dropout(model)
    adapted = None if lora is None else add_lora(model, lora)
    return _checked(Policy(model, tokenizer, adapted), section)


def prepare_adapted(adapted: PeftModel, tokenizer: PreTrainedTokenizerBase, section: ModelSection) -> Policy:
    """Make a policy of a model that carries adapters already. It is changed in place; the adapters keep their own
    dropout, which was a choice of whoever made them."""
    if adapted.active_peft_config.is_prompt_learning:
        raise ModelError(
            f"{type(adapted.active_peft_config).__name__} puts tokens of its own in front of every prompt, which trunk "
            "and branches have no place for: use LoRA or one of its kind"
        )
    model = cast(PreTrainedModel, adapted.get_base_model())
    own = {id(module) for layer in model.modules() if isinstance(layer, BaseTunerLayer) for module in _dropouts(layer)}
    _silence_dropout(model, own)
    return _checked(Policy(model, tokenizer, adapted), section)


def _dropouts(layer: nn.Module) -> list[nn.Module]:
    """The dropouts that belong to the adapters of a layer, and not to the layer that they adapt."""
    kept = {name: child for name, child in layer.named_children() if name != "base_layer"}
    return [module for child in kept.values() for module in child.modules() if isinstance(module, nn.Dropout)]


def _checked(policy: Policy, section: ModelSection) -> Policy:
    model = policy.model
    _check_tokens(model)
    if section.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.eval()
    choose_attention(policy, section.attention)
    if policy.attention == "plain" and section.attention == "auto":
        log.warning("%s runs as plain padded batches: %s", type(model).__name__, policy.why_plain)
    return policy


def _check_tokens(model: PreTrainedModel) -> None:
    """What a model can predict it must be able to read: the token is drawn one day, and then fed back to it."""
    reads, predicts = cast(object, model.get_input_embeddings()), cast(object, model.get_output_embeddings())
    if type(reads) is nn.Embedding and type(predicts) is nn.Linear and len(predicts.weight) > len(reads.weight):
        raise ModelError(
            f"{type(model).__name__} predicts {len(predicts.weight)} tokens and has embeddings for {len(reads.weight)} "
            "of them only: it could not read what it writes. Give both the same number of rows "
            "(model.resize_token_embeddings) and save it again"
        )


def pick_device(wanted: str) -> torch.device:
    """`auto`: cuda, then mps, then cpu."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f'model.device = "{wanted}", but this torch sees no CUDA device. Use "auto" or "cpu".')
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise ModelError('model.device = "mps", but this machine has no Metal device. Use "auto" or "cpu".')
    return torch.device(wanted)


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """`auto`: bf16 on a GPU that computes in it, else fp32."""
    if wanted != "auto":
        return DTYPES[wanted]
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def _load_model(section: ModelSection, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    where = {"revision": section.revision, "trust_remote_code": section.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(section.id, **where)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            section.id, config=config, dtype=dtype, output_loading_info=True, use_safetensors=True, **where
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(_explain(section, error)) from error
    model, found = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            f'model.id = "{section.id}" holds no weights for {", ".join(missing[:3])}{", ..." if missing[3:] else ""}: '
            f"they would be random numbers. Is it a causal language model, as {type(model).__name__} is?"
        )
    cast(nn.Module, model).to(device)
    return model


def _load_tokenizer(section: ModelSection) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            section.id, revision=section.revision, trust_remote_code=section.trust_remote_code
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(_explain(section, error, "tokenizer")) from error
    loaded = cast(PreTrainedTokenizerBase, tokenizer)
    if set(loaded.get_vocab()) <= set(loaded.all_special_tokens):
        # What transformers makes of a folder that has no tokenizer.
        raise ModelError(_explain(section, ValueError("its tokenizer knows no token but special ones"), "tokenizer"))
    return loaded


def _explain(section: ModelSection, error: Exception, part: str = "model") -> str:
    first = f"{error}".strip().splitlines()[0] if f"{error}".strip() else type(error).__name__
    path = Path(section.id)
    if "contains custom code" in first:
        return (
            f'model.id = "{section.id}" comes with Python code of its own. If you trust it, set '
            "model.trust_remote_code = true and pin model.revision."
        )
    if path.is_dir() and part == "model" and any(path.glob("*.bin")):
        return (
            f'model.id = "{section.id}" holds its weights as a pickle (*.bin), which is code that would run when it is '
            "read. Only safetensors is loaded: convert it with save_pretrained where you trust it, or take a revision "
            "that has model.safetensors"
        )
    if path.is_dir():
        return f'model.id = "{section.id}": no {part} could be loaded from this folder. {_lacking(path, part, first)}'
    if section.id.startswith((".", "/", "~")) or section.id.count("/") > 1:
        there = "it is a file, not a folder" if path.is_file() else "there is no such folder"
        return (
            f'model.id = "{section.id}": {there}. Name the folder of a model, such as runs/NAME/model of a run that is '
            "done, or an id of the hub, such as Qwen/Qwen2.5-0.5B-Instruct"
        )
    return (
        f'model.id = "{section.id}": no folder of that name here, and no {part} of that id could be loaded from the '
        f"hub. Check the spelling, the network and, for a gated model, `hf auth login`. ({first})"
    )


def _lacking(folder: Path, part: str, error: str) -> str:
    if not (folder / "config.json").is_file():
        return "There is no config.json in it: name the folder of a model, such as runs/NAME/model of a done run"
    if part == "tokenizer" and not any(any(folder.glob(name)) for name in _TOKENIZER_FILES):
        return "It has no tokenizer: copy tokenizer.json and tokenizer_config.json of the model into it"
    if part == "model" and not any(folder.glob("*.safetensors")):
        return "It has no weights (model.safetensors): copy them into it, or write the model with save_pretrained"
    if "deserializing header" in error:
        return f"Its weights are damaged or cut off: copy or download them again. ({error})"
    return f"({error})"


def _silence_dropout(model: PreTrainedModel, kept: Container[int] = ()) -> None:
    for module in model.modules():
        if id(module) in kept:
            continue
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Some architectures keep the probability on the layer and call the functional form.
        for name, value in vars(module).items():
            if isinstance(value, float) and DROPOUT.search(name):
                setattr(module, name, 0.0)
