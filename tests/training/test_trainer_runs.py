"""Whole runs by the Python door: what goes in, and what lies in the run folder afterwards."""

import asyncio
import json

import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import PeftModel
from toy_runs import ROWS, TIMES, loaded, plain_logprobs, small_letters, trainer_of

from groupwise import Trainer, load_recipe
from groupwise.errors import RecipeError, TaskError
from groupwise.models.trees import Tree
from groupwise.runs.folder import RunFolder
from groupwise.tasks import Task
from groupwise.types import Problem
from toys import CHAT_TEMPLATE, char_tokenizer, tiny_model


def trained_logprobs(trainer, prompt=(5, 6, 7), completion=(40, 41, 42)):
    with torch.no_grad():
        return trainer.policy.logprobs([Tree(prompt, (completion,))])[0]


# --- what goes in ---------------------------------------------------------------------------------------------------


def test_rewards_by_trls_contract_sync_and_async(tmp_path):
    states, seen = [], []

    def judged(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, answer, level, **kwargs):
        assert len(prompts) == len(completions) == len(completion_ids) == len(answer) == len(level) == 8
        assert all(isinstance(ids, list) and ids for ids in completion_ids)
        assert prompts[0] == prompts[3] != prompts[4] == prompts[7]  # prompt-major
        assert [f"{a.lower()}=" for a in answer] == prompts
        states.append((trainer_state.global_step, trainer_state.max_steps, trainer_state.epoch))
        log_extra("first", [text[:1] for text in completions])
        log_metric("judge/calls", len(states))
        seen.append(completions)
        return [float(len(ids)) for ids in completion_ids]

    async def later(completions, **kwargs):
        await asyncio.sleep(0)
        return [None if text.isascii() and index % 4 == 0 else 0.5 for index, text in enumerate(completions)]

    rows = [{**row, "level": index} for index, row in enumerate(ROWS)]
    run = trainer_of(tmp_path, [judged, later], rows, **{"train.steps": 3}).train()
    assert states == [(1, 3, 0.0), (2, 3, pytest.approx(2 / 12)), (3, 3, pytest.approx(4 / 12))]
    assert [row["judge/calls"] for row in run.metrics.read()] == [1.0, 2.0, 3.0]
    for step, completions in enumerate(seen, start=1):
        stored = run.rollouts(step)
        assert [row.text for row in stored] == completions
        assert [row.extra["first"] for row in stored] == [text[:1] for text in completions]
        for index, row in enumerate(stored):
            judge, other = float(len(row.token_ids)), None if index % 4 == 0 else 0.5
            assert row.reward_parts == {"judged": judge, "later": other}
            assert row.reward == judge + (other or 0.0)


