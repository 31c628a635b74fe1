"""State as a tree of plain values and tensors, taken apart for the disk and put together again, to the last bit.

    plain, tensors = taken_apart({"step": 3, "moments": [tensor]})
    plain       {"step": 3, "moments": [{"$tensor": "moments.0"}]}
    tensors     {"moments.0": tensor}
    put_together(plain, tensors) == {"step": 3, "moments": [tensor]}

JSON has no infinity and no NaN, so `{"$number": "inf"}` stands for one. Tuples come back as lists, and keys are texts
(one that begins with a dollar gets a second one on the disk).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    from torch import Tensor

Tree: TypeAlias = Any
"""None, bool, int, float, str, a tensor, or a list or a dict (with texts as keys) of trees."""

_TENSOR, _NUMBER = "$tensor", "$number"


def taken_apart(tree: Tree) -> tuple[Tree, dict[str, Tensor]]:
    """The tree with names in place of its tensors, and the tensors by these names."""
    tensors: dict[str, Tensor] = {}
    return _plain(tree, "", tensors), tensors


def put_together(plain: Tree, tensors: Mapping[str, Tensor]) -> Tree:
    """The tree again."""
    if isinstance(plain, list):
        return [put_together(item, tensors) for item in cast("list[Any]", plain)]
    if not isinstance(plain, dict):
        return plain
    fields = cast("dict[str, Any]", plain)
    if _TENSOR in fields:
        return tensors[fields[_TENSOR]]
    if _NUMBER in fields:
        return float(fields[_NUMBER])
    return {key.removeprefix("$"): put_together(value, tensors) for key, value in fields.items()}


def _plain(tree: Tree, name: str, tensors: dict[str, Tensor]) -> Tree:
    if tree is None or isinstance(tree, bool | int | str):
        return tree
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else {_NUMBER: str(tree)}
    if isinstance(tree, Mapping):
        items = cast("Mapping[Any, Any]", tree).items()
        assert all(isinstance(key, str) for key, _ in items), f"{name}: keys must be texts"
        return {
            f"${key}" if key.startswith("$") else key: _plain(value, f"{name}.{key}" if name else key, tensors)
            for key, value in items
        }
    if isinstance(tree, list | tuple):
        items = cast("Sequence[Any]", tree)
        return [_plain(value, f"{name}.{place}", tensors) for place, value in enumerate(items)]
    import torch

    assert isinstance(tree, torch.Tensor), f"{name}: a {type(tree).__name__} is no state"
    tensors[name] = tree
    return {_TENSOR: name}
