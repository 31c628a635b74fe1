"""Engines: prompts in, completions and their logprobs out."""
