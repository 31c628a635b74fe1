"""Settings of other trainers become recipes, and each of them is accounted for."""

import tomllib

import pytest

from groupwise.cli.main import main
from groupwise.compat.imports.openrlhf import flags_of, read_openrlhf
from groupwise.compat.imports.verl import read_verl
from groupwise.config import load_recipe

TRL_YAML = """
model_name_or_path: Qwen/Qwen2.5-1.5B-Instruct
dataset_name: openai/gsm8k
dataset_config: main
attn_implementation: flash_attention_2
use_peft: true
lora_r: 8
lora_alpha: 32
reward_funcs: [my_rewards.judge, think_format_reward]
learning_rate: 2.0e-5
num_generations: 4
per_device_train_batch_size: 4
gradient_accumulation_steps: 2
max_completion_length: 96
max_steps: 50
beta: 0.04
use_vllm: true
dataloader_num_workers: 4
report_to: wandb
nonsense: 3
"""

VERL = {
    "algorithm": {"adv_estimator": "grpo", "use_kl_in_reward": False, "gamma": 1.0},
    "data": {
        "train_files": "gsm8k/train.parquet",
        "val_files": "gsm8k/test.parquet",
        "train_batch_size": 64,
        "max_prompt_length": 512,
        "max_response_length": 1024,
        "truncation": "error",
    },
    "actor_rollout_ref": {
        "model": {"path": "Qwen/Qwen2.5-7B-Instruct", "enable_gradient_checkpointing": True, "lora_rank": 0},
        "actor": {
            "optim": {"lr": "1e-6"},
            "ppo_mini_batch_size": 16,
            "ppo_micro_batch_size_per_gpu": 8,
            "use_kl_loss": True,
            "kl_loss_coef": 0.001,
            "kl_loss_type": "low_var_kl",
            "clip_ratio": 0.2,
            "clip_ratio_high": 0.28,
            "loss_agg_mode": "token-mean",
            "entropy_coeff": 0,
            "fsdp_config": {"param_offload": False},
        },
        "rollout": {"name": "vllm", "n": 5, "tensor_model_parallel_size": 2, "top_k": -1},
    },
    "critic": {"model": {"path": "x"}},
    "trainer": {"n_gpus_per_node": 8, "total_training_steps": 105, "test_freq": 5, "experiment_name": "qwen2_7b"},
}

OPENRLHF = r"""
python3 -m openrlhf.cli.train_ppo_ray \
   --pretrain OpenRLHF/Llama-3-8b-sft-mixture --prompt_data OpenRLHF/prompt-collection --input_key context \
   --n_samples_per_prompt 8 --rollout_batch_size 128 --train_batch_size 512 --micro_train_batch_size 8 \
   --max_epochs 2 --actor_learning_rate 5e-7 --init_kl_coef=1e-3 --use_kl_loss --kl_estimator k3 \
   --eps_clip_low_high 0.2 0.27 --advantage_estimator group_norm --generate_max_len 1024 --bf16 \
   --vllm_num_engines 4 --remote_rm_url http://localhost:5000/get_reward --what_is_this 3
"""


def fates(lines):
    return {line.name: line.fate for line in lines}


def test_trl(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "args.yaml").write_text(TRL_YAML)
    assert main(["import", "trl", "args.yaml"]) == 0
    said = capsys.readouterr().out
    recipe = load_recipe(tmp_path / "recipe.toml").recipe
    assert (recipe.model.id, recipe.task.path, recipe.task.name) == (
        "Qwen/Qwen2.5-1.5B-Instruct",
        "openai/gsm8k",
        "main",
    )
    assert (recipe.lora.r, recipe.lora.alpha) == (8, 32)
    assert (recipe.train.steps, recipe.train.prompts_per_step, recipe.train.group_size) == (50, 2, 4)
    assert (recipe.optimizer.lr, recipe.sampling.max_new_tokens, recipe.algorithm.beta) == (2e-5, 96, 0.04)
    assert recipe.rewards[0].function == "my_rewards:judge"
    for sign, name in [("!", "use_vllm"), ("!", "nonsense"), ("!", "reward_funcs"), ("-", "dataloader_num_workers")]:
        assert f"{sign} {name} = " in said
    assert "19 settings, 3 lines need your look" in said
    assert "num_train_epochs" not in said, "nobody said it, and max_steps decides"
    assert "groupwise train recipe.toml" in said


