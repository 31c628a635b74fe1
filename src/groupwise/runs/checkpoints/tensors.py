"""Tensors as a safetensors file, straight from their memory: no second copy in between, and piece by piece, so that
other threads go on, a digest can be taken on the way, and a full disk is met by our own code.

The format: eight bytes with the length of the header, the header (JSON: dtype, shape and place of each tensor), then
the tensors one behind the other. https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError, safe_open

from groupwise.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def file_of(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The file, buffer by buffer. The tensors must lie in the memory of the host, each in one piece.

    Example: `write_file(path, file_of({"weight": torch.zeros(2, 3)}))`
    """
    # Wide numbers first, as the format's own writer does: so every tensor begins at a multiple of its width.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        dtype = _NAMES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in names:
        if tensors[name].numel():
            yield _bytes_of(tensors[name])


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, in the memory of the host."""
    try:
        with cast(Any, safe_open)(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot read {path}: {error}") from error


def _bytes_of(tensor: Tensor) -> memoryview:
    import torch

    assert tensor.device.type == "cpu", tensor.device
    assert tensor.is_contiguous()
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data
