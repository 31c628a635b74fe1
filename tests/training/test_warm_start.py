"""The warm start on demonstrations: what is trained, what is not, and where the rows come from."""

import json

import pytest
import torch
from toy_runs import ROWS, Listener, loaded, small_letters, trainer_of

from groupwise.config.sections import LearnerSection, OptimizerSection, ReferenceSection
from groupwise.engines.embedded import EmbeddedEngine
from groupwise.errors import LearnerError, TaskError
from groupwise.learner.finite import NonFiniteError
from groupwise.learner.learner import Learner
from groupwise.runs import trackers
from groupwise.runs.folder import RunFolder
from groupwise.tasks import Task
from groupwise.training.guards import bad_steps
from groupwise.training.replay import replay_bad_step
from groupwise.training.reporter import QuietReporter
from groupwise.training.sft import LIKELIHOOD, demonstrated
from groupwise.types import Problem
from toys import CHAT_TEMPLATE, char_tokenizer, ids_of, tiny_model

SHOWN = [
    {"prompt": f"{letter}=", "completion": letter.upper() * (1 + index % 3)} for index, letter in enumerate("abcdef")
]


def warm(tmp_path, rows=SHOWN, model=None, **settings):
    few = {"sft.steps": 25, "sft.rows_per_step": 4, "optimizer.lr": 3e-2}
    return trainer_of(tmp_path, (), rows, model, **{**few, **settings})


def groups_of(trainer, reporter=None):
    return demonstrated(trainer.parts, reporter or QuietReporter())


def test_the_loss_falls_and_the_model_says_what_it_was_shown(tmp_path):
    trainer = warm(tmp_path, **{"sft.steps": 80})
    run = trainer.sft()
    losses = [loss for _, loss in run.metrics.series("loss")]
    assert len(losses) == 80
    assert losses[0] == pytest.approx(4.6, abs=0.1)  # log 100: the untrained model knows nothing
    assert losses[-1] < 0.3
    model = loaded(run.model_path)
    for row in SHOWN:
        ids = torch.tensor([ids_of(row["prompt"])])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        assert char_tokenizer().decode(out[0, ids.shape[1] :]) == row["completion"] + "<eos>"


def test_a_demonstration_ends_with_one_end_token(tmp_path):
    rows = [*SHOWN, {"prompt": "g=", "completion": "G<eos>"}, {"prompt": "h=", "completion": ""}]
    tokenizer = char_tokenizer()
    tokenizer.add_tokens(["<eos>"], special_tokens=True)
    groups = groups_of(warm(tmp_path, rows, tokenizer=tokenizer))
    assert [group.rollouts[0].completion.token_ids for group in groups] == [
        *[(*ids_of(row["completion"]), 1) for row in SHOWN],
        (*ids_of("G"), 1),
        (1,),
    ]
    assert [group.prompt_ids for group in groups[:6]] == [ids_of(row["prompt"]) for row in SHOWN]


def test_the_loss_and_gradient_are_those_of_transformers_on_the_completion_alone(tmp_path):
    """`labels` of -100 hide the prompt; then the mean over all that is left, the same for every token."""
    trainer = warm(tmp_path, model=tiny_model("gpt2", dtype=torch.float64))
    groups = groups_of(trainer)
    learner = Learner(
        trainer.policy,
        LIKELIHOOD,
        LearnerSection(token_budget=8),
        OptimizerSection(lr=1e-30),
        reference=ReferenceSection(),
        temperature=1.0,
        total_steps=1,
    )
    gradients = {}
    step = learner.optimizer.step

    def watched():
        gradients.update({name: p.grad.clone() for name, p in trainer.policy.trainable().items()})
        return step()

    learner.optimizer.step = watched
    import asyncio

    report = asyncio.run(learner.update(groups, sampler_is_exact=True))

    plain = tiny_model("gpt2", dtype=torch.float64).eval()
    rows = [(*g.prompt_ids, *g.rollouts[0].completion.token_ids) for g in groups]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    prompts = torch.tensor([[1] * len(g.prompt_ids) + [0] * (longest - len(g.prompt_ids)) for g in groups])
    labels = ids.masked_fill((mask == 0) | (prompts == 1), -100)
    loss = plain(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    assert report.metrics()["loss"] == pytest.approx(float(loss.detach()), abs=1e-6)
    for name, parameter in plain.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-6), name


