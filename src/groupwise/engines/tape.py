"""A computation, recorded once and played again without the Python that surrounds it.

A decode step is some hundred small operations, and most of its time goes into modules, hooks and keyword arguments
that come to the same each time. A `Tape` is the list of the operations themselves: functions of torch, and which
earlier result goes into which. It is made for one shape, as a CUDA graph is, does the same arithmetic, and reads the
weights anew each time, as it refers to them and copies nothing.

What looks at the value of a tensor could go another way next time: that cannot be recorded, `UnrecordableError`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

log = logging.getLogger(__name__)

Hide: TypeAlias = Callable[[Callable[..., Tensor]], Callable[..., Tensor]]
"""Makes a function one operation of the tape, whatever it does inside."""

OF_THE_SHAPE = {
    *("__get__", "__hash__", "__len__", "dim", "element_size", "get_device", "is_complex", "is_contiguous", "size"),
    *("is_floating_point", "is_inference", "ndimension", "nelement", "numel", "storage_offset", "stride", "type"),
}
"""What may answer with something else than a tensor: it depends on shapes and types, and those are the tape's own."""
SHAPED_BY_VALUES = {"argwhere", "bincount", "masked_select", "nonzero", "unique", "unique_consecutive"}
"""What answers with tensors whose shape or number depends on values."""
BY_NUMBERS = {"arange": 0, "repeat_interleave": 1, "tensor_split": 1}
"""The same, if more than so many tensors are given: numbers are among them."""
OPERATORS = ("add", "and", "div", "floordiv", "lshift", "mod", "mul", "or", "pow", "rshift", "sub", "truediv", "xor")
IN_PLACE = {"__setitem__", *(f"__i{name}__" for name in OPERATORS)}


class UnrecordableError(RuntimeError):
    """The computation looks at values, so it may go another way for others."""


class _Call(NamedTuple):
    """One operation: `places[target] = function(*(places[i] for i in sources), **keywords)`."""

    function: Callable[..., Any]
    sources: tuple[int, ...]
    keywords: Mapping[str, Any]
    target: int
    pure: bool


class Tape:
    """Plays a recorded computation for other inputs of the same shapes.

    Example:

        tape, logits = record(lambda ids, hide: model(ids).logits, ids)
        assert torch.equal(tape(ids), logits)
    """

    def __init__(self, calls: Sequence[_Call], places: Sequence[Any], result: int) -> None:
        self._places = list(places)
        """Inputs first; constants stand where they always stand."""
        self._calls = [(call.function, _picker(call.sources), call.keywords, call.target) for call in calls]
        self._result = result

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Play."""
        places = self._places.copy()
        places[: len(inputs)] = inputs
        for function, pick, keywords, target in self._calls:
            places[target] = function(*pick(places), **keywords)
        return places[self._result]


def record(function: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tape, Tensor]:
    """Call `function(*inputs, hide=...)` and record it; returns the tape and the result."""
    recorder = _Recorder(inputs)
    with recorder:
        result = function(*inputs, hide=recorder.hide)
    return recorder.tape(result), result


class Replayed:
    """A function of tensors that is recorded for each shape it meets, and played from then on. What cannot be recorded
    is called as it is.

    A tape is tried out before it is trusted, on the next inputs of its shape: on the old ones, a value that wrongly
    stands fixed in it would not show. So `function(*inputs, hide)` must give the same when it is called again.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._untried: dict[object, Tape] = {}
        self._tapes: dict[object, Tape] = {}
        self.why_not = ""
        """Why it cannot be recorded."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Play, or record, or call."""
        form = tuple((x.shape, x.stride(), x.dtype) for x in inputs)
        if form in self._tapes:
            return self._tapes[form](*inputs)
        if not self.why_not and form not in self._untried:
            try:
                self._untried[form], result = record(self._function, *inputs)
                return result
            except UnrecordableError as error:
                self._give_up(str(error))
        tape = self._untried.pop(form, None)
        played = None if tape is None else tape(*inputs)
        result = self._function(*inputs, hide=as_it_is)  # last: what it writes anywhere stays
        if tape is not None and played is not None:
            if torch.allclose(played, result, rtol=1e-5, atol=1e-6, equal_nan=True):
                self._tapes[form] = tape
            else:
                self._give_up("played for other inputs, the recorded operations give something else")
        return result

    def _give_up(self, why: str) -> None:
        log.info("not recorded: %s", why)
        self.why_not, self._tapes, self._untried = why, {}, {}


