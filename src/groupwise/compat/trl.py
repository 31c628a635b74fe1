"""TRL's names over groupwise. A TRL script runs when its import line is changed:

    from trl import GRPOConfig, GRPOTrainer                      # before
    from groupwise.compat.trl import GRPOConfig, GRPOTrainer     # after

Fields, defaults and meaning are those of TRL 1.16.0. What a setting comes to here is in `groupwise.compat.rules`; one
that there is not is refused by name and says what to use instead, one that changes nothing warns.
"""

from groupwise.compat.config import GRPOConfig, RLOOConfig
from groupwise.compat.trainer import GRPOTrainer, RLOOTrainer

__all__ = ["GRPOConfig", "GRPOTrainer", "RLOOConfig", "RLOOTrainer"]
