"""From a reward at the end of a dialogue a policy learns what to say in it: it listens to the environment's words."""

import torch

from groupwise import Trainer
from groupwise.tasks import Reply, Task
from groupwise.types import Problem
from toys import LETTERS, char_tokenizer, tiny_model


class Wish:
    """Asks for a large or a small letter after the first turn. Who does not listen gets a half at most."""

    async def reset(self, problem):
        self.wish, self.turn = problem.columns["wish"], 0

    async def step(self, said):
        self.turn += 1
        if self.turn == 1:
            return Reply.of(self.wish)
        return Reply(done=True, reward=float(said.isupper() if self.wish == "A" else said.islower()))


def test_it_learns_to_listen(tmp_path):
    torch.manual_seed(0)
    problems = [Problem(f"p{i}", ">", {"wish": "Aa"[i % 2]}) for i in range(4)]
    settings = {
        "run.folder": str(tmp_path),
        "task.prompt_style": "plain",
        "train.steps": 100,
        "train.prompts_per_step": 4,
        "train.group_size": 16,
        "turns.limit": 2,
        "turns.tokens": 1,
        "sampling.max_new_tokens": 8,
        "sampling.stop_token_ids": list(range(4, 4 + len(LETTERS))),  # a turn is one character
        "optimizer.lr": 1e-2,
    }
    task = Task("wishes", problems, [])
    model, tokenizer = tiny_model(context=32), char_tokenizer()
    run = Trainer(model, task, settings=settings, tokenizer=tokenizer, environment=Wish).train()
    rewards = [row["rewards/Wish/mean"] for row in run.metrics.read()]
    assert sum(rewards[:5]) / 5 < 0.4, "a letter of about a hundred characters"
    assert sum(rewards[-5:]) / 5 > 0.9, "and half of that is to be had without listening"
