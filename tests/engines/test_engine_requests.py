"""Many callers, one batch: each prompt is read once, errors reach everybody, and nothing is left behind."""

import asyncio

import pytest
import torch
from toy_engine import chain, gathered, ids, one, sampled, without_ends

from architectures import policy_of, tokens
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.types import Sampling
from toys import ids_of

pytestmark = pytest.mark.usefixtures("by_torch")
SHORT = Sampling(max_new_tokens=5)


def fed(policy):
    """Notes how many tokens go into the model with each call."""
    counts = []
    policy.model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0].numel()))
    return counts


# --- what is computed -----------------------------------------------------------------------------------------------


def test_each_prompt_is_read_once_and_every_token_after_it_once():
    policy = without_ends(policy_of("qwen2"))
    calls = [(tokens(length, i), 8, SHORT, range(8)) for i, length in enumerate((10, 3, 20))]

    async def work():
        engine = EmbeddedEngine(policy)
        await gathered(engine, [(tokens(2), 1, SHORT, [0])])
        counts = fed(policy)
        await gathered(engine, calls)
        return engine.tokens_sampled, counts

    drawn, counts = asyncio.run(work())
    assert counts == [10 + 3 + 20, 24, 24, 24, 24]  # the fifth token of a completion is drawn and never fed
    assert drawn == 24 * 5 + 5


def test_plain_reads_prompts_of_one_length_together():
    policy = without_ends(policy_of("mamba"))
    calls = [(tokens(length, i), 4, SHORT, range(4)) for i, length in enumerate((7, 7, 9))]

    async def work():
        engine = EmbeddedEngine(policy)
        await gathered(engine, [(tokens(2), 1, SHORT, [0])])
        counts = fed(policy)
        await gathered(engine, calls)
        return counts

    assert asyncio.run(work()) == [14, 8, 8, 8, 8, 9, 4, 4, 4, 4]


def test_rows_that_are_over_make_room_for_those_that_wait():
    """16 completions, 4 rows: as one group ends the next is read, and the longest decides nothing for the others."""
    policy = without_ends(policy_of("qwen2"))
    limits = (2, 30, 2, 2)
    calls = [(tokens(4, i), 2, Sampling(max_new_tokens=n), range(2)) for i, n in enumerate(limits)]

    async def work():
        engine, ended = EmbeddedEngine(policy, max_rows=4), []
        await gathered(engine, [(tokens(2), 1, SHORT, [0])])
        counts = fed(policy)

        async def watched(i):
            await engine.sample(*calls[i])
            ended.append(i)

        await asyncio.gather(*(watched(i) for i in range(4)))
        return ended, counts

    ended, counts = asyncio.run(work())
    assert ended == [0, 2, 3, 1], "whoever is done is answered at once"
    assert sum(counts) == 4 * 4 + 2 * (1 + 29 + 1 + 1)
    assert max(counts) == 8


def test_other_work_goes_on_between_tokens():
    async def work():
        engine, ticks = EmbeddedEngine(chain("abc")), 0
        task = asyncio.create_task(engine.sample(ids_of("a"), 1, Sampling(max_new_tokens=30), [0]))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0)
        return ticks

    assert asyncio.run(work()) >= 30


# --- requests of many kinds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "mamba", "diffllama"])
def test_requests_of_many_kinds_in_one_batch(name):
    policy = policy_of(name)
    kinds = [
        Sampling(max_new_tokens=12),
        Sampling(max_new_tokens=3, temperature=2.0),
        Sampling(max_new_tokens=12, temperature=0.0),
        Sampling(max_new_tokens=12, top_k=4),
        Sampling(max_new_tokens=12, top_p=0.5, temperature=0.7),
        Sampling(max_new_tokens=12, min_p=0.3),
        Sampling(max_new_tokens=12, repetition_penalty=1.5),
        Sampling(max_new_tokens=12, stop_token_ids=tuple(range(40))),
        Sampling(max_new_tokens=12, stop=("e", "t")),
    ]
    calls = [(tokens(6, i % 2), 2, kind, (i, i + 1)) for i, kind in enumerate(kinds)]
    assert ids(sampled(policy, calls)) == [ids(sampled(policy, [call]))[0] for call in calls]


def test_the_same_prompt_twice_is_two_groups():
    groups = sampled(policy_of("qwen2"), [(tokens(6), 3, SHORT, seeds) for seeds in ((0, 1, 2), (3, 1, 5))])
    assert ids(groups)[0][1] == ids(groups)[1][1]
    assert len({row for group in ids(groups) for row in group}) == 5


