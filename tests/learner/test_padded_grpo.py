"""The loss and gradient of whole updates against GRPO written out once more, the usual way: padded rows and masks.

The formulas are those that TRL documents for `loss_type` grpo, dr_grpo and dapo; the model is transformers' own, with
its own attention, and knows nothing of ours.
"""

from dataclasses import replace

import pytest
import torch
from toy_learner import (
    MAX_NEW_TOKENS,
    Watched,
    algorithm_of,
    learner_of,
    policy_of,
    ragged_groups,
    sampled_by,
    update,
)

from groupwise.models.trees import Tree
from toys import graded_group, tiny_model

EPSILON_LOW, EPSILON_HIGH = 0.1, 0.25
SETTINGS = {
    "grpo": {"advantage": "group_normalized", "weights": "sequence_mean"},
    "dr_grpo": {"advantage": "group_centred", "weights": "fixed_length"},
    "dapo": {"advantage": "group_normalized", "weights": "token_mean"},
}


class Padded:
    """A batch as one block [B, L] of right-padded rows; `mask` marks completion tokens."""

    def __init__(self, groups):
        rows = [(g.prompt_ids, r.completion.token_ids) for g in groups for r in g.rollouts]
        longest = max(len(prompt) + len(completion) for prompt, completion in rows)
        self.ids = torch.zeros(len(rows), longest, dtype=torch.long)
        self.attention = torch.zeros_like(self.ids)
        self.mask = torch.zeros(len(rows), longest, dtype=torch.float64)
        self.sampled = torch.zeros_like(self.mask)
        for i, (prompt, completion) in enumerate(rows):
            end = len(prompt) + len(completion)
            self.ids[i, :end] = torch.tensor(prompt + completion)
            self.attention[i, :end] = 1
            self.mask[i, len(prompt) : end] = 1
        for i, rollout in enumerate(r for g in groups for r in g.rollouts):
            self.sampled[i, self.mask[i].bool()] = torch.tensor(rollout.completion.logprobs, dtype=torch.float64)
        self.group = [index for index, g in enumerate(groups) for _ in g.rollouts]
        self.rewards = [reward for g in groups for reward in g.rewards_G]

    def logprobs(self, model, temperature):
        """[B, L], at the place of the token that is predicted; 0 in column 0."""
        logits = model(input_ids=self.ids, attention_mask=self.attention, use_cache=False).logits / temperature
        chosen = torch.log_softmax(logits[:, :-1], -1).gather(-1, self.ids[:, 1:, None])[..., 0]
        return torch.cat([torch.zeros_like(chosen[:, :1]), chosen], 1)

    def advantages(self, normalised):
        """[B]; a row without a reward takes no part in its group's mean and std, and has advantage 0."""
        values = torch.tensor([float("nan") if r is None else r for r in self.rewards], dtype=torch.float64)
        advantages = torch.zeros_like(values)
        for index in set(self.group):
            rows = torch.tensor([g == index for g in self.group]) & ~values.isnan()
            centred = values[rows] - values[rows].mean()
            advantages[rows] = centred / (values[rows].std() + 1e-4) if normalised else centred
        return advantages

    def loss(self, model, loss_type, *, old, reference, beta, temperature):
        new, m = self.logprobs(model, temperature), self.mask
        old = new.detach() if old is None else old
        advantage = self.advantages(loss_type != "dr_grpo")[:, None]
        ratio = torch.exp(new - old)
        clipped = torch.clamp(ratio, 1 - EPSILON_LOW, 1 + EPSILON_HIGH)
        loss = -torch.min(ratio * advantage, clipped * advantage)
        if beta:
            x = reference - new
            loss = loss + beta * (torch.exp(x) - x - 1)
        loss = loss.masked_fill(m == 0, 0.0)
        if loss_type == "grpo":
            return (loss.sum(1) / m.sum(1).clamp(min=1)).mean()
        if loss_type == "dr_grpo":
            return loss.sum() / (len(m) * MAX_NEW_TOKENS)
        return loss.sum() / m.sum().clamp(min=1)


def plain_model(weights):
    model = tiny_model("gpt2", dtype=torch.float64).eval()
    model.load_state_dict(weights, strict=False)
    return model


def padded_gradient(weights, *args, **settings):
    """Loss and gradients by name, at these weights."""
    batch, *args = args
    model = plain_model(weights)
    loss = batch.loss(model, *args, **settings)
    loss.backward()
    return float(loss.detach()), {name: parameter.grad for name, parameter in model.named_parameters()}


def compare(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=0, atol=1e-8), name


