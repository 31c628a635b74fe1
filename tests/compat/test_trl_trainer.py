"""`GRPOTrainer` as scripts use it: models, rewards, data sets, callbacks, evaluation, saving."""

import json
import warnings

import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    EarlyStoppingCallback,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    TrainerCallback,
)

from groupwise.compat.trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from groupwise.errors import EngineError, ModelError, RecipeError, RewardError, TaskError
from toys import CHAT_TEMPLATE, LETTERS, char_tokenizer, tiny_model

ROWS = [{"prompt": f"{letter}=", "answer": letter.upper()} for letter in "abcdefghijkl"]
DATA = Dataset.from_list(ROWS)
TRL_METRICS = {
    *("loss", "grad_norm", "learning_rate", "num_tokens", "step_time", "reward", "reward_std", "frac_reward_zero_std"),
    *("completions/mean_length", "completions/min_length", "completions/max_length", "completions/clipped_ratio"),
    "completions/mean_terminated_length",
    "completions/min_terminated_length",
    "completions/max_terminated_length",
    *("rewards/small_letters/mean", "rewards/small_letters/std", "entropy", "policy_loss"),
    *("clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean", "epoch", "step"),
}


def small_letters(completions, **kwargs):
    return [sum(character.islower() for character in text) / 8 for text in completions]


def config(tmp_path, kind=GRPOConfig, **settings):
    usual = {
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 3,
        "logging_steps": 1,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    return kind(**{**usual, **settings})


def made(tmp_path, rewards=small_letters, *, model=None, data=DATA, kind=GRPOTrainer, settings=None, **more):
    args = config(tmp_path, kind.config, **(settings or {}))
    more.setdefault("processing_class", char_tokenizer())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return kind(model or tiny_model(), rewards, args, data, **more)


def test_a_run_and_what_it_leaves(tmp_path):
    trainer = made(tmp_path)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    result = trainer.train()
    assert (result.global_step, trainer.state.global_step, trainer.state.max_steps) == (3, 3, 3)
    *steps, last = trainer.state.log_history
    assert [row["step"] for row in steps] == [1, 2, 3]
    assert set(steps[0]) >= TRL_METRICS
    assert {"train_runtime", "train_loss", "train_steps_per_second"} <= set(last)
    assert steps[-1]["epoch"] == pytest.approx(3 / 12)
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())
    assert [row["step"] for row in trainer.run.metrics.read()] == [1, 2, 3]
    assert trainer.run.path == tmp_path / "out" / "runs" / "run"

    trainer.save_model()
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for name, value in saved.named_parameters():
        torch.testing.assert_close(value, dict(trainer.model.named_parameters())[name])


def test_the_mean_of_the_reward_is_that_of_the_function(tmp_path):
    given = []

    def noted(completions, **kwargs):
        given.append(small_letters(completions))
        return given[-1]

    trainer = made(tmp_path, noted, settings={"max_steps": 4, "logging_steps": 2})
    trainer.train()
    rows = [row for row in trainer.state.log_history if "reward" in row]
    assert [row["step"] for row in rows] == [2, 4]
    for row, (one, two) in zip(rows, [given[:2], given[2:]], strict=True):
        assert row["reward"] == pytest.approx((sum(one) + sum(two)) / 8)
        assert row["reward_std"] == pytest.approx((torch.tensor(one).std() + torch.tensor(two).std()).item() / 2)


def test_several_functions_with_weights(tmp_path):
    async def judged(completions, answer, **kwargs):
        return [1.0 if gold in text else 0.0 for text, gold in zip(completions, answer, strict=True)]

    trainer = made(tmp_path, [small_letters, judged], settings={"reward_weights": [1.0, 0.5]})
    trainer.train()
    row = trainer.state.log_history[0]
    total = row["rewards/small_letters/mean"] + 0.5 * row["rewards/judged/mean"]
    assert row["reward"] == pytest.approx(total)
    with pytest.raises(RecipeError, match="reward_weights has 1 entries for 2"):
        made(tmp_path, [small_letters, judged], settings={"reward_weights": [1.0]})
    with pytest.raises(RewardError, match="reward_funcs is empty"):
        made(tmp_path, [])


def classifier(folder):
    settings = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape = Qwen2Config(
        vocab_size=len(LETTERS) + 4, num_key_value_heads=1, num_labels=1, pad_token_id=0, eos_token_id=1, **settings
    )
    torch.manual_seed(0)
    model = Qwen2ForSequenceClassification(shape)
    model.save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return model


