"""TRL's batches in our units: by hand, and counted while TRL itself trains."""

import pytest

from groupwise.compat.batches import Batches, batches_of
from groupwise.compat.config import GRPOConfig
from groupwise.errors import RecipeError

EXAMPLES = {
    # TRL's numbers: (prompts of a step, passes, updates)
    "one group": ({"per_device_train_batch_size": 8}, (1, 1, 1)),
    "seed 000": (
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_generations": 4},
        (2, 1, 1),
    ),
    "accumulation": ({"gradient_accumulation_steps": 4}, (4, 1, 1)),
    "four updates": ({"steps_per_generation": 4}, (4, 1, 4)),
    "the same, said otherwise": ({"generation_batch_size": 32}, (4, 1, 4)),
    "mu": ({"steps_per_generation": 4, "num_iterations": 3}, (4, 3, 4)),
    "mu alone": ({"num_iterations": 2}, (1, 2, 1)),
    "two updates of two slices": (
        {"steps_per_generation": 4, "gradient_accumulation_steps": 2},
        (4, 1, 2),
    ),
    "several generations in an update": (
        {"steps_per_generation": 1, "gradient_accumulation_steps": 4},
        (4, 1, 1),
    ),
    "a pass in each update": (
        {"steps_per_generation": 1, "gradient_accumulation_steps": 2, "num_iterations": 4},
        (1, 2, 1),
    ),
    "all passes in one update": (
        {"steps_per_generation": 1, "gradient_accumulation_steps": 4, "num_iterations": 2},
        (2, 1, 1),
    ),
}


def plan(**settings):
    return batches_of(GRPOConfig(**settings))


@pytest.mark.parametrize("name", EXAMPLES)
def test_by_hand(name):
    settings, expected = EXAMPLES[name]
    batches = plan(**settings)
    assert (batches.prompts, batches.passes, batches.updates) == expected


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_generations": 1}, "nothing to be compared with"),
        ({"per_device_train_batch_size": 6}, "must be a multiple"),
        ({"generation_batch_size": 12}, "no multiple of per_device_train_batch_size"),
        ({"generation_batch_size": 16, "steps_per_generation": 2}, "say the same"),
        ({"per_device_train_batch_size": 4, "steps_per_generation": 2}, "not torn apart"),
        ({"steps_per_generation": 3, "gradient_accumulation_steps": 2}, "in the middle"),
    ],
)
def test_what_does_not_go_into_groups_is_refused(settings, words):
    with pytest.raises(RecipeError, match=words):
        plan(**settings)


def test_steps_of_epochs_leave_the_last_incomplete_generation_out():
    args = GRPOConfig(steps_per_generation=4, num_train_epochs=3)
    assert batches_of(args).steps(args, 22) == 15  # 5 generations of 4 prompts, three times


def test_steps_count_whole_batches():
    args = GRPOConfig(steps_per_generation=4, num_iterations=3, max_steps=30)  # 12 optimizer steps a generation
    assert batches_of(args).steps(args, None) == 3
    assert batches_of(args) == Batches(4, 3, 4, 4, 1)


def test_too_few_rows_for_one_generation():
    args = GRPOConfig(steps_per_generation=4)
    with pytest.raises(RecipeError, match="3 rows are fewer than the 4 prompts"):
        batches_of(args).steps(args, 3)


COUNTED = {
    "accumulation": {"gradient_accumulation_steps": 2},
    "updates and passes": {"steps_per_generation": 2, "num_iterations": 2},
    "several generations in an update": {"steps_per_generation": 1, "gradient_accumulation_steps": 2},
    "epochs": {"max_steps": -1, "num_train_epochs": 2},
}


@pytest.mark.parametrize("name", COUNTED)
def test_counted_while_trl_trains(name, tmp_path):
    """Both train on the same rows: as many optimizer steps, as many prompts and completions graded."""
    from datasets import Dataset
    from trl import GRPOConfig as TheirConfig
    from trl import GRPOTrainer as TheirTrainer

    from groupwise.compat.trl import GRPOConfig, GRPOTrainer
    from toys import char_tokenizer, tiny_model

    settings = {
        "per_device_train_batch_size": 4,
        "num_generations": 2,
        "max_completion_length": 3,
        "max_steps": 4,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "gradient_checkpointing": False,
        **COUNTED[name],
    }
    rows = Dataset.from_list([{"prompt": f"{letter}="} for letter in "abcdefghijkl"])
    counted = []
    for side, (config, trainer) in enumerate([(TheirConfig, TheirTrainer), (GRPOConfig, GRPOTrainer)]):
        graded = []

        def length(completions, graded=graded, **kwargs):
            graded.append(len(completions))
            return [float(len(text)) for text in completions]

        args = config(output_dir=str(tmp_path / str(side)), **settings)
        trained = trainer(tiny_model(), [length], args, rows, processing_class=char_tokenizer())
        result = trained.train()
        counted.append((result.global_step, trained.state.max_steps, sum(graded)))
        assert len({*graded}) == 1
    assert counted[0] == counted[1]
