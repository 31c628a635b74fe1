"""Every detector on a history that it is for and on one beside it, all of them quiet on three runs of the demo."""

import json
from pathlib import Path

import pytest

from groupwise.config.alarms import AlarmsSection
from groupwise.errors import RecipeError
from groupwise.runs.files import read_rows
from groupwise.training.alarms import DETECTORS, History, detectors_of
from groupwise.training.signs import example_of, repeats, signs
from groupwise.training.watch import Watch
from toys import graded_group, ids_of

DEMOS = json.loads((Path(__file__).parents[1] / "data" / "demo_histories.json").read_text())


def series(**metrics):
    """A history of rows; a number stands for itself at every step."""
    count = max(len(values) for values in metrics.values() if isinstance(values, list))
    rows = [
        {"step": i + 1, **{name: v[i] if isinstance(v, list) else v for name, v in metrics.items()}}
        for i in range(count)
    ]
    return History(rows)


def evaluations(*accuracies):
    return [
        {"step": 10 * i, "accuracy": a, "accuracy_low": a - 0.05, "accuracy_high": a + 0.05}
        for i, a in enumerate(accuracies)
    ]


RISING = [0.1, 0.1, 0.1, 0.1, 0.1, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9]
FALLEN = [1.0] * 5 + [0.5] + [0.1] * 5

CASES = {
    "no_signal": (series(zero_signal=[0.9] * 5, solved=0.0), series(zero_signal=[0.9] * 4 + [0.7], solved=0.0)),
    "collapse": (
        series(entropy=FALLEN, reward=0.1, reward_std=0.4),
        series(entropy=FALLEN, reward=RISING, reward_std=0.4),
    ),
    "kl": (series(kl=[0.01] * 10 + [0.9] * 5), series(kl=[0.01] * 10 + [0.4] * 5)),
    "clipping": (
        series(clip_low=[0.2] * 5, clip_high=0.2),
        series(clip_low=[0.2] * 5, clip_high=0.05),
    ),
    "length": (
        series(length=[10.0] * 6 + [21.0] * 5, reward=0.1, reward_std=0.4),
        series(length=[10.0] * 6 + [21.0] * 5, reward=RISING, reward_std=0.4),
    ),
    "repetition": (
        series(repetition=[0.0] * 5 + [0.3] * 3),
        series(repetition=[0.3] * 8),  # it began like this: the model is so, training did not make it so
    ),
    "truncation": (series(truncated=[0.3] * 5), series(truncated=[0.1] + [0.3] * 4)),
    "outlier": (series(reward_size=[1.0] * 5 + [6.0]), series(reward_size=[1.0] * 5 + [4.0])),
    "held_out": (
        History(series(reward=[0.1] * 10 + [0.8] * 10).steps, evaluations(0.5, 0.6, 0.3)),
        History(series(reward=[0.1] * 10 + [0.8] * 10).steps, evaluations(0.5, 0.6, 0.55)),
    ),
}


def test_a_warm_start_may_lose_its_entropy():
    assert DETECTORS["collapse"](series(entropy=FALLEN)) is None


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_speaks_on_its_own_history_and_is_quiet_beside_it(name):
    wrong, fine = CASES[name]
    said = DETECTORS[name](wrong)
    assert said is not None
    assert said.text.endswith(".") and said.advice.endswith(".")
    assert said.evidence
    assert DETECTORS[name](fine) is None
    assert DETECTORS[name](History([])) is None


@pytest.mark.parametrize("demo", DEMOS, ids=lambda demo: f"seed {demo['seed']}")
def test_the_demo_raises_no_alarm_at_any_step(demo):
    for count in range(1, len(demo["steps"]) + 1):
        steps = demo["steps"][:count]
        seen = [row for row in demo["evaluations"] if row["step"] <= steps[-1]["step"]]
        assert {name: detect(History(steps, seen)) for name, detect in DETECTORS.items()} == dict.fromkeys(DETECTORS)