def step_away(weights):
    generator = torch.Generator().manual_seed(8)
    return {n: w + 0.2 * torch.randn(w.shape, generator=generator, dtype=w.dtype) for n, w in weights.items()}


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("beta", [0.0, 0.4])
@pytest.mark.parametrize("loss_type", SETTINGS)
def test_an_update_on_policy(loss_type, beta, temperature):
    algorithm = algorithm_of(**SETTINGS[loss_type], beta=beta, clip_low=EPSILON_LOW, clip_high=EPSILON_HIGH)
    groups = ragged_groups(algorithm, ungraded=False)
    policy = policy_of()
    start = {name: parameter.detach().clone() for name, parameter in policy.trainable().items()}
    learner = learner_of(policy, algorithm, temperature=temperature, token_budget=60)
    for name, value in step_away(start).items():
        policy.trainable()[name].data.copy_(value)
    watched = Watched(learner)
    report = update(learner, groups)

    batch = Padded(groups)
    with torch.no_grad():
        reference = batch.logprobs(plain_model(start), temperature)
    settings = {"old": None, "reference": reference, "beta": beta, "temperature": temperature}
    loss, gradients = padded_gradient(watched.weights[0], batch, loss_type, **settings)
    assert report["loss"] == pytest.approx(loss, abs=1e-8)
    compare(watched.gradients[0], gradients)
    if beta:
        assert report["kl"] > 0.05


@pytest.mark.parametrize("exact", [True, False], ids=["the sampler's logprobs", "recomputed logprobs"])
@pytest.mark.parametrize("loss_type", SETTINGS)
def test_the_second_pass_and_its_clipping(loss_type, exact):
    algorithm = algorithm_of(**SETTINGS[loss_type], beta=0.1, clip_low=EPSILON_LOW, clip_high=EPSILON_HIGH)
    policy = policy_of()
    groups = ragged_groups(algorithm, ungraded=False)
    groups = sampled_by(policy, groups, off_by=0.12)
    start = {name: parameter.detach().clone() for name, parameter in policy.trainable().items()}
    learner = learner_of(policy, algorithm, passes=2, token_budget=30)
    watched = Watched(learner)
    report = update(learner, groups, exact=exact)

    batch = Padded(groups)
    with torch.no_grad():
        first = batch.logprobs(plain_model(start), 1.0)
    settings = {"old": batch.sampled if exact else first, "reference": first, "beta": 0.1, "temperature": 1.0}
    losses = []
    for weights, ours in zip(watched.weights, watched.gradients, strict=True):
        loss, gradients = padded_gradient(weights, batch, loss_type, **settings)
        compare(ours, gradients)
        losses.append(loss)
    assert len(losses) == 2
    assert report["loss"] == pytest.approx(sum(losses) / 2, abs=1e-8)
    assert report["clip_low"] > 0
    assert report["clip_high"] > 0


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo"])
def test_rows_without_a_reward_count_among_the_rows_and_train_nothing(loss_type):
    algorithm = algorithm_of(**SETTINGS[loss_type], clip_low=EPSILON_LOW, clip_high=EPSILON_HIGH)
    groups = ragged_groups(algorithm)
    assert any(reward is None for group in groups for reward in group.rewards_G)
    policy = policy_of()
    watched = Watched(learner := learner_of(policy, algorithm))
    update(learner, groups)
    settings = {"old": None, "reference": None, "beta": 0.0, "temperature": 1.0}
    _, gradients = padded_gradient(watched.weights[0], Padded(groups), loss_type, **settings)
    compare(watched.gradients[0], gradients)


@pytest.mark.parametrize("preset", ["grpo", "dr_grpo", "dapo"])
def test_a_step_raises_what_was_good_and_lowers_what_was_bad(preset):
    algorithm = algorithm_of(preset)
    policy = policy_of()
    good, bad = (30, 31, 32), (40, 41)
    group = graded_group([5, 6], (good, 1.0), (bad, 0.0))
    (advantages,) = algorithm.advantages([group])
    assert advantages[0] > 0 > advantages[1]
    rollouts = tuple(replace(r, advantage=a) for r, a in zip(group.rollouts, advantages, strict=True))

    def logprobs():
        with torch.no_grad():
            values = policy.logprobs([Tree((5, 6), (good, bad))])[0]
        return float(values[:3].sum()), float(values[3:].sum())

    before = logprobs()
    update(learner_of(policy, algorithm, optimizer={"lr": 1e-3}), [replace(group, rollouts=rollouts)])
    after = logprobs()
    assert after[0] > before[0] + 1e-3
    assert after[1] < before[1] - 1e-3
