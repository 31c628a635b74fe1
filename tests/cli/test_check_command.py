"""`groupwise check`: what it says of a recipe that is fine, and of each thing that may be wrong with one."""

import json
from pathlib import Path

import pytest


def findings(ended):
    told = json.loads(ended.out)
    return {(f["about"], f["level"]): f for f in told["findings"]}, [
        (f["about"], f["level"], f["text"]) for f in told["findings"]
    ]


def test_a_recipe_that_is_fine(groupwise, recipe):
    ended = groupwise("check", recipe, "--json", "sampling.max_new_tokens=4")
    assert ended.code == 0, ended.err
    by, rows = findings(ended)
    assert list(dict.fromkeys(about for about, _, _ in rows)) == [
        *["recipe", "run", "data", "prompt", "gold", "rewards", "memory", "disk", "time", "baseline"]
    ]
    parts = by["memory", "ok"]["values"]["parts"]
    assert {
        "process",
        "weights",
        "gradients",
        "optimizer",
        "reference",
        "activations",
        "logits",
        "keys and values",
    } <= {*parts}
    assert parts["optimizer"] == 2 * parts["gradients"]
    turns = ("activations", "logits", "gaps between them"), ("decoder", "keys and values", "reading prompts")
    less = min(sum(parts[name] for name in names) for names in (turns[0], (*turns[1], "logits of a token")))
    assert by["memory", "ok"]["values"]["peak"] == sum(parts.values()) - less
    for phase in ("always", "learning", "sampling"):
        assert f"\n{phase} " in by["memory", "ok"]["text"]
    values = by["rewards", "ok"]["values"]
    assert values["gold"] > max(values["null"].values()) > values["null"]["empty"]
    assert by["gold", "ok"]["values"]["share"] == 1.0
    assert 0 < by["time", "ok"]["values"]["step"] < 30
    baseline = next(f for (about, _), f in by.items() if about == "baseline")
    assert baseline["values"]["verdict"] in ("learnable", "too hard", "already solved")
    assert {"pass@1", "pass@4"} <= baseline["values"].keys()
    assert not Path("runs").exists()  # nothing is written


def test_all_mistakes_of_a_recipe_at_once(groupwise, recipe):
    ended = groupwise("check", recipe, "train.group_size=1", "optimizer.lrr=1", "--json")
    assert ended.code == 1
    _, rows = findings(ended)
    assert [level for _, level, _ in rows] == ["error", "error"]
    assert "train.group_size" in rows[0][2] + rows[1][2]
    assert "optimizer.lr" in rows[0][2] + rows[1][2]
    assert "2 errors to mend before a run: recipe" in ended.err


def test_rows_that_are_not_there_are_told_once(groupwise, recipe):
    ended = groupwise("check", recipe, 'task={kind = "dataset", path = "nowhere.jsonl"}', "--json")
    assert ended.code == 1
    assert [about for about, level, _ in findings(ended)[1] if level == "error"] == ["rows"]
    assert "1 error to mend before a run: rows" in ended.err


def test_where_the_run_would_be(groupwise, trained, recipe, monkeypatch):
    def told(*overrides):
        by, _ = findings(groupwise("check", recipe, "--json", "--quick", *overrides))
        return next((level, f["text"]) for (about, level), f in by.items() if about == "run")

    assert told() == ("ok", "runs/toy is new")
    assert told("run.name=CON")[0] == "error"
    there = f"run.folder={trained['full'].parent}"
    assert told(there, "run.name=full")[0] == "warning"  # it is finished
    level, text = told(there, "run.name=full", "train.steps=5")
    assert level == "ok" and "goes on" in text and "train.steps: 2 -> 5" in text
    assert told(there, "run.name=full", "optimizer.kind=adamw", "lora.r=4")[0] == "error"
    Path("runs/toy").mkdir(parents=True)
    assert told() == ("ok", "runs/toy begins")
    Path("runs/toy/novel.txt").touch()
    assert told()[0] == "error"


