"""Write a policy so that plain transformers (or peft) loads it."""

from __future__ import annotations

import copy
from pathlib import Path

from groupwise.models.lora import merged
from groupwise.models.policy import Policy


def save_policy(policy: Policy, folder: Path, *, merge: bool = False) -> None:
    """Weights as safetensors, configuration and tokenizer. With LoRA the adapter alone, unless `merge` asks for the
    whole model with the adapter added to its weights. The policy itself is not changed.

    Example: `save_policy(policy, Path("out"), merge=True)`, then `AutoModelForCausalLM.from_pretrained("out")`
    """
    folder.mkdir(parents=True, exist_ok=True)
    if policy.adapted is None:
        policy.model.save_pretrained(folder)
    elif merge:
        whole = merged(copy.deepcopy(policy.adapted))
        whole.save_pretrained(folder)
    else:
        policy.adapted.save_pretrained(str(folder), save_embedding_layers=False)
    policy.tokenizer.save_pretrained(str(folder))