def test_reward_models_by_id_and_as_objects(tmp_path):
    folder = tmp_path / "judge"
    model = classifier(folder)
    seen = []

    def watched(prompts, completions, **kwargs):
        seen.append([p + c for p, c in zip(prompts, completions, strict=True)])
        return [0.0] * len(completions)

    tokenizer = char_tokenizer()
    trainer = made(
        tmp_path,
        [watched, str(folder), model],
        settings={"max_steps": 1},
        reward_processing_classes=[None, tokenizer, tokenizer],  # what is stored loads as a tokenizer of Qwen's
    )
    trainer.train()
    row = trainer.state.log_history[0]
    with torch.no_grad():
        one_by_one = [
            model(torch.tensor([tokenizer.encode(text, add_special_tokens=False)])).logits[0, 0] for text in seen[0]
        ]
    expected = torch.stack(one_by_one).mean().item()
    by_id, by_object = (value for name, value in row.items() if name.endswith("/mean") and "watched" not in name)
    assert by_id == pytest.approx(expected, abs=1e-5)
    assert by_object == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ModelError, match="classifies sequences"):
        made(tmp_path, str(tmp_path / "nothing"))


@pytest.mark.parametrize("kind", ["Dataset", "list", "IterableDataset"])
def test_data_sets(tmp_path, kind):
    data = {"Dataset": DATA, "list": ROWS, "IterableDataset": IterableDataset.from_generator(lambda: iter(ROWS))}[kind]
    seen = []

    def noted(prompts, completions, answer, **kwargs):
        seen.extend(zip(prompts[::4], answer[::4], strict=True))
        return [0.0] * len(completions)

    trainer = made(tmp_path, noted, data=data, settings={"shuffle_dataset": False})
    trainer.train()
    assert seen == [("a=", "A"), ("b=", "B"), ("c=", "C")]


def test_a_stream_needs_max_steps_and_splits_a_choice(tmp_path):
    stream = IterableDataset.from_generator(lambda: iter(ROWS))
    with pytest.raises(RecipeError, match="set max_steps"):
        made(tmp_path, data=stream, settings={"max_steps": -1})
    with pytest.raises(TaskError, match="has the splits train, test"):
        made(tmp_path, data={"train": DATA, "test": DATA})
    with pytest.raises(TaskError, match="train_dataset is needed"):
        made(tmp_path, data=None)


def test_texts_are_continued_and_conversations_go_through_the_template(tmp_path):
    tokenizer = char_tokenizer(CHAT_TEMPLATE)
    trainer = made(tmp_path, processing_class=tokenizer, settings={"max_steps": 1})
    trainer.train()
    assert trainer._parts.train.prompt_ids[0] == tuple(tokenizer.encode("a="))
    talk = [{"prompt": [{"role": "user", "content": row["prompt"]}], "answer": row["answer"]} for row in ROWS]
    seen = []

    def noted(prompts, completions, **kwargs):
        seen.append((prompts[0], completions[0]))
        return [0.0] * len(completions)

    trainer = made(tmp_path, noted, data=talk, processing_class=tokenizer, settings={"max_steps": 1})
    trainer.train()
    rendered = tokenizer.apply_chat_template(talk[0]["prompt"], add_generation_prompt=True)["input_ids"]
    assert trainer._parts.train.prompt_ids[0] == tuple(rendered)
    assert seen[0][0][0]["role"] == "user"
    assert seen[0][1][0]["role"] == "assistant"
    with pytest.raises(TaskError, match="some are conversations"):
        made(tmp_path, data=[*ROWS, *talk], processing_class=tokenizer)


