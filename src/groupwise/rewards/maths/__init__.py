"""Is this mathematical answer right? As a text, as a number, then as an expression, each only if the last said nothing.

spelling.py   texts and numbers: linear, in this process
bounds.py     what is too large to be looked at as an expression
symbolic.py   math-verify, in processes that are killed when a text is too much for them
verify.py     all of it, and the reward `maths`
"""