def test_one_engine_serves_one_batch_after_the_other():
    policy = policy_of("qwen2")
    engine = EmbeddedEngine(policy)
    call = (tokens(6), 3, SHORT, range(3))
    first = asyncio.run(gathered(engine, [call]))
    second = asyncio.run(gathered(engine, [(tokens(9), 2, SHORT, range(2)), call]))
    assert ids(first)[0] == ids(second)[1]


def test_updated_weights_are_seen_at_once():
    policy = policy_of("qwen2")
    engine = EmbeddedEngine(policy)
    call = (tokens(6), 3, SHORT, range(3))

    async def around_an_update():
        before = await engine.sample(*call)
        with torch.no_grad():
            for parameter in policy.trainable().values():
                parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        await engine.load_weights(policy.model.named_parameters())
        return before, await engine.sample(*call)

    before, after = asyncio.run(around_an_update())
    assert ids([before]) != ids([after])
    assert ids([after]) == ids(sampled(policy, [call]))


def test_the_policy_may_change_its_way_between_batches():
    policy = policy_of("qwen2")
    engine = EmbeddedEngine(policy)
    calls = [(tokens(6, i), 3, SHORT, range(3)) for i in range(3)]
    packed = asyncio.run(gathered(engine, calls))
    policy.use("plain")
    counts = fed(policy)
    assert ids(asyncio.run(gathered(engine, calls))) == ids(packed)
    assert len(counts) > 0


def test_weights_must_not_change_under_a_rollout():
    async def meddle():
        engine = EmbeddedEngine(chain("abc"))
        task = asyncio.create_task(engine.sample(ids_of("a"), 1, Sampling(max_new_tokens=30), [0]))
        for _ in range(5):
            await asyncio.sleep(0)
        with pytest.raises(AssertionError, match="in flight"):
            await engine.load_weights([])
        await task
        await engine.load_weights([])

    asyncio.run(meddle())


def test_exact_in_fp32_only():
    assert EmbeddedEngine(policy_of("qwen2")).exact
    policy = policy_of("qwen2")
    policy.model.bfloat16()
    assert not EmbeddedEngine(policy).exact


# --- errors and interruptions ---------------------------------------------------------------------------------------


class Broken:
    """Makes the embeddings raise at one call, counted from 1."""

    def __init__(self, policy, at):
        self.calls, self.at = 0, at
        policy.model.get_input_embeddings().register_forward_pre_hook(self)

    def __call__(self, *_):
        self.calls += 1
        if self.calls == self.at:
            raise RuntimeError("a kernel failed, say")


@pytest.mark.parametrize("at", [1, 2, 4], ids=["reading prompts", "first token", "later"])
def test_an_error_reaches_everybody_and_the_engine_works_again(at):
    policy = without_ends(policy_of("qwen2"))
    engine = EmbeddedEngine(policy, max_rows=4)
    calls = [(tokens(6, i), 2, SHORT, range(2)) for i in range(4)]

    async def work():
        await gathered(engine, [calls[0]])
        broken = Broken(policy, at)
        answers = await asyncio.gather(*(engine.sample(*call) for call in calls), return_exceptions=True)
        assert all(isinstance(answer, RuntimeError) and "a kernel failed" in str(answer) for answer in answers), answers
        await engine.load_weights([])
        broken.at = 0
        return await gathered(engine, calls)

    assert ids(asyncio.run(work())) == ids(sampled(policy, calls))


def test_whoever_was_answered_before_the_error_keeps_the_answer():
    policy = without_ends(policy_of("qwen2"))
    engine = EmbeddedEngine(policy)
    calls = [(tokens(6), 2, Sampling(max_new_tokens=n), range(2)) for n in (2, 9)]

    async def work():
        await gathered(engine, [calls[0]])
        Broken(policy, at=5)
        return await asyncio.gather(*(engine.sample(*call) for call in calls), return_exceptions=True)

    answered, failed = asyncio.run(work())
    assert len(answered) == 2
    assert isinstance(failed, RuntimeError)


def test_an_interrupted_event_loop_leaves_nothing_behind():
    """Ctrl-C, a time limit around the whole program: the next one begins afresh."""
    policy = without_ends(policy_of("qwen2"))
    engine = EmbeddedEngine(policy, max_rows=4)
    long = [(tokens(6, i), 2, Sampling(max_new_tokens=240), range(2)) for i in range(4)]

    async def interrupted():
        await asyncio.wait_for(gathered(engine, long), 0.1)

    with pytest.raises(TimeoutError):
        asyncio.run(interrupted())
    drawn = engine.tokens_sampled
    call = (tokens(6), 2, SHORT, range(2))

    async def next_one():
        await engine.load_weights([])
        return await gathered(engine, [call])

    assert ids(asyncio.run(next_one())) == ids(sampled(policy, [call]))
    assert engine.tokens_sampled - drawn == 10


