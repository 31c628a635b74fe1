"""Where reward functions run: in a thread of this process, or in a process that can be killed.

thread.py   what was given as a Python object: watched, and left behind when it hangs
place.py    what can be imported by path: one process per file or module, killed when it hangs, started again
items.py    our own verifiers of single texts, in several processes, each with limits of time and memory
process.py  such a process, seen from here
serve.py    the same, seen from inside
forks.py    a process that forks others, so that a verifier killed over a text is back in milliseconds
wire.py     what goes between them: plain data as JSON, nothing that could run
limits.py   the limits that a process sets itself
draws.py    random numbers of functions, which leave the trainer's as they were
kept.py     what a function may change and does not own: the working folder, torch's default dtype
"""
