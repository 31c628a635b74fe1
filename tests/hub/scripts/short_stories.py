"""The script of a well-known GRPO tutorial: SmolLM on short stories, a reward for a length of 50, LoRA, TRL's names.

What is not as it stands there: the import of GRPOConfig and GRPOTrainer; two slips (`AutoModelForCausalLM(`, `agrs=`);
the tokenizer is uploaded beside the merged model, without which no pipeline can be made of it; and transformers of today
takes `**generate_kwargs`, where it stands as `generate_kwargs=generate_kwargs`.
"""

# ruff: noqa
import torch
import wandb
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from groupwise.compat.trl import GRPOConfig, GRPOTrainer


wandb.login()  # 登录wandb，输入api key，保存训练结果到wandb

# 加载huggingface上的数据集
dataset = load_dataset("mlabonne/smoltldr")

# 加载huggingface上的模型
model_id = "HuggingFaceTB/SmolLM-135M-Instruct"
model = AutoModelForCausalLM.from_pretrained(
    model_id,
    torch_dtype="auto",
    device_map="auto",
    # attn_implementation = "flash_attention_2",
    attn_implementation="eager",  # GPU不支持flashattention时改用标准注意力
)
tokenizer = AutoTokenizer.from_pretrained(model_id)

# 加载PEFT库中的lora配置
lora_config = LoraConfig(
    task_type="CAUSAL_LM",  # 生成式任务
    r=16,  # 秩为16
    lora_alpha=32,  # 低秩矩阵权重贡献的缩放因子设为32
    target_modules="all-linear",  # 模型中的线性层应用lora
)
model = get_peft_model(model, lora_config)  # 冻结预训练模型的所有参数，根据lora_config在模型中添加低秩矩阵
print(model.print_trainable_parameters())  # 打印模型中可训练参数的数量及占总参数的比例


# 定义奖励函数
def reward_len(completions, **kwargs):
    return [-abs(50 - len(completion)) for completion in completions]


# GRPO训练参数配置
training_args = GRPOConfig(
    output_dir="GRPO",
    run_name="GRPO_experi_0308_01",  # wandb保存的实验名称
    learning_rate=2e-5,
    per_device_train_batch_size=4,  # 批量大小设小一点减少显存占用
    gradient_accumulation_steps=2,  # 梯度累积步数
    max_prompt_length=512,
    max_completion_length=96,
    num_generations=4,  # GRPO每组生成的解答数
    optim="adamW_8bit",
    num_train_epochs=1,  # 训练数据集训练的总轮数
    bf16=True,
    report_to=["wandb"],
    remove_unused_columns=False,  # 不移除数据集中未使用的列
    logging_steps=1,  # 每隔一步记录一次日志
)
# 设置训练器
trainer = GRPOTrainer(
    model=model,
    reward_funcs=[reward_len],  # 自定义的奖励函数
    args=training_args,  # GRPO的训练配置
    train_dataset=dataset["train"],
)

# 训练模型
wandb.init(project="GRPO")  # 初始化wandb日志环境
trainer.train()  # 开始训练

# 保存模型参数，上传到huggingface hub
merged_model = trainer.model.merge_and_unload()  # 合并lora权重和预训练权重
merged_model.push_to_hub("me/my-stories", private=False)  # 模型公开可见
tokenizer.push_to_hub("me/my-stories")

prompt = """
# A long document about the Cat

The cat (Felis catus), also referred to as the domestic cat or house cat, is a small
domesticated carnivorous mammal. It is the only domesticated species of the family Felidae.
"""
messages = [
    {"role": "user", "content": prompt},
]

from transformers import pipeline

generator = pipeline("text-generation", model="me/my-stories")
generate_kwargs = {
    "max_new_tokens": 256,
    "do_sample": True,  # 启用采样生成模式
    "temperature": 0.5,
    "min_p": 0.1,
}
generated_text = generator(messages, **generate_kwargs)
print(generated_text)