def rows_recipe(recipe, rows, more="", reward="correctness"):
    Path("rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    text = recipe.read_text()
    head, _, rest = text.partition("[task]")
    _, _, rest = rest.partition("[[rewards]]\n")
    _, _, rest = rest.partition("[[rewards]]\n")
    _, _, rest = rest.partition("[train]")
    task = f'[task]\nkind = "dataset"\npath = "rows.jsonl"\n{more}\n[[rewards]]\nfunction = "{reward}"\n[train]'
    recipe.write_text(head + task + rest)
    return recipe


ROWS = [{"prompt": f"{i}+{i}=", "answer": str(2 * i)} for i in range(12)]


def test_copies_and_missing_evaluation_are_said(groupwise, recipe):
    ended = groupwise("check", rows_recipe(recipe, [*ROWS, ROWS[3], ROWS[3]]), "--quick")
    assert ended.code == 0, ended.err
    assert "2 of 14 training problems are copies of others, such as 'rows/train/3'" in ended.out
    assert "no problems are held out" in ended.out
    assert "cure: set task.hold_out or task.eval_split" in ended.out


def test_train_begins_with_what_is_not_as_it_should_be(groupwise, recipe):
    fine = groupwise("train", recipe, "train.steps=1", "run.name=fine")
    assert fine.code == 0 and "warning" not in fine.out
    ended = groupwise("train", rows_recipe(recipe, [*ROWS, ROWS[3]]), "train.steps=1")
    assert ended.code == 0, ended.err
    before = ended.out[: ended.out.index("talk to it")]
    assert "1 of 13 training problems are copies of others" in before and "holds no problems out" in before
    assert "\nok " not in before


def test_an_answer_in_the_prompt_is_said(groupwise, recipe):
    rows = [{"prompt": f"say {1000 + i}:", "answer": str(1000 + i)} for i in range(8)]
    ended = groupwise("check", rows_recipe(recipe, rows), "--quick")
    assert "100% of the prompts contain their own answer" in ended.out


def test_a_reward_for_nothing_is_said(groupwise, recipe):
    Path("reward.py").write_text("def kind(completions, **kwargs):\n    return [1.0] * len(completions)\n")
    ended = groupwise("check", rows_recipe(recipe, ROWS, reward="reward.py:kind"), "--quick")
    assert ended.code == 0
    assert "kind pays the null policy 'empty' up to 1: ''" in ended.out
    assert "which is what a right answer gets (1)" in ended.out
    assert "a right answer is not worth more than doing nothing" in ended.out


def test_a_reward_that_fails_is_an_error(groupwise, recipe):
    Path("reward.py").write_text("def broken(completions, **kwargs):\n    return [1 / 0 for _ in completions]\n")
    ended = groupwise("check", rows_recipe(recipe, ROWS, reward="reward.py:broken"), "--quick")
    assert ended.code == 1
    assert "broken" in ended.out and "ZeroDivisionError" in ended.out


def test_every_bad_row_is_named_although_the_run_would_stop_at_the_first(groupwise, recipe):
    bad = [*ROWS[:2], {"answer": "1"}, {"prompt": "x\ud800", "answer": "1"}, {"prompt": "9+9=", "answer": None}]
    ended = groupwise("check", rows_recipe(recipe, bad), "--quick", "--json")
    assert ended.code == 1
    told = [f for f in json.loads(ended.out)["findings"] if f["about"] == "rows"]
    assert told[0]["text"] == "train: 5 rows, 3 become problems"
    places = [(f["level"], f["values"]["row"], f["values"]["column"]) for f in told[1:]]
    assert places == [
        ("error", 2, "prompt"),
        ("error", 3, "prompt"),
        ("warning", 2, "prompt"),
        ("warning", 4, "answer"),
    ]
    assert all(f["cure"] for f in told[1:])


def test_rows_of_other_kinds_are_looked_through_as_their_task_reads_them(groupwise, recipe):
    rows = [
        {"question": "2+2?", "choices": ["3", "4"], "answer": 1},
        {"question": "2+3?", "choices": ["5"], "answer": 0},
    ]
    recipe = rows_recipe(recipe, rows)
    recipe.write_text(recipe.read_text().replace('kind = "dataset"', 'kind = "choice"'))
    ended = groupwise("check", recipe, "--quick")
    assert ended.code == 1
    assert "train: 2 rows, 1 become problems" in ended.out and "row 1, column 'prompt'" in ended.out
    assert "has 1 choices" in ended.out


ECHO = """
from groupwise.tasks import Reply, Task, world_of
from groupwise.types import Problem

class Echo:
    async def reset(self, problem):
        self.turn = 0
    async def step(self, said):
        self.turn += 1
        return Reply(done=True, reward=1.0) if self.turn == 2 and not said else Reply.of("go on")

def task():
    problems = [Problem(f"p{i}", "say", {"n": i}) for i in range(6)]
    return Task("echo", problems[:4], problems[4:], environment=world_of(Echo))
"""


def test_a_conversation_is_held_to_see_what_an_environment_pays(groupwise, recipe):
    Path("echo.py").write_text(ECHO)
    recipe = rows_recipe(recipe, ROWS)
    head, _, rest = recipe.read_text().partition("[task]")
    rest = rest.partition("[train]")[2]
    recipe.write_text(f'{head}[task]\nkind = "file"\npath = "echo.py:task"\n[train]{rest}')
    ended = groupwise("check", recipe, "--quick")
    assert ended.code == 0, ended.out + ended.err
    assert "Echo pays the null policy 'empty' up to 1: ''" in ended.out
    assert "copies" not in ended.out, "their columns differ, and an environment sees those"


def test_the_same_split_twice_is_said(groupwise, recipe):
    Path("data").mkdir()
    rows_recipe(recipe, ROWS)
    Path("rows.jsonl").rename("data/train.jsonl")
    recipe.write_text(recipe.read_text().replace('path = "rows.jsonl"', 'path = "data"\neval_split = "train"'))
    ended = groupwise("check", recipe, "--quick")
    assert "task.eval_split and task.train_split are the same split, 'train'" in ended.out
    assert "12 of 12 held-out prompts are trained on" in ended.out


def test_too_little_memory_and_disk_are_errors(groupwise, recipe, monkeypatch):
    monkeypatch.setattr("groupwise.training.plan.memory_free", lambda: -(1 << 40))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    ended = groupwise("check", recipe, "--quick", "--json")
    assert ended.code == 1
    by, _ = findings(ended)
    assert "learner.token_budget" in by["memory", "error"]["cure"]
    assert by["disk", "error"]["cure"] == "free some space, or set run.folder"


@pytest.mark.parametrize(("shown", "hidden"), [("\\n", "\n\n\n")])
def test_the_prompt_is_shown_with_its_special_tokens(groupwise, recipe, shown, hidden):
    ended = groupwise("check", recipe, "--quick")
    line = next(line for line in ended.out.splitlines() if " prompt " in line)
    assert 'tokens: "' in line
    assert "a completion ends with '<eos>'" in ended.out
