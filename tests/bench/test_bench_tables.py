from dataclasses import asdict

import pytest

import tables
from compare import fastest, peak, per_token, seconds
from growth import SERIES, checks
from results import Results, everywhere, of_this_machine
from workloads import WORKLOADS


def result(*times, tokens=10, mb=100.0):
    rows = [
        {"seconds": t, "sample": t / 2, "grade": 0.0, "learn": t / 2, "sync": 0.0, "lengths": [tokens], "cores": 1.9}
        for t in times
    ]
    return {"steps": rows, "peak_mb": mb, "micro_batch": 8, "generate": "hf"}


def entry(**changes):
    return {
        "workload": asdict(WORKLOADS["W1"]),
        "ours": [result(9, 1, 2), result(9, 3, 2, mb=120.0)],
        "trl": result(99, 20, 24, 40, tokens=20, mb=480.0),
        "stamp": {"date": "2026-01-02", "commit": "abc", "machine": "m", "versions": "v"},
        "command": "make bench",
        **changes,
    }


def tried(only, knob, value, per_token, *, steps=2, mb=400.0):
    settings = {"generate": "hf", "micro_batch": 64, knob: value}
    figures = {"seconds": 1.0, "per_token": per_token, "peak_mb": mb} if per_token else {"failed": "no memory"}
    return {"only": only, **settings, "completions": 16, "steps": steps, **figures}


SEARCHED = {
    "W1": {
        "tried": [
            tried("generate", "generate", "hf", 0.5),
            tried("generate", "generate", "continuous", None),
            tried("learn", "micro_batch", 8, 0.2),
            tried("learn", "micro_batch", 16, 0.3),
            tried("learn", "micro_batch", 64, 0.1, steps=1, mb=1200.0),
        ],
        "stamp": {"date": "2026-01-02", "commit": "abc", "machine": "m", "versions": "v"},
        "command": "make bench",
    }
}


def test_the_first_step_does_not_count_and_the_median_does():
    assert seconds(entry()["ours"]) == 2  # of 1, 2, 3, 2
    assert seconds([entry()["trl"]]) == 24
    assert per_token(entry()["ours"]) == 8 / 40
    assert peak(entry()["ours"]) == 120


def test_the_fastest_settings_are_taken_from_what_came_to_its_end():
    assert fastest(SEARCHED["W1"]["tried"]) == {"generate": "hf", "micro_batch": 8}
    said = tables.settings_tried(SEARCHED)
    assert "| W1 | learn | 8 completions at once | 16 | 1.00 | 400 | taken |" in said
    assert "| W1 | generate | continuous | 16 | no memory |  |  |" in said
    assert "| 64 completions at once | 16 | 1.00 | 1,200 | for its memory |" in said


def test_time_and_memory_are_held_against_the_bars():
    compared = tables.compared({"W1": entry()})
    assert "| 2.00 | 24.00 | **12.0x** | 7.0x | 10x | met |" in compared
    memory = tables.memory({"W1": entry()}, SEARCHED)
    assert "| W1 | 0.2 | 120 | 1,200 | 0.10 | met | 480 | 0.25 | **missed** |" in memory
    nothing = {"W1": {"tried": [tried("learn", "micro_batch", 64, None, steps=1)]}}
    assert "| more than there is | 0.00 | met |" in tables.memory({"W1": entry()}, nothing)
    slower = tables.compared({"W1": entry(trl=result(9, 4, 4))})
    assert "**2.0x**" in slower and "**missed**" in slower


def test_tokens_that_are_trained_several_times_count_several_times():
    workload = {**asdict(WORKLOADS["W1"]), "passes": 3}
    assert "| W1 | 5 | 1 | 15 | 2 |" in tables.rates({"W1": entry(workload=workload)})


def test_a_section_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nbetween\n<!-- b -->\n<!-- /b -->\n")
    tables.write_section(page, "a", r"new \1")
    tables.write_section(page, "a", r"newer \1")
    assert page.read_text() == "before\n<!-- a -->\nnewer \\1\n<!-- /a -->\nbetween\n<!-- b -->\n<!-- /b -->\n"
    with pytest.raises(AssertionError, match="no section c"):
        tables.write_section(page, "c", "")


def test_a_run_replaces_what_it_measured_and_leaves_the_rest(tmp_path):
    path = tmp_path / "results.json"
    Results(path).put("compare", "W0", {"ours": 1}, "make bench")
    Results(path).put("compare", "W1", {"ours": 2}, "make bench")
    Results(path).put("compare", "W0", {"ours": 3}, "again")
    kept = Results(path).part("compare")
    assert (kept["W0"]["ours"], kept["W1"]["ours"]) == (3, 2)
    assert kept["W0"]["command"] == "again" and kept["W0"]["stamp"]["date"]


def test_each_kind_of_machine_has_a_file(tmp_path, monkeypatch):
    for name in ("Intel(R) Xeon(R) Processor, 2 cores, 24 GiB", "AMD EPYC, 2 cores, 23 GiB"):
        monkeypatch.setattr("results.machine", lambda name=name: name)
        of_this_machine(tmp_path).put("compare", "W0", {"where": name}, "make bench")
    known = everywhere(tmp_path)
    assert [results.name for results in known] == ["amd-epyc-2-cores", "intel-xeon-processor-2-cores"]
    assert [results.part("compare")["W0"]["where"] for results in known] == [results.machine() for results in known]


def points(series, time, mb=500.0):
    return [{"value": value, "seconds": time(value), "mb": mb} for value in series.values]


@pytest.mark.parametrize("series", SERIES, ids=lambda series: series.name)
def test_linear_growth_passes_and_quadratic_growth_does_not(series):
    assert all(check.holds for check in checks(series, points(series, lambda value: 1 + value / 1e4)))
    if series.name != "vocabulary":
        assert not any(check.holds for check in checks(series, points(series, lambda value: value**2)))
    else:
        grown = [{**point, "mb": point["value"] * 0.02} for point in points(series, float)]
        assert not checks(series, grown)[0].holds
