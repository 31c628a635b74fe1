"""A small run that is killed and taken up again until it ends, and compared with one that never was.

    soak = Soak(folder)
    runs = soak.kill_at_random(kills=200, seed=0)    the runs that were killed so often, all together
    soak.difference(runs[0])                         "", or what is not as in the undisturbed run

Each attempt is a process of its own that does what `groupwise train recipe.toml` does.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import torch

from groupwise.runs import disk
from groupwise.runs.compare import differences
from groupwise.runs.folder import RunFolder
from toys import char_tokenizer, tiny_model

RECIPE = """
seed = 3
[train]
steps = {steps}
prompts_per_step = 3
group_size = 4
[model]
id = "model"
device = "cpu"
[task]
kind = "arithmetic"
digits = 1
train_size = 40
eval_size = 4
[[rewards]]
function = "reward.py:judge"
[sampling]
max_new_tokens = 6
[optimizer]
lr = 3e-3
[algorithm]
preset = "grpo"
beta = 0.05
[reference]
every = 2
[evaluation]
every = 4
[checkpoints]
every = 2
[guards]
preflight = false
"""
STOPPED, INTERRUPTED = 75, 130
REWARD = """
import random
def judge(completions, **kwargs):
    return [sum(letter.isdigit() for letter in text) / 6 + 0.01 * random.random() for text in completions]
"""


class Soak:
    """In a folder of its own. `steps` says how long a run is."""

    def __init__(self, folder: Path, steps: int = 8) -> None:
        torch.set_num_threads(1)  # threads do not survive a fork
        self.folder, self.runs = folder, folder / "runs"
        folder.mkdir(exist_ok=True)
        tiny_model(loudness=8.0).save_pretrained(folder / "model")
        char_tokenizer().save_pretrained(str(folder / "model"))
        (folder / "recipe.toml").write_text(RECIPE.format(steps=steps))
        (folder / "reward.py").write_text(REWARD)
        begun = time.monotonic()
        code = self.wait(self.start("undisturbed"))
        assert code == 0, code
        self.seconds = time.monotonic() - begun
        """How long the undisturbed run took, loading included."""
        self.met = Counter[str]()
        """What a killed process had just been doing, by what the run folder had at that moment."""
        self.asked = Counter[int]()
        """How those ended that were asked to stop, by exit code."""

    def train(self, name: str, background: bool = True) -> int:
        """What the command does, in this process."""
        from groupwise.cli.main import main

        os.chdir(self.folder)
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        words = ["train", "recipe.toml", f"run.name={name}", f"checkpoints.background={str(background).lower()}"]
        code = main(words)
        sys.stdout.flush()
        return code

    def kill_at_random(self, kills: int, seed: int) -> list[str]:
        """Kill processes at moments that are drawn until so many have died, each run again and again until it comes to
        its end; the names of the runs that it took. How many that are depends on how fast the machine is."""
        draw, runs = random.Random(seed), list[str]()
        while self.met.total() < kills:
            runs.append(f"seed-{seed}-run-{len(runs)}")
            while self.met.total() < kills and self._dies(runs[-1], draw.uniform(0.02, self.seconds)):
                self.met[self._stage(runs[-1])] += 1
            code = self.wait(self.start(runs[-1]))
            assert code == 0, code
        return runs

    def ask_at_random(self, times: int, seed: int) -> list[str]:
        """Ask processes to stop, as Ctrl-C does, one to three times in a row at moments that are drawn, while the disk
        is slow to take checkpoints; each run again and again until it comes to its end. The names of the runs."""
        draw, runs = random.Random(seed), list[str]()
        while self.asked.total() < times:
            runs.append(f"asked-{seed}-run-{len(runs)}")
            while self.asked.total() < times and (code := self._asked(runs[-1], draw)):
                self.asked[code] += 1
            code = self.wait(self.start(runs[-1]))
            assert code == 0, code
        return runs

    def _asked(self, name: str, draw: random.Random) -> int:
        pid = self.start(name, slow=True)
        time.sleep(draw.uniform(0.02, self.seconds))
        for _ in range(draw.randint(1, 3)):
            os.kill(pid, signal.SIGINT)
            time.sleep(draw.uniform(0.0, 0.2))
        code = self.wait(pid)
        assert code in (0, STOPPED, INTERRUPTED), code
        return code

    def _dies(self, name: str, after_s: float) -> bool:
        """An attempt that is killed so late; whether it was still alive then."""
        pid = self.start(name)
        time.sleep(after_s)
        os.kill(pid, signal.SIGKILL)
        code = self.wait(pid)
        assert code in (0, -signal.SIGKILL), code
        return code != 0

    def difference(self, name: str) -> str:
        """What is not as in the undisturbed run: weights, optimizer and all other state, metrics, evaluations,
        rollouts."""
        one, other = (RunFolder.open(self.runs / each) for each in ("undisturbed", name))
        assert other.status == "finished"
        return "; ".join(differences(one, other))

    def leftovers(self, seconds: float = 5.0) -> list[str]:
        """What processes of this machine still have to do with the folder after so long: open files, a working
        folder."""
        until = time.monotonic() + seconds
        while (found := self._users()) and time.monotonic() < until:
            time.sleep(0.1)
        return found

    def _stage(self, name: str) -> str:
        run = self.runs / name
        if any((run / "checkpoints").glob(".step_*")):
            return "while a checkpoint was written"
        if (run / "metrics.jsonl").exists():
            return "after its first step"
        return "before its first step"

    def _users(self) -> list[str]:
        found: list[str] = []
        for process in Path("/proc").glob("[0-9]*"):
            if process.name == str(os.getpid()):
                continue
            try:
                links = [process / "cwd", *(process / "fd").iterdir()]
                found += [f"{process}: {link}" for link in links if str(link.readlink()).startswith(str(self.folder))]
            except OSError:
                continue
        return found

    def start(self, name: str, slow: bool = False) -> int:
        """An attempt in a process of its own; its id. `slow`: where the disk takes its time for checkpoints."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with disk.watched(_dawdle) if slow else nullcontext():
                    code = self.train(name)
            except KeyboardInterrupt:  # before or after all that the command does
                code = INTERRUPTED
            finally:
                os._exit(code)
        return pid

    def wait(self, pid: int) -> int:
        """How it ended: an exit code, or a signal as a negative number."""
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _dawdle(operation: str, path: Path) -> None:
    if "checkpoints" in path.parts:
        time.sleep(0.005)
