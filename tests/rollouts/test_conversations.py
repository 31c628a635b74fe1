"""Conversations: ids are only ever appended, the sampler's logprobs are the learner's across turns, limits hold."""

import asyncio
from dataclasses import replace

import pytest
import torch

from architectures import policy_of
from groupwise.config.presets import PRESETS
from groupwise.config.sections import AlgorithmSection, LearnerSection, OptimizerSection, ReferenceSection
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.learner.algorithm import Algorithm
from groupwise.learner.learner import Learner
from groupwise.models.trees import Tree
from groupwise.rewards import as_reward
from groupwise.rollouts.conversation import Conversations, Limits
from groupwise.rollouts.dialogue import Dialogue
from groupwise.rollouts.grade import graded
from groupwise.tasks.environments import Reply, World, with_tools, world_of
from groupwise.tasks.environments.reward import earned
from groupwise.types import Completion, Problem, Sampling
from toys import CHAT_TEMPLATE, char_tokenizer, ids_of

CLOSE = 1e-5
EOS = 1


class Scripted:
    """An engine that says what it is told to, whatever it is asked, and keeps what it was asked."""

    exact = True

    def __init__(self, *turns):
        self.turns, self.asked = list(turns), []

    async def sample(self, prompt_ids, n, sampling, seeds):
        completions = []
        for seed in seeds:
            ids, reason = self.turns[
                sum(1 for asked in self.asked if len(asked[0]) < len(prompt_ids)) and self._turn(prompt_ids)
            ]
            ids = tuple(ids)[: sampling.max_new_tokens]
            text = char_tokenizer().decode(ids, skip_special_tokens=True)
            completions.append(Completion(ids, (-0.5,) * len(ids), reason, text))
            self.asked.append((tuple(prompt_ids), sampling, seed))
        return completions

    def _turn(self, prompt_ids):
        return len({len(asked[0]) for asked in self.asked if len(asked[0]) < len(prompt_ids)})


class Countdown:
    """Says how often it will still answer; every answer is worth 1."""

    def __init__(self, turns=2):
        self.left, self.heard = turns, []

    async def reset(self, problem):
        return problem.columns.get("hint")

    async def step(self, said):
        self.heard.append(said)
        self.left -= 1
        return Reply.of(f"{self.left} left", done=self.left == 0, reward=1.0)


def talked(engine, world, *, problem=None, n=1, style="plain", template=None, sampling=None, **limits):
    dialogue = Dialogue(char_tokenizer(template), style, tools=world.tools)
    talk = Conversations(engine, world, dialogue, Limits(**limits))
    problem = problem or Problem("p", "Go:", {})
    return asyncio.run(talk.group(problem, sampling or Sampling(max_new_tokens=100), range(n)))


def test_turns_and_replies_in_order_with_a_mask():
    engine = Scripted(([*ids_of("one"), EOS], "stop"), ([*ids_of("two"), EOS], "stop"))
    group = talked(engine, world_of(Countdown))
    completion = group.rollouts[0].completion
    reply = ids_of("\n1 left\n")
    assert group.prompt_ids == ids_of("Go:")
    assert completion.token_ids == (*ids_of("one"), EOS, *reply, *ids_of("two"), EOS)
    assert completion.own == (True,) * 4 + (False,) * len(reply) + (True,) * 4
    assert completion.logprobs == (-0.5,) * 4 + (0.0,) * len(reply) + (-0.5,) * 4
    assert (completion.drawn, completion.drawn_logprobs) == (8, (-0.5,) * 8)
    assert completion.text == "one\ntwo"
    assert [m["content"] for m in completion.messages] == ["one", "1 left", "two"]
    assert completion.earned == 2.0
    assert engine.asked[1][0] == group.prompt_ids + completion.token_ids[: 4 + len(reply)]


def test_what_was_drawn_is_never_tokenised_again(monkeypatch):
    """Pad tokens in the middle of a text and a character of no vocabulary: re-encoding would lose them."""
    odd = (0, *ids_of("a"), 0, 3, *ids_of("b"), EOS)
    engine = Scripted((odd, "stop"), (odd, "stop"))
    encoded = []
    tokenizer = char_tokenizer()
    own = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda text, **kw: encoded.append(text) or own(text, **kw))
    talk = Conversations(engine, world_of(Countdown), Dialogue(tokenizer, "plain"))
    group = asyncio.run(talk.group(Problem("p", "Go:", {}), Sampling(max_new_tokens=100), [0]))
    completion = group.rollouts[0].completion
    assert completion.token_ids[: len(odd)] == odd == completion.token_ids[-len(odd) :]
    assert engine.asked[1][0][: len(group.prompt_ids) + len(odd)] == (*group.prompt_ids, *odd)
    assert encoded and not any("a" in text and "b" in text for text in encoded), "only prompts and replies are encoded"


