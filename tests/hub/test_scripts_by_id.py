"""Whole TRL scripts, ids and all, in a process of their own whose hub is the stand-in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_contents import QWEN, SMOLLM

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"


def run(hub, tmp_path, *command, seconds=240):
    """A command in an empty folder, with an empty home; its output if it succeeds."""
    paths = os.pathsep.join(map(str, (SOURCE, HERE / "stand_ins")))
    surroundings = {**os.environ, **hub.environment(tmp_path / "home"), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    surroundings.pop("TRANSFORMERS_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}\nunknown: {hub.unknown[-20:]}"
    return done.stdout + done.stderr


def test_short_stories_from_the_import_line_to_the_pipeline(hub, tmp_path):
    said = run(hub, tmp_path, HERE / "scripts" / "short_stories.py")
    assert "trainable params" in said
    assert "optim='adamW_8bit' is taken for 'adamw_8bit'" in said
    assert "AdamW in 32 bits instead" in said
    rows = [json.loads(line) for line in (tmp_path / "wandb.jsonl").read_text().splitlines()]
    rewards = [row["train/rewards/reward_len/mean"] for row in rows if "train/rewards/reward_len/mean" in row]
    assert len(rewards) == 4  # 8 stories, 2 prompts a step
    assert all(reward <= 0 for reward in rewards)
    uploaded = hub.repositories["models", "me/my-stories"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(uploaded)
    assert not any("adapter" in path for path in uploaded)
    assert "'role': 'assistant'" in said  # what the pipeline said in the end
    recipe = (tmp_path / "GRPO" / "runs" / "GRPO_experi_0308_01" / "recipe.toml").read_text()
    assert "prompts_per_step = 2" in recipe


def test_gsm8k_in_chinese_with_fp16(hub, tmp_path):
    said = run(hub, tmp_path, HERE / "scripts" / "gsm8k_xml.py")
    assert "完成" in said
    assert said.count("答对了吗") == 3
    folder = tmp_path / "outputs" / "Qwen-1.5B-GRPO"
    assert (folder / "adapter_model.safetensors").is_file()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == QWEN
    run_folder = folder / "runs" / "Qwen-1.5B-GRPO-gsm8k"
    metrics = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 10  # 20 problems, 2 a step
    assert json.loads((run_folder / "run.json").read_text())["dtype"] == "float16"
    assert (folder / "checkpoint-10").is_dir()


PUSHES = f"""
from groupwise.compat.trl import GRPOConfig, GRPOTrainer

small = dict(per_device_train_batch_size=2, num_generations=2, max_completion_length=4, max_steps=2, report_to="none")
push = dict(push_to_hub=True, hub_model_id="me/pushed", hub_strategy="every_save", hub_token="hf_stand_in")
args = GRPOConfig("out", save_steps=1, log_completions=True, num_completions_to_print=0, **small, **push)
rows = [{{"prompt": letter}} for letter in "abcd"]
trainer = GRPOTrainer("{SMOLLM}", lambda completions, **kwargs: [float(len(x)) for x in completions], args, rows)
trainer.train()
print(trainer.push_to_hub("The end"))
"""


def test_a_trainer_pushes_what_others_load_and_nothing_else(hub, tmp_path):
    script = tmp_path / "pushes.py"
    script.write_text(PUSHES)
    said = run(hub, tmp_path, script)
    assert "/me/pushed/commit/" in said
    uploaded = set(hub.repositories["models", "me/pushed"])
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= uploaded
    assert not [path for path in uploaded if path.startswith(("runs/", "checkpoint-", "completions/"))]
    assert sum("/me/pushed/commit/" in asked for asked in hub.asked) >= 3  # two saves and the end


@pytest.fixture(autouse=True)
def _nothing_unknown_but_optional(hub):
    """What clients asked for and did not get are files that a repository may or may not have."""
    before = len(hub.unknown)
    yield
    optional = (
        "adapter_config",
        "README",
        ".json",
        ".jinja",
        ".txt",
        ".model",
        "dataset_infos",
        ".py",
        "nothing",
        ".y",
        "additional_chat_templates",
    )
    strange = [asked for asked in hub.unknown[before:] if not any(part in asked for part in optional)]
    assert not strange
