"""Which level a machine gets, on machines that we do not have: the kernel's answers are handed in."""

import struct

import pytest

from groupwise.cli.sandbox_check import sandbox as doctors_line
from groupwise.errors import RewardError
from groupwise.rewards.code import SandboxSettings, detect, is_lower, open_sandbox, wasm
from groupwise.rewards.code import levels as levels_module
from groupwise.rewards.code import sandbox as sandbox_module
from groupwise.rewards.code.forkserver import ForkServer, Layers
from groupwise.rewards.code.inside import landlock, seccomp
from groupwise.rewards.code.inside.kernel import Kernel
from groupwise.rewards.code.levels import Boundary


class Fake(Kernel):
    """A kernel that knows the calls that it is given, and what they return."""

    def __init__(self, machine="x86_64", **answers):
        self.machine, self.answers, self.asked = machine, answers, []

    def syscall(self, name, *arguments):
        self.asked.append(name)
        if name not in self.answers:
            raise OSError(38, f"{name}: Function not implemented")
        return self.answers[name]

    def call(self, function, *arguments):
        self.asked.append(function)
        return 0


def test_landlock_asks_for_what_the_version_knows():
    assert landlock.version(Fake()) == 0
    assert landlock.version(Fake(landlock_create_ruleset=4)) == 4
    files = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF, 6: 0xFFFF, 9: 0xFFFF}
    for abi, rights in files.items():
        asked = landlock.attributes(abi)
        assert len(asked) == (8 if abi < 4 else 16 if abi < 6 else 24)
        assert struct.unpack_from("<Q", asked)[0] == rights
        assert asked[8:] == struct.pack("<QQ", 3, 3)[: len(asked) - 8]


def test_a_kernel_without_seccomp_says_so():
    seccomp.check(Fake(seccomp=0))
    with pytest.raises(OSError, match="seccomp: Function not implemented"):
        seccomp.check(Fake())


def test_a_machine_that_we_do_not_know_has_no_numbers():
    kernel = Kernel()
    kernel.machine = "riscv64"
    with pytest.raises(OSError, match="getpid: not known on riscv64"):
        kernel.syscall("getpid")


def machine(*works):
    """A trial on a machine where only these layers work."""

    def trial(server: ForkServer) -> str:
        missing = [name for name in server.layers.names if name not in works]
        return f"no {missing[0]} here" if missing else ""

    return trial


@pytest.mark.parametrize(
    ("works", "level", "layers"),
    [
        (("seccomp", "landlock", "namespaces"), "strong", ("seccomp", "landlock", "namespaces")),
        (("seccomp", "landlock"), "strong", ("seccomp", "landlock")),
        (("seccomp", "namespaces"), "strong", ("seccomp", "namespaces")),
        (("seccomp",), "good", ("seccomp",)),
        (("landlock", "namespaces"), "none", ()),
        ((), "none", ()),
    ],
)
def test_the_level_follows_from_what_works(works, level, layers, monkeypatch):
    monkeypatch.setattr(levels_module, "why_no_wasm", lambda: "wasm: not here")
    boundary, server = detect(trial=machine(*works))
    assert (boundary.level, boundary.layers.names) == (level, layers)
    assert boundary.layers.strict == (level == "good")
    assert (server is None) == (level == "none")
    assert (level == "strong" and layers[-1] != "namespaces") or boundary.reasons or len(layers) == 3


def test_wasm_stands_in_where_no_layer_works(monkeypatch):
    monkeypatch.setattr(levels_module, "why_no_wasm", lambda: "")
    boundary, server = detect(trial=machine())
    assert (str(boundary), server) == ("WASM (Python only, ~4x slower)", None)
    assert boundary.reasons[-1] == "seccomp: no seccomp here"


def test_wasm_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(wasm.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(wasm.sys, "version_info", (3, 11, 9))
    assert wasm.why_no_wasm() == "wasm: the wheel is for Python 3.12 and newer, this is 3.11"
    monkeypatch.setattr(wasm.sys, "version_info", (3, 13, 0))
    assert wasm.why_no_wasm() == "wasm: not installed (pip install 'groupwise[wasm]')"


def test_words():
    assert str(Boundary("strong", Layers(("seccomp", "landlock")), abi=7)) == (
        "STRONG (landlock abi 7 + seccomp + rlimits)"
    )
    assert str(Boundary("good", Layers(("seccomp",), strict=True))).startswith(
        "GOOD (seccomp strict; no Landlock on ke"
    )
    none = str(Boundary("none"))
    assert none.startswith("NONE: code rewards are disabled. Model-written programs would run with your files, keys an")
    for way in ("1) a kernel", "2) pip install 'groupwise[wasm]'", "3) sandbox.url", '4) sandbox.level = "unsafe"'):
        assert way in none
    assert str(Boundary("unsafe")).startswith("UNSAFE (no boundary")


def without_layers(packages, at_once):
    return detect(packages, at_once, trial=machine())


def test_without_a_boundary_nothing_runs(monkeypatch):
    monkeypatch.setattr(levels_module, "why_no_wasm", lambda: "wasm: not here")
    monkeypatch.setattr(sandbox_module, "detect", without_layers)
    with pytest.raises(RewardError, match=r"NONE: code rewards are disabled.*\n  seccomp .*no seccomp here") as caught:
        open_sandbox(SandboxSettings())
    assert "wasm: not here" in str(caught.value)


def test_strong_accepts_nothing_less(monkeypatch):
    monkeypatch.setattr(sandbox_module, "detect", lambda *_: (Boundary("good", Layers(("seccomp",), True)), None))
    with pytest.raises(RewardError, match=r'sandbox.level = "strong", but here it is GOOD'):
        open_sandbox(SandboxSettings(level="strong"))


def test_unsafe_has_to_be_asked_for_and_says_what_it_is():
    opened = open_sandbox(SandboxSettings(level="unsafe"))
    try:
        assert opened.boundary.level == "unsafe"
    finally:
        opened.close()


def test_levels_compare():
    order = ["none", "good", "strong"]
    for low in range(3):
        for high in range(3):
            assert is_lower(order[low], order[high]) == (low < high)
    assert not is_lower("unsafe", "none")
    assert is_lower("unsafe", "wasm")
    assert is_lower("wasm", "strong")
    assert not is_lower("remote", "strong")
    assert is_lower("something of tomorrow", "good")


def test_the_doctor_has_a_line():
    [finding] = doctors_line()
    assert finding.about == "sandbox"
    assert finding.text.startswith("code sandbox: ")
    assert (finding.level == "warning") == (finding.values["level"] == "none") == bool(finding.cure)


def test_a_layer_that_does_nothing_is_not_counted():
    # Process limits alone under the name of a boundary: the trial's program gets through, and says what it did.
    server = ForkServer(Layers())
    wrong = levels_module.started_and_tested(server)
    assert wrong.startswith("a program could read /etc/passwd, write a file, make a datagram socket, start a process")
