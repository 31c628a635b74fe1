"""What the tests of training share: rows, rewards, and a trainer of a tiny model that takes milliseconds a step."""

import torch
from transformers import AutoModelForCausalLM

from groupwise import Trainer
from toys import char_tokenizer, tiny_model

ROWS = [{"prompt": f"{letter}=", "answer": letter.upper()} for letter in "abcdefghijkl"]
TIMES = {"step_seconds", "tokens_per_second", "seconds/sample", "seconds/grade", "seconds/learn", "seconds/sync"}
"""Metrics that differ between two runs of the same seed."""


def small_letters(completions, **kwargs):
    """Share of small letters, of eight characters."""
    return [sum(character.islower() for character in text) / 8 for text in completions]


def trainer_of(tmp_path, rewards=(small_letters,), rows=ROWS, model=None, tokenizer=None, reporter=None, **settings):
    """Two steps of two prompts by four completions of eight tokens, unless told otherwise."""
    usual = {
        "run.folder": str(tmp_path),
        "run.name": "toy",
        "model.device": "cpu",
        "train.steps": 2,
        "train.prompts_per_step": 2,
        "train.group_size": 4,
        "sampling.max_new_tokens": 8,
        "optimizer.lr": 1e-2,
        "guards.preflight": False,
    }
    return Trainer(
        model or tiny_model(),
        rows,
        list(rewards),
        settings={**usual, **settings},
        tokenizer=tokenizer or (None if isinstance(model, str) else char_tokenizer()),
        reporter=reporter,
    )


class Listener:
    """A reporter that remembers what it heard."""

    def __init__(self, on_step=lambda count: None):
        self.messages, self.evaluations, self.steps, self.depth = [], [], 0, 0
        self._on_step = on_step

    def started(self, total_steps, description, done=0):
        self.depth += 1

    def step(self, metrics):
        if self.depth == 1:  # steps of an evaluation are not ours
            self.steps += 1
            self._on_step(self.steps)

    def evaluated(self, label, result):
        self.evaluations.append((label, result))

    def message(self, text):
        self.messages.append(text)

    def finished(self):
        self.depth -= 1


@torch.no_grad()
def plain_logprobs(model, ids):
    """Logprobs of each token of a sequence after the first, by transformers alone."""
    ids = torch.tensor([ids])
    return torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), -1).gather(-1, ids[0, 1:, None])[:, 0]


def loaded(folder, **settings):
    """The model in a folder, as any user of transformers would load it."""
    return AutoModelForCausalLM.from_pretrained(folder, **settings).eval()
