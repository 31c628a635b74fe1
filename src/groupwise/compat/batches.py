"""TRL counts rows and micro-batches, we count groups: the arithmetic between the two.

TRL samples `generation_batch_size` rows at once, G of them for each prompt, cuts them into `steps_per_generation`
slices and goes through the slices `num_iterations` times, an optimizer step whenever `gradient_accumulation_steps`
slices were seen. Here a step samples `prompts` groups and goes through them `passes` times, `updates` optimizer steps
each time.

    per_device 8, accumulation 1, G 8                          1 group a step,  1 optimizer step
    per_device 4, accumulation 2, G 4                          2 groups a step, 1 optimizer step
    per_device 8, accumulation 1, 4 steps a generation, G 8    4 groups a step, 4 optimizer steps of 1 group
    the same, num_iterations 3                                 4 groups a step, 12 optimizer steps
    per_device 8, accumulation 4, 1 step a generation, G 8     4 groups a step, 1 optimizer step

Two differences. TRL shuffles the rows of all groups before it cuts slices; a group is never torn apart here, so that an
update of a slice is an update of whole groups. And where an optimizer step spans several generations, TRL ends an epoch
with what is left of them; here every step is a whole one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from groupwise.compat.config import SharedConfig
from groupwise.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Batches:
    """What a step of ours is, and what it is in TRL's units."""

    prompts: int
    """Groups of a step: `train.prompts_per_step`."""
    passes: int
    """mu: `learner.passes`."""
    updates: int
    """Optimizer steps in each pass: `learner.updates_per_batch`."""
    chunk: int
    """Prompts of one generation of TRL's; an epoch leaves out what does not fill the last."""
    generations: int
    """Generations of TRL's that make a step of ours."""

    @property
    def optimizer_steps(self) -> int:
        """TRL's steps in one of ours."""
        return self.passes * self.updates

    def steps(self, args: SharedConfig, problems: int | None) -> int:
        """Our steps for `max_steps`, or for so many epochs of these problems.

        Example: 20 problems, 3 epochs, 8 problems a step: 2 steps an epoch, 4 problems are left out, 6 steps.
        """
        wanted = args.max_steps
        if wanted <= 0:
            if problems is None:
                raise RecipeError("max_steps is needed where the number of rows is not known beforehand")
            # A part of a step, where an optimizer step of TRL's spans several generations.
            steps_an_epoch = math.ceil(problems // self.chunk * self.optimizer_steps / self.generations)
            if not steps_an_epoch:
                raise RecipeError(
                    f"{problems} rows are fewer than the {self.chunk} prompts of one generation "
                    "(generation_batch_size / num_generations): lower per_device_train_batch_size"
                )
            wanted = math.ceil(args.num_train_epochs * steps_an_epoch)
        return math.ceil(wanted / self.optimizer_steps)


def generation_batch(args: SharedConfig) -> tuple[int, int]:
    """`generation_batch_size` and `steps_per_generation`, whichever of them is given."""
    if args.generation_batch_size is not None and args.steps_per_generation is not None:
        raise RecipeError("generation_batch_size and steps_per_generation say the same: give one of them")
    slices = args.steps_per_generation or args.gradient_accumulation_steps
    rows = args.generation_batch_size or args.per_device_train_batch_size * slices
    if rows % args.per_device_train_batch_size:
        raise RecipeError(
            f"generation_batch_size = {rows} is no multiple of per_device_train_batch_size = "
            f"{args.per_device_train_batch_size}"
        )
    return rows, rows // args.per_device_train_batch_size


def batches_of(args: SharedConfig) -> Batches:
    """The same amount of work in our units, or a RecipeError that says which number to change."""
    group = args.num_generations or 0
    if group < 2:
        raise RecipeError(f"num_generations = {args.num_generations}: a group of one has nothing to be compared with")
    rows, slices = generation_batch(args)
    if rows % group:
        raise RecipeError(
            f"generation_batch_size = {rows} (per_device_train_batch_size x steps_per_generation) must be a multiple "
            f"of num_generations = {group}: only whole groups are sampled"
        )
    batches = _matched(rows // group, slices, args.num_iterations, args.gradient_accumulation_steps)
    if batches.updates > batches.prompts:
        raise RecipeError(
            f"an optimizer step would see {group * batches.prompts // batches.updates} of the {group} completions of a "
            "group, and groups are not torn apart: raise per_device_train_batch_size to num_generations, or "
            "gradient_accumulation_steps to steps_per_generation"
        )
    return batches


def _matched(chunk: int, slices: int, passes: int, accumulated: int) -> Batches:
    seen = slices * passes
    if slices % accumulated == 0:
        return Batches(chunk, passes, slices // accumulated, chunk, 1)
    if accumulated % slices == 0 and seen % accumulated == 0:
        return Batches(chunk, seen // accumulated, 1, chunk, 1)
    if accumulated % seen == 0:
        generations = accumulated // seen
        return Batches(chunk * generations, 1, 1, chunk, generations)
    raise RecipeError(
        f"gradient_accumulation_steps = {accumulated} and steps_per_generation x num_iterations = {slices} x {passes}: "
        "optimizer steps would end in the middle of a generation's batch. Make one a multiple of the other"
    )