def test_variables_of_the_template(tmp_path):
    template = "{% if enable_thinking is defined and not enable_thinking %}z{% endif %}" + CHAT_TEMPLATE
    tokenizer = char_tokenizer(template)
    talk = [{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in ROWS]
    first = {}
    for thinking in (True, False):
        settings = {"max_steps": 1, "chat_template_kwargs": {"enable_thinking": thinking}}
        trainer = made(tmp_path / str(thinking), nothing, data=talk, processing_class=tokenizer, settings=settings)
        trainer.train()
        first[thinking] = tokenizer.decode(trainer._parts.train.prompt_ids[0])
    assert first[False] == "z" + first[True]
    assert trainer.run.recipe().recipe.task.template_variables == {"enable_thinking": False}


def nothing(completions, **kwargs):
    return [0.0] * len(completions)


class Diary(TrainerCallback):
    def __init__(self, stop_after=None):
        self.heard, self.stop_after = [], stop_after

    def on_train_begin(self, args, state, control, **kwargs):
        assert kwargs["model"] is not None
        self.heard.append("train begins")

    def on_step_begin(self, args, state, control, **kwargs):
        self.heard.append(f"{state.global_step} begins")

    def on_step_end(self, args, state, control, **kwargs):
        self.heard.append(f"{state.global_step} ends")
        control.should_training_stop |= state.global_step == self.stop_after

    def on_log(self, args, state, control, logs, **kwargs):
        self.heard.append("log" if "reward" in logs else "eval log" if "eval_reward" in logs else "summary")

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.heard.append(f"evaluated {sorted(metrics)[0][:5]}")

    def on_save(self, args, state, control, **kwargs):
        self.heard.append("saved")

    def on_train_end(self, args, state, control, **kwargs):
        self.heard.append("train ends")


def test_callbacks_hear_of_everything_in_order(tmp_path):
    diary = Diary()
    settings = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    made(tmp_path, callbacks=[diary], eval_dataset=DATA.select(range(3)), settings=settings).train()
    assert diary.heard == [
        "train begins",
        *("0 begins", "1 ends", "log"),
        *("1 begins", "2 ends", "log", "eval log", "evaluated eval_", "saved"),
        *("summary", "train ends"),
    ]


def test_a_callback_may_stop_the_run(tmp_path):
    trainer = made(tmp_path, callbacks=[Diary(stop_after=2)], settings={"max_steps": 9})
    assert trainer.train().global_step == 2
    assert len(trainer.run.metrics.read()) == 2


def test_a_callback_may_ask_for_logs_evaluations_and_checkpoints(tmp_path):
    class Asks(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_log = control.should_evaluate = control.should_save = state.global_step == 2
            return control

    settings = {"logging_strategy": "no", "save_strategy": "no"}
    trainer = made(tmp_path, callbacks=[Asks], eval_dataset=DATA.select(range(2)), settings=settings)
    trainer.train()
    assert [row["step"] for row in trainer.state.log_history] == [2, 2, 3]
    assert "eval_reward" in trainer.state.log_history[1]
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]


def test_early_stopping_watches_the_best_metric(tmp_path):
    settings = {
        "max_steps": 9,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "metric_for_best_model": "reward",
        "greater_is_better": True,
        "learning_rate": 1e-12,
    }
    stopper = EarlyStoppingCallback(early_stopping_patience=2)
    trainer = made(
        tmp_path, lambda completions, **kwargs: [0.5] * len(completions), settings=settings,
        callbacks=[stopper], eval_dataset=DATA.select(range(2)),
    )  # fmt: skip
    assert trainer.train().global_step == 3
    assert (trainer.state.best_metric, trainer.state.best_global_step) == (0.5, 1)


def test_evaluation_samples_and_grades(tmp_path):
    asked = []

    def noted(prompts, completions, **kwargs):
        asked.append(prompts)
        return [1.0 if prompt == "a=" else 0.0 for prompt in prompts]

    data = DATA.select(range(4))
    trainer = made(tmp_path, noted, eval_dataset=data, settings={"num_generations_eval": 2})
    metrics = trainer.evaluate()
    assert asked == [[prompt for row in ROWS[:4] for prompt in [row["prompt"]] * 2]]
    assert metrics["eval_reward"] == pytest.approx(0.25)
    assert metrics["eval_rewards/noted/mean"] == pytest.approx(0.25)
    assert metrics["eval_frac_reward_zero_std"] == 1.0
    assert trainer.state.log_history[-1]["eval_reward"] == pytest.approx(0.25)
    assert trainer.evaluate(data.select([0]), metric_key_prefix="test")["test_reward"] == 1.0
    both = trainer.evaluate({"first": data.select([0]), "second": data.select([1])})
    assert (both["eval_first_reward"], both["eval_second_reward"]) == (1.0, 0.0)
    with pytest.raises(TaskError, match="give eval_dataset"):
        made(tmp_path).evaluate()


def test_checkpoints_are_written_and_old_ones_go(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2}
    made(tmp_path, settings=settings).train()
    found = sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*"))
    assert found == ["checkpoint-2", "checkpoint-3"]
    AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "checkpoint-3")
    state = json.loads((tmp_path / "out" / "checkpoint-2" / "trainer_state.json").read_text())
    assert (state["global_step"], state["max_steps"]) == (2, 3)


