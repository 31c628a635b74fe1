"""AdamW, its schedule, and what 16 bits must not lose."""

import importlib.util
import math

import pytest
import torch
from torch import nn
from toy_learner import advantaged, algorithm_of, learner_of, policy_of, ragged_groups, update, weights_of

from groupwise.config.sections import OptimizerSection
from groupwise.errors import LearnerError, RecipeError
from groupwise.learner.optimizer import PolicyOptimizer, schedule
from toys import graded_group, tiny_model


def section(**settings):
    return OptimizerSection(**{"lr": 1e-2, **settings})


def parameter(values, dtype=torch.float32):
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def pull(weight, gradient):
    """A loss whose gradient with respect to `weight` is `gradient`."""
    return (weight.float() * torch.as_tensor(gradient)).sum()


# --- the schedule ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "warmup", "factors"),
    [
        ("constant", 0.0, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("constant", 0.4, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", 0.0, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        ("linear", 0.2, [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        # (1 + cos(pi k / 4)) / 2 for k = 0..3 behind a warm-up of six
        ("cosine", 0.6, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 0.5 + 2**0.5 / 4, 0.5, 0.5 - 2**0.5 / 4]),
    ],
)
def test_the_schedule_by_hand(kind, warmup, factors):
    settings = section(schedule=kind, warmup=warmup)
    assert [schedule(settings, update, 10) for update in range(10)] == pytest.approx(factors)


def test_the_schedule_ends_at_nothing_and_stays_there():
    for kind in ("linear", "cosine"):
        assert schedule(section(schedule=kind), 10, 10) == pytest.approx(0.0)
        assert schedule(section(schedule=kind), 25, 10) == pytest.approx(0.0)
        assert schedule(section(schedule=kind), 0, 1) == 1.0
    assert schedule(section(schedule="linear", warmup=0.999), 9, 10) == 1.0


def test_the_learner_counts_every_update_of_the_whole_run():
    # 50 steps of 2 passes of 2 updates: 200 updates, 20 of them warm-up. The report names the last of each step.
    algorithm = algorithm_of()
    learner = learner_of(
        policy_of(),
        algorithm,
        passes=2,
        updates_per_batch=2,
        optimizer={"lr": 1.0e-3, "schedule": "linear", "warmup": 0.1},
    )
    rates = [update(learner, ragged_groups(algorithm))["learning_rate"] for _ in range(6)]
    assert rates == pytest.approx([x * 1e-3 for x in (4 / 20, 8 / 20, 12 / 20, 16 / 20, 1.0, 1 - 3 / 180)])


# --- AdamW ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_grad_norm", [0.5, math.inf])
def test_it_is_torchs_adamw_with_clipping_and_schedule(max_grad_norm):
    generator = torch.Generator().manual_seed(0)
    start = {"w": torch.randn(3, 4, generator=generator), "b": torch.randn(4, generator=generator)}
    ours = {name: nn.Parameter(value.clone()) for name, value in start.items()}
    theirs = {name: nn.Parameter(value.clone()) for name, value in start.items()}
    settings = section(betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, max_grad_norm=max_grad_norm, schedule="linear")
    optimizer = PolicyOptimizer(ours, settings, 8)
    groups = [{"params": [theirs["w"]], "weight_decay": 0.1}, {"params": [theirs["b"]], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=1e-2, betas=(0.8, 0.95), eps=1e-6, foreach=False, fused=False)
    for step in range(8):
        gradients = {name: (step + 1) * torch.randn(v.shape, generator=generator) for name, v in start.items()}
        for weights in (ours, theirs):
            # Two micro-batches, each half of the gradient.
            for _ in range(2):
                loss = sum(pull(weights[name], gradients[name] / 2) for name in weights)
                optimizer.backward(loss) if weights is ours else loss.backward()
        norm = optimizer.step()
        expected = torch.nn.utils.clip_grad_norm_(list(theirs.values()), max_grad_norm)
        for group in adamw.param_groups:
            group["lr"] = 1e-2 * (1 - step / 8)
        adamw.step()
        adamw.zero_grad()
        assert norm == pytest.approx(float(expected), rel=1e-6)
        for name in ours:
            assert torch.allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-7), (step, name)