CHATML = (
    "{% for m in messages %}[{{ m['role'] }}]{% if tools and loop.first %}({{ tools | length }} tools){% endif %}"
    "{{ m['content'] }}<eos>\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""An end token and a line break behind each message, as ChatML has it."""


@pytest.mark.parametrize("template", [CHATML, CHAT_TEMPLATE], ids=["line break", "header"])
@pytest.mark.parametrize("role", ["user", "tool"])
def test_a_reply_is_what_the_template_writes_behind_a_turn(template, role):
    """Prompt, turn and reply together are the rendered conversation, to the token."""
    dialogue = Dialogue(char_tokenizer(template))
    messages = [{"role": "user", "content": "Go"}]
    prompt = dialogue.prompt_ids(tuple(messages))
    drawn = (*ids_of("hm"), EOS)
    reply = dialogue.reply_ids([{"role": role, "content": "4"}, {"role": role, "content": "5"}], drawn)
    messages += [{"role": "assistant", "content": "hm"}, {"role": role, "content": "4"}, {"role": role, "content": "5"}]
    assert (*prompt, *drawn, *reply) == dialogue.prompt_ids(tuple(messages))
    unclosed = dialogue.reply_ids([{"role": role, "content": "4"}, {"role": role, "content": "5"}], ids_of("hm"))
    assert unclosed == (EOS, *reply), "a turn that a stop string ended is closed as the template does it"


def test_a_cut_turn_a_full_branch_and_too_many_turns_end_it():
    turn = ([*ids_of("one"), EOS], "stop")
    cut = talked(Scripted((ids_of("on"), "length")), world_of(Countdown)).rollouts[0].completion
    assert (cut.finish_reason, cut.earned, cut.own) == ("length", 0.0, (True, True))
    full = talked(Scripted(turn), world_of(Countdown), sampling=Sampling(max_new_tokens=12)).rollouts[0].completion
    assert (full.finish_reason, full.token_ids) == ("length", (*ids_of("one"), EOS)), "no room for a reply and a turn"
    context = talked(Scripted(turn), world_of(Countdown), context=15).rollouts[0].completion
    assert context.finish_reason == "length"
    few = talked(Scripted(turn, turn, turn), world_of(lambda: Countdown(9)), turns=2).rollouts[0].completion
    assert [m["role"] for m in few.messages] == ["assistant", "user", "assistant"]
    engine = Scripted(turn, turn)
    talked(engine, world_of(Countdown), turn_tokens=30)
    assert [asked[1].max_new_tokens for asked in engine.asked] == [30, 30]
    assert len({asked[2] for asked in engine.asked}) == 2, "each turn has a seed of its own"


def test_a_long_reply_is_cut_inside_of_the_template():
    class Long:
        async def reset(self, problem):
            return None

        async def step(self, said):
            return Reply.of("x" * 5000)

    turn = ([*ids_of("one"), EOS], "stop")
    group = talked(
        Scripted(turn, turn), world_of(Long), style="auto", template=CHATML, turns=2, reply_tokens=60,
        sampling=Sampling(max_new_tokens=200),
    )  # fmt: skip
    completion = group.rollouts[0].completion
    heard = completion.token_ids[4:-4]
    assert 40 < len(heard) <= 60
    assert heard[-len(ids_of("[assistant]")) :] == ids_of("[assistant]")


def test_an_observation_of_the_reset_belongs_to_the_branch_where_it_differs():
    class Dealt(Countdown):
        dealt = 0

        async def reset(self, problem):
            Dealt.dealt += 1
            return f" card {Dealt.dealt}"

    turn = ([*ids_of("ok"), EOS], "stop")
    group = talked(Scripted(turn, turn), world_of(lambda: Dealt(1)), n=2)
    assert group.prompt_ids == ids_of("Go: card ")
    for number, rollout in enumerate(group.rollouts, start=1):
        assert rollout.completion.token_ids == (*ids_of(str(number)), *ids_of("ok"), EOS)
        assert rollout.completion.own == (False, True, True, True)
    same = talked(Scripted(turn), world_of(lambda: Countdown(1)), problem=Problem("p", "Go:", {"hint": " Now"}), n=2)
    assert same.prompt_ids == ids_of("Go: Now")


@pytest.mark.parametrize("where", ["reset", "step", "late", "exit", "no reply"])
def test_an_environment_that_fails_leaves_its_rollout_without_a_grade(where):
    class Failing(Countdown):
        async def reset(self, problem):
            if where == "reset":
                raise OSError("gone")

        async def step(self, said):
            if where == "late":
                await asyncio.sleep(60)
            if where == "exit":
                raise SystemExit(3)
            if where == "no reply":
                return "higher"
            raise OSError("gone")

    turn = ([*ids_of("one"), EOS], "stop")
    group = talked(Scripted(turn), world_of(Failing), n=2, seconds=0.05)
    done = asyncio.run(graded([group], [as_reward(earned, name="Failing"), as_reward(lambda completions: [1.0] * 2)]))
    for rollout in done[0].rollouts:
        assert rollout.reward is None
        assert not rollout.trains
        assert rollout.completion.failure.startswith(f"Failing.{'reset' if where == 'reset' else 'step'}: ")


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(done=True, reward="1.0"), "the reward of a Reply is '1.0', which is no finite number"),  # type: ignore
        (Reply(done=True, reward=float("nan")), "the reward of a Reply is nan"),
        (Reply(done=True, reward=torch.ones(3)), "only one element"),  # type: ignore
        (Reply(({"content": "higher"},)), "a message of a Reply has no 'role'"),
        (Reply(({"role": "user", "content": None},)), "a message of a Reply has no 'content'"),
        (Reply("higher"), "a message of a Reply is a str"),  # type: ignore
    ],
)
def test_a_reply_that_is_none_is_a_failure_and_never_a_traceback(reply, why):
    class Odd(Countdown):
        async def step(self, said):
            return reply

    turn = ([*ids_of("one"), EOS], "stop")
    (rollout,) = talked(Scripted(turn), world_of(Odd)).rollouts
    assert rollout.completion.failure.startswith("Odd.step: ")
    assert why in rollout.completion.failure