LORA = LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=4, target_modules="all-linear", lora_dropout=0.1)


@pytest.mark.parametrize("how", ["peft_config", "a model with adapters"])
def test_adapters(tmp_path, how):
    base = tiny_model()
    frozen = {name: value.clone() for name, value in base.named_parameters()}
    model, more = (base, {"peft_config": LORA}) if how == "peft_config" else (get_peft_model(base, LORA), {})
    trainer = made(tmp_path, model=model, settings={"beta": 0.1}, **more)
    trainer.train()
    assert isinstance(trainer.model, PeftModel)
    row = trainer.state.log_history[1]
    assert row["kl"] > 0  # the adapters moved, and the reference is the model without them
    trainer.save_model()
    assert (tmp_path / "out" / "model.safetensors").is_file()  # the base has no name to load it by
    merged = trainer.model.merge_and_unload()
    moved = [name for name, value in merged.named_parameters() if not torch.equal(value, frozen[name])]
    assert any("q_proj" in name for name in moved)
    assert not any("norm" in name or "embed" in name for name in moved)


def test_a_model_by_its_folder(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    char_tokenizer().save_pretrained(tmp_path / "model")
    trainer = made(tmp_path, model=str(tmp_path / "model"), processing_class=None, peft_config=LORA)
    trainer.train()
    trainer.save_model()
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert trainer.run.recipe().recipe.model.id == str(tmp_path / "model")


def test_only_the_best_is_saved(tmp_path):
    values = iter([0.0, 0.1, 0.0, 0.9, 0.0, 0.3])  # training and evaluation in turn

    def judged(completions, **kwargs):
        value = next(values)
        return [value] * len(completions)

    settings = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "best", "metric_for_best_model": "reward"}
    trainer = made(tmp_path, judged, eval_dataset=DATA.select(range(1)), settings=settings)
    trainer.train()
    assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    assert (trainer.state.best_metric, trainer.state.best_global_step) == (0.9, 2)


def test_the_process_is_prepared_as_transformers_does_it(tmp_path):
    from transformers.utils import logging

    before, deterministic = logging.get_verbosity(), torch.are_deterministic_algorithms_enabled()
    try:
        made(tmp_path, settings={"log_level": "critical", "full_determinism": True})
        assert logging.get_verbosity() == logging.CRITICAL
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        logging.set_verbosity(before)
        torch.use_deterministic_algorithms(deterministic)


def test_optimizers_of_the_scripts_own(tmp_path):
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    trainer = made(tmp_path, model=model, optimizers=(optimizer, scheduler))
    trainer.train()
    rates = [row["learning_rate"] for row in trainer.state.log_history if "reward" in row]
    assert rates == pytest.approx([0.3, 0.15, 0.075])


def test_several_optimizer_steps_of_one_batch(tmp_path):
    diary = Diary()
    settings = {"per_device_train_batch_size": 4, "steps_per_generation": 2, "num_iterations": 2, "max_steps": 8}
    trainer = made(tmp_path, callbacks=[diary], settings=settings)
    trainer.train()
    assert trainer.state.global_step == 8
    assert len(trainer.run.metrics.read()) == 2
    assert [entry for entry in diary.heard if entry.endswith("ends")][:-1] == [f"{n} ends" for n in range(1, 9)]


def test_rloo(tmp_path):
    trainer = made(tmp_path, kind=RLOOTrainer, settings={"num_generations": 2})
    trainer.train()
    recipe = trainer.run.recipe().recipe
    assert recipe.algorithm.advantage == "leave_one_out"
    assert "kl" in trainer.state.log_history[0]
    assert RLOOTrainer.config is RLOOConfig


def test_completions_are_written_down(tmp_path):
    import pyarrow.parquet

    trainer = made(tmp_path, settings={"log_completions": True, "num_completions_to_print": 1, "max_steps": 1})
    trainer.train()
    table = pyarrow.parquet.read_table(tmp_path / "out" / "completions" / "completions_00001.parquet")
    assert table.column_names == ["step", "prompt", "completion", "small_letters", "advantage"]
    assert table.num_rows == 4


