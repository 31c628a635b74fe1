"""Drawing in compiled code: the same tokens as in torch's operations, and the same logprobs."""

import pytest
import torch

from groupwise.engines import drawing
from groupwise.engines.sampler import draw
from groupwise.types import Sampling

pytestmark = pytest.mark.skipif(not drawing.fits(torch.zeros(1, 1), Sampling()), reason="no C compiler here")


def logits_of(rows, vocabulary, seed=0, scale=3.0):
    return scale * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("vocabulary", [1, 2, 7, 16, 95, 511, 512, 513, 5_000, 70_001])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
def test_the_token_in_whose_share_the_number_falls(vocabulary, temperature):
    """In double precision. A number within rounding of a border may go either way."""
    rows = 300 if vocabulary < 1_000 else 20
    logits = logits_of(rows, vocabulary)
    uniforms = torch.rand(rows, generator=torch.Generator().manual_seed(1))
    tokens, logprobs = drawing.drawn(logits, uniforms, temperature)
    exact = (logits.double() / temperature).log_softmax(-1)
    borders = exact.exp().cumsum(-1)
    upper = borders.gather(-1, tokens[:, None])[:, 0]
    lower = upper - exact.exp().gather(-1, tokens[:, None])[:, 0]
    assert (lower <= uniforms + 1e-6).all()
    assert (uniforms <= upper + 1e-6).all()
    torch.testing.assert_close(logprobs.double(), exact.gather(-1, tokens[:, None])[:, 0], atol=1e-5, rtol=1e-6)


def test_a_row_draws_the_same_whatever_rows_are_beside_it_and_however_they_lie():
    logits, uniforms = logits_of(70, 1_200), torch.rand(70, generator=torch.Generator().manual_seed(1))
    tokens, logprobs = drawing.drawn(logits, uniforms, 0.9)
    wide = torch.cat([logits, torch.full((70, 9), 1e9)], 1)[:, :1_200]
    for found in (drawing.drawn(wide, uniforms, 0.9), drawing.drawn(logits[3:4], uniforms[3:4], 0.9)):
        which = slice(None) if len(found[0]) > 1 else slice(3, 4)
        assert torch.equal(found[0], tokens[which])
        assert torch.equal(found[1], logprobs[which])


@pytest.mark.parametrize("number", [0.0, 0.5, 1.0 - 2**-24])
def test_a_token_that_cannot_occur_is_never_drawn(number):
    logits = torch.full((1, 1_100), -torch.inf)
    logits[0, [3, 700]] = torch.tensor([2.0, 1.0])
    tokens, logprobs = drawing.drawn(logits, torch.tensor([number]), 1.0)
    assert int(tokens) == (700 if number > 0.9 else 3)
    expected = torch.tensor([2.0, 1.0]).log_softmax(-1)[int(tokens == 700)]
    torch.testing.assert_close(logprobs[0], expected)


def test_what_is_no_number_is_told_by_the_logprob():
    logits = logits_of(3, 40)
    logits[1, 5] = torch.nan
    logits[2] = -torch.inf
    tokens, logprobs = drawing.drawn(logits, torch.full((3,), 0.3), 1.0)
    assert logprobs.isnan().tolist() == [False, True, True]
    assert ((tokens >= 0) & (tokens < 40)).all()


def test_it_is_taken_for_plain_sampling_only(monkeypatch):
    asked = []
    drawn = drawing.drawn
    monkeypatch.setattr(drawing, "drawn", lambda *given: asked.append(given) or drawn(*given))
    logits, uniforms = logits_of(4, 30), torch.full((4,), 0.4)
    plain, _ = draw(logits, uniforms, Sampling(temperature=0.8), None)
    assert len(asked) == 1
    assert torch.equal(draw(logits.double(), uniforms, Sampling(temperature=0.8), None)[0], plain)
    for other in (Sampling(top_k=3), Sampling(top_p=0.9), Sampling(min_p=0.1), Sampling(temperature=0)):
        draw(logits, uniforms, other, None)
    draw(logits, uniforms, Sampling(), torch.zeros(4, 30, dtype=torch.bool))
    assert len(asked) == 1


def test_who_draws_an_end_has_ended_unless_it_had_before():
    """Rows 0 and 2 can draw nothing but 7, row 1 nothing but 3; row 2 ended two columns ago."""
    logits = torch.full((3, 20), -torch.inf)
    logits[[0, 1, 2], [7, 3, 7]] = 1.0
    tokens, logprobs, ended_at = torch.zeros(3, dtype=torch.long), torch.ones(3), torch.tensor([1 << 60, 1 << 60, 4])
    ends = torch.tensor([5, 7])
    assert drawing.fill(tokens, logprobs, ended_at, logits, torch.full((3,), 0.5), 1.0, ends=ends, column=6) == 1
    assert tokens.tolist() == [7, 3, 7]
    assert logprobs.tolist() == [0, 0, 0]
    assert ended_at.tolist() == [6, 1 << 60, 4]