def as_it_is(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A `Hide` where nothing is recorded."""
    return function


class _Recorder(TorchFunctionMode):
    """Notes every function of torch that is called while it is active."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._values: list[Any] = list(inputs)  # kept alive, so that no id is used twice
        self._inputs = len(inputs)
        self._place = {id(value): place for place, value in enumerate(inputs)}
        self._constants: set[int] = set()
        self._calls: list[_Call] = []
        self._hidden = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self._hidden:
            self._note(func, tuple(args), kwargs, result)
        return result

    def hide(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """See `Hide`."""

        def hidden(*args: Any, **kwargs: Any) -> Tensor:
            self._hidden = True
            try:
                result = function(*args, **kwargs)
            finally:
                self._hidden = False
            self._add(function, args, kwargs, result, pure=False)
            return result

        return hidden

    def tape(self, result: Tensor) -> Tape:
        """What was noted, without what nobody needs, in as few places as are needed at the same time."""
        if (place := self._place.get(id(result))) is None:
            raise UnrecordableError("its result comes from no function of torch")
        fixed = {place: self._values[place] for place in self._constants}
        return _arranged(_needed(self._calls, place), self._inputs, fixed, place)

    def _note(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any
    ) -> None:
        name = function.__name__
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        out = kwargs.get("out")
        in_place = name in IN_PLACE or out is not None or (name.endswith("_") and not name.endswith("__"))
        changed = pytree.tree_leaves(tensors[:1] if out is None else out) if in_place else []
        if any(self._place.get(id(x)) in {None, *self._constants} for x in changed):
            raise UnrecordableError(f"{name} changes a tensor that outlives the computation")
        if not _tensors_of(result) and not in_place:
            if tensors and name not in OF_THE_SHAPE:
                raise UnrecordableError(f"{name} looks at the values of a tensor")
            return
        if _shaped_by_values(name, args, tensors):
            raise UnrecordableError(f"the shape of what {name} returns depends on values")
        if in_place or not any(result is x for x in tensors):  # else it had nothing to do, like `x.float()` in fp32
            self._add(function, args, kwargs, result, pure=not in_place)

    def _add(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], result: Any, *, pure: bool
    ) -> None:
        function, sources, kwargs = _with_tensors_in_front(function, args, kwargs)
        places = tuple(map(self._known, sources))
        target = self._new(result)
        self._calls.append(_Call(function, places, kwargs, target, pure))
        if isinstance(result, tuple | list):
            for i, part in enumerate(cast("Sequence[Any]", result)):
                self._calls.append(_Call(itemgetter(i), (target,), {}, self._new(part), pure=True))

    def _new(self, value: Any) -> int:
        self._values.append(value)
        if isinstance(value, Tensor):
            self._place[id(value)] = len(self._values) - 1
        return len(self._values) - 1

    def _known(self, value: Any) -> int:
        """The place of a value; what no call has returned is a constant."""
        place = self._place.get(id(value)) if isinstance(value, Tensor) else None
        if place is None:
            place = self._new(value)
            self._constants.add(place)
        return place


def _with_tensors_in_front(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]:
    """The same call with every tensor as a positional argument of its own."""
    if not any(map(_tensors_within, (*args, *kwargs.values()))) and not _tensors_of(list(kwargs.values())):
        return function, args, kwargs
    if not kwargs and args and _is_list_of_tensors(args[0]) and not _tensors_of(args[1:]):
        rest = args[1:]
        return (lambda *tensors: function(tensors, *rest)), args[0], kwargs
    leaves, form = pytree.tree_flatten((tuple(args), dict(kwargs)))
    moving = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

    def call(*tensors: Tensor) -> Any:
        filled = list(leaves)
        for i, tensor in zip(moving, tensors, strict=True):
            filled[i] = tensor
        args, kwargs = pytree.tree_unflatten(filled, form)
        return function(*args, **kwargs)

    return call, [leaves[i] for i in moving], {}


def _needed(calls: Sequence[_Call], result: int) -> list[_Call]:
    """Without the calls whose results go nowhere."""
    wanted, kept = {result}, list[_Call]()
    for call in reversed(calls):
        if call.target in wanted or not call.pure:
            kept.append(call)
            wanted.update(call.sources)
    return kept[::-1]


def _arranged(calls: Sequence[_Call], inputs: int, fixed: Mapping[int, Any], result: int) -> Tape:
    """Results share places, so that each is freed soon after its last use."""
    last_use = {source: at for at, call in enumerate(calls) for source in call.sources} | {result: len(calls)}
    moved = {place: place for place in range(inputs)}
    places: list[Any] = [None] * inputs
    for place, value in fixed.items():
        if place in last_use:
            moved[place] = len(places)
            places.append(value)
    free: list[int] = []
    arranged: list[_Call] = []
    for at, call in enumerate(calls):
        sources = tuple(moved[source] for source in call.sources)
        free += {moved[x] for x in call.sources if last_use[x] == at and x not in fixed and x >= inputs}
        if not free:
            free.append(len(places))
            places.append(None)
        moved[call.target] = free.pop()
        if call.target not in last_use:
            free.append(moved[call.target])
        arranged.append(call._replace(sources=sources, target=moved[call.target]))
    return Tape(arranged, places, moved[result])


def _picker(sources: tuple[int, ...]) -> Callable[[list[Any]], Sequence[Any]]:
    """`places -> arguments`, without a loop in Python."""
    if len(sources) > 1:
        return itemgetter(*sources)
    return itemgetter(slice(sources[0], sources[0] + 1) if sources else slice(0, 0))


def _shaped_by_values(name: str, args: Sequence[Any], tensors: Sequence[Tensor]) -> bool:
    by_mask = name in ("__getitem__", "index_put") and any(x.dtype in (torch.bool, torch.uint8) for x in tensors[1:])
    by_number = len(tensors) > BY_NUMBERS.get(name, len(tensors))
    by_slice = _tensors_of([(x.start, x.stop, x.step) for x in pytree.tree_leaves(args) if isinstance(x, slice)])
    return name in SHAPED_BY_VALUES or by_mask or by_number or by_slice or (name == "where" and len(args) == 1)


def _tensors_of(value: Any) -> bool:
    return isinstance(value, Tensor) or _tensors_within(value)


def _tensors_within(value: Any) -> bool:
    """Whether a container holds tensors."""
    return not isinstance(value, Tensor) and any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))


def _is_list_of_tensors(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(isinstance(x, Tensor) for x in cast("Sequence[Any]", value))
