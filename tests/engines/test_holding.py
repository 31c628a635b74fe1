"""What each decoder says that it holds, against numbers that were added up by hand."""

import pytest
import torch

from architectures import model_of, policy_of, tokens
from groupwise.config.sections import LoraSection
from groupwise.engines import native
from groupwise.engines.choice import choose_decoder
from groupwise.engines.decoders import PlainDecoder, RereadingDecoder, TrunkAndBranchDecoder
from groupwise.engines.fused import FusedDecoder
from groupwise.engines.holding import Batch, Holding
from groupwise.engines.native import SOURCE, NativeDecoder
from groupwise.models import compiled

BATCH = Batch(prompts=2, prompt=33, rows=6, completion=100)
LORA = LoraSection(r=4)
needs_a_compiler = pytest.mark.skipif(compiled.library(SOURCE) is None, reason="no C compiler here")

# "llama" here: 3 layers, 32 wide, 4 heads of 8 and 2 key heads, 48 inside, a vocabulary of 99. In panels of 32 columns
# the matrices of a layer are [64, 32], [32, 32], [64, 32] twice and [32, 48], and the head is [128, 32].
PANELS = 3 * (64 * 32 + 32 * 32 + 2 * 64 * 32 + 32 * 48) + 128 * 32
NORMS_AND_EMBEDDING = (3 * 2 + 1) * 32 + 99 * 32
# A page is 32 tokens of all layers and key heads: 8 numbers of a key, and 8 of a value in a panel of 32. A prompt of 33
# has two, a completion of 100 four.
PAGES = (2 * 2 + 6 * 4) * 3 * 2 * 32 * (8 + 32) * 4


def held(make, policy):
    return make(policy).holds(BATCH)


@needs_a_compiler
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_compiled_code_has_the_matrices_again_in_fp32(lora):
    """An adapter is part of the matrices. Norms and the embedding are the model's own."""
    policy = policy_of("llama", lora=lora)
    assert choose_decoder(policy) is NativeDecoder
    assert held(NativeDecoder, policy) == Holding(4 * PANELS, PAGES)


@needs_a_compiler
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_of_16_bits_compiled_code_has_all_again_in_fp32(dtype):
    policy = policy_of(model_of("llama").to(dtype))
    assert choose_decoder(policy) is NativeDecoder
    assert held(NativeDecoder, policy) == Holding(4 * (PANELS + NORMS_AND_EMBEDDING), PAGES)


@needs_a_compiler
def test_the_copy_is_gone_while_nobody_waits():
    decoder = NativeDecoder(policy_of("llama"))
    decoder.rest()
    assert decoder.holds(BATCH) == Holding(0, PAGES)
    decoder.refresh()
    assert decoder.holds(BATCH).weights == 4 * PANELS


@needs_a_compiler
def test_a_model_above_the_limit_is_not_copied_by_compiled_code(monkeypatch):
    """Then it is fused, and above that limit run as it is."""
    policy = policy_of("llama")
    monkeypatch.setattr(native, "LARGEST", 1000)
    assert choose_decoder(policy) is FusedDecoder
    monkeypatch.setattr("groupwise.engines.fused.LARGEST", 1000)
    assert choose_decoder(policy) is TrunkAndBranchDecoder


# 2 x 3 layers x 2 key heads x 8 numbers. Columns come 64 at first, then for the 65th 65 + 64.
PER_TOKEN, COLUMNS = 2 * 3 * 2 * 8, 129


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)], ids=str)
def test_fused_has_matrices_and_columns_in_the_precision_of_the_model(dtype, size):
    """Queries and keys twice, once turned by 90 degrees: [64 + 48, 32]; gate and up in one, without padding."""
    policy = policy_of(model_of("llama").to(dtype))
    matrices = 3 * ((64 + 48) * 32 + 32 * 32 + 2 * 48 * 32 + 32 * 48)
    tokens_kept = 2 * 33 + 6 * COLUMNS
    assert held(FusedDecoder, policy) == Holding(size * matrices, size * PER_TOKEN * tokens_kept)
    assert held(TrunkAndBranchDecoder, policy) == Holding(0, size * PER_TOKEN * tokens_kept)


def test_the_plain_one_has_each_prompt_once_a_row():
    assert held(PlainDecoder, policy_of("llama")) == Holding(0, 4 * PER_TOKEN * 6 * (33 + 100))


def test_nothing_is_kept_by_who_reads_anew():
    assert held(RereadingDecoder, policy_of("llama")) == Holding(0, 0)


@pytest.mark.parametrize("make", [NativeDecoder, TrunkAndBranchDecoder])
def test_it_is_what_is_there_in_the_end(make):
    """Of prompts and rows as full as that was said."""
    if make is NativeDecoder and compiled.library(SOURCE) is None:
        pytest.skip("no C compiler here")
    decoder, batch = make(policy_of("llama")), Batch(2, 5, 8, 70)
    with torch.inference_mode():
        decoder.admit([tokens(5), tokens(5, 1)], [4, 4])
        for _ in range(batch.completion):
            decoder.step(torch.zeros(8, dtype=torch.long))
    if make is NativeDecoder:
        blocks = [*decoder._pages._pools, *decoder._pages._trunks]
    else:
        blocks = [x for pair in [*decoder._cache._trunks.values(), *decoder._cache._branches.values()] for x in pair]
    assert sum(x.numel() * x.element_size() for x in blocks) == decoder.holds(batch).keys_and_values
