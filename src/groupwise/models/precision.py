"""Whether products of fp32 are products of fp32: TF32 and the like round what they multiply to 10 bits or fewer.

torch.backends.cuda.matmul.fp32_precision = "tf32"
multiplies_exactly(torch.device("cuda"))        # False
"""

from __future__ import annotations

from typing import Any, cast

import torch


def multiplies_exactly(device: torch.device) -> bool:
    """Whether torch rounds no operands of fp32 matrix products on this device."""
    backend = cast(Any, torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn)
    try:
        return str(backend.matmul.fp32_precision) in ("none", "ieee")
    except AttributeError:  # before torch 2.9
        return torch.get_float32_matmul_precision() == "highest"
