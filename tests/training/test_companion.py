"""What a program may bring to a run beside a recipe: a companion, an optimizer, an order, a model with adapters."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from toy_runs import ROWS, small_letters

from groupwise.config.sections import ModelSection
from groupwise.errors import LearnerError, ModelError
from groupwise.learner.optimizer import OwnOptimizer
from groupwise.models.load import prepare_adapted, prepare_policy
from groupwise.models.trees import Tree
from groupwise.training.given import recipe_of
from groupwise.training.trainer import Trainer
from toys import char_tokenizer, tiny_model


class Watcher:
    """Notes what it is told, and ends the run after so many steps."""

    def __init__(self, last):
        self.last, self.heard = last, []

    def may_keep(self, keep):
        self.keep = keep

    async def begins(self, state):
        self.heard.append(("begins", state.global_step))

    async def saw(self, groups):
        self.heard.append(("saw", [len(group.rollouts) for group in groups], groups[0].rollouts[0].reward is not None))

    async def goes_on(self, state, metrics):
        self.heard.append(("done", state.global_step, "reward" in metrics))
        return state.global_step < self.last


def run_with(tmp_path, model=None, settings=None, **given):
    usual = {
        "run.folder": str(tmp_path),
        "train.steps": 4,
        "train.prompts_per_step": 2,
        "train.group_size": 4,
        "sampling.max_new_tokens": 8,
        "model.device": "cpu",
        "optimizer.lr": 1e-2,
        "guards.preflight": False,
        **(settings or {}),
    }
    model = model or tiny_model()
    loaded, made = recipe_of(model, ROWS, [small_letters], usual, char_tokenizer())
    fields = {"policy": made.policy, "task": made.task, "rewards": made.rewards, **given}
    return Trainer.from_recipe(loaded, given=type(made)(**fields))


def test_a_companion_is_told_of_every_step_and_may_end_the_run(tmp_path):
    watcher = Watcher(last=2)
    run = run_with(tmp_path, companion=watcher).train()
    step = [("saw", [4, 4], True)]
    assert watcher.heard == [
        ("begins", 1), *step, ("done", 1, True),
        ("begins", 2), *step, ("done", 2, True),
    ]  # fmt: skip
    assert [row["step"] for row in run.metrics.read()] == [1, 2]
    assert run.model_path.is_dir()
    assert run.identity["status"] == "finished"


def test_an_optimizer_and_a_scheduler_of_the_programs_own(tmp_path):
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    run = run_with(tmp_path, model, optimizer=OwnOptimizer(optimizer, scheduler)).train()
    assert [row["learning_rate"] for row in run.metrics.read()] == pytest.approx([0.5, 0.25, 0.5 / 3, 0.125])


def test_an_optimizer_without_a_scheduler_follows_the_recipes_schedule(tmp_path):
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    settings = {"optimizer.schedule": "linear"}
    run = run_with(tmp_path, model, settings, optimizer=OwnOptimizer(optimizer)).train()
    assert [row["learning_rate"] for row in run.metrics.read()] == pytest.approx([0.5, 0.375, 0.25, 0.125])


def test_an_optimizer_of_something_else_is_refused(tmp_path):
    optimizer = torch.optim.SGD(tiny_model().parameters(), lr=0.5)
    with pytest.raises(LearnerError, match="does not step"):
        run_with(tmp_path, optimizer=OwnOptimizer(optimizer)).train()


def test_the_order_of_the_data_on_request(tmp_path):
    seen = []

    def noted(prompts, completions, **kwargs):
        seen.extend(prompts[::4])
        return [float(len(text)) for text in completions]

    usual = {"problems.order": "data", "train.steps": 7, "train.prompts_per_step": 2, "train.group_size": 4}
    usual |= {
        "guards.preflight": False,
        "run.folder": str(tmp_path),
        "sampling.max_new_tokens": 2,
        "model.device": "cpu",
    }
    Trainer(tiny_model(), ROWS, [noted], usual, tokenizer=char_tokenizer()).train()
    assert seen == [*(row["prompt"] for row in ROWS), *(row["prompt"] for row in ROWS[:2])]


def test_a_model_that_carries_adapters_already():
    model = tiny_model()
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, lora_dropout=0.3, target_modules=["q_proj"]))
    policy = prepare_adapted(adapted, char_tokenizer(), ModelSection(id="x", device="cpu"))
    assert policy.attention == "trunk_and_branch"
    assert all("lora_" in name for name in policy.trainable())
    dropouts = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
    assert dropouts == {0.3}  # a choice of whoever made the adapters
    plain = prepare_policy(tiny_model(), char_tokenizer(), ModelSection(id="x", device="cpu"))
    trees = [Tree((5, 6), ((7, 8), (9,)))]
    torch.testing.assert_close(policy.logprobs(trees)[0], plain.logprobs(trees)[0])  # B is zero at first


def test_adapters_in_front_of_the_prompt_are_refused():
    from peft import PromptTuningConfig

    adapted = get_peft_model(tiny_model(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ModelError, match="use LoRA"):
        prepare_adapted(adapted, char_tokenizer(), ModelSection(id="x", device="cpu"))
