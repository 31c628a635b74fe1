"""The maths of GRPO and its relatives: pure functions on tensors or floats, which know no container of ours.

What a recipe chooses from, one table each; every entry names the data and the settings that it wants (`tables`):

- `advantages`   rewards of groups -> how much better each completion was (`batch_advantages`, `groups`)
- `ratios`       log ratios of tokens -> of tokens or whole completions
- `surrogates`   ratios and advantages -> loss per token (`policy_gradients`, `covariances`, `whole`)
- `weights`      token counts of a whole update -> weight of each rollout's tokens; the loss reduction as data
- `divergences`  logprobs and reference logprobs -> KL per token
- `corrections`  log(old policy / sampler) -> factor per token; how large it is: `mismatch`
- `filters`      anything -> which tokens train at all
- `selections`   rewards of all groups so far -> which of them train, how many more to sample
- `length_penalties`  lengths -> what they take off the rewards
- `controls`     a coefficient and what it controls -> the next coefficient

Below them: `sequences` (sums over completions, ratios without overflow) and `logprobs` (features and the head ->
logprobs, never [tokens x vocabulary] at once).

The loss of an update, whatever the variant, is one sum over its tokens, so any split into micro-batches adds up:

    sum over T of weight_R[rollout_T] * (filter_T * correction_T * surrogate_T + beta * divergence_T)

Import from the modules: advantages, selections, length_penalties, controls and tables need no torch, and this file
imports nothing, to keep it so.
"""
