"""Tasks: where problems come from, and how their answers are judged.

file         a function of your own in one file
arithmetic   generated sums, nothing to download
gsm8k        grade-school word problems
boxed        mathematics with answers in \\boxed{}, as in MATH
choice       multiple choice
code         programs to write, with tests
reasoning_gym  any task set of that library, with its own verifier
dataset      your own files, or a data set on the hub; `rows` for rows in memory
"""

from groupwise.tasks.arithmetic import arithmetic
from groupwise.tasks.build import TASKS, build_task
from groupwise.tasks.dataset import dataset
from groupwise.tasks.environments import Environment, Reply, World, with_tools, world_of
from groupwise.tasks.gsm8k import gsm8k
from groupwise.tasks.gym import reasoning_gym
from groupwise.tasks.rows import rows
from groupwise.tasks.task import Task

__all__ = [
    "TASKS",
    "Environment",
    "Reply",
    "Task",
    "World",
    "arithmetic",
    "build_task",
    "dataset",
    "gsm8k",
    "reasoning_gym",
    "rows",
    "with_tools",
    "world_of",
]
