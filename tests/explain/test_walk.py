"""A walked step: every number that it tells, worked out by hand from samples, rewards and the plain model's logits."""

import asyncio
import copy
import math

import pytest
import torch

from groupwise.errors import LearnerError
from groupwise.explain.chapters import chapters, followed
from groupwise.explain.example import prepare
from groupwise.explain.walk import walk_of
from groupwise.explain.words import words
from groupwise.models.small import character_tokenizer


def walked(folder, *overrides, draw=None):
    """The walk, and the plain model before and after it."""

    async def both():
        parts = await prepare(folder, overrides, seed=0)
        before = copy.deepcopy(parts.policy.model)
        return await walk_of(parts, draw), before, parts.policy.model, parts.train.prompt_ids[0]

    return asyncio.run(both())


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return walked(tmp_path_factory.mktemp("walk"))


def logprobs_of(model, prompt_ids, token_ids):
    """By the model of transformers alone."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt_ids, *token_ids]])).logits[0].double()
    log_softmax = torch.log_softmax(logits[len(prompt_ids) - 1 : -1], -1)
    return [float(log_softmax[place, token]) for place, token in enumerate(token_ids)]


def test_four_right_of_eight_are_worth_094_each(told):
    walk = told[0]
    rewards = [answer.reward for answer in walk.answers]
    assert sorted(rewards) == [0.0] * 4 + [1.0] * 4
    assert all((answer.reward == 1.0) == (float(answer.text) == 5.0) for answer in walk.answers)
    assert walk.mean == 0.5
    assert walk.std == pytest.approx(math.sqrt(8 * 0.25 / 7))
    worth = 0.5 / (math.sqrt(2 / 7) + 1e-4)
    assert f"{worth:.2f}" == "0.94"
    assert [answer.advantage for answer in walk.answers] == pytest.approx([worth if r else -worth for r in rewards])


def test_the_ratio_is_new_probability_over_old_of_the_same_token(told):
    walk, before, after, prompt_ids = told
    assert len({answer.text for answer in walk.answers}) >= 2
    for answer in walk.answers:
        ids = character_tokenizer().convert_tokens_to_ids(list(answer.tokens))
        old, new = logprobs_of(before, prompt_ids, ids), logprobs_of(after, prompt_ids, ids)
        assert list(answer.before) == pytest.approx(old, abs=1e-5)
        assert list(answer.after) == pytest.approx(new, abs=1e-5)
        by_hand = [math.exp(n) / math.exp(o) for n, o in zip(new, old, strict=True)]
        assert list(answer.ratios_after) == pytest.approx(by_hand, abs=1e-4)
    assert max(abs(ratio - 1) for answer in walk.answers for ratio in answer.ratios_after) > 0.1


def test_the_first_update_has_ratio_one_loss_nought_and_a_gradient(told):
    first = told[0].updates[0]
    assert [look.ratio for look in first.tokens.values()] == pytest.approx([1.0] * len(first.tokens), abs=1e-5)
    assert first.loss == pytest.approx(0.0, abs=1e-6)
    assert first.gradient_norm > 0.1


def test_every_token_of_every_update_by_hand(told):
    walk = told[0]
    clipped = 0
    for update in walk.updates:
        loss = 0.0
        for answer in walk.answers:
            for token in range(len(answer.tokens)):
                look = update.tokens[answer.first_place + token]
                ratio, worth = math.exp(look.logprob - look.old_logprob), answer.advantage
                assert look.ratio == pytest.approx(ratio, rel=1e-5)
                kept = min(max(ratio, 0.8), 1.2)
                assert look.surrogate == pytest.approx(-min(ratio * worth, kept * worth), rel=1e-5)
                stopped = (worth > 0 and ratio > 1.2) or (worth < 0 and ratio < 0.8)
                clipped += stopped
                assert look.slope == pytest.approx(0.0 if stopped else -ratio * worth, rel=1e-5)
                away = look.old_logprob - look.logprob  # the reference is the policy that sampled
                assert look.kl == pytest.approx(math.exp(away) - away - 1, abs=1e-5)
                assert look.weight == pytest.approx(1 / (8 * len(answer.tokens)))
                loss += look.weight * (look.surrogate + 0.04 * look.kl)
        assert update.loss == pytest.approx(loss, abs=1e-6)
    assert len(walk.updates) == 4
    assert clipped >= 1, "the example is meant to show a clipped token"


def test_right_answers_become_likelier_and_wrong_ones_rarer(told):
    for answer in told[0].answers:
        assert (answer.probability_after > answer.probability_before) == (answer.advantage > 0)
        assert answer.probability_before == pytest.approx(math.exp(sum(answer.before)), rel=1e-5)


def test_what_moved_is_the_difference_of_the_weights(told):
    walk, before, after, _ = told
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    for moved in walk.moved:
        assert moved.change == pytest.approx(float((new[moved.name] - old[moved.name]).detach().norm()), rel=1e-5)
    assert max(moved.change for moved in walk.moved) > 0


def test_the_chapters_name_the_functions_that_were_at_work(told, tmp_path):
    walk, *_ = told
    story = chapters(walk, words("en"))
    assert story[2].code == ("groupwise.maths.advantages.group_normalized",)
    assert story[2].formulas[1] == "(1 - 0.5) / (0.5345 + 0.0001) = +0.9352"
    answer, token = followed(walk)
    assert answer.advantage > 0 and answer.tokens[token] == "5"
    other, *_ = walked(tmp_path, "algorithm.preset=dr_grpo", "algorithm.beta=0", "learner.passes=1")
    story = chapters(other, words("en"))
    assert story[2].code == ("groupwise.maths.advantages.group_centred",)
    assert {answer.advantage for answer in other.answers} == {0.5, -0.5}
    assert story[5].paragraphs == (words("en")["kl_off"],)
    assert len(other.updates) == 1


def test_a_group_that_says_nothing_is_told_as_such(tmp_path):
    with pytest.raises(LearnerError, match="none had half of its answers above the mean"):
        walked(tmp_path, "sampling.top_k=1", "sft.steps=20")
    (tmp_path / "again").mkdir()
    walk, *_ = walked(tmp_path / "again", "sampling.top_k=1", "sft.steps=20", draw=1)
    story = chapters(walk, words("en"))
    assert words("en")["no_signal"] in story[2].paragraphs
    assert {answer.advantage for answer in walk.answers} == {0.0}
