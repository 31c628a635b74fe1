"""Where a completion ends, why, and what its text is."""

import asyncio

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from toy_engine import chain, one, sampled, without_ends
from transformers import PreTrainedTokenizerFast

from architectures import policy_of, tokens
from groupwise.engines.embedded import EmbeddedEngine, end_tokens, with_special_stops
from groupwise.errors import EngineError
from groupwise.types import Sampling
from toys import char_tokenizer, ids_of

EOS = 1


def greedy(limit=12, **settings):
    return Sampling(max_new_tokens=limit, temperature=0.0, **settings)


def shown(completion):
    """Letters of the ids, text, and why it ended."""
    return char_tokenizer().decode(completion.token_ids), completion.text, completion.finish_reason


# --- length and end tokens ------------------------------------------------------------------------------------------


def test_the_toy_goes_round_and_round():
    completion = one(chain("abc"), ids_of("xb"), greedy(7))
    assert shown(completion) == ("cabcabc", "cabcabc", "length")
    assert len(completion.logprobs) == 7 and all(-1e-3 < logprob <= 0 for logprob in completion.logprobs)


@pytest.mark.parametrize(("limit", "reason"), [(2, "length"), (3, "stop"), (4, "stop")])
def test_an_end_token_ends_it_and_is_kept_in_the_ids_only(limit, reason):
    """At a limit of 3 the end token is the last one that was allowed: it ended by itself."""
    completion = one(chain([*ids_of("abc"), EOS]), ids_of("a"), greedy(limit))
    assert completion.token_ids == (*ids_of("bc"), EOS)[:limit]
    assert (completion.text, completion.finish_reason) == ("bc", reason)
    assert len(completion.logprobs) == len(completion.token_ids)


@pytest.mark.parametrize("place", ["generation config", "config", "tokenizer"])
def test_every_end_token_counts(place):
    """Llama 3 ends a turn with one token and a text with another; some tokenizers know one that the model does not."""
    policy = without_ends(chain("abcdef"))
    c, e = ids_of("ce")
    assert end_tokens(policy) == frozenset()
    if place == "generation config":
        policy.model.generation_config.eos_token_id = [e, c]
    elif place == "config":
        policy.model.config.eos_token_id = [c]
    else:
        policy.tokenizer.eos_token = "c"
    assert c in end_tokens(policy)
    assert one(policy, ids_of("a"), greedy()).token_ids == ids_of("bc")
    if place == "generation config":
        assert one(policy, ids_of("c"), greedy()).token_ids == ids_of("de")


def test_all_of_them_together():
    policy = chain("abcdef")
    policy.model.generation_config.eos_token_id = [7, 9]
    policy.model.config.eos_token_id = 11
    assert end_tokens(policy) == {7, 9, 11, EOS}


def test_without_any_end_token_it_runs_to_the_limit():
    assert one(without_ends(chain([*ids_of("ab"), EOS])), ids_of("a"), greedy(9)).finish_reason == "length"


def test_stop_tokens_are_those_of_one_request():
    policy = chain("abcdef")
    (c,) = ids_of("c")
    groups = sampled(policy, [(ids_of("a"), 1, greedy(6, stop_token_ids=ends), [0]) for ends in ((), (c,), (99, c))])
    assert [shown(group[0]) for group in groups] == [
        ("bcdefa", "bcdefa", "length"),
        ("bc", "bc", "stop"),
        ("bc", "bc", "stop"),
    ]


# --- stop strings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "limit", "expected"),
    [
        (("d",), 12, ("bcd", "bc", "stop")),
        (("cd",), 12, ("bcd", "b", "stop")),
        (("bcdefab",), 12, ("bcdefab", "", "stop")),
        (("ab",), 12, ("bcdefab", "bcdef", "stop")),  # the prompt's own "a" does not count
        (("xyz",), 8, ("bcdefabc", "bcdefabc", "length")),
        (("cd",), 3, ("bcd", "b", "stop")),  # on the last token that was allowed
        (("de",), 3, ("bcd", "bcd", "length")),
        (("ef", "cd"), 12, ("bcd", "b", "stop")),
        (("cd", "bcd"), 12, ("bcd", "", "stop")),  # both end here: the text ends where the first of them begins
        (("bcd", "cd"), 12, ("bcd", "", "stop")),
    ],
)
def test_a_stop_string_ends_it_and_is_cut_from_the_text(stop, limit, expected):
    completion = one(chain("abcdef"), ids_of("a"), greedy(limit, stop=stop))
    assert shown(completion) == expected
    assert len(completion.logprobs) == len(completion.token_ids)


