"""Nothing that a step leaves for the next one is forgotten: everything reachable from a run in progress that can change
is listed here, as saved or as derived. A new attribute fails this test until somebody has decided which."""

import dataclasses

import pytest
from toy_runs import ROWS, trainer_of

from groupwise.runs.checkpoints.store import Checkpoints
from groupwise.training.course import Course

SAVED = "saved"
GIVEN = "derived: given by the recipe, or made of it"
EMPTY = "derived: empty between steps, or made anew of the weights"
DISK = "derived: read from the run folder"

STATE = {
    "training.course.Course": {
        "state": SAVED,
        "_stateful": SAVED,
        "_supply": SAVED,
        "oversight": DISK,
        "_examination": DISK,
        "_keeper": DISK,
        "_trackers": "derived: mirrors of what is in the run folder",
        "deadlines": EMPTY,
        **dict.fromkeys(["parts", "run", "reporter", "stop", "_evaluation", "_total", "_description"], GIVEN),
        **dict.fromkeys(["_engine", "_learner"], "derived: looked at under their own names"),
    },
    "training.state.RunState": {
        **dict.fromkeys(["step", "seconds", "ended", "told", "turned_back", "tokens_taken_back"], SAVED),
        "history": DISK,
    },
    "training.problems.InOrder": {"_place": SAVED, "_epochs": GIVEN},
    "training.problems.ByDifficulty": {
        **dict.fromkeys(["_place", "_range", "_seen"], SAVED),
        **dict.fromkeys(["_epochs", "_seed", "_section"], GIVEN),
    },
    "training.problems.Epochs": dict.fromkeys(["_orders", "_items", "_seed", "_shuffle"], GIVEN),
    "training.stateful.RewardStates": {"_with_state": SAVED},
    "training.randomness.Randomness": {},
    "training.guards.StepGuard": {
        "_in_a_row": SAVED,
        **dict.fromkeys(["_policy", "_reporter", "_run", "_section"], GIVEN),
    },
    "training.keeper.Keeper": {
        **dict.fromkeys(["_remembered", "_saved"], DISK),
        **dict.fromkeys(["_parts", "_run", "_learner", "_say", "_section", "_store", "_begun_with", "_form"], GIVEN),
        "_beside": EMPTY,
        "_costs": "derived: of this attempt alone",
        "_versions": GIVEN,
    },
    "training.examination.Examination": {
        "_first": DISK,
        **dict.fromkeys(["_run", "_trackers", "_reporter", "_examiner"], GIVEN),
    },
    "training.oversight.Oversight": {
        "budgets": SAVED,
        "_watch": DISK,
        "_groups": EMPTY,
        "_action": GIVEN,
        "_run": GIVEN,
        "_reporter": GIVEN,
    },
    "training.budgets.Budgets": {"_begun": SAVED, "_spent": SAVED, "_section": GIVEN, "_clock": GIVEN},
    "training.watch.Watch": {
        "_told": DISK,
        **dict.fromkeys(["_section", "_file", "_tell", "_detectors", "_append"], GIVEN),
    },
    "learner.learner.Learner": {
        **dict.fromkeys(
            ["_steps", "_kl_in_reward", "coefficients", "optimizer", "reference", "limit", "policy"], SAVED
        ),
        **dict.fromkeys(["_algorithm", "_dtype", "_scorer", "_section", "world", "report_of"], GIVEN),
    },
    "learner.optimizer.PolicyOptimizer": {
        **dict.fromkeys(["_optimizer", "_masters", "_scale", "_clean_steps", "updates", "_parameters"], SAVED),
        **dict.fromkeys(["_names", "_scaled", "_section", "_total", "_rates", "_world"], GIVEN),
        "slowed": "derived: of how often the run was turned back",
        "_scheduler": "derived: asked as often as there were updates",
    },
    "learner.coefficients.Coefficients": {**dict.fromkeys(["_kept", "beta", "entropy"], SAVED), "_algorithm": GIVEN},
    "learner.memory.MicroBatchLimit": {"tokens": SAVED, "say": GIVEN},
    "models.reference.Reference": {"_values": SAVED, "_exact": SAVED, "_policy": GIVEN, "_section": GIVEN},
    "models.policy.Policy": {
        "model": SAVED,
        "adapted": SAVED,
        **dict.fromkeys(["tokenizer", "attention", "why_plain", "head", "beginning", "_fused", "_models"], GIVEN),
    },
    "learner.world.Alone": {},
    "training.companion.Nobody": {},
    "models.fused.Fused": {"_depth": EMPTY, "_forwards": EMPTY, "_rotary": GIVEN},
    "models.rotary.Rotary": {"_loans": GIVEN},
    "models.rotary._Loan": {"borrowers": EMPTY, **dict.fromkeys(["file", "own", "fast", "lock"], GIVEN)},
    "rollouts.rollouts.Rollouts": None,  # of the step alone, and made of the recipe
    "engines.embedded.EmbeddedEngine": {
        **dict.fromkeys(["_decoder", "_made_for", "_proven", "_rows", "_task", "_waiting"], EMPTY),
        "tokens_sampled": "derived: counts for this attempt alone",
        **dict.fromkeys(["_ends", "_policy"], GIVEN),
        "limit": SAVED,
    },
}
"""Class -> attribute -> what becomes of it."""

