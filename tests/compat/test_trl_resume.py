"""`resume_from_checkpoint` and `load_best_model_at_end`: TRL's words over exact resumption."""

import pytest
import torch
from test_trl_trainer import DATA, LORA, made, small_letters
from transformers import AutoModelForCausalLM, TrainerCallback

from groupwise.errors import RecipeError, RunError
from toys import tiny_model

SAVING = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}


class KilledError(Exception):
    """Stands for whatever ends a process."""


class Ends(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise KilledError


def numbers(trainer):
    """The log without what a clock says."""
    rows = [row for row in trainer.state.log_history if "reward" in row]
    return [{name: value for name, value in row.items() if name != "step_time"} for row in rows]


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.named_parameters()}


@pytest.mark.parametrize(
    ("more", "named"), [({}, False), ({"beta": 0.1, "num_iterations": 2, "max_steps": 12, "save_steps": 4}, True)]
)
def test_what_was_killed_goes_on_to_the_last_bit(tmp_path, more, named):
    settings = {**SAVING, **more}
    whole = made(tmp_path / "whole", settings=settings)
    whole.train()
    with pytest.raises(KilledError):
        made(tmp_path / "cut", callbacks=[Ends], settings=settings).train()
    trainer = made(tmp_path / "cut", settings=settings)
    result = trainer.train(str(tmp_path / "cut" / "out" / "checkpoint-4") if named else True)
    assert result.global_step == settings["max_steps"]
    assert numbers(trainer) == numbers(whole)
    assert [row["step"] for row in trainer.run.metrics.read()] == list(range(1, 7))
    assert trainer.run.path.name == "run"
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(trainer)[name])


@pytest.mark.parametrize("cut", [False, True])
def test_in_the_same_program_the_reference_stays_where_training_began(tmp_path, cut):
    """The same trainer goes back to a checkpoint; with a KL term to where its first run began."""
    settings = {**SAVING, "beta": 0.3, "num_iterations": 2, "max_steps": 12, "save_steps": 4, "learning_rate": 1e-2}
    whole = made(tmp_path / "whole", settings=settings)
    whole.train()
    assert numbers(whole)[-1]["kl"] > 1e-3, "the policy has left the reference"
    trainer = made(tmp_path / "again", callbacks=[Ends] if cut else None, settings=settings)
    if cut:
        with pytest.raises(KilledError):
            trainer.train()
        trainer.remove_callback(Ends)
    else:
        trainer.train()
    result = trainer.train(str(tmp_path / "again" / "out" / "checkpoint-4"))
    assert result.global_step == 12
    assert numbers(trainer) == numbers(whole)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(trainer)[name])


@pytest.mark.parametrize("adapters", [None, LORA])
def test_after_an_end_that_was_none_another_run_begins_with_the_weights_as_they_are(tmp_path, adapters):
    """And the trainer's model is the one that it trains."""
    trainer = made(tmp_path, callbacks=[Ends], settings=SAVING, peft_config=adapters)
    with pytest.raises(KilledError):
        trainer.train()
    before = weights(trainer)
    trainer.remove_callback(Ends)
    assert trainer.train().global_step == 6
    assert trainer.run.path.name == "run-2"
    after = weights(trainer)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_an_earlier_checkpoint_of_a_finished_run(tmp_path):
    first = made(tmp_path, settings=SAVING)
    first.train()
    again = made(tmp_path, settings=SAVING)
    again.train(str(tmp_path / "out" / "checkpoint-2"))
    assert numbers(again) == numbers(first)
    longer = made(tmp_path, settings={**SAVING, "max_steps": 8})
    assert longer.train(resume_from_checkpoint=True).global_step == 8
    assert [row["step"] for row in longer.state.log_history if "reward" in row] == list(range(1, 9))


def test_adapters_go_on_too(tmp_path):
    whole = made(tmp_path / "whole", settings=SAVING, peft_config=LORA)
    whole.train()
    with pytest.raises(KilledError):
        made(tmp_path / "cut", callbacks=[Ends], settings=SAVING, peft_config=LORA).train()
    trainer = made(tmp_path / "cut", settings=SAVING, peft_config=LORA)
    trainer.train(True)
    assert numbers(trainer) == numbers(whole)


def test_what_cannot_be_gone_on_from(tmp_path):
    with pytest.raises(RunError, match="holds no checkpoint-N"):
        made(tmp_path).train(resume_from_checkpoint=True)
    (tmp_path / "theirs").mkdir()
    with pytest.raises(RunError, match="not written by groupwise"):
        made(tmp_path).train(str(tmp_path / "theirs"))
    made(tmp_path, settings=SAVING).train()
    with pytest.raises(RunError, match="set output_dir to"):
        made(tmp_path / "elsewhere").train(str(tmp_path / "out" / "checkpoint-2"))


def test_the_best_model_is_loaded_at_the_end(tmp_path):
    values = iter([0.0, 0.1, 0.0, 0.9, 0.0, 0.3])  # training and evaluation in turn

    def judged(completions, **kwargs):
        value = next(values)
        return [value + small for small in small_letters(completions)] if value == 0.0 else [value] * len(completions)

    settings = {
        "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 1,
        "load_best_model_at_end": True, "metric_for_best_model": "reward", "greater_is_better": True,
    }  # fmt: skip
    trainer = made(tmp_path, judged, eval_dataset=DATA.select(range(1)), settings=settings)
    trainer.train()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "out" / "checkpoint-2")
    assert sorted(path.name for path in (tmp_path / "out").glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
    best = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "checkpoint-2").named_parameters())
    last = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "checkpoint-3").named_parameters())
    now = weights(trainer)
    assert all(torch.equal(value, best[name]) for name, value in now.items())
    assert any(not torch.equal(value, last[name]) for name, value in now.items())


def test_the_best_by_what_there_is_not(tmp_path):
    settings = {"eval_strategy": "steps", "save_strategy": "steps", "load_best_model_at_end": True}
    with pytest.raises(RecipeError, match=r"metric_for_best_model.*'reward'"):
        made(tmp_path, settings=settings, eval_dataset=DATA, model=tiny_model())
