"""Every test process: one torch thread, no network, no chatter. Set before anything imports torch or transformers."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

# As in a terminal: a shell's background job ignores one, what `nohup` started the other, and their children with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if os.name != "nt" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import torch
from hypothesis import settings

torch.set_num_threads(1)
# No deadline: machines that are shared pause. The same examples for everybody: a failure is seen by all, or by none.
settings.register_profile("groupwise", deadline=None, derandomize=True)
settings.load_profile("groupwise")
