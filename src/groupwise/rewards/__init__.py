"""Rewards: from texts and columns to numbers, by TRL's contract.

What the tutorials that this system follows call their functions, and what they are called here:

    tutorial                                     here               what it gives
    ───────────────────────────────────────────  ─────────────────  ─────────────────────────────────────────────
    reward_len                                   length             -|target - length|
    correctness_reward_func, correctness_reward  correctness        2.0 exact, 1.5 numeric, 0 (setting numeric = 0:
                                                                    exact only; exact = numeric = 1: right or wrong)
    int_reward_func                              integer            0.5 for an integer
    strict_format_reward_func                    strict_format      0.5 for the layout and nothing else
    soft_format_reward_func                      soft_format        0.5 for the layout somewhere
    xmlcount_reward_func, count_xml              tag_count          0.125 per tag that is there exactly once
    format_reward                                tags_present       0.2 per tag that is there (setting score = 0.05)
    a reward for stopping                        reached_end        0.5 for a completion that ended itself
    combined_reward                              several [[rewards]] and their weights
    reward models in the list of functions       reward_model, RewardModel(module, tokenizer)
    accuracy_reward                              maths
    think_format_reward                          think_format
    get_cosine_scaled_reward                     cosine_length
    get_repetition_penalty_reward                repetition
    get_soft_overlong_punishment                 soft_overlong
    extract_xml_answer, extract_answer_from_model_output   last_answer, first_answer
    extract_hash_answer, extract_answer_from_dataset       hash_answer
    extract_single_number                        number
"""

from groupwise.rewards.answers import (
    agreement,
    boxed_answer,
    correctness,
    first_answer,
    hash_answer,
    integer,
    is_right,
    last_answer,
    stated_answer,
)
from groupwise.rewards.contract import RESERVED, Answers, RewardFunction, TrainerState, name_of
from groupwise.rewards.format import soft_format, strict_format, tag_count, tags_present
from groupwise.rewards.grading import grade
from groupwise.rewards.library import BUILT_IN
from groupwise.rewards.load import as_reward, load_reward
from groupwise.rewards.log import GradingLog
from groupwise.rewards.maths.verify import is_right_maths
from groupwise.rewards.null_policies import NullScore, null_scores
from groupwise.rewards.numerals import last_number, number
from groupwise.rewards.outcomes import Grade, Mark, Unknown, Wrong, total, with_unique_names
from groupwise.rewards.reward_models import RewardModel
from groupwise.rewards.shaping import length, reached_end

__all__ = [
    "BUILT_IN",
    "RESERVED",
    "Answers",
    "Grade",
    "GradingLog",
    "Mark",
    "NullScore",
    "RewardFunction",
    "RewardModel",
    "TrainerState",
    "Unknown",
    "Wrong",
    "agreement",
    "as_reward",
    "boxed_answer",
    "correctness",
    "first_answer",
    "grade",
    "hash_answer",
    "integer",
    "is_right",
    "is_right_maths",
    "last_answer",
    "last_number",
    "length",
    "load_reward",
    "name_of",
    "null_scores",
    "number",
    "reached_end",
    "soft_format",
    "stated_answer",
    "strict_format",
    "tag_count",
    "tags_present",
    "total",
    "with_unique_names",
]
