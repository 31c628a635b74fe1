"""Attention of a whole packed row in compiled code (trunk_attention.c), on a CPU where there is a compiler.

torch's kernel takes lines of one length, so lines are padded, cut and put together again around it. This one goes
through the row as it is, each line past its trunk and itself in one softmax, and keeps no more of it than the
logsumexp. It stands in for `groupwise.models.trunk_attention.Calls`, is proven in the same way, and needs as much work
at once as there are threads: jobs are runs of branches of one tree, with one key head. What has 16 bits is computed in
fp32: torch's kernel for it takes three times as long.

    row = CompiledRow.of(own, trunk, heads, device)
    out, lse = row.forward(query, key, value, scale)
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from groupwise.models.compiled import library
from groupwise.models.kernels import Heads, Row, Seen, empty_like

SOURCE = Path(__file__).with_name("trunk_attention.c")
PANEL, BLOCK = 32, 64
"""As in panels.h and trunk_attention.c."""
JOBS = 2
"""For each thread at least so many, if there are so many branches: they take their share as they get through."""


class _Line(ctypes.Structure):
    """See trunk_attention.c."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("start", "length", "panel", "trunk_length", "trunk_panel", "sums", "trunk_sums")
    )


class _Row(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("lines", "jobs", "panels", "sum_panels", "heads", "kv_heads", "dim", "threads")
        ),
        ("scale", ctypes.c_float),
        ("line", ctypes.c_void_p),
        ("job", ctypes.c_void_p),
    )


class _Given(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("token", ctypes.c_int64), ("head", ctypes.c_int64))

    @classmethod
    def of(cls, x: Tensor) -> _Given:
        """[1, heads, tokens, dim], whose dimensions lie side by side."""
        return cls(x.data_ptr(), x.stride(2), x.stride(1))


@cache
def _compiled() -> Any:
    made = library(SOURCE)
    if made is not None:
        made.attention_floats.restype = ctypes.c_int64
    return made


