"""A model that answers prompts as it did in training: the same rendering, the same sampling, on the embedded engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from groupwise.types import Completion, Prompt, Sampling

if TYPE_CHECKING:
    from groupwise.config import LoadedRecipe
    from groupwise.models.policy import Policy
    from groupwise.rollouts.chat import PromptStyle


@dataclass(frozen=True, slots=True)
class Speaker:
    """A policy, and how prompts are put to it.

    Example: `Speaker.of(loaded, seed=0).complete(["2+2=?"], n=4)` are four completions of one prompt.
    """

    policy: Policy
    sampling: Sampling
    style: PromptStyle
    system_prompt: str | None
    variables: Mapping[str, Any]
    max_rows: int
    seed: int

    @classmethod
    def of(cls, loaded: LoadedRecipe, *, seed: int, temperature: float | None = None) -> Speaker:
        """Load the recipe's model. `temperature` takes the place of the recipe's, which cannot be 0."""
        from groupwise.models.load import load_policy
        from groupwise.tasks.build import system_prompt_of
        from groupwise.training.build import located_model, sampling_of

        recipe = loaded.recipe
        sampling = sampling_of(recipe)
        return cls(
            policy=load_policy(located_model(loaded)),
            sampling=sampling if temperature is None else replace(sampling, temperature=temperature),
            style=recipe.task.prompt_style,
            system_prompt=system_prompt_of(recipe.task.kind, recipe.task.system_prompt),
            variables=recipe.task.template_variables,
            max_rows=recipe.engine.max_rows,
            seed=seed,
        )

    def complete(self, prompts: Sequence[Prompt], n: int, first: int = 0) -> list[list[Completion]]:
        """`n` completions of each prompt. `first` numbers the prompts, so that one asked again is answered anew."""
        return asyncio.run(self._completed(prompts, n, first))

    async def _completed(self, prompts: Sequence[Prompt], n: int, first: int) -> list[list[Completion]]:
        from groupwise.engines.embedded import EmbeddedEngine
        from groupwise.rollouts.chat import render
        from groupwise.rollouts.rollouts import rollout_seed

        # A new one each time: one that was interrupted may still hold rows.
        engine = EmbeddedEngine(self.policy, self.max_rows)
        rendered = [
            render(
                prompt,
                self.policy.tokenizer,
                style=self.style,
                system_prompt=self.system_prompt,
                variables=self.variables,
            )
            for prompt in prompts
        ]
        calls = [
            engine.sample(ids, n, self.sampling, [rollout_seed(self.seed, place, "sample", i) for i in range(n)])
            for place, ids in enumerate(rendered, first)
        ]
        return await asyncio.gather(*calls)
