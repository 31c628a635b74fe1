"""What the page about learning says, worked out by hand."""

import pytest

import learning
from learning_page import best, ends, gain, ranked, settings, table, until_good, within, write

SLOW = {"evaluations": [(0, 0.1), (100, 0.5), (200, 1.0), (300, 0.2)]}
QUICK = {"evaluations": [(0, 0.1), (100, 0.95), (250, 0.8)]}
NEVER = {"evaluations": [(0, 0.1), (100, 0.2), (200, 0.3)]}
STAMP = {"date": "2026-01-02", "commit": "abc", "machine": "m", "versions": "v"}
ALONE = {"grpo": [], "gspo": [], "gdpo": []}
"""No further seeds."""


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
    lines = table(entries, ALONE, 200, own).splitlines()
    assert lines[2].startswith(
        "| `gdpo`\\* | each reward function normalised for itself; arXiv 2601.05242 | 0.10 | 0.95 |"
    )
    assert lines[4].endswith("| 0.10 | 0.30 | never |")
    assert "smallest gain 0.20" in best(entries, ALONE, 200, own)
    assert (
        settings({"optimizer.lr": 1e-5}, own).splitlines()[1].startswith("- \\* `gdpo` with `rewards = [{function = ")
    )
    page = tmp_path / "algorithms.md"
    page.write_text("".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in ("best", "learning", "settings")))
    write(entries, ALONE, tmp_path, samples=200, common={}, own=own)
    assert "`gspo` was the first" in page.read_text()
    assert (tmp_path / "images" / "every-preset-learns.png").stat().st_size > 5000


def test_further_seeds_are_told_as_a_range_and_the_worst_end_counts():
    entries, others = {"gspo": whole(SLOW)}, {"gspo": [whole(QUICK), whole(SLOW)]}
    (line,) = table(entries, others, 200, {}).splitlines()[2:]
    assert line.endswith("| 0.10 | 0.95 | 180 (94 to 180 with 3 seeds) |")
    later = {**whole(QUICK), "stamp": {**STAMP, "commit": "def"}}
    told = best(entries, {"gspo": [later]}, 200, {})
    assert "Measured 2026-01-02, commit abc; 2026-01-02, commit def, m; v. 2 minutes for 1 presets, 2 runs." in told


def test_what_was_measured_at_this_commit_and_these_settings_is_done():
    entry = {"settings": learning.settings_of("grpo"), "stamp": {"commit": "abc"}}
    assert learning.is_done(entry, "grpo", "abc") and learning.is_done(entry, "grpo", None)
    assert not learning.is_done(entry, "grpo", "abd")
    assert not learning.is_done({**entry, "stamp": {"commit": "abc+"}}, "grpo", "abc+")  # files have changed since
    assert not learning.is_done(entry, "gspo", None)
    assert not learning.is_done(None, "grpo", None)
    assert (learning.entry_of("grpo", 0), learning.entry_of("grpo", 2)) == ("grpo", "grpo, seed 2")