OUTSIDE = ("config.", "runs.", "engines.", "tasks.")
OUTSIDE += ("training.deadlines.", "training.watchdog.", "training.stop.", "training.reporter.")
"""Not looked into: settings, the disk, what is empty between steps, who is told."""


def reachable(root):
    """Every object of ours that can change, by class, with the names of its attributes."""
    seen, found, queue = {}, {}, [root]
    while queue:
        thing = queue.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, dict):
            queue += thing.values()
        elif isinstance(thing, (list, tuple)):
            queue += thing[:50]
        elif type(thing).__module__.startswith("groupwise."):
            kind = f"{type(thing).__module__}.{type(thing).__qualname__}".removeprefix("groupwise.")
            slots = {name for each in type(thing).__mro__ for name in vars(each).get("__slots__", ())}
            names = {*vars(thing)} if hasattr(thing, "__dict__") else slots
            frozen = dataclasses.is_dataclass(thing) and type(thing).__dataclass_params__.frozen
            if kind.startswith(OUTSIDE) and kind not in STATE:
                continue
            if not frozen:
                found[kind] = names
            queue += [getattr(thing, name) for name in names if hasattr(thing, name)]
    return found


@pytest.mark.parametrize("order", ["epochs", "difficulty"])
def test_every_attribute_of_a_run_is_saved_or_derived(tmp_path, monkeypatch, order):
    courses, begin = [], Course.__init__
    monkeypatch.setattr(Course, "__init__", lambda self, *a, **k: (begin(self, *a, **k), courses.append(self))[0])
    moving = {"algorithm.beta": 0.1, "reference.every": 1, "task.hold_out": 2, "problems.order": order}
    trainer_of(tmp_path, rows=ROWS, **moving).train()
    found = reachable(courses[0])
    assert {kind for kind in found if kind not in STATE} == set(), "a class that is not in STATE"
    for kind, names in found.items():
        assert names - set(STATE[kind] or names) == set(), f"{kind}: is this saved, or derived of what?"
    assert len(found) > 15


def test_what_is_said_to_be_saved_is_in_the_checkpoint(tmp_path):
    """Every kind of state under its name."""
    settings = {"algorithm.beta": 0.1, "reference.every": 1, "model.dtype": "bf16"}
    import torch

    from toys import tiny_model

    run = trainer_of(tmp_path, model=tiny_model(dtype=torch.bfloat16), **settings).train()
    state = Checkpoints(run.path / "checkpoints", run.identity["id"]).newest().checkpoint.state()
    assert state["run"]["step"] == 2
    assert state["supply"] == {"place": 4}
    assert {"torch", "cuda", "numpy", "python"} == set(state["random"])
    learner = state["learner"]
    assert set(learner) == {"steps", "kl_in_reward", "limit", "optimizer", "coefficients", "reference"}
    assert set(learner["reference"]) == {"values", "exact"}
    trained = len(learner["reference"]["values"])
    assert len(learner["optimizer"]["masters"]) == trained
    assert all(master.dtype is torch.float32 for master in learner["optimizer"]["masters"].values())
    assert {"exp_avg", "exp_avg_sq", "step"} == set(learner["optimizer"]["moments"]["0"])
    assert state["guard"] == {"in_a_row": 0}
    assert set(state["facts"]) == {"begun_with", "recipe", "versions", "device", "attention", "sandbox"}
