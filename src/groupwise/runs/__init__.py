"""The run folder: what is written while training, and how it is read back. Imports no torch."""
