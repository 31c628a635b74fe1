"""The recipe: everything that a run depends on, as one frozen tree."""

from __future__ import annotations

from pydantic import Field, model_validator

from groupwise.config.alarms import AlarmsSection
from groupwise.config.budgets import BudgetsSection
from groupwise.config.guards import DeadlinesSection, GuardsSection
from groupwise.config.loops import LoopsSection
from groupwise.config.problems import ProblemsSection
from groupwise.config.sandbox import SandboxSection
from groupwise.config.sections import (
    AlgorithmSection,
    AnyTask,
    CheckpointSection,
    EngineSection,
    EvaluationSection,
    LearnerSection,
    LoraSection,
    ModelSection,
    OptimizerSection,
    ReferenceSection,
    RewardSection,
    RunSection,
    SamplingSection,
    Section,
    SftSection,
    TrainSection,
)
from groupwise.config.turns import TurnsSection


class Recipe(Section):
    """A whole recipe. `load_recipe` makes one from a file and overrides; only `model` and `task` must be given.

    Example (TOML):

        [model]
        id = "Qwen/Qwen2.5-0.5B-Instruct"
        [task]
        kind = "gsm8k"
        [[rewards]]
        function = "correctness"
    """

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Everything random follows from it."""
    train: TrainSection = TrainSection()
    model: ModelSection
    lora: LoraSection | None = None
    reference: ReferenceSection = ReferenceSection()
    task: AnyTask
    rewards: list[RewardSection] = Field(default_factory=list[RewardSection])
    """Empty: the task's own rewards, where it has some."""
    problems: ProblemsSection = ProblemsSection()
    sandbox: SandboxSection = SandboxSection()
    sampling: SamplingSection = SamplingSection()
    loops: LoopsSection = LoopsSection()
    turns: TurnsSection = TurnsSection()
    engine: EngineSection = EngineSection()
    algorithm: AlgorithmSection
    learner: LearnerSection = LearnerSection()
    optimizer: OptimizerSection = OptimizerSection()
    evaluation: EvaluationSection = EvaluationSection()
    sft: SftSection = SftSection()
    checkpoints: CheckpointSection = CheckpointSection()
    run: RunSection = RunSection()
    guards: GuardsSection = GuardsSection()
    deadlines: DeadlinesSection = DeadlinesSection()
    alarms: AlarmsSection = AlarmsSection()
    budgets: BudgetsSection = BudgetsSection()

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        """Rules across sections, one a line: `setting: what is wrong and how to mend it`."""
        wrong: list[str] = []
        if self.model.trust_remote_code and self.model.revision is None:
            wrong.append("model.trust_remote_code: needs model.revision. Pin the commit whose code you have read")
        if self.learner.updates_per_batch > self.train.prompts_per_step:
            wrong.append(
                f"learner.updates_per_batch: {self.learner.updates_per_batch} is more than the "
                f"{self.train.prompts_per_step} groups of a step (train.prompts_per_step). Lower it"
            )
        if self.reference.every is not None and self.algorithm.beta == 0:
            wrong.append(
                "reference.every: moves a reference that nothing uses while algorithm.beta is 0. Set beta or drop it"
            )
        if self.algorithm.kl_ratio and self.algorithm.kl_in == "reward":
            wrong.append(
                "algorithm.kl_ratio: multiplies a KL in the loss, but algorithm.kl_in puts it into the reward. Drop one"
            )
        if self.evaluation.pass_at and max(self.evaluation.pass_at) > self.evaluation.samples:
            wrong.append(
                f"evaluation.pass_at: pass@{max(self.evaluation.pass_at)} cannot be told from "
                f"{self.evaluation.samples} samples. Raise evaluation.samples"
            )
        for name in ("accuracy", "patience"):
            if self.budgets.model_dump()[name] is not None and not self.evaluation.every:
                wrong.append(
                    f"budgets.{name}: looks at evaluations during training, and there are none. Set evaluation.every"
                )
        reach = (self.checkpoints.keep - 1) * self.checkpoints.every
        if self.alarms.action == "roll_back" and reach < self.alarms.roll_back_steps:
            wrong.append(
                f"alarms.action: roll_back needs a checkpoint that is {self.alarms.roll_back_steps} steps old "
                f"(alarms.roll_back_steps), and those that are kept reach back {reach}. Raise checkpoints.keep or "
                "checkpoints.every, or lower alarms.roll_back_steps"
            )
        if wrong:
            raise ValueError("\n".join(wrong))
        return self
