"""A policy that is one table of logits, a row for each token: every number of an update can be set, seen and compared.

The token `t` of a completion is predicted by the logits of row `t`, so with no token twice in a batch each token has a
row of its own, and the gradient of the table is the gradient of each token.
"""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import nn

from groupwise.types import Completion, Group, Problem, Rollout


class TabularPolicy:
    """What the learner needs of a policy, in float64 on the CPU."""

    def __init__(self, tokens=64, seed=0):
        random = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(torch.randn(tokens, tokens, dtype=torch.float64, generator=random))
        self.model = SimpleNamespace(named_parameters=lambda: [("table", self.table)])
        self.adapted = self.beginning = None
        self.device, self.dtype = torch.device("cpu"), torch.float64

    def trainable(self):
        return {"table": self.table}

    @contextmanager
    def training(self):
        yield

    def logprobs(self, trees, *, temperature=1.0, chunk=1024, with_entropy=False, entropy_gradient=False):
        tokens = drawn(trees)
        entropies = entropies_of(self.table, tokens, temperature) if with_entropy else None
        if entropies is not None and not entropy_gradient:
            entropies = entropies.detach()
        return logprobs_of(self.table, tokens, temperature), entropies


def drawn(trees):
    """The tokens of the policy itself."""
    tokens = []
    for tree in trees:
        for branch, own in zip(tree.branches, tree.own or [()] * len(tree.branches), strict=True):
            tokens += [token for token, its_own in zip(branch, own or [True] * len(branch), strict=True) if its_own]
    return torch.tensor(tokens, dtype=torch.long)


def logprobs_of(table, tokens, temperature=1.0):
    """The logprobs of tokens, of any shape."""
    return (table[tokens] / temperature).log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def entropies_of(table, tokens, temperature=1.0):
    """The entropies at tokens, of any shape."""
    logprobs = (table[tokens] / temperature).log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def groups_of(lengths_QG, rewards_QG, *, advantages_QG=None):
    """Groups whose completions have these lengths; tokens are numbered from 1 through all of them, prompts are 0."""
    count, groups = iter(range(1, 10_000)), []
    for index, (lengths_G, rewards_G) in enumerate(zip(lengths_QG, rewards_QG, strict=True)):
        rollouts = []
        for branch, (length, reward) in enumerate(zip(lengths_G, rewards_G, strict=True)):
            ids = tuple(next(count) for _ in range(length))
            parts = reward if isinstance(reward, dict) else {"judge": reward}
            known = [value for value in parts.values() if value is not None]
            advantage = 0.0 if advantages_QG is None else advantages_QG[index][branch]
            completion = Completion(ids, (0.0,) * length, "stop", "")
            rollouts.append(Rollout(completion, parts, sum(known) if known else None, advantage))
        groups.append(Group(Problem(f"p{index}", ""), (0, 0), tuple(rollouts)))
    return groups


def with_logprobs(groups, table, noise=0.0, temperature=1.0, seed=1):
    """The groups with the logprobs of this table, each token's a little off."""
    random = torch.Generator().manual_seed(seed)

    def sampled(rollout):
        tokens = torch.tensor(rollout.completion.token_ids, dtype=torch.long)
        own = logprobs_of(table.detach(), tokens, temperature)
        own = own + noise * torch.randn(own.shape, dtype=own.dtype, generator=random)
        return replace(rollout, completion=replace(rollout.completion, logprobs=tuple(own.tolist())))

    return [replace(group, rollouts=tuple(map(sampled, group.rollouts))) for group in groups]