def test_rewards_of_a_reply_may_be_tensors_and_truth_values():
    class Kind(Countdown):
        async def step(self, said):
            return Reply(done=torch.tensor(True), reward=torch.tensor(0.25, requires_grad=True))  # type: ignore

    turn = ([*ids_of("one"), EOS], "stop")
    (rollout,) = talked(Scripted(turn), world_of(Kind)).rollouts
    assert (rollout.completion.earned, type(rollout.completion.earned)) == (0.25, float)


def test_an_environment_that_cannot_be_made_is_a_failure_of_its_rollout_alone():
    made = []

    class Flaky(Countdown):
        def __init__(self):
            super().__init__(turns=1)
            made.append(self)
            if len(made) == 3:  # the first one is made to look at it
                raise SystemExit("no connection")

    turn = ([*ids_of("one"), EOS], "stop")
    first, second = talked(Scripted(turn), world_of(Flaky), n=2).rollouts
    assert (first.completion.failure, first.completion.earned) == ("", 1.0)
    assert second.completion.failure == "Flaky.__init__: RuntimeError: SystemExit: no connection"


def test_a_reset_that_says_more_than_the_model_can_read():
    class Wordy(Countdown):
        async def reset(self, problem):
            return "x" * 100

    (rollout,) = talked(Scripted(), world_of(Wordy), context=50).rollouts
    assert "the prompt has 103 tokens, and the model's context is 50" in rollout.completion.failure


def test_half_characters_of_an_environment_reach_no_tokenizer():
    class Torn(Countdown):
        async def step(self, said):
            return Reply.of("go \ud800on")

    turn = ([*ids_of("one"), EOS], "stop")
    group = talked(Scripted(turn, turn), world_of(Torn), n=1, turns=2)
    assert group.rollouts[0].completion.messages[1]["content"] == "go ?on"