def test_no_signal_says_which_of_the_two_it_is():
    wrong = DETECTORS["no_signal"](series(zero_signal=[1.0] * 5, solved=0.0))
    right = DETECTORS["no_signal"](series(zero_signal=[1.0] * 5, solved=1.0))
    assert (
        wrong.text == "100% of the groups of the last 5 steps taught nothing: all their completions were wrong alike."
    )
    assert "too hard" in wrong.advice
    assert "all their completions were right" in right.text
    assert "nothing left to learn" in right.advice


def test_completions_may_shrink_too():
    said = DETECTORS["length"](series(length=[20.0] * 6 + [4.0] * 5, reward=0.1, reward_std=0.4))
    assert said.text == "Completions have shrunk from 20 to 4 tokens, and the reward has not gained by it."


def test_texts_that_go_round_in_circles():
    assert repeats("so we have 4 and " * 20)
    assert repeats("aaaa" * 100)
    assert not repeats("so we have 4")
    assert not repeats(" ".join(f"{i} + {i * 7} = {i * 8};" for i in range(40)))
    assert not repeats(Path(__file__).read_text()[:3000])


def test_signs_of_a_step():
    groups = [
        graded_group(ids_of("1"), (ids_of("a"), 1.0), (ids_of("b"), 1.0)),  # solved
        graded_group(ids_of("2"), (ids_of("a"), -3.0), (ids_of("b"), -3.0)),  # the lowest: not solved
        graded_group(ids_of("3"), (ids_of("a"), None), (ids_of("b"), 1.0)),  # one graded, above the lowest
        graded_group(ids_of("4"), (ids_of("a"), 0.0), (ids_of("b"), 1.0)),
    ]
    assert signs(groups) == {"repetition": 0.0, "solved": 0.5, "reward_size": 3.0}
    assert example_of("outlier", groups)[2].reward == -3.0


def test_an_alarm_is_told_once_and_written_with_an_example(tmp_path):
    told = []
    watch = Watch(AlarmsSection(repeat_after=3), tmp_path / "alarms.jsonl", told.append)
    steps = [{"step": i + 1, "truncated": 0.5} for i in range(12)]
    groups = [graded_group(ids_of("1"), (ids_of("abc"), 1.0), identity="p\x1b[31m7")]
    names = [[a.name for a in watch.after_step(steps[:n], [], groups)] for n in range(1, 13)]
    assert names == [[], [], [], [], ["truncation"], [], [], ["truncation"], [], [], ["truncation"], []]
    assert len(told) == 3
    assert told[0].startswith("ALARM truncation, step 5: 50% of the completions of the last 5 steps were cut")
    rows = read_rows(tmp_path / "alarms.jsonl")
    assert [row["step"] for row in rows] == [5, 8, 11]
    assert rows[0]["example"]["why"] == "it was cut"
    assert rows[0]["evidence"] == {"truncated": 0.5}
    again = Watch(AlarmsSection(repeat_after=3), tmp_path / "alarms.jsonl", told.append)
    assert again.after_step(steps[:12], []) == []  # a resumed run does not say it again at once


def test_only_alarms_that_were_chosen_act(tmp_path):
    steps = [{"step": i + 1, "truncated": 0.5} for i in range(5)]

    def acting(**settings):
        watch = Watch(AlarmsSection(**settings), tmp_path / f"{len(settings)}.jsonl", lambda text: None)
        return watch.acting(watch.after_step(steps, []))

    assert acting() is None
    assert acting(action="stop") is None
    assert acting(action="stop", act_on=["truncation"]).name == "truncation"
    assert acting(action="stop", act_on=["truncation"], off=["truncation"]) is None


def test_limits_can_be_set_and_mistakes_are_named():
    detect, limits = detectors_of([], {"truncation": {"share": 0.6}})["truncation"]
    assert detect(series(truncated=[0.5] * 5), **limits) is None
    for off, settings, message in (
        (["trunc"], {}, "no alarm 'trunc'"),
        ([], {"kl": {"share": 1.0}}, "alarms.settings.kl.share: unknown. It has times, least, steps"),
        ([], {"kl": {"steps": 1.5}}, "needs a whole number"),
        ([], {"kl": {"times": "3"}}, "needs a number above 0"),
    ):
        with pytest.raises(RecipeError, match=message):
            detectors_of(off, settings)
