"""Training: the step, the loop around it, evaluation and the warm start."""