def test_gradients_are_clipped_to_the_norm():
    # The second moment remembers the size: after 3 then 3000, clipped to 1 each, the steps are those of 1 then 1.
    moved = []
    for gradients in ([3.0, 3000.0], [1.0, 1.0]):
        weight = parameter([[0.0]])
        optimizer = PolicyOptimizer({"w": weight}, section(max_grad_norm=1.0), 10)
        norms = []
        for gradient in gradients:
            optimizer.backward(pull(weight, gradient))
            norms.append(optimizer.step())
        moved.append(float(weight))
        assert norms == gradients
    assert moved[0] == pytest.approx(moved[1], rel=1e-5)


def test_weight_decay_is_for_matrices():
    weights = {"matrix": parameter([[2.0, -4.0]]), "bias": parameter([2.0]), "scale": parameter(3.0)}
    optimizer = PolicyOptimizer(weights, section(weight_decay=0.5, lr=0.1), 10)
    optimizer.backward(sum(pull(w, 0.0) for w in weights.values()))
    optimizer.step()
    assert weights["matrix"].tolist() == [pytest.approx([1.9, -3.8])]  # times 1 - 0.1 * 0.5
    assert weights["bias"].tolist() == [2.0]
    assert weights["scale"].tolist() == 3.0


@pytest.mark.parametrize("shape", [(3,), (2, 2)], ids=["only vectors", "only matrices"])
def test_one_kind_of_parameter_is_enough(shape):
    weight = nn.Parameter(torch.zeros(shape))
    optimizer = PolicyOptimizer({"w": weight}, section(), 10)
    optimizer.backward(pull(weight, 1.0))
    optimizer.step()
    assert torch.allclose(weight, torch.full(shape, -1e-2))


def test_a_parameter_without_a_gradient_stays():
    used, unused = parameter([[1.0]]), parameter([[1.0]])
    optimizer = PolicyOptimizer({"used": used, "unused": unused}, section(weight_decay=0.5), 10)
    optimizer.backward(pull(used, 1.0))
    assert optimizer.step() == 1.0
    assert float(unused) == 1.0
    assert float(used) < 1.0


def test_nothing_to_train_is_said():
    with pytest.raises(LearnerError, match="no trainable parameter"):
        PolicyOptimizer({}, section(), 10)


def test_8_bit_adamw_says_what_it_needs():
    missing = importlib.util.find_spec("bitsandbytes") is None
    cure = r'pip install "groupwise\[adamw_8bit\]", or use "adamw"' if missing else r'for cpu\. Use "adamw"'
    with pytest.raises(RecipeError, match=rf'optimizer\.kind = "adamw_8bit".*{cure}'):
        PolicyOptimizer({"w": parameter([[1.0]])}, section(kind="adamw_8bit"), 10)


# --- 16 bits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_updates_add_up_in_the_master_copy(dtype):
    weight, alone = parameter([[1.0]], dtype), parameter([[1.0]], dtype)
    optimizer = PolicyOptimizer({"w": weight}, section(lr=1e-4, weight_decay=0.0), 1000)
    without_master = torch.optim.AdamW([alone], lr=1e-4, weight_decay=0.0)
    for _ in range(1000):
        optimizer.backward(pull(weight, 1.0))
        optimizer.step()
        pull(alone, 1.0).backward()
        without_master.step()
        without_master.zero_grad()
    assert float(alone) == 1.0  # 1 - 1e-4 is 1 in 16 bits, a thousand times
    assert float(weight) == pytest.approx(0.9, abs=4e-3)


def test_gradients_are_added_up_in_fp32():
    weight = parameter([[1.0]], torch.bfloat16)
    optimizer = PolicyOptimizer({"w": weight}, section(), 10)
    optimizer.backward(pull(weight, 1.0))
    for _ in range(512):
        optimizer.backward(pull(weight, 2.0**-10))  # 1 + 2^-10 is 1 in bf16
    assert optimizer.step() == 1.5