def test_a_second_run_of_the_same_script_overwrites_nothing(tmp_path):
    trainer = made(tmp_path)
    trainer.train()
    trainer.train()
    assert trainer.state.global_step == 3
    made(tmp_path).train()
    assert sorted(path.name for path in (tmp_path / "out" / "runs").iterdir()) == ["run", "run-2", "run-3"]


def test_a_mistyped_argument_is_told(tmp_path):
    with pytest.raises(TypeError, match="GRPOConfig has no field 'max_step': did you mean 'max_steps'"):
        GRPOConfig(max_step=2)
    with pytest.raises(TypeError, match="no argument 'agrs': did you mean 'args'"):
        GRPOTrainer(model=tiny_model(), reward_funcs=[small_letters], agrs=config(tmp_path), train_dataset=DATA)


@pytest.mark.parametrize("name", ["quantization_config"])
def test_what_is_not_there_is_refused_by_name(tmp_path, name):
    with pytest.raises(RecipeError, match=f"{name} is not available here"):
        made(tmp_path, **{name: print})


class Guess:
    """An environment by TRL's protocol: its public methods are tools, and it gives its own reward."""

    def reset(self, **row):
        self.secret, self.right = row["answer"], False
        return None

    def guess(self, letter: str) -> str:
        """Guess the letter.

        Args:
            letter: A capital letter.
        """
        self.right |= letter == self.secret
        return "right" if self.right else "wrong"

    def get_reward(self) -> float:
        return float(self.right)


def test_an_environment_gives_the_reward(tmp_path):
    talk = [{"prompt": [{"role": "user", "content": row["prompt"]}], "answer": row["answer"]} for row in ROWS]
    words = char_tokenizer(CHAT_TEMPLATE)
    settings = {"max_tool_calling_iterations": 2, "max_completion_length": 12}
    trainer = made(
        tmp_path, None, data=talk, processing_class=words, settings=settings, environment_factory=Guess,
        eval_dataset=talk[:2], model=tiny_model(context=1024),
    )  # fmt: skip
    trainer.train()
    assert trainer.run.recipe().recipe.turns.limit == 3
    assert trainer.state.log_history[0]["rewards/Guess/mean"] == 0.0  # an untrained model calls nothing
    assert trainer.evaluate()["eval_rewards/Guess/mean"] == 0.0


class Chat:
    """Another environment, without a reward of its own."""

    def reset(self, **row):
        return None

    def greet(self) -> str:
        """Say hello."""
        return "hello"


def test_several_environments(tmp_path):
    names = ["guess", "chat"]
    talk = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "answer": row["answer"],
            "environment": names[place % 2],
        }
        for place, row in enumerate(ROWS)
    ]
    graded = []

    def noted(completions, environment, environments, **kwargs):
        graded.extend(zip(environment, (type(one).__name__ for one in environments), strict=True))
        return [1.0] * len(completions)

    words = char_tokenizer("{% if tools %}{{ tools[0].function.name }}{% endif %}" + CHAT_TEMPLATE)
    more = {"environment_factory": {"guess": Guess, "chat": Chat}, "processing_class": words}
    settings = {"max_completion_length": 4, "per_device_train_batch_size": 8, "shuffle_dataset": False, "max_steps": 1}
    big = tiny_model(context=1024)
    trainer = made(tmp_path, noted, data=talk, settings=settings, eval_dataset=talk[:2], model=big, **more)
    trainer.train()
    assert graded == [("guess", "Guess")] * 4 + [("chat", "Chat")] * 4
    row = trainer.state.log_history[0]
    assert (row["rewards/Guess/mean"], row["rewards/noted/mean"]) == (0.0, 1.0)
    assert trainer.evaluate()["eval_reward"] == 1.0
    first, second = map(words.decode, trainer._parts.train.prompt_ids[:2])
    assert ("guess" in first, "greet" in first, "guess" in second, "greet" in second) == (True, False, False, True)
    with pytest.raises(TaskError, match=r"'environment' of this row says None"):
        made(tmp_path, noted, data=[{**row, "environment": None} for row in talk], settings=settings, **more)
    with pytest.raises(TaskError, match="empty dict"):
        made(tmp_path, noted, data=talk, environment_factory={}, processing_class=char_tokenizer(CHAT_TEMPLATE))


