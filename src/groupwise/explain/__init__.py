"""One GRPO step, looked at closely: the step of every run, on a small model made on the spot, told with its numbers."""
