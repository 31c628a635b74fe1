"""Write a policy so that plain transformers (or peft) loads it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from groupwise.errors import ModelError
from groupwise.models.lora import has_a_base, merged
from groupwise.models.policy import Policy
from groupwise.models.written import not_finite


def save_policy(policy: Policy, folder: Path, *, merge: bool = False) -> None:
    """Weights as safetensors, configuration and tokenizer. With LoRA the adapter alone, unless `merge` asks for the
    whole model with the adapter added to its weights, or the adapter's base has no name to load it by: a model made in
    memory, or of another adapter. The policy itself is not changed.

    Example: `save_policy(policy, Path("out"), merge=True)`, then `AutoModelForCausalLM.from_pretrained("out")`
    """
    if (name := not_finite(policy)) is not None:
        raise ModelError(f"the model is not saved: {name} holds numbers that are not finite, so it can say nothing")
    if policy.adapted is not None and not merge and has_a_base(policy.adapted):
        with _whole(folder) as beside:
            policy.adapted.save_pretrained(str(beside), save_embedding_layers=False)
            policy.tokenizer.save_pretrained(str(beside))
        return
    whole = policy.model if policy.adapted is None else merged(copy.deepcopy(policy.adapted))
    save_model(whole, policy.tokenizer, folder)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A whole model and its tokenizer, which `from_pretrained(folder)` loads."""
    with _whole(folder) as beside:
        model.save_pretrained(beside)
        tokenizer.save_pretrained(str(beside))


@contextmanager
def _whole(folder: Path) -> Generator[Path]:
    """A folder beside `folder` to write to, which then takes its name: a kill in between leaves no half of a model."""
    beside = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        if folder.exists():
            for path in beside.iterdir():
                path.replace(folder / path.name)
        else:
            beside.rename(folder)
    except (OSError, SafetensorError) as error:
        why = f"{error}".partition("\n")[0]
        raise ModelError(f"the model cannot be written to {folder}: {why}. Is there room? May you write?") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