class CompiledRow:
    """The lines of one row, and who adds up what of whose gradients."""

    def __init__(self, trees: Sequence[Sequence[Seen]], heads: Heads, threads: int) -> None:
        """`trees`: the lines of each, the trunk first, if there is one; `keys` is what a line sees beside itself."""
        lines: list[_Line] = []
        copies: list[int] = []
        jobs, panel, sums = [0], 0, 0
        for tree in trees:
            wanted = -(-JOBS * threads // (heads.keys * len(trees)))
            runs = _shares(tree, wanted)
            trunk, room = None, 0
            for number, run in enumerate(runs):
                for seen in run:
                    line = _Line(start=seen.queries.start, length=seen.lengths[1], panel=panel, sums=sums)
                    if trunk is not None:
                        line.trunk_length, line.trunk_panel = trunk.length, trunk.panel
                        line.trunk_sums = trunk.sums + number * room
                    size = -(-line.length // PANEL)
                    is_trunk = trunk is None and seen.lengths[0] == 0
                    copies.append(len(runs) if is_trunk else 1)
                    panel, sums = panel + size, sums + size * copies[-1]
                    if is_trunk:
                        trunk, room = line, size
                    lines.append(line)
                jobs.append(len(lines))
        self._lines, self._jobs = (_Line * len(lines))(*lines), np.array(jobs, dtype=np.int64)
        self._copies = np.array(copies, dtype=np.int64)
        step = max(1, BLOCK // (heads.queries // heads.keys))
        blocks = [(i, place) for i, line in enumerate(lines) for place in range(0, line.length, step)]
        self._blocks = np.array(blocks, dtype=np.int64).reshape(-1, 2)
        self._row = _Row(
            lines=len(lines),
            jobs=len(jobs) - 1,
            panels=panel,
            sum_panels=sums,
            heads=heads.queries,
            kv_heads=heads.keys,
            dim=heads.dim,
            threads=threads,
            line=ctypes.addressof(self._lines),
            job=self._jobs.ctypes.data,
        )

    @classmethod
    def of(cls, own: Sequence[Seen], trunk: Sequence[Seen], heads: Heads, device: torch.device) -> CompiledRow:
        """Of these lines, see `Calls.of`."""
        if device.type != "cpu" or _compiled() is None:
            raise RuntimeError("there is no compiled code for this device")
        return cls(_trees(own, trunk), heads, torch.get_num_threads())

    def forward(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """See `Calls`."""
        dtype = query.dtype
        query, key, value = (_readable(x) for x in (query, key, value))
        out, lse, work = empty_like(query), query.new_empty(1, *query.shape[2:0:-1]), self._work(query, 2, 0)
        self._row.scale = scale
        _compiled().attention_forward(
            ctypes.byref(self._row),
            *(ctypes.byref(_Given.of(x)) for x in (query, key, value)),
            *(ctypes.c_void_p(self._blocks.ctypes.data), ctypes.c_int64(len(self._blocks))),
            *(ctypes.c_void_p(x.data_ptr()) for x in (out, lse, work)),
        )
        return out.to(dtype), lse.transpose(1, 2)

    def backward(self, grad: Tensor, row: Row, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """See `Calls`."""
        query, key, value, grad, out = (_readable(x) for x in (row.query, row.key, row.value, grad, row.out))
        lse = row.lse.transpose(1, 2).contiguous()
        dq, dk, dv, work = empty_like(query), empty_like(key), empty_like(value), self._work(query, 3, 2)
        self._row.scale = scale
        _compiled().attention_backward(
            ctypes.byref(self._row),
            *(ctypes.byref(_Given.of(x)) for x in (query, key, value, grad, out)),
            *(ctypes.c_void_p(lse.data_ptr()), ctypes.c_void_p(self._copies.ctypes.data)),
            *(ctypes.c_void_p(x.data_ptr()) for x in (dq, dk, dv, work)),
        )
        return dq.to(row.query.dtype), dk.to(row.key.dtype), dv.to(row.value.dtype)

    def _work(self, like: Tensor, laid: int, summed: int) -> Tensor:
        floats = _compiled().attention_floats(ctypes.byref(self._row), ctypes.c_int64(laid), ctypes.c_int64(summed))
        return like.new_empty(floats)


def fits(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is compiled code for this."""
    return device.type == "cpu" and dtype in (torch.float32, torch.float16, torch.bfloat16) and _compiled() is not None


def _trees(own: Sequence[Seen], trunk: Sequence[Seen]) -> list[list[Seen]]:
    """The lines of each tree, its trunk first; `keys` becomes what a line sees beside itself."""
    nothing = slice(0, 0)
    trees: dict[int, list[Seen]] = {}
    following = sorted(trunk, key=lambda seen: seen.queries.start)
    after = 0
    for line in sorted((line.queries for line in own), key=lambda run: run.start):
        while after < len(following) and following[after].queries.stop <= line.start:
            after += 1
        keys = nothing
        if after < len(following) and following[after].queries.start <= line.start:
            keys = following[after].keys
        first = keys.start if keys.stop > keys.start else line.start
        trees.setdefault(first, []).append(Seen(line, keys))
    return list(trees.values())


def _shares(tree: Sequence[Seen], wanted: int) -> list[list[Seen]]:
    """A tree cut into runs of lines of about the same work, at most so many."""
    work = np.cumsum([queries * (keys + queries // 2) for keys, queries in (line.lengths for line in tree)])
    marks = np.searchsorted(work, work[-1] * np.arange(1, wanted) / wanted) + 1
    ends = sorted({0, *marks.tolist(), len(tree)})
    return [list(tree[start:stop]) for start, stop in pairwise(ends)]


def _readable(x: Tensor) -> Tensor:
    x = x.float()
    return x if x.stride(-1) == 1 else x.contiguous()