def test_fp16_overflow_skips_the_update_and_halves_the_scale():
    weight = parameter([[1.0]], torch.float16)
    optimizer = PolicyOptimizer({"w": weight}, section(), 1000, loss_scaling=True)

    def step(gradient):
        optimizer.backward(pull(weight, gradient))
        return optimizer.step()

    # The scale begins at 2^14 and fp16 ends at 65504: 10 * 2^14 and 10 * 2^13 are too much, 10 * 2^12 is not.
    assert [step(10.0), float(weight), step(10.0), float(weight)] == [math.inf, 1.0, math.inf, 1.0]
    assert step(10.0) == 10.0
    assert float(weight) == pytest.approx(0.99, abs=1e-3)
    assert optimizer.updates == 3
    # It grows again after 200 clean updates, so that 10 is too much once more, and then fits again.
    norms = [step(10.0) for _ in range(201)]
    assert norms == [10.0] * 199 + [math.inf, 10.0]


def test_loss_scaling_keeps_what_fp16_cannot_hold():
    tiny = 2.0**-26  # the smallest number of fp16 is 2^-24
    norms = []
    for loss_scaling in (False, True):
        weight = parameter([[1.0]], torch.float16)
        optimizer = PolicyOptimizer({"w": weight}, section(), 10, loss_scaling=loss_scaling)
        optimizer.backward(pull(weight, tiny))
        norms.append(optimizer.step())
    assert norms == [0.0, tiny]


def test_an_overflow_that_no_scale_cures_is_an_error():
    weight = parameter([[1.0]], torch.float16)
    optimizer = PolicyOptimizer({"w": weight}, section(), 1000, loss_scaling=True)
    with pytest.raises(LearnerError, match="update 15"):  # 2^14 is halved fourteen times down to 1
        for _ in range(20):
            optimizer.backward(pull(weight, math.inf))
            optimizer.step()
    assert float(weight) == 1.0


@pytest.mark.parametrize("lora", [None, {"r": 2}], ids=["full", "lora"])
def test_an_fp16_policy_is_scaled_also_under_lora(lora):
    """Adapters are fp32, but gradients reach them through fp16: an overflow there is no error either."""
    policy = policy_of(tiny_model(dtype=torch.float16), lora=lora)
    algorithm = algorithm_of()
    learner = learner_of(policy, algorithm)
    (group,) = advantaged([graded_group([5, 6], ([30, 31], 1.0), ([40], 0.0))], algorithm)
    before = weights_of(policy)
    report = update(learner, [_louder(group, 1e7)])
    assert report["grad_norm"] == math.inf
    assert all(torch.equal(before[name], value) for name, value in weights_of(policy).items())
    assert 0 < update(learner, [group])["grad_norm"] < math.inf
    assert any(not torch.equal(before[name], value) for name, value in weights_of(policy).items())


# --- what is not finite ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_refused(bad, dtype):
    weight = parameter([[1.0, 2.0]], dtype)
    optimizer = PolicyOptimizer({"w": weight}, section(), 10)
    optimizer.backward(pull(weight, 1.0))
    optimizer.backward(pull(weight, [[bad, 0.0]]))
    with pytest.raises(LearnerError, match=r"update 1: the gradient of w is (inf|nan).*not made"):
        optimizer.step()
    assert weight.tolist() == [[1.0, 2.0]]
    # Nothing of it is left over for the next one.
    optimizer.backward(pull(weight, 1.0))
    assert optimizer.step() == pytest.approx(2**0.5)


def test_the_learner_refuses_it_too_and_leaves_the_weights():
    policy = policy_of()
    algorithm = algorithm_of()
    learner = learner_of(policy, algorithm)
    groups = ragged_groups(algorithm)
    before = weights_of(policy)
    with pytest.raises(LearnerError, match="not finite"):
        update(learner, [*groups[:2], _louder(groups[2], math.nan)])
    assert all(torch.equal(before[name], value) for name, value in weights_of(policy).items())
    assert math.isfinite(update(learner, groups)["grad_norm"])


def _louder(group, factor):
    from dataclasses import replace

    return replace(group, rollouts=tuple(replace(r, advantage=factor * (r.advantage or 1)) for r in group.rollouts))


def test_gradients_that_others_left_behind_are_not_learned():
    """As of a program that has trained the model before, or of a reward function that looks at it."""
    weights = []
    for left in (None, 3.0):
        policy = policy_of()
        learner = learner_of(policy)
        for _ in range(2):
            if left is not None:
                for parameter in policy.trainable().values():
                    parameter.grad = torch.full_like(parameter, left)
            update(learner, ragged_groups(algorithm_of()))
        weights.append(weights_of(policy))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
