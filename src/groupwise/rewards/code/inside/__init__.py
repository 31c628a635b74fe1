"""What runs on the inner side: in the fork server and in the processes that run programs.

A folder of its own, for it is started by a bare interpreter: nothing here imports anything but the standard library
and its neighbours, so that no process that runs a model's program has ever held anything of the trainer's.

    serve      the fork server: one child per job, its limits, its end
    confine    what a child does to itself before it looks at its job
    jobs       the three things that a child can be: a program, a callee, a judge
    wire       plain values as JSON, and nothing but plain values
"""