def test_conversations_come_as_conversations(tmp_path):
    def polite(prompts, completions, **kwargs):
        assert all(p[-1]["role"] == "user" for p in prompts)
        return [float(len(c[0]["content"])) for c in completions]

    rows = [{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in ROWS]
    tokenizer = char_tokenizer(CHAT_TEMPLATE)
    run = trainer_of(tmp_path, [polite], rows, tokenizer=tokenizer).train()
    text = tokenizer.decode(run.rollouts(1)[0].prompt_ids)
    assert text.startswith("<bos>[user]")
    assert text.endswith("=<eos>[assistant]")


def test_a_dataset_of_datasets(tmp_path):
    def answered(completions, answer, **kwargs):
        return [float(a in text) for a, text in zip(answer, completions, strict=True)]

    renamed = Dataset.from_list([{"question": row["prompt"], "answer": row["answer"]} for row in ROWS])
    trainer = trainer_of(tmp_path, [answered], renamed, **{"task.columns": {"prompt": "question"}, "task.hold_out": 4})
    run = trainer.train()
    assert {row.prompt for row in run.rollouts(1)} <= {row["prompt"] for row in ROWS}
    assert run.identity["problems"], run.identity["held_out"] == (8, 4)
    assert [row["label"] for row in run.evaluations()] == ["before", "after"]


def test_a_recipe_file_with_its_reward_and_data_beside_it(tmp_path):
    tiny_model().save_pretrained(tmp_path / "start")
    char_tokenizer().save_pretrained(tmp_path / "start")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "reward.py").write_text(
        "def small(completions, bonus):\n    return [bonus * len(c) for c in completions]\n"
    )
    (tmp_path / "recipe.toml").write_text(
        f"""
        [model]
        id = "{tmp_path / "start"}"
        device = "cpu"
        [task]
        kind = "dataset"
        path = "rows.jsonl"
        hold_out = 3
        [[rewards]]
        function = "reward.py:small"
        weight = 0.5
        settings = {{ bonus = 2.0 }}
        [train]
        steps = 2
        prompts_per_step = 3
        group_size = 2
        [sampling]
        max_new_tokens = 5
        [run]
        folder = "{tmp_path / "runs"}"
        """
    )
    run = Trainer.from_recipe(load_recipe(tmp_path / "recipe.toml", ["run.name=mine"])).train()
    assert run.path == tmp_path / "runs" / "mine"
    for row in run.rollouts(2):
        assert row.reward_parts == {"small": 2.0 * len(row.text)}
        assert row.reward == float(len(row.text))
    assert run.recipe().recipe.run.name == "mine"
    assert loaded(run.model_path).config.vocab_size == 100


def test_settings_may_be_dotted_or_nested_and_stay_the_callers(tmp_path):
    nested = {"steps": 1, "prompts_per_step": 3}
    trainer = trainer_of(tmp_path, train=nested, **{"train.group_size": 2, "optimizer": {"lr": 1e-3}})
    run = trainer.train()
    assert len(run.rollouts(1)) == 6
    assert len(run.metrics.read()) == 1
    assert nested == {"steps": 1, "prompts_per_step": 3}
    assert run.recipe().recipe.optimizer.lr == 1e-3


def test_nonsense_in_settings_is_a_recipe_error(tmp_path):
    for settings in ({"task.kind.deeper": 1}, {"train": 3}, {"train.stepz": 3}, {"seed.x": 1}):
        with pytest.raises(RecipeError):
            trainer_of(tmp_path, **settings)
    with pytest.raises(RecipeError, match="tokenizer"):
        Trainer(tiny_model(), ROWS, [small_letters])
    with pytest.raises(RecipeError, match="given as rows"):
        trainer_of(tmp_path, **{"task.kind": "gsm8k"}).train()


def test_a_model_that_was_given_keeps_its_precision(tmp_path):
    with pytest.raises(RecipeError, match=r'model.dtype = "bf16".*torch.float32'):
        trainer_of(tmp_path, **{"model.dtype": "bf16"}).train()
    assert trainer_of(tmp_path, **{"model.dtype": "fp32"}).policy.dtype is torch.float32


def test_problems_that_share_an_id_are_refused(tmp_path):
    task = Task("twins", [Problem("x", "a="), Problem("y", "b="), Problem("x", "c=")], [])
    with pytest.raises(TaskError, match="2 problems of the task 'twins' are called 'x'"):
        trainer_of(tmp_path, rows=task).train()


def test_more_prompts_a_step_than_there_are(tmp_path):
    run = trainer_of(tmp_path, rows=ROWS[:2], **{"train.prompts_per_step": 5}).train()
    rows = run.rollouts(1)
    assert len(rows) == 20
    # The same problem again in a step is another group, not the same draws once more.
    by_problem = {}
    for row in rows:
        by_problem.setdefault(row.problem_id, []).append(row.token_ids)
    assert all(len(set(drawn)) > 4 for drawn in by_problem.values())


def test_a_step_draws_anew(tmp_path):
    settings = {"train.prompts_per_step": 1, "optimizer.lr": 1e-30}
    run = trainer_of(tmp_path, rows=ROWS[:1], **settings).train()
    first, second = ({row.token_ids for row in run.rollouts(step)} for step in (1, 2))
    assert len(first) == len(second) == 4
    assert not first & second


