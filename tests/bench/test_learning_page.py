"""What the page about learning says, worked out by hand."""

import pytest

from learning_page import best, ends, gain, ranked, settings, table, until_good, within, write

SLOW = {"evaluations": [(0, 0.1), (100, 0.5), (200, 1.0), (300, 0.2)]}
QUICK = {"evaluations": [(0, 0.1), (100, 0.95), (250, 0.8)]}
NEVER = {"evaluations": [(0, 0.1), (100, 0.2), (200, 0.3)]}
STAMP = {"date": "2026-01-02", "commit": "abc", "machine": "m", "versions": "v"}


def whole(entry):
    drawn = [point[0] for point in entry["evaluations"]]
    rest = {"samples": drawn, "rewards": [0.5] * len(drawn), "seconds": 60.0, "stamp": STAMP}
    return {**entry, **rest, "settings": {"algorithm.preset": "grpo", "optimizer.lr": 1e-5}}


def test_who_drew_more_is_cut_off():
    assert within(SLOW, 200) == [(0, 0.1), (100, 0.5), (200, 1.0)]
    assert ends(SLOW, 200) == (0.1, 1.0)
    assert gain(SLOW, 300) == pytest.approx(0.1)


def test_samples_until_good_lie_on_the_line_between_evaluations():
    assert until_good(SLOW, 200) == pytest.approx(180)  # 100 + 100 * 0.4 / 0.5
    assert until_good(QUICK, 200) == pytest.approx(100 * 0.8 / 0.85)
    assert until_good(NEVER, 200) is None


def test_the_soonest_stands_first_and_the_page_says_all_of_it(tmp_path):
    entries = {"grpo": whole(NEVER), "gspo": whole(SLOW), "gdpo": whole(QUICK)}
    own = {"gdpo": ({"rewards": [{"function": "correctness"}]}, "it wants two")}
    assert ranked(entries, 200) == ["gdpo", "gspo", "grpo"]
    lines = table(entries, 200, own).splitlines()
    assert lines[2].startswith(
        "| `gdpo`\\* | each reward function normalised for itself; arXiv 2601.05242 | 0.10 | 0.95 |"
    )
    assert lines[4].endswith("| 0.10 | 0.30 | never |")
    assert "smallest gain 0.20" in best(entries, 200, own)
    assert (
        settings({"optimizer.lr": 1e-5}, own).splitlines()[1].startswith("- \\* `gdpo` with `rewards = [{function = ")
    )
    page = tmp_path / "algorithms.md"
    page.write_text("".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in ("best", "learning", "settings")))
    write(entries, tmp_path, samples=200, common={}, own=own)
    assert "`gspo` was the first" in page.read_text()
    assert (tmp_path / "images" / "every-preset-learns.png").stat().st_size > 5000
