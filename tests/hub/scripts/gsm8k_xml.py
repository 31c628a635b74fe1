"""A TRL script by ids: Qwen2.5-1.5B on GSM8K, a Chinese system prompt, rewards for tags and answers, LoRA r = 8, fp16.

The calls, settings, ids and points are those that a short tutorial shows; the code and the words are ours. Nothing in
it is about groupwise but the line that imports GRPOConfig and GRPOTrainer.
"""

# ruff: noqa: T201

import re

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from groupwise.compat.trl import GRPOConfig, GRPOTrainer

NAME = "Qwen/Qwen2.5-1.5B-Instruct"
SYSTEM = "先推理，再作答，格式如下：\n<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>"
TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")
LOOSE = re.compile(r"<reasoning>.*?</reasoning>.*?<answer>.*?</answer>", re.DOTALL)


def texts(completions):
    return [completion[0]["content"] for completion in completions]


def answered(text):
    """What stands in the last answer block; nothing if there is none."""
    blocks = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    return blocks[-1].strip() if blocks else ""


def correctness(prompts, completions, answer, **kwargs):
    return [2.0 if answered(text) == gold else 0.0 for text, gold in zip(texts(completions), answer, strict=True)]


def is_integer(completions, **kwargs):
    return [0.5 if answered(text).isdigit() else 0.0 for text in texts(completions)]


def loose_format(completions, **kwargs):
    return [0.5 if LOOSE.search(text) else 0.0 for text in texts(completions)]


def counted_tags(completions, **kwargs):
    return [0.125 * sum(text.count(tag) == 1 for tag in TAGS) for text in texts(completions)]


def questions(first):
    rows = load_dataset("openai/gsm8k", "main")["train"]
    rows = rows.select(range(min(first, len(rows))))

    def asked(row):
        talk = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": row["question"]}]
        return {"prompt": talk, "answer": row["answer"].split("####")[1].strip()}

    return rows.map(asked)


def greedy(model, tokenizer, talk):
    text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(text, return_tensors="pt").to(model.device)
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=512, do_sample=False)
    return tokenizer.decode(ids[0][inputs.input_ids.shape[1] :], skip_special_tokens=True)


model = AutoModelForCausalLM.from_pretrained(
    NAME, torch_dtype=torch.float16, device_map="auto", low_cpu_mem_usage=True, trust_remote_code=True
)
tokenizer = AutoTokenizer.from_pretrained(NAME)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
dataset = questions(20)

trainer = GRPOTrainer(
    model=model,
    processing_class=tokenizer,
    reward_funcs=[counted_tags, loose_format, is_integer, correctness],
    args=GRPOConfig(
        output_dir="outputs/Qwen-1.5B-GRPO",
        run_name="Qwen-1.5B-GRPO-gsm8k",
        learning_rate=5e-6,
        adam_beta1=0.9,
        adam_beta2=0.99,
        weight_decay=0.1,
        warmup_ratio=0.1,
        lr_scheduler_type="cosine",
        logging_steps=1,
        bf16=False,
        fp16=True,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_generations=4,
        max_prompt_length=256,
        max_completion_length=512,
        num_train_epochs=1,
        save_steps=50,
        max_grad_norm=0.1,
        report_to="none",
        log_on_each_node=False,
    ),
    train_dataset=dataset,
    peft_config=LoraConfig(
        r=8,
        lora_alpha=32,
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
        task_type="CAUSAL_LM",
        lora_dropout=0.05,
    ),
)
trainer.train()
trainer.save_model()

for row in dataset.select(range(3)):
    said = greedy(trainer.model, tokenizer, row["prompt"])
    print("问：", row["prompt"][-1]["content"])
    print("答对了吗：", answered(said) == row["answer"])
print("完成")
