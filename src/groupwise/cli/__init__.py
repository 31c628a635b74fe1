"""The command line: one file per verb; imports are inside the commands, so that a verb starts with what it needs."""
