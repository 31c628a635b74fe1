"""What a CUDA graph could not do is found before it is tried, as a capture that breaks off leaves a device in disorder.

    with Watch():
        work()          # raises an UncapturableError where the host would wait for the device

Operations that consist of others are looked into. What is not torch's own cannot be, so it counts as waiting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

LOOKS = ("argwhere", "bincount", "equal", "linalg_check_errors", "local_scalar_dense", "masked_select", "nonzero")
"""Operations whose shape, or whose answer, depends on values: the host waits for them. `unique` is one, too."""
LOOKS_AT_COUNTS = ("aten.repeat_interleave.Tensor", "aten.repeat_interleave.self_Tensor", "aten.where.default")
TAKES_NUMBERS_APART = ("index", "unsafe_index", "where")
"""Operations that copy a number of the host to the device; others are launched with it."""


class UncapturableError(RuntimeError):
    """The host looks at a value, or the device refuses."""


class Watch(TorchDispatchMode):
    """Inside, whatever makes the host wait for the device raises an `UncapturableError`. For this thread alone, unlike
    torch's own mode for it: rewards may be computed in another."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What torch calls in place of each of its operations."""
        kwargs = kwargs or {}
        with self:
            result = func.decompose(*args, **kwargs)
        if result is NotImplemented:
            result = func(*args, **kwargs)
            self.note(func, args, kwargs, result)
        return result

    def note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """Called with each operation that does not consist of others, once it is done."""
        name, given, results = str(func.overloadpacket.__name__), tensors_of((args, kwargs)), tensors_of(result)
        if func.namespace not in ("aten", "prims"):
            raise UncapturableError(f"{func} is not torch's own, and may look at the values of a tensor")
        by_mask = name.startswith("index") and any(x.dtype in (torch.bool, torch.uint8) for x in given[1:])
        looks = name.lstrip("_").startswith((*LOOKS, "unique")) or str(func) in LOOKS_AT_COUNTS
        numbers = bool(given) and any(isinstance(x, bool | int | float | complex) for x in pytree.tree_leaves(result))
        if looks or numbers or (by_mask and name in ("index", "index_put", "index_put_")) or _waits_inside(name, args):
            raise UncapturableError(f"{name} looks at the values of a tensor")
        if _moves(name.strip("_"), given, results):
            raise UncapturableError(f"{name} copies from one device to another")


def tensors_of(values: Any) -> list[Tensor]:
    """All that are somewhere in there."""
    return [x for x in pytree.tree_leaves(values) if isinstance(x, Tensor)]


def _waits_inside(name: str, args: Sequence[Any]) -> bool:
    """What torch does in another way on some devices, or for some arguments."""
    if name == "histc":
        return len(args) < 4 or args[2] == args[3]  # no range is given, so it is found first
    return "grouped_mm" in name and not groups_on_the_device(args[0])


def groups_on_the_device(x: Tensor) -> bool:
    """Whether torch multiplies groups of rows, whose sizes are in a tensor, in one kernel. Elsewhere it reads the sizes
    and multiplies one group after another."""
    if x.device.type != "cuda" or x.dtype != torch.bfloat16 or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(x.device)[0] in (9, 10)


def _moves(name: str, given: Sequence[Tensor], results: Sequence[Tensor]) -> bool:
    """Between host and device. `lift_fresh` is all that is to be seen of `torch.tensor(numbers, device=...)`."""
    if name == "lift_fresh":
        return any(x.device.type != "cpu" for x in results)
    if name == "copy":
        return given[0].device != given[1].device
    there, numbers = {x.device for x in given if x.dim()}, [x for x in given if not x.dim()]
    apart = name.startswith(TAKES_NUMBERS_APART) and any(x.device not in there for x in numbers)
    return len(there) > 1 or apart or (bool(given) and not {x.device for x in results} <= {x.device for x in given})
