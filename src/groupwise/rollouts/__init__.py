"""Rollouts: problems become graded groups."""
