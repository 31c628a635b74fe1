"""The maths of GRPO and its relatives: pure functions on tensors or floats, which know no container of ours.

- `advantages`   rewards of groups -> how much better each completion was than its group
- `surrogates`   logprobs and advantages -> loss per token
- `divergences`  logprobs and reference logprobs -> KL per token
- `weights`      token counts of a whole update -> weight of each rollout's tokens; the loss reduction as data
- `logprobs`     features and the head -> logprobs, never [tokens x vocabulary] at once
- `tables`       how a recipe's names become functions: `bind(SURROGATES, "clipped_ratio", settings)`

The loss of an update, whatever the variant, is one sum over its tokens, so any split into micro-batches adds up:

    sum over T of weight_R[rollout_T] * (surrogate_T + beta * divergence_T)

Import from the modules: `advantages` and `tables` need no torch, and this file imports nothing, to keep it so.
"""
