"""What a user reads after a slip: whole messages, word for word."""
# ruff: noqa: E501 - messages stand here as they are read, each on one line

import math

import pytest

from groupwise.config import PRESETS, load_recipe
from groupwise.config.schema import find, task_kinds
from groupwise.config.suggest import ELSEWHERE
from groupwise.errors import RecipeError

KINDS = ", ".join(f'"{kind}"' for kind in sorted(task_kinds()))
ALL_PRESETS = ", ".join(f'"{name}"' for name in PRESETS)


def test_unknown_setting_names_file_line_neighbour_and_default(desk):
    text = 'model.id = "me/tiny"\ntask.kind = "gsm8k"\n\n[train]\n# how long\nsteps = 5\ngroupsize = 4\n'
    assert desk.complaints(text) == [
        "recipe.toml:7  train.groupsize: unknown setting. Did you mean train.group_size? (default 8)"
    ]


def test_all_mistakes_come_together_in_the_order_of_the_file(desk):
    text = """
[train]
steps = "8"
group_size = 1

[model]
dtype = "bf15"

[task]
kind = "gsm8k"
"""
    assert desk.complaints(text, "optimizer.lr=fast") == [
        'recipe.toml:3  train.steps: got "8", needs a whole number, at least 1 (default 200). '
        "Take the quotes off: steps = 8",
        "recipe.toml:4  train.group_size: got 1, needs a whole number, at least 2, at most 100000 (default 8). "
        "G, completions per problem. A group of one has no mean to be compared with.",
        'recipe.toml:6  model.id: missing. Write under [model]: id = "...". A folder, or the id of a model on the hub.',
        'recipe.toml:7  model.dtype: got "bf15", needs one of "auto", "fp32", "bf16", "fp16" (default "auto"). '
        'Did you mean "bf16"?',
        'command line  optimizer.lr: got "fast", needs a number, above 0 (default 1e-06). Learning rate.',
    ]


def test_empty_recipe_says_what_to_add(desk):
    assert desk.complaints("") == [
        'recipe.toml  model.id: missing. Write under [model]: id = "...". A folder, or the id of a model on the hub.',
        f"recipe.toml  task.kind: missing. Write under [task]: kind = one of {KINDS}. Where the problems come from.",
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("lr = 1e-5", "lr: unknown setting. Did you mean optimizer.lr? (default 1e-06)"),
        (
            "train.temperature = 1.0",
            "train.temperature: unknown setting. Did you mean sampling.temperature? (default 1.0)",
        ),
        ("reward.0.function = 'length'", "reward: unknown setting. Did you mean rewards or loops.reward?"),
        ("num_generations = 8", "num_generations: unknown setting. Here it is called train.group_size"),
        ("train.learning_rate = 1e-6", "train.learning_rate: unknown setting. Here it is called optimizer.lr"),
        ("train.seed = 1", "train.seed: unknown setting. Did you mean seed?"),
        (
            "train.temprature = 1.0",
            "train.temprature: unknown setting. Did you mean sampling.temperature? (default 1.0)",
        ),
        (
            "train.every = 1",
            "train.every: unknown setting. Did you mean reference.every or evaluation.every or checkpoints.every?",
        ),
        ("trian.steps = 5", "trian: unknown setting. Did you mean train?"),
        (
            "sampling.maxNewTokens = 5",
            "sampling.maxNewTokens: unknown setting. Did you mean sampling.max_new_tokens? (default 512)",
        ),
        ("lora.rank = 8", "lora.rank: unknown setting. [lora] has r, alpha, dropout, targets"),
        ("task.digits = 4", 'task.digits: unknown setting for kind = "gsm8k". Only kind = "arithmetic" has it'),
        ("task.shuffle = true", 'task.shuffle: unknown setting for kind = "gsm8k". Only kind = "choice" has it'),
        ("task.pathh = 'x'", 'task.pathh: unknown setting. Did you mean task.path? (default "openai/gsm8k")'),
        (
            "rewards = [{function = 'x', wieght = 2}]",
            "rewards.0.wieght: unknown setting. Did you mean rewards.0.weight? (default 1.0)",
        ),
        (
            'algorithm."a b" = 1',
            'algorithm."a b": unknown setting. [algorithm] has preset, advantage, ratio, surrogate, weights, divergence, '
            "beta, clip_low, clip_high, kl_in, kl_ratio, beta_control, entropy, entropy_control, anchor, correction, "
            "filters, selection, length_penalty, mask_truncated, settings",
        ),
    ],
)
def test_unknown_settings(desk, smallest, line, complaint):
    assert desk.complaints(smallest + line) == [f"recipe.toml:3  {complaint}"]