def test_tools_are_shown_called_and_answered():
    def add(a: int, b: int) -> int:
        """Add.

        Args:
            a: One.
            b: Another.
        """
        return a + b

    world = with_tools([add])
    calls = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'
    engine = Scripted(([*ids_of(calls), EOS], "stop"), ([*ids_of("It is 5."), EOS], "stop"))
    problem = Problem("p", ({"role": "user", "content": "2+3?"},), {})
    sampling = Sampling(max_new_tokens=300)
    group = talked(engine, world, problem=problem, style="auto", template=CHATML, sampling=sampling)
    completion = group.rollouts[0].completion
    assert group.prompt_ids[:15] == ids_of("[user](1 tools)")
    assert [dict(m) for m in completion.messages] == [
        {"role": "assistant", "content": calls},
        {"role": "tool", "name": "add", "content": "5"},
        {"role": "assistant", "content": "It is 5."},
    ]
    assert completion.earned is None
    seen = []

    def judge(completions, **columns):
        seen.extend(completions)
        return [float(completions[0][-1]["content"] == "It is 5.")]

    assert asyncio.run(graded([group], [as_reward(judge)]))[0].rewards_G == [1.0]
    assert seen[0][1]["role"] == "tool", "reward functions see the whole conversation"


class Chatter:
    """Answers with tokens of the tiny models' vocabularies, a different number of them each time."""

    def __init__(self):
        self.turn = 0

    async def reset(self, problem):
        return None

    async def step(self, said):
        self.turn += 1
        return Reply.of("x" * (self.turn * 3 + len(said) % 4), reward=float(len(said)))


class Letters:
    """A tokenizer of three letters for models of any vocabulary, and what the engine asks of a tokenizer."""

    eos_token_id, bos_token_id, pad_token_id, chat_template = None, None, None, None
    all_special_tokens = ()

    def encode(self, text, add_special_tokens=False):
        return [10 + ord(c) % 50 for c in text]

    def decode(self, ids, skip_special_tokens=True):
        return "".join(chr(97 + i % 26) for i in ids)


def conversations(policy, sampling, n=4, turns=4):
    policy.tokenizer = Letters()
    engine = EmbeddedEngine(policy)
    talk = Conversations(
        engine,
        World("chatter", Chatter),
        Dialogue(policy.tokenizer, "plain"),
        Limits(turns=turns, turn_tokens=5, context=policy.context),
    )
    problems = [Problem(f"p{i}", "Go on" * (i + 1), {}) for i in range(2)]

    async def both():
        return await asyncio.gather(
            *(talk.group(p, sampling, range(10 * i, 10 * i + n)) for i, p in enumerate(problems))
        )

    return asyncio.run(both())


def without_cuts(monkeypatch):
    """Turns of five tokens that count as whole: what is tested here is what comes behind them."""
    own = EmbeddedEngine.sample

    async def sample(self, *given):
        return [replace(completion, finish_reason="stop") for completion in await own(self, *given)]

    monkeypatch.setattr(EmbeddedEngine, "sample", sample)


@pytest.mark.parametrize("name", ["qwen2", "llama", "gemma3", "gpt2", "mamba"])
def test_the_sampler_is_the_learner_across_turns(name, monkeypatch):
    without_cuts(monkeypatch)
    policy = policy_of(name)
    groups = conversations(policy, Sampling(max_new_tokens=45, temperature=0.7))
    trees = [
        Tree(
            g.prompt_ids,
            tuple(r.completion.token_ids for r in g.rollouts),
            tuple(r.completion.own for r in g.rollouts),
        )
        for g in groups
    ]
    sampled = torch.tensor([x for g in groups for r in g.rollouts for x in r.completion.drawn_logprobs])
    assert min(r.completion.own.count(False) for g in groups for r in g.rollouts) > 6, "several turns each"
    with torch.no_grad():
        learners_T, _ = policy.logprobs(trees, temperature=0.7)
    assert float((sampled - learners_T).abs().max()) < CLOSE


def test_it_still_is_after_updates(monkeypatch):
    without_cuts(monkeypatch)
    policy = policy_of("qwen2")
    section = AlgorithmSection(preset="grpo", **PRESETS["grpo"])
    learner = Learner(
        policy, Algorithm.of(section, max_new_tokens=45), LearnerSection(), OptimizerSection(lr=2e-2),
        reference=ReferenceSection(), temperature=1.0, total_steps=3,
    )  # fmt: skip
    for _ in range(3):
        groups = conversations(policy, Sampling(max_new_tokens=45))
        groups = [
            replace(g, rollouts=tuple(replace(r, reward=1.0, advantage=(-1.0) ** i) for i, r in enumerate(g.rollouts)))
            for g in groups
        ]
        metrics = asyncio.run(learner.update(groups, sampler_is_exact=True)).metrics()
        assert 0 < metrics["sampler_gap"] < CLOSE
        assert metrics["trained_tokens"] == sum(r.completion.drawn for g in groups for r in g.rollouts)
