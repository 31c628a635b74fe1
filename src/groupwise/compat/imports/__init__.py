"""Settings of other trainers, read from their files, written as a recipe with a report of what became of each."""
