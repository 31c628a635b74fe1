"""A TRL script by ids: SmolLM on short posts, a reward for fifty characters, LoRA, wandb, merge, upload, a pipeline.

The calls, settings and ids are those that an introduction to GRPO shows; the words are ours. Nothing in it is about
groupwise but the line that imports GRPOConfig and GRPOTrainer.
"""

# ruff: noqa: T201

import wandb
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from groupwise.compat.trl import GRPOConfig, GRPOTrainer

BASE, MINE = "HuggingFaceTB/SmolLM-135M-Instruct", "me/my-stories"
LENGTH = 50


def reward_len(completions, **kwargs):
    """0 for a text of the right length, less by one for each character that is missing or too many."""
    return [-abs(LENGTH - len(text)) for text in completions]


def adapted():
    model = AutoModelForCausalLM.from_pretrained(
        BASE, torch_dtype="auto", device_map="auto", attn_implementation="eager"
    )
    adapters = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    return get_peft_model(model, adapters)


wandb.login()
posts = load_dataset("mlabonne/smoltldr")
model = adapted()
model.print_trainable_parameters()

settings = GRPOConfig(
    output_dir="GRPO",
    run_name="GRPO_experi_0308_01",
    learning_rate=2e-5,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=2,
    max_prompt_length=512,
    max_completion_length=96,
    num_generations=4,
    optim="adamW_8bit",
    num_train_epochs=1,
    bf16=True,
    report_to=["wandb"],
    remove_unused_columns=False,
    logging_steps=1,
)
trainer = GRPOTrainer(model=model, reward_funcs=[reward_len], args=settings, train_dataset=posts["train"])

wandb.init(project="GRPO")
trainer.train()

whole = trainer.model.merge_and_unload()
whole.push_to_hub(MINE, private=False)
AutoTokenizer.from_pretrained(BASE).push_to_hub(MINE)  # without which no pipeline can be made of it

talk = [{"role": "user", "content": "In one line: why do cats purr, and what do they want when they do?"}]
teller = pipeline("text-generation", model=MINE)
print(teller(talk, max_new_tokens=256, do_sample=True, temperature=0.5, min_p=0.1))