def test_an_environment_that_brings_the_prompts(tmp_path):
    class Asks(Guess):
        def reset(self, **row):
            self.secret, self.right = "B", False
            return "b="

    settings = {"max_completion_length": 4, "max_steps": 2}
    words = char_tokenizer(CHAT_TEMPLATE)
    more = {"processing_class": words, "environment_factory": Asks, "model": tiny_model(context=1024)}
    trainer = made(tmp_path, None, data=None, settings=settings, **more)
    trainer.train()
    group = trainer.run.rollouts(2)[0]
    assert "b=" in words.decode(group.prompt_ids)
    with pytest.raises(RecipeError, match="set max_steps"):
        made(tmp_path, None, data=None, settings={**settings, "max_steps": -1}, **more)


def test_rollouts_of_the_scripts_own(tmp_path):
    asked, graded = [], []

    def rollout(prompts, trainer):
        tokenizer = trainer.processing_class
        asked.append(prompts)
        ids = [
            [*tokenizer.encode("ab" if place % 2 else "AbC"), tokenizer.eos_token_id] for place in range(len(prompts))
        ]
        return {
            "prompt_ids": [tokenizer.encode(prompt) for prompt in prompts],
            "completion_ids": ids,
            "logprobs": [[-2.0] * len(one) for one in ids],
            "env_mask": [[1] * (len(one) - 1) + [0] for one in ids],
            "score": [float(place) for place in range(len(prompts))],
            "engine": "mine",
        }

    def noted(completions, score, engine, **kwargs):
        graded.append((list(completions), score, engine))
        return score

    trainer = made(tmp_path, noted, rollout_func=rollout, settings={"max_steps": 2, "num_iterations": 2})
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    assert [len(prompts) for prompts in asked] == [4]
    assert len(set(asked[0])) == 1  # one problem, once for each of its completions
    assert graded == [(["AbC", "ab", "AbC", "ab"], [0.0, 1.0, 2.0, 3.0], ["mine"] * 4)]
    row = trainer.state.log_history[0]
    assert (row["reward"], row["completions/clipped_ratio"]) == (1.5, 0.0)
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([], "returned a list"),
        ({"prompt_ids": [[1]] * 4, "completion_ids": [[1]] * 4}, "no 'logprobs'"),
        ({"prompt_ids": [[1]], "completion_ids": [[1]], "logprobs": [[0.0]]}, "1 prompt_ids for 4 prompts"),
        ({"prompt_ids": [[1]] * 4, "completion_ids": [[1]] * 4, "logprobs": [[]] * 4}, "one of each"),
    ],
)
def test_rollouts_that_cannot_be(tmp_path, said, words):
    with pytest.raises(EngineError, match=words):
        made(tmp_path, rollout_func=lambda prompts, trainer: said).train()


def test_routers_without_a_loss_are_told_of(tmp_path):
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "moe_intermediate_size": 16, "num_hidden_layers": 1}
    heads = {
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    }
    shape = Qwen3MoeConfig(
        vocab_size=len(LETTERS) + 4, pad_token_id=0, eos_token_id=1, bos_token_id=None, **sizes, **heads
    )
    args = config(tmp_path)
    with pytest.warns(UserWarning, match=r"router_aux_loss_coef = 0\.001 .* changes nothing here"):
        GRPOTrainer(Qwen3MoeForCausalLM(shape), small_letters, args, DATA, processing_class=char_tokenizer())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        args = config(tmp_path, router_aux_loss_coef=0.0)
        GRPOTrainer(Qwen3MoeForCausalLM(shape), small_letters, args, DATA, processing_class=char_tokenizer())


def test_a_configuration_of_trl_itself_is_told_from_ours(tmp_path):
    from trl import GRPOConfig as Theirs

    args = Theirs(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(TypeError, match=r"import GRPOConfig from groupwise\.compat\.trl"):
        GRPOTrainer(tiny_model(), small_letters, args, DATA, processing_class=char_tokenizer())


@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_half_precision_keeps_what_is_trained_in_32_bits(tmp_path, half):
    trainer = made(tmp_path, settings={"bf16": half == "bf16", "fp16": half == "fp16"}, peft_config=LORA)
    trainer.train()
    dtypes = {parameter.dtype for parameter in trainer.model.parameters() if parameter.requires_grad}
    assert dtypes == {torch.float32}
    assert trainer.model.get_base_model().dtype == (torch.bfloat16 if half == "bf16" else torch.float16)


def test_without_columns(tmp_path):
    def asks(completions, answer, **kwargs):
        return [0.0] * len(completions)

    with pytest.raises(RewardError, match="asks for 'answer'"):
        made(tmp_path, asks, settings={"remove_unused_columns": True}).train()
