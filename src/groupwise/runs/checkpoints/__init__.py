"""Checkpoints: everything that a run needs to go on, in folders that are whole or not there.

    checkpoints/
      step_000050/
        MANIFEST.json       which run, which step; size and SHA-256 of every other file
        model/              the model as transformers (with LoRA: peft) loads it
        state.json          plain values: step, place in the data, random numbers, coefficients, ...
        state.safetensors   tensors: fp32 masters, moments, a reference that moved, ...
      latest, best          the name of a folder

A folder is written beside and renamed when every file in it is on the disk. No pickle on the way out or in.
"""
