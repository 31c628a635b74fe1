"""What a CUDA graph does to a computation, on a CPU: the same operations on the same memory, and nothing else.

Every operation of torch is noted with the tensors it was given; launched again, each reads these very tensors and
writes into the memory of its old result. Python does not run. So a number that Python worked out stands still, as it
would on a GPU, a tensor that has moved is not followed, and whoever looks at a value is refused.
"""

import traceback

import torch

from groupwise.engines.watch import UncapturableError, Watch, tensors_of


def memory_of(tensor):
    return tensor.untyped_storage().data_ptr()


class Recorder(Watch):
    """Notes all operations."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def note(self, func, args, kwargs, result):
        if func.overloadpacket.__name__ in ("lift_fresh", "from_numpy"):  # `torch.tensor(...)` comes from the host
            raise UncapturableError("a capture allows no copy from the host")
        super().note(func, args, kwargs, result)
        self.calls.append((func, args, kwargs, result))


class Frozen:
    """The operations of a computation, to be done again on the same memory."""

    def __init__(self, calls, result):
        self.result = result
        self.steps = []
        for func, args, kwargs, out in calls:
            if func._schema.is_mutable:
                self.steps.append((func, args, kwargs, None))
                continue
            inputs = {memory_of(x) for x in tensors_of((args, kwargs))}
            fresh = [x for x in tensors_of(out) if memory_of(x) not in inputs]
            if fresh and not func.overloadpacket.__name__.startswith("empty"):
                self.steps.append((func, args, kwargs, out))
                for x in fresh:  # nothing has been computed yet
                    x.fill_(float("nan") if x.is_floating_point() else 0)

    def __call__(self):
        for func, args, kwargs, out in self.steps:
            again = func(*args, **kwargs)
            if out is not None:
                for old, new in zip(tensors_of(out), tensors_of(again), strict=True):
                    old.copy_(new)
        return self.result


class FrozenGraphs:
    """`Graphs` for tests. Counts what was captured and launched."""

    def __init__(self, memory=1 << 40):
        self.memory, self.captures, self.launches = memory, 0, 0

    def captured(self, work):
        self.captures += 1
        with Recorder() as recorder:
            result = work()
        frozen = Frozen(recorder.calls, result)

        def launch():
            self.launches += 1
            return frozen()

        return launch

    def forget(self):
        pass


ON_THE_HOST = ("learner/packing.py", "models/places.py")
"""What they look at is never on a GPU."""


class Waits(Watch):
    """Counts how often the host would wait for a GPU inside it. `tolist` is no operation of torch on a CPU."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count, self._tolist = 0, torch.Tensor.tolist
        monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: self._listed(tensor))

    def _listed(self, tensor):
        self._wait()
        return self._tolist(tensor)

    def _wait(self):
        frames = traceback.extract_stack()
        self.count += not any(frame.filename.endswith(ON_THE_HOST) for frame in frames)

    def note(self, *call):
        try:
            super().note(*call)
        except UncapturableError:
            self._wait()