def test_what_a_trl_file_left_to_its_default_is_said_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "args.yaml").write_text("model_name_or_path: m\ndataset_name: rows.jsonl\n")
    assert main(["import", "trl", "args.yaml", "--rows", "80"]) == 0
    assert (
        "! num_train_epochs (not given, TRL's default) = 3: train.steps = 240 is for 80 rows" in capsys.readouterr().out
    )
    (tmp_path / "args.yaml").write_text("model_name_or_path: m\ndataset_name: rows.jsonl\nnum_train_epochs: 1\n")
    assert main(["import", "trl", "args.yaml", "--rows", "80", "--out", "b.toml"]) == 0
    assert capsys.readouterr().out.count("num_train_epochs") == 1


def test_verl():
    imported = read_verl(VERL, "verl.yaml")
    tree = tomllib.loads(imported.to_toml())
    recipe = load_recipe(tree).recipe
    assert (recipe.model.id, recipe.task.path) == ("Qwen/Qwen2.5-7B-Instruct", "gsm8k/train.parquet")
    assert (recipe.train.prompts_per_step, recipe.train.group_size, recipe.learner.updates_per_batch) == (64, 5, 4)
    assert (recipe.algorithm.beta, recipe.algorithm.divergence, recipe.algorithm.weights) == (0.001, "k3", "token_mean")
    assert (recipe.algorithm.clip_low, recipe.algorithm.clip_high) == (0.2, 0.28)
    assert (recipe.train.steps, recipe.evaluation.every, recipe.run.name) == (105, 5, "qwen2_7b")
    assert (recipe.optimizer.lr, recipe.sampling.top_k, recipe.lora) == (1e-6, 0, None)
    known = fates(imported.lines)
    assert known["critic.model.path"] == known["algorithm.gamma"] == known["data.val_files"] == "lost"
    assert known["actor_rollout_ref.actor.fsdp_config.param_offload"] == "idle"
    assert known["actor_rollout_ref.rollout.tensor_model_parallel_size"] == "idle"
    assert len(known) == len(imported.lines) == 32


def test_openrlhf():
    imported = read_openrlhf(OPENRLHF, "train.sh")
    recipe = load_recipe(tomllib.loads(imported.to_toml())).recipe
    assert recipe.task.columns == {"prompt": "context"}
    assert (recipe.train.prompts_per_step, recipe.train.group_size, recipe.learner.updates_per_batch) == (128, 8, 2)
    assert (recipe.learner.passes, recipe.optimizer.lr, recipe.model.dtype) == (2, 5e-7, "bf16")
    assert (recipe.algorithm.beta, recipe.algorithm.kl_in, recipe.algorithm.divergence) == (1e-3, "loss", "k3")
    assert (recipe.algorithm.clip_low, recipe.algorithm.clip_high) == (0.2, 0.27)
    known = fates(imported.lines)
    assert known["what_is_this"] == known["remote_rm_url"] == "lost"
    assert known["vllm_num_engines"] == known["micro_train_batch_size"] == "idle"


def test_an_estimator_of_a_kl_that_there_is_not_is_left_away():
    verl = read_verl({"actor_rollout_ref": {"actor": {"use_kl_loss": False, "kl_loss_type": "mse"}}}, "verl.yaml")
    assert fates(verl.lines)["actor_rollout_ref.actor.kl_loss_type"] == "idle"
    openrlhf = read_openrlhf("--init_kl_coef 0 --kl_estimator k2", "train.sh")
    assert fates(openrlhf.lines)["kl_estimator"] == "idle"
    assert not {"algorithm.divergence"} & {*verl.settings, *openrlhf.settings}


def test_flags_in_all_their_forms():
    assert flags_of("x --a 1 --b=2 --c --d 3 4 # --e") == {"a": "1", "b": "2", "c": True, "d": ["3", "4"]}


def test_mistakes_are_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["import", "trl", "nothing.yaml"]) == 1
    (tmp_path / "list.yaml").write_text("- 1")
    assert main(["import", "verl", "list.yaml"]) == 1
    (tmp_path / "bad.yaml").write_text("a: [")
    assert main(["import", "verl", "bad.yaml"]) == 1
    (tmp_path / "recipe.toml").write_text("mine")
    assert main(["import", "openrlhf", "list.yaml"]) == 1
    assert (tmp_path / "recipe.toml").read_text() == "mine"
    said = capsys.readouterr().err
    for words in ("cannot be read", "holds no settings", "is not valid yaml", "nothing is overwritten"):
        assert words in said


@pytest.mark.parametrize("name", ["algorithm.adv_estimator", "actor_rollout_ref.actor.loss_agg_mode"])
def test_a_value_that_there_is_not_is_not_taken_over(name):
    tree = value = {}
    *sections, last = name.split(".")
    for section in sections:
        value = value.setdefault(section, {})
    value[last] = "gae"
    assert fates(read_verl(tree, "x").lines)[name] == "lost"