def test_other_rows_go_on_when_one_has_stopped():
    calls = [(ids_of("a"), 2, greedy(20, stop=stop), [0, 1]) for stop in (("c",), (), ("fab",))]
    groups = sampled(chain("abcdef"), calls)
    assert [[len(c.token_ids) for c in group] for group in groups] == [[2, 2], [20, 20], [7, 7]]


def byte_tokenizer():
    """A token for each byte, as the smallest tokens of byte-level BPE are."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize(("stop", "text"), [("é", "a"), ("€b", "aé"), ("é€b", "a"), ("b", "aé€")])
def test_a_stop_string_across_the_bytes_of_a_letter(stop, text):
    """ "é" is two tokens and "€" three: nothing is there to be found until the last of them."""
    tokenizer = byte_tokenizer()
    policy = chain("xaé€bc", tokenizer=tokenizer)
    completion = one(policy, tokenizer.encode("x"), greedy(stop=(stop,)))
    assert (completion.text, completion.finish_reason) == (text, "stop")
    assert tokenizer.decode(completion.token_ids) == text + stop


def test_a_stop_string_far_down_a_long_completion():
    """Looking for it costs a few tokens at the end, wherever that is."""
    letters = [chr(code) for code in range(33, 127)]
    completion = one(chain("".join(letters)), ids_of("!"), greedy(200, stop=("}~!",)))
    assert completion.text == "".join(letters[1:-2])
    assert len(completion.token_ids) == len(letters)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_the_context_is_a_limit():
    policy = chain("abc", context=16)
    completion = one(policy, ids_of("abcabcabcabc"), greedy(50))
    assert shown(completion) == ("abca", "abca", "length")
    assert len(one(policy, ids_of("abcabcabcabcabc"), greedy(50)).token_ids) == 1


@pytest.mark.parametrize(
    ("length", "says"),
    [
        (0, "an empty prompt"),
        (16, "16 tokens.*context is 16 tokens.*max_prompt_tokens"),
        (40, "40 tokens.*context is 16 tokens.*max_prompt_tokens"),
    ],
)
def test_prompts_that_leave_no_room(length, says):
    with pytest.raises(EngineError, match=says):
        one(chain("abc", context=16), ids_of("a") * length, greedy())


def test_a_prompt_that_is_refused_does_not_harm_the_others():
    async def refused_beside_another():
        engine = EmbeddedEngine(chain("abc", context=16))
        good = asyncio.create_task(engine.sample(ids_of("a"), 1, greedy(3), [0]))
        with pytest.raises(EngineError):
            await engine.sample((), 1, greedy(3), [0])
        return await good

    assert shown(asyncio.run(refused_beside_another())[0])[0] == "bca"


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_rows_that_are_over_do_not_run_past_the_last_position(name):
    """A finished row stays in the batch for a while. At the end of the context there is no next position for it."""
    policy = without_ends(policy_of(name))
    calls = [
        (tokens(250), 1, Sampling(max_new_tokens=100), [0]),
        (tokens(4), 20, Sampling(max_new_tokens=40), range(20)),
    ]
    (long,), short = sampled(policy, calls)
    assert len(long.token_ids) == 6 and long.finish_reason == "length"
    assert {len(completion.token_ids) for completion in short} == {40}
    assert long.token_ids == one(policy, tokens(250), Sampling(max_new_tokens=100)).token_ids


def test_none_and_many():
    policy = chain("abc")
    none, five = sampled(policy, [(ids_of("a"), 0, greedy(3), []), (ids_of("b"), 5, greedy(3), range(5))], max_rows=2)
    assert none == []
    assert [shown(completion)[0] for completion in five] == ["cab"] * 5


def test_text_is_without_special_tokens():
    completion = one(without_ends(chain([*ids_of("a"), 2, *ids_of("b"), 0, *ids_of("c"), EOS])), ids_of("a"), greedy(7))
    assert completion.token_ids == (2, *ids_of("b"), 0, *ids_of("c"), EOS, *ids_of("a"), 2)
    assert completion.text == "bca"


def test_a_stop_string_that_is_a_special_token_stops_though_it_never_shows_in_the_text():
    bos = 2
    completion = one(without_ends(chain([*ids_of("ab"), bos, *ids_of("c")])), ids_of("a"), greedy(9, stop=("<bos>",)))
    assert completion.token_ids == (*ids_of("b"), bos)
    assert (completion.text, completion.finish_reason) == ("b", "stop")
    mixed = with_special_stops(Sampling(stop=("<bos>", "x"), stop_token_ids=(7,)), char_tokenizer())
    assert mixed == Sampling(stop=("x",), stop_token_ids=(7, bos))
