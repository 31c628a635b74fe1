"""The most that is held at once, and what of it leaves gaps."""

import torch

from groupwise.training.peaks import Peak, peak_in, peak_of

MB = 1 << 20


def test_the_most_is_not_the_sum():
    assert peak_in([3 * MB, 2 * MB, -2 * MB, 1 * MB]) == Peak(5 * MB, 5 * MB)


def test_large_blocks_leave_no_gaps():
    """What goes back to the kernel at once is held once. Of a quarter of the work the blocks are a quarter as large."""
    changes = [MB, 64 * MB, -MB, 12 * MB, -64 * MB]
    assert peak_in(changes) == Peak(76 * MB, 12 * MB)
    assert peak_in(changes, share=0.25) == Peak(76 * MB, MB)


def test_of_tensors_on_a_cpu():
    def work() -> None:
        kept = torch.ones(MB)
        (kept + 1).sum()  # 4 MB beside 4 MB
        torch.ones(MB // 2)

    found = peak_of(work, torch.device("cpu"))
    assert 8 * MB <= found.used < 8.2 * MB and found.gaps == found.used