def test_what_others_call_it_leads_to_a_setting_that_there_is():
    for ours in ELSEWHERE.values():
        assert find(tuple(ours.split(".")), "dataset") is not None, ours


def test_unknown_setting_in_a_recipe_of_no_known_kind_of_task(desk):
    assert desk.complaints('model.id = "x"\ntask.kind = "gsm"\ntask.digits = 4') == [
        f'recipe.toml:2  task.kind: got "gsm", needs one of {KINDS}. Did you mean "gsm8k"?'
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (
            'train.steps = "8"',
            'train.steps: got "8", needs a whole number, at least 1 (default 200). Take the quotes off: steps = 8',
        ),
        ("train.steps = 8.0", "train.steps: got 8.0, needs a whole number, at least 1 (default 200). Write steps = 8"),
        (
            "train.steps = true",
            "train.steps: got true, needs a whole number, at least 1 (default 200). Number of GRPO steps.",
        ),
        (
            'optimizer.lr = "1e-5"',
            'optimizer.lr: got "1e-5", needs a number, above 0 (default 1e-06). Take the quotes off: lr = 1e-05',
        ),
        (
            "optimizer.lr = inf",
            "optimizer.lr: got inf, needs a number, above 0, finite (default 1e-06). Learning rate.",
        ),
        (
            "optimizer.lr = nan",
            "optimizer.lr: got nan, needs a number, above 0, finite (default 1e-06). Learning rate.",
        ),
        (
            'evaluation.before = "yes"',
            'evaluation.before: got "yes", needs true or false (default true). Write before = true',
        ),
        ("evaluation.before = 0", "evaluation.before: got 0, needs true or false (default true). Write before = false"),
        ("model.revision = 1234", 'model.revision: got 1234, needs text. Put it in quotes: revision = "1234"'),
        (
            "model.revision = 2024-01-31",
            'model.revision: got 2024-01-31, needs text. Put it in quotes: revision = "2024-01-31"',
        ),
        (
            'sampling.stop = "END"',
            'sampling.stop: got "END", needs a list, each text, not empty (default []). Put it in brackets: stop = ["END"]',
        ),
        ('sampling.stop = ["END", ""]', 'sampling.stop.1: got "", needs text, not empty'),
        (
            "lora.targets = 5",
            'lora.targets: got 5, needs text, or a list, each text (default "all-linear"). Put it in quotes: targets = "5"',
        ),
        ('lora.targets = ["a", 3]', 'lora.targets.1: got 3, needs text. Put it in quotes: "3"'),
        ("lora = true", "lora: got true, needs a table. Write [lora] and its settings below it"),
        ("lora = false", "lora: got false, needs a table. Leave it out"),
        ('algorithm = "dapo"', 'algorithm: got "dapo", needs a table. Write algorithm.preset = "dapo"'),
        (
            'algorithm.preset = "dapoo"',
            f'algorithm.preset: got "dapoo", needs one of {ALL_PRESETS} (default "grpo"). Did you mean "dapo"?',
        ),
        (
            "algorithm.preset = 3",
            f'algorithm.preset: got 3, needs one of {ALL_PRESETS} (default "grpo"). '
            "Named set of entries (`groupwise.config.PRESETS`) for the settings below that you leave out.",
        ),
        (
            "optimizer.betas = [0.9]",
            "optimizer.betas: got [0.9], needs a list of 2, each a number, at least 0, below 1 (default [0.9, 0.999]). Decay of the two moments.",
        ),
        ("optimizer.betas = [0.9, 1.0]", "optimizer.betas.1: got 1.0, needs a number, at least 0, below 1"),
        (
            "optimizer.betas = [0.9, 0.99, 0.999]",
            "optimizer.betas: got [0.9, 0.99, 0.999], needs a list of 2, each a number, at least 0, below 1 "
            "(default [0.9, 0.999]). Decay of the two moments.",
        ),
        (
            'rewards.function = "x"',
            'rewards: got {function = "x"}, needs a list, each a table (default []). '
            "Write [[rewards]] with two brackets, and its settings below it",
        ),
        (
            'rewards = ["correctness"]',
            'rewards.0: got "correctness", needs a table. Write {function = "correctness"} in its place',
        ),
        (
            "rewards = [{weight = 2}]",
            'rewards.0.function: missing. Write under [[rewards]]: function = "...". '
            "A built-in name, `file.py:name` (beside the recipe), or `package.module:name`.",
        ),
        (
            'run.name = "a/b"',
            'run.name: got "a/b", needs 1 to 100 letters, digits, dots, dashes and underscores, a letter or digit first (default "run"). Name of the run\'s folder.',
        ),
        (
            'run.trackers = ["wandbb"]',
            'run.trackers.0: got "wandbb", needs one of "tensorboard", "wandb", "trackio". Did you mean "wandb"?',
        ),
        (
            "seed = -1",
            "seed: got -1, needs a whole number, at least 0, below 4294967296 (default 0). Everything random follows from it.",
        ),
    ],
)
def test_wrong_values(desk, smallest, line, complaint):
    assert desk.complaints(smallest + line) == [f"recipe.toml:3  {complaint}"]