def test_rows_of_a_file(tmp_path):
    (tmp_path / "shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SHOWN))
    trainer = warm(tmp_path, ROWS, **{"sft.path": str(tmp_path / "shown.jsonl"), "task.hold_out": 2})
    assert [g.rollouts[0].completion.text for g in groups_of(trainer)] == [row["completion"] for row in SHOWN]
    run = trainer.sft()
    assert [row["label"] for row in run.evaluations()] == ["before", "after"]  # on the task's own problems
    assert run.evaluations()[0]["problems"] == 2


def test_the_tasks_own_demonstrations(tmp_path):
    run = warm(
        tmp_path, {"kind": "arithmetic", "digits": 1, "train_size": 20, "eval_size": 2}, **{"sft.steps": 2}
    ).sft()
    assert [row["step"] for row in run.metrics.read()] == [1, 2]
    assert {"loss", "grad_norm", "learning_rate", "trained_tokens"} <= run.metrics.read()[0].keys()


def test_the_same_words_stand_in_front_as_in_training(tmp_path):
    (tmp_path / "shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SHOWN))
    settings = {"sft.path": str(tmp_path / "shown.jsonl"), "task.system_prompt": "Say"}
    trainer = warm(tmp_path, ROWS, tokenizer=char_tokenizer(CHAT_TEMPLATE), **settings)
    decode = trainer.policy.tokenizer.decode
    (first, *_), trained = groups_of(trainer), trainer.parts.train.prompt_ids[0]
    assert decode(trained) == decode(first.prompt_ids) == "<bos>[system]Say<eos>[user]a=<eos>[assistant]"
    assert first.rollouts[0].completion.token_ids == (*ids_of("A"), 1)


def test_what_does_not_fit_is_left_out_and_told(tmp_path):
    listener = Listener()
    rows = [*SHOWN, {"prompt": "g=", "completion": "G" * 100}]
    groups = groups_of(warm(tmp_path, rows), listener)
    assert len(groups) == 6
    assert listener.messages == [
        "1 of 7 demonstrations are left out: with their prompt they have more than the 64 tokens of the model's context"
    ]
    with pytest.raises(TaskError, match="no demonstration of 'rows' fits"):
        warm(tmp_path, [{"prompt": "g=", "completion": "G" * 100}]).sft()


@pytest.mark.parametrize("rows", [ROWS, [{"prompt": "a=", "completion": 3}]])
def test_a_task_without_demonstrations_says_so_and_leaves_the_name_free(tmp_path, rows):
    with pytest.raises(TaskError, match=r"has no demonstrations of its own.*sft\.path"):
        warm(tmp_path, rows).sft()
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a="}\n')
    with pytest.raises(TaskError, match=r"sft\.path = .*every row needs a prompt and a completion"):
        warm(tmp_path, rows, **{"sft.path": str(tmp_path / "bad.jsonl")}).sft()
    assert warm(tmp_path, **{"sft.steps": 1}).sft().status == "finished"


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    tokenizer = char_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(TaskError, match="no end token"):
        warm(tmp_path, tokenizer=tokenizer).sft()


def test_trackers_hear_of_a_warm_start_too(tmp_path, monkeypatch):
    heard = []

    class Toy:
        def start(self, name, folder, settings):
            heard.append(name)

        def log(self, step, metrics):
            heard.append(step)

        def close(self):
            heard.append("closed")

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Toy)
    warm(tmp_path, **{"run.trackers": ["tensorboard"], "sft.steps": 2}).sft()
    assert heard == ["toy", 1, 2, "closed"]


def test_ctrl_c_keeps_what_was_learnt(tmp_path):
    def stop(count):
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warm(tmp_path, reporter=Listener(stop)).sft()
    run = RunFolder.open(tmp_path / "toy")
    assert run.status == "interrupted"
    assert [row["step"] for row in run.metrics.read()] == [1, 2, 3]
    assert run.trained_model().is_dir()


def test_from_warm_start_to_rewards(tmp_path):
    run = warm(tmp_path, **{"sft.steps": 40}).sft()

    def right(completions, answer, **kwargs):
        return [float(text == a) for text, a in zip(completions, answer, strict=True)]

    rows = [{"prompt": row["prompt"], "answer": row["completion"]} for row in SHOWN]
    further = trainer_of(tmp_path, [right], rows, model=str(run.model_path), **{"run.name": "rewards"}).train()
    assert further.metrics.read()[0]["reward"] > 0.3


def test_adapters_warm_up_too(tmp_path):
    trainer = warm(tmp_path, model=tiny_model(loudness=20.0), **{"lora": {"r": 4}, "sft.steps": 40, "seed": 3})
    losses = [loss for _, loss in trainer.sft().metrics.series("loss")]
    assert sum(losses[-10:]) < sum(losses[:10]) * 0.8  # each is of a few demonstrations, so one alone says little


def test_it_is_evaluated_when_asked_for(tmp_path):
    settings = {"sft.steps": 5, "evaluation.every": 2, "task.hold_out": 2}
    run = warm(tmp_path, **settings).sft()
    assert [row["label"] for row in run.evaluations()] == ["before", "step 2", "step 4", "after"]


def test_demonstrations_are_not_graded(tmp_path):
    """A reward that cannot grade is no matter to a warm start without held-out problems."""

    def refuses(completions, **kwargs):
        raise AssertionError

    assert trainer_of(tmp_path, [refuses, small_letters], SHOWN, **{"sft.steps": 1}).sft().status == "finished"


def test_demonstrations_of_a_task_in_memory(tmp_path):
    task = Task("mine", [Problem("1", "a=")], [], demonstrations=lambda problem: problem.prompt * 2)
    (group,) = groups_of(warm(tmp_path, task))
    assert group.rollouts[0].completion.token_ids == (*ids_of("a=a="), 1)


def weights_after(tmp_path, name, **settings):
    run = warm(tmp_path, **{"run.name": name, "sft.steps": 3, "lora.r": 2, "lora.dropout": 0.2, **settings}).sft()
    return [(row["loss"], row["grad_norm"]) for row in run.metrics.read()]


def test_its_worst_case_goes_first_and_changes_nothing(tmp_path):
    heard = Listener()
    trained = weights_after(tmp_path, "with", **{"guards.preflight": True})
    assert trained == weights_after(tmp_path, "without")
    rows = [*SHOWN, {"prompt": "long=", "completion": "L" * 9}]
    settings = {"guards.preflight": True, "sft.rows_per_step": 2, "sft.steps": 1}
    run = warm(tmp_path, rows, reporter=heard, **settings).sft()
    (said,) = [text for text in heard.messages if text.startswith("preflight")]
    # 5 + 9 + 1 and 2 + 3 + 1 tokens; nothing is held out, so nothing is sampled
    assert "a micro-batch of 21, was learnt, saved and loaded in" in said
    assert not list(run.path.glob("preflight*"))


def test_its_worst_case_samples_what_an_evaluation_does(tmp_path, monkeypatch):
    asked, sample = [], EmbeddedEngine.sample

    async def counted(engine, ids, n, sampling, seeds):
        asked.append((len(ids), n, sampling.max_new_tokens))
        return await sample(engine, ids, n, sampling, seeds)

    monkeypatch.setattr(EmbeddedEngine, "sample", counted)
    settings = {"guards.preflight": True, "task.hold_out": 3, "sft.steps": 1, "evaluation.before": False}
    heard = Listener()
    warm(tmp_path, reporter=heard, **settings).sft()
    assert asked[:3] == [(2, 1, 2)] * 3
    assert any(
        "prompts of 2 tokens and a micro-batch of" in text and "sampled, learnt" in text for text in heard.messages
    )


def test_what_does_not_fit_is_said_before_its_first_step(tmp_path):
    trainer = warm(tmp_path, **{"guards.preflight": True})
    features = trainer.policy.features

    def never(trees):
        if torch.is_grad_enabled():
            raise MemoryError
        return features(trees)

    trainer.policy.features = never
    with pytest.raises(LearnerError, match="a single completion"):
        trainer.sft()
    assert RunFolder.open(tmp_path / "toy").metrics.read() == []


@pytest.mark.parametrize("what", ["stop", "skip"])
def test_a_bad_step_is_kept_and_can_be_done_again(tmp_path, what):
    """The model's weights are not finite, so every loss is."""
    (tmp_path / "shown.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SHOWN))
    model = tiny_model()
    model.save_pretrained(tmp_path / "model")
    char_tokenizer().save_pretrained(str(tmp_path / "model"))
    settings = {"guards.non_finite": what, "sft.steps": 4, "optimizer.lr": 1e-3}
    trainer = warm(
        tmp_path, {"kind": "dataset", "path": str(tmp_path / "shown.jsonl")}, str(tmp_path / "model"), **settings
    )
    with torch.no_grad():
        next(iter(trainer.policy.trainable().values()))[:] = float("nan")
    with pytest.raises(NonFiniteError, match=r"bad_step/00000\d; `groupwise replay .* --bad-step \d` does it again"):
        trainer.sft()
    run = RunFolder.open(tmp_path / "toy")
    steps = [1] if what == "stop" else [1, 2, 3]
    assert bad_steps(run) == steps
    assert "refused again: the policy's logprob is nan" in replay_bad_step(run, steps[-1]).note
