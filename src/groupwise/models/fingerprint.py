"""A few bytes that tell one set of weights from another, without reading them all twice: for weights that are not in a
checkpoint because they never change, and must be the same ones when a run goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SAMPLES = 64


@torch.no_grad()
def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Names, shapes, the sum of all bits as integers (the same on any device, in any order) and some values in place.

    Example: `fingerprint({"weight": torch.zeros(2)})` is 16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        bits = tensor.detach().reshape(-1).view(_AS_INTEGERS[tensor.element_size()])
        some = bits[:: max(len(bits) // _SAMPLES, 1)].tolist()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {int(bits.sum(dtype=torch.int64))} {some}".encode())
    return digest.hexdigest()[:16]
