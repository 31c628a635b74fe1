"""Procedural task sets of the library reasoning-gym: any of them by name, graded by its own verifier.

The library never runs in the trainer: its verifiers put a model's text into `eval`. `process` starts one that has
nothing to lose, `server` is what runs in it, `guards` is what takes the place of `eval` there.
"""

from groupwise.tasks.gym.task import reasoning_gym

__all__ = ["reasoning_gym"]
