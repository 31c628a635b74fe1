"""The seccomp filter of both machines, run by an interpreter of classic BPF: no kernel and no second machine needed."""

import re
import struct
from pathlib import Path

import pytest

from groupwise.rewards.code.inside.arch import AUDIT, NUMBERS, words
from groupwise.rewards.code.inside.filter import (
    ALLOW,
    ALLOWED,
    CHECKED,
    EPERM,
    ERRNO,
    FATAL,
    KILL,
    OPENING,
    TELLING,
    program,
)

MACHINES = ("x86_64", "aarch64")
REFUSED = ERRNO | EPERM
REFUSED_TO_ALL = words("fork vfork execve execveat socket connect bind tgkill seccomp mkdir unlink rename creat capset")


def decide(code: bytes, machine: str, number: int, *arguments: int) -> int:
    """What the kernel would do: `struct seccomp_data` in, an action out."""
    given = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, AUDIT[machine], 0, *(value & (1 << 64) - 1 for value in given))
    lines = list(struct.iter_unpack("<HBBI", code))
    at = accumulator = 0
    while True:
        op, yes, no, value = lines[at]
        at += 1
        if op == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif op == 0x54:
            accumulator &= value
        elif op == 0x15:
            at += yes if accumulator == value else no
        elif op == 0x35:
            at += yes if accumulator >= value else no
        else:
            assert op == 0x06
            return value


@pytest.fixture(params=[(m, s) for m in MACHINES for s in (False, True)], ids=str)
def asked(request):
    """`asked(name, *arguments)` on a machine, under a profile."""
    machine, strict = request.param
    code = program(machine, strict=strict)

    def ask(name, *arguments):
        if name not in NUMBERS[machine]:
            return None
        return decide(code, machine, NUMBERS[machine][name], *arguments)

    ask.strict = strict
    return ask


def test_every_call_has_its_verdict(asked):
    for name in ALLOWED - TELLING if asked.strict else ALLOWED:
        assert asked(name) in (ALLOW, None), name
    for name in TELLING if asked.strict else ():
        assert asked(name) in (REFUSED, None), name
    for name in FATAL:
        assert asked(name) in (KILL, None), name
    for name in REFUSED_TO_ALL:
        assert asked(name) in (REFUSED, None), name


def test_threads_yes_processes_no(asked):
    thread = 0x3D0F00
    assert asked("clone", thread) == ALLOW
    assert asked("clone", 17) == REFUSED  # fork: SIGCHLD
    assert asked("clone", 0x4111) == REFUSED  # vfork
    for new_space in (0x10000000, 0x20000, 0x40000000, 0x8000):
        assert asked("clone", thread | new_space) == REFUSED
    assert asked("clone3", 0, 88) == ERRNO | 38  # so that libc goes back to clone


def test_files_are_opened_to_be_read_or_not_at_all(asked):
    reading = REFUSED if asked.strict else ALLOW
    for name, before in (("openat", (-100, 0)), ("open", (0,))):
        for flags in (0, 0o2000000, 0o200000):  # O_CLOEXEC, O_DIRECTORY
            assert asked(name, *before, flags) in (reading, None)
        for flags in (1, 2, 3, 0o100, 0o1000, 0o20200002, 0o102):
            assert asked(name, *before, flags) in (REFUSED, None)
    assert asked("openat2") == ERRNO | 38


def test_descriptors_cannot_be_made_to_send_signals(asked):
    assert asked("fcntl", 3, 4) == ALLOW
    for command in (8, 10, 15, 1024, 1033):  # F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_ADD_SEALS
        assert asked("fcntl", 3, command) == REFUSED


def test_what_reaches_others_is_refused_by_its_arguments(asked):
    assert asked("prlimit64", 0, 7, 0, 1) == asked("setrlimit", 7) == ALLOW
    assert asked("prlimit64", 0, 0, 1, 0) == asked("setrlimit", 0) == REFUSED, "who lowers it dies as if killed"
    assert asked("prlimit64", 4242, 7, 1, 0) == REFUSED
    assert asked("ioctl", 0, 0x5401) == ALLOW
    assert asked("ioctl", 0, 0x5412) == ERRNO | 25  # TIOCSTI
    assert asked("socketpair", 1, 0o2000001) == ALLOW
    assert asked("socketpair", 1, 2) == REFUSED  # datagrams can be addressed
    assert asked("socketpair", 2, 1) == REFUSED
    assert asked("sendto", 3, 0, 1, 0, 0, 0) == ALLOW
    assert asked("sendto", 3, 0, 1, 0, 0x7F0000001000, 16) == REFUSED
    assert asked("sendto", 3, 0, 1, 0, 1 << 32, 16) == REFUSED  # an address whose lower half is 0
    assert asked("prctl", 15) == ALLOW
    assert asked("prctl", 4, 1) == REFUSED  # PR_SET_DUMPABLE


@pytest.mark.parametrize("machine", MACHINES)
def test_another_machines_numbers_end_the_process(machine):
    code = program(machine, strict=False)
    other = next(each for each in MACHINES if each != machine)
    assert decide(code, other, NUMBERS[other]["getpid"]) == KILL
    if machine == "x86_64":
        assert decide(code, machine, 0x40000000 | 39) == KILL
    assert decide(code, machine, 5000) == REFUSED  # a call that is newer than we are


def test_no_call_is_in_two_lists():
    lists = [ALLOWED, FATAL, set(CHECKED), set(OPENING)]
    assert sum(map(len, lists)) == len(set().union(*lists))
    assert set().union(*lists) <= set(NUMBERS["x86_64"])


@pytest.mark.parametrize(
    ("machine", "header", "pattern"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+)\s+(\d+)"),
        ("aarch64", "/usr/include/asm-generic/unistd.h", r"#define __NR_(\w+)\s+(\d+)"),
    ],
)
def test_numbers_are_the_kernels_own(machine, header, pattern):
    if not Path(header).exists():
        pytest.skip(f"{header} is not installed")
    theirs = {name: int(number) for name, number in re.findall(pattern, Path(header).read_text())}
    ours = NUMBERS[machine]
    shared = ours.keys() & theirs.keys()
    assert len(shared) > 150
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