# --- what comes out -------------------------------------------------------------------------------------------------


def test_the_run_folder_holds_everything(tmp_path):
    trainer = trainer_of(tmp_path, **{"train.steps": 3, "task.hold_out": 3, "algorithm.beta": 0.1})
    run = trainer.train()
    assert run.status == "finished"
    assert not (run.path / "lock").exists()
    assert [row["step"] for row in run.metrics.read()] == [1, 2, 3]
    assert run.rollout_steps() == [1, 2, 3]
    for step in (1, 2, 3):
        rows = run.rollouts(step)
        assert [(row.group, row.branch) for row in rows] == [(g, b) for g in range(2) for b in range(4)]
        assert all(len(row.token_ids) == len(row.logprobs) <= 8 for row in rows)
        rewards = [row.reward for row in rows]
        assert rewards == small_letters([row.text for row in rows])
        for group in (rows[:4], rows[4:]):
            assert sum(row.advantage for row in group) == pytest.approx(0.0, abs=1e-9)
            ordered = sorted(group, key=lambda row: row.reward)
            assert [row.advantage for row in ordered] == sorted(row.advantage for row in group)
    metrics = run.metrics.read()
    assert metrics[0]["reward"] == pytest.approx(sum(row.reward for row in run.rollouts(1)) / 8)
    assert all({"loss", "grad_norm", "kl", "entropy", "ratio", "seconds/learn"} <= row.keys() for row in metrics)
    assert all(row["sampler_gap"] < 1e-5 for row in metrics)
    assert [(row["label"], row["step"]) for row in run.evaluations()] == [("before", 0), ("after", 3)]
    assert run.recipe().recipe == trainer.parts.recipe
    assert run.identity["attention"] == "trunk_and_branch"


def test_plain_transformers_loads_what_was_trained(tmp_path):
    model = tiny_model()
    before = plain_logprobs(model.eval(), (5, 6, 7, 40, 41, 42))[2:]
    trainer = trainer_of(tmp_path, model=model)
    run = trainer.train()
    after = plain_logprobs(loaded(run.model_path), (5, 6, 7, 40, 41, 42))[2:]
    assert torch.allclose(after, trained_logprobs(trainer), atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-2)


def test_the_logprobs_in_the_table_are_those_of_the_policy_that_sampled(tmp_path):
    model = tiny_model().eval()
    reference = tiny_model().eval()
    run = trainer_of(tmp_path, model=model, **{"train.steps": 1}).train()
    for row in run.rollouts(1):
        ours = plain_logprobs(reference, (*row.prompt_ids, *row.token_ids))[len(row.prompt_ids) - 1 :]
        assert torch.allclose(ours, torch.tensor(row.logprobs), atol=1e-5)


def test_a_lora_run_saves_an_adapter_that_loads(tmp_path):
    tiny_model().save_pretrained(tmp_path / "base")
    char_tokenizer().save_pretrained(tmp_path / "base")
    trainer = trainer_of(tmp_path, model=str(tmp_path / "base"), lora={"r": 4})
    run = trainer.train()
    assert (run.model_path / "adapter_model.safetensors").is_file()
    assert not (run.model_path / "model.safetensors").exists()
    expected = trained_logprobs(trainer)
    base = loaded(tmp_path / "base")
    assert not torch.allclose(plain_logprobs(base, (5, 6, 7, 40, 41, 42))[2:], expected, atol=1e-3)
    adapted = PeftModel.from_pretrained(base, run.model_path).eval()
    assert torch.allclose(plain_logprobs(adapted, (5, 6, 7, 40, 41, 42))[2:], expected, atol=1e-5)
    trainer.save(tmp_path / "merged")
    assert torch.allclose(plain_logprobs(loaded(tmp_path / "merged"), (5, 6, 7, 40, 41, 42))[2:], expected, atol=1e-5)
    # And a run may go on from an adapter as from any other model.
    further = trainer_of(tmp_path, model=str(run.model_path), **{"run.name": "further"})
    assert torch.allclose(trained_logprobs(further), expected, atol=1e-5)