def test_what_was_asked_and_never_begun_is_not_begun_by_the_next_event_loop():
    policy = without_ends(policy_of("qwen2"))
    engine, call = EmbeddedEngine(policy), (tokens(6), 2, SHORT, range(2))

    async def left():
        caller = asyncio.create_task(engine.sample(*call))
        await asyncio.sleep(0)
        engine._task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert engine._task.done()
        assert not caller.done()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(left())
    loop.close()  # whoever waits there cannot be answered any more
    assert ids(asyncio.run(gathered(engine, [call]))) == ids(sampled(policy, [call]))
    assert engine.tokens_sampled == 10


@pytest.mark.parametrize("same_loop", [True, False])
@pytest.mark.parametrize("at", ["admit", "step"])
def test_an_interrupt_in_the_middle_of_a_token_leaves_nothing_behind(at, same_loop):
    """As in a notebook, whose event loop goes on."""
    policy = without_ends(policy_of("qwen2"))
    engine, call = EmbeddedEngine(policy), (tokens(6), 2, SHORT, range(2))

    def interrupted(*_):
        raise KeyboardInterrupt

    loop = asyncio.new_event_loop()
    loop.run_until_complete(gathered(engine, [call]))  # the decoder is chosen
    setattr(engine._decoder, at, interrupted)
    caller = loop.create_task(engine.sample(*call))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(caller)
    if same_loop:
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(caller)
    assert not len(engine._rows)
    again = loop.run_until_complete if same_loop else asyncio.run
    assert ids(again(gathered(engine, [call]))) == ids(sampled(policy, [call]))
    loop.close()


def test_when_the_engine_is_cancelled_nobody_waits_for_ever():
    """As an event loop that ends cancels all tasks, in any order."""
    policy = without_ends(policy_of("qwen2"))
    engine = EmbeddedEngine(policy, max_rows=2)

    async def work():
        callers = [
            asyncio.create_task(engine.sample(tokens(6), 2, Sampling(max_new_tokens=90), range(2))) for _ in range(2)
        ]
        for _ in range(5):
            await asyncio.sleep(0)
        (running,) = asyncio.all_tasks() - {asyncio.current_task(), *callers}
        running.cancel()
        answers = await asyncio.wait_for(asyncio.gather(*callers, return_exceptions=True), 10)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers)
        await engine.load_weights([])
        return await engine.sample(tokens(6), 2, SHORT, range(2))

    assert ids([asyncio.run(work())]) == ids(sampled(policy, [(tokens(6), 2, SHORT, range(2))]))


def test_an_event_loop_that_was_left_in_the_middle():
    """As notebooks leave them: not cancelled, never run again."""
    policy = without_ends(policy_of("qwen2"))
    engine = EmbeddedEngine(policy)
    left = asyncio.new_event_loop()

    async def begin():
        task = asyncio.create_task(engine.sample(tokens(6), 2, Sampling(max_new_tokens=50), range(2)))
        for _ in range(5):
            await asyncio.sleep(0)
        return task

    task = left.run_until_complete(begin())
    call = (tokens(6), 2, SHORT, range(2))
    try:
        assert ids(asyncio.run(gathered(engine, [call]))) == ids(sampled(policy, [call]))
        assert not task.done()
    finally:
        for pending in asyncio.all_tasks(left):
            pending.cancel()
        left.run_until_complete(asyncio.gather(*asyncio.all_tasks(left), return_exceptions=True))
        left.close()
    assert ids(asyncio.run(gathered(engine, [call]))) == ids(sampled(policy, [call]))


def test_rows_that_nobody_waits_for_are_dropped():
    """A caller gives up; the others do not notice, and soon nothing is computed for it any more."""
    policy = without_ends(policy_of("qwen2"))
    engine = EmbeddedEngine(policy, max_rows=8)
    given_up, waiting, other = (
        (tokens(6, i), n, Sampling(max_new_tokens=m), range(n)) for i, n, m in ((0, 4, 200), (1, 4, 200), (2, 4, 12))
    )

    async def work():
        first = asyncio.create_task(engine.sample(*given_up))
        last = asyncio.create_task(engine.sample(*other))
        never_begun = asyncio.create_task(engine.sample(*waiting))
        for _ in range(6):
            await asyncio.sleep(0)
        first.cancel()
        never_begun.cancel()
        answer = await last
        await asyncio.sleep(0)
        await engine.load_weights([])
        return answer

    assert ids([asyncio.run(work())]) == ids(sampled(policy, [other]))
    assert engine.tokens_sampled == 4 * 12


def test_a_single_completion_is_a_group_of_one():
    assert one(chain("abc"), ids_of("a"), Sampling(max_new_tokens=4)).text == "bcab"
