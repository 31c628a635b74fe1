"""How a policy lies on disk: what of it never changes while it is trained, and the names its tensors have there.

    form = written_form(policy)
    form.files          {"config.json": b"...", "tokenizer.json": b"...", ...}
    form.tensors()      {"model.embed_tokens.weight": tensor, ...}, the live ones, for form.weights_file

So a checkpoint can be written without transformers, in the background, and transformers (with LoRA: peft) loads it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from groupwise.errors import ModelError
from groupwise.models.policy import Policy


@dataclass(frozen=True, slots=True)
class WrittenForm:
    """`names` leads from the name on disk to the one in the model's state; `elsewhere` are trained parameters that
    no name on disk leads to."""

    policy: Policy
    files: Mapping[str, bytes]
    weights_file: str
    names: Mapping[str, str]
    elsewhere: tuple[str, ...]

    def tensors(self) -> dict[str, Tensor]:
        """The weights by their names on disk."""
        state = self.policy.model.state_dict()
        return {on_disk: state[name] for on_disk, name in self.names.items()}

    def others(self) -> dict[str, Tensor]:
        """The parameters in `elsewhere`."""
        trained = self.policy.trainable()
        return {name: trained[name].detach() for name in self.elsewhere}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
        """Give the trained parameters the values of `tensors()` and `others()`."""
        state = self.policy.model.state_dict()
        trained = {parameter.data_ptr() for parameter in self.policy.trainable().values()}
        for on_disk, name in self.names.items():
            if state[name].data_ptr() in trained:
                state[name].copy_(tensors[on_disk])
        for name in self.elsewhere:
            self.policy.trainable()[name].copy_(others[name])


def written_form(policy: Policy) -> WrittenForm:
    """Found by saving once: a model with a placeholder for each tensor, an adapter as it is."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            _save(policy, folder)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"the model's configuration cannot be written to {folder}: {error}") from error
        weights = next(Path(folder).glob("*.safetensors"))
        with cast(Any, safe_open)(weights, framework="pt") as file:
            on_disk = list(file.keys())
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in Path(folder).rglob("*")
            if path.is_file() and path != weights
        }
    state = policy.model.state_dict()
    names = {name: inside for name in on_disk if (inside := _inside(name, state)) is not None}
    reached = {state[name].data_ptr() for name in names.values()}
    elsewhere = tuple(name for name, value in policy.trainable().items() if value.data_ptr() not in reached)
    return WrittenForm(policy, files, weights.name, names, elsewhere)


def not_finite(policy: Policy) -> str | None:
    """The name of a trained parameter that holds a NaN or an infinity; `None` if there is none."""
    largest = {name: value.detach().abs().max() for name, value in policy.trainable().items() if value.numel()}
    return next((name for name, value in largest.items() if not torch.isfinite(value)), None)


def _save(policy: Policy, folder: str) -> None:
    policy.tokenizer.save_pretrained(folder)
    if policy.adapted is not None:
        policy.adapted.save_pretrained(folder, save_embedding_layers=False)
        return
    # Tied tensors share a placeholder, as they share their memory: that is how transformers tells.
    placeholders: dict[int, Tensor] = {}
    state = policy.model.state_dict()
    stand_in = {name: placeholders.setdefault(value.data_ptr(), torch.zeros(1)) for name, value in state.items()}
    policy.model.save_pretrained(folder, state_dict=stand_in, save_original_format=False)


def _inside(on_disk: str, state: Mapping[str, Tensor]) -> str | None:
    """The name in the model of a name on disk: the same, or, of an adapter, as peft shortens it."""
    if on_disk in state:
        return on_disk
    stem, _, last = on_disk.removeprefix("base_model.model.").rpartition(".")
    within = f"{stem}.default.{last}"
    return within if within in state else None