def test_the_model_is_transformers_own_again_afterwards(tmp_path):
    model = tiny_model()
    first = trainer_of(tmp_path, model=model, **{"task.hold_out": 2})
    first.train()
    ids = torch.tensor([[5, 6, 7]])
    assert model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False).shape[0] == 1
    first.evaluate()
    assert torch.allclose(trained_logprobs(first), plain_logprobs(model, (5, 6, 7, 40, 41, 42))[2:], atol=1e-5)
    second = trainer_of(tmp_path, model=model, **{"run.name": "again"})
    assert second.train().identity["attention"] == "trunk_and_branch"


# --- the same again -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"lora": {"r": 4, "dropout": 0.2}, "learner.passes": 2}], ids=["full", "lora"]
)
def test_the_same_seed_gives_the_same_run(tmp_path, settings):
    runs = []
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        settings = {**settings, "run.name": name, "seed": seed, "task.hold_out": 2, "evaluation.pass_at": [2]}
        trainer = trainer_of(tmp_path, **settings, **{"evaluation.samples": 2})
        torch.manual_seed(len(runs))  # whatever a program draws before the model is loaded, and after
        trainer.prepare()
        torch.manual_seed(len(runs))
        runs.append(trainer.train())

    def lasting(run):
        metrics = [{k: v for k, v in row.items() if k not in TIMES} for row in run.metrics.read()]
        evaluations = [{k: v for k, v in row.items() if k != "time"} for row in run.evaluations()]
        tables = [path.read_bytes() for path in sorted(run.path.glob("*/*.parquet"))]
        weights = [path.read_bytes() for path in sorted(run.model_path.glob("*.safetensors"))]
        assert (len(metrics), len(evaluations), len(tables), len(weights)) == (2, 2, 4, 1)
        return metrics, evaluations, tables, weights

    one, two, other = map(lasting, runs)
    assert one == two
    assert one[0] != other[0]
    assert one[2] != other[2]


# --- where it runs --------------------------------------------------------------------------------------------------


def test_in_a_running_event_loop_as_in_a_notebook(tmp_path):
    async def cell():
        run = trainer_of(tmp_path).train()
        await asyncio.sleep(0)
        return run

    run = asyncio.run(cell())
    assert run.status == "finished"
    assert len(run.metrics.read()) == 2


def test_a_dict_of_splits_is_told_to_choose_one(tmp_path):
    for splits in (DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS)), {"train": ROWS}):
        with pytest.raises(RecipeError, match=r"choose a split, such as task=data\['train'\]"):
            trainer_of(tmp_path, rows=splits)


def test_paths_of_the_command_line_start_where_it_runs_and_are_found_again(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    recipe = '[model]\nid = "somebody/model"\n[task]\nkind = "dataset"\npath = "somebody/rows"\n'
    (tmp_path / "recipes" / "recipe.toml").write_text(
        recipe + '[[rewards]]\nfunction = "length"\nsettings.target = 3\n'
    )
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tiny_model().save_pretrained(tmp_path / "tiny")
    char_tokenizer().save_pretrained(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    small = ["train.steps=1", "train.group_size=2", "train.prompts_per_step=2", "sampling.max_new_tokens=4"]
    given = ["task.path=./rows.jsonl", "model.id=tiny", "model.device=cpu", "run.folder=runs", *small]
    run = Trainer.from_recipe(load_recipe("recipes/recipe.toml", given)).train()
    assert run.identity["prompts"]["train"]["problems"] == len(ROWS)
    path = run.path.absolute()
    monkeypatch.chdir(path)
    again = Trainer.from_recipe(RunFolder.open(path).trained_recipe(["model.device=cpu"]))
    assert len(again.parts.task.train) == len(ROWS)