def test_model_and_task_given_as_a_text(desk):
    assert desk.complaints('model = "me/tiny"\ntask = "gsm8k"\n') == [
        'recipe.toml:1  model: got "me/tiny", needs a table. Write model.id = "me/tiny"',
        'recipe.toml:2  task: got "gsm8k", needs a table. Write task.kind = "gsm8k"',
    ]


def test_sections_that_do_not_agree_are_reported_one_by_one(desk, smallest):
    text = smallest + "evaluation.pass_at = [1, 16]\nmodel.trust_remote_code = true\nreference.every = 5\n"
    assert desk.complaints(text, "learner.updates_per_batch=9") == [
        "recipe.toml:3  evaluation.pass_at: pass@16 cannot be told from 8 samples. Raise evaluation.samples",
        "recipe.toml:4  model.trust_remote_code: needs model.revision. Pin the commit whose code you have read",
        "recipe.toml:5  reference.every: moves a reference that nothing uses while algorithm.beta is 0. "
        "Set beta or drop it",
        "command line  learner.updates_per_batch: 9 is more than the 8 groups of a step (train.prompts_per_step). "
        "Lower it",
    ]


def test_long_values_are_cut(desk, smallest):
    (complaint,) = desk.complaints(smallest + f'model.dtype = "{"x" * 1000}"')
    assert f'got "{"x" * 76}..., needs one of' in complaint


def test_a_recipe_made_in_code_is_checked_alike():
    with pytest.raises(RecipeError) as caught:
        load_recipe({"model": {"id": "x"}, "task": {"kind": "gsm8k"}, "train": {"stepz": 3, 5: 1}}, ["seed=x"])
    assert str(caught.value).split("\n") == [
        "in code  train.stepz: unknown setting. Did you mean train.steps? (default 200)",
        "in code  train.5: the name of a setting must be text, got 5",
        'command line  seed: got "x", needs a whole number, at least 0, below 4294967296 (default 0). '
        "Everything random follows from it.",
    ]


def test_reward_settings_that_no_file_could_hold_are_refused():
    def judge(text: str) -> float:
        return float(len(text))

    settings = {"fine": [1, {"a": math.inf}], "judge": judge, "nothing": None, "half": "\udc80"}
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            {"model": {"id": "x"}, "task": {"kind": "gsm8k"}, "rewards": [{"function": "f", "settings": settings}]}
        )
    first, second, third = str(caught.value).split("\n")
    assert first.startswith("in code  rewards.0.settings.judge: got <function ")
    assert second == (
        "in code  rewards.0.settings.nothing: got None, which the recipe of a run cannot record (TOML has no "
        "NoneType). Use texts, numbers, true, false, dates, lists and tables; anything else belongs into the reward "
        "function"
    )
    assert third.startswith("in code  rewards.0.settings.half: got '\\udc80', which the recipe of a run cannot record")
