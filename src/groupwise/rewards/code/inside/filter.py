"""The seccomp filter: which system calls a program may make, as classic BPF for either machine.

An allow-list: what is not named gets EPERM, and what no honest program asks for ends the process with SIGSYS, which
shows in its exit status and is counted. Arguments are looked at where a number or a set of flags decides; a path
cannot be looked at, for it lies behind a pointer, and that is Landlock's part.

Two profiles. The normal one opens files for reading. The strict one opens none, for kernels without Landlock.
"""

from __future__ import annotations

import struct

from .arch import AUDIT, NUMBERS, words

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS, ENOTTY = 1, 38, 25

ALLOWED = words(
    """
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range lseek
    fstat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd getdents64 getdents fstatfs
    mmap mprotect munmap mremap madvise mincore msync brk membarrier fsync fdatasync fadvise64
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack
    pause alarm setitimer getitimer restart_syscall
    dup dup2 dup3 pipe pipe2 poll ppoll select pselect6 eventfd2
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 recvfrom getsockname getsockopt
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrusage
    getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp getpgid getsid capget
    sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min
    getpriority futex set_robust_list rseq set_tid_address arch_prctl getrlimit sysinfo uname getrandom getcpu
    exit exit_group
    """
)
"""What every program may do, whatever the arguments: it reaches nothing but its own memory and descriptors."""

FATAL = words(
    """
    ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd
    kill tkill rt_sigqueueinfo rt_tgsigqueueinfo
    unshare setns mount umount2 pivot_root move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr chroot
    bpf perf_event_open io_uring_setup io_uring_enter io_uring_register userfaultfd keyctl add_key request_key
    init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct quotactl
    settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname iopl ioperm modify_ldt
    open_by_handle_at name_to_handle_at fanotify_init syslog vhangup
    """
)
"""What no honest program does: reading or stopping others, changing the machine, ways around the other layers."""


class Check:
    """One word of an argument, masked, is one of these values. `word` counts 32 bits: argument 1's lower half is 2."""

    def __init__(self, word: int, values: tuple[int, ...], mask: int = 0xFFFFFFFF) -> None:
        self.word, self.values, self.mask = word, values, mask


class Rule:
    """Allowed if all checks hold; else refused with `errno`."""

    def __init__(self, checks: tuple[Check, ...], errno: int = EPERM) -> None:
        self.checks, self.errno = checks, errno


_WRITING = 0o3 | 0o100 | 0o1000 | 0o20000000  # access mode, O_CREAT, O_TRUNC, O_TMPFILE
_THREAD = 0x10000
_NEW_SPACES = 0x7E020000 | 0x8000  # every CLONE_NEW..., and CLONE_PARENT
_AF_UNIX, _SOCK_STREAM = 1, 1
_LIMITS = tuple(range(1, 16))  # all but RLIMIT_CPU: who lowers it dies of SIGKILL, as if somebody else had killed him

CHECKED: dict[str, Rule] = {
    "clone": Rule((Check(0, (_THREAD,), _THREAD | _NEW_SPACES),)),
    # clone3 keeps its flags behind a pointer; glibc goes back to clone when there is no clone3.
    "clone3": Rule((), ENOSYS),
    "openat2": Rule((), ENOSYS),
    # Not F_SETOWN, F_SETSIG: they let the kernel send a signal of one's choice to any process of the same user.
    "fcntl": Rule((Check(2, (0, 1, 2, 3, 4, 1030)),)),
    "ioctl": Rule((Check(2, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),), ENOTTY),
    "prctl": Rule((Check(0, (3, 15, 16, 0x53564D41)),)),
    "prlimit64": Rule((Check(0, (0,)), Check(2, _LIMITS))),
    "setrlimit": Rule((Check(0, _LIMITS),)),
    # asyncio wakes itself up over a pair of sockets. A stream pair reaches nobody else, and without an address
    # sendto is write.
    "socketpair": Rule((Check(0, (_AF_UNIX,)), Check(2, (_SOCK_STREAM,), 0xF))),
    "sendto": Rule((Check(8, (0,)), Check(9, (0,)))),
}
"""What depends on the arguments."""

OPENING: dict[str, Rule] = {
    "open": Rule((Check(2, (0,), _WRITING),)),
    "openat": Rule((Check(4, (0,), _WRITING),)),
}
"""The normal profile's way to read files: no flag that writes, makes or cuts one."""

TELLING = words("readlink readlinkat")
"""What the strict profile refuses as well: the only way left to learn the names of files that others have open."""

_LOAD, _AND, _JUMP_EQ, _JUMP_GE, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000


def program(machine: str, *, strict: bool) -> bytes:
    """The filter for a machine, as an array of `struct sock_filter`.

    Example: `len(program("x86_64", strict=True)) % 8 == 0`
    """
    numbers = NUMBERS[machine]
    lines = [(_LOAD, 0, 0, _MACHINE_AT), (_JUMP_EQ, 1, 0, AUDIT[machine]), (_RETURN, 0, 0, KILL)]
    lines += [(_LOAD, 0, 0, _NUMBER_AT)]
    if machine == "x86_64":  # the same numbers again with one bit set: the x32 way to call them
        lines += [(_JUMP_GE, 0, 1, _X32), (_RETURN, 0, 0, KILL)]
    allowed = ALLOWED - TELLING if strict else ALLOWED
    for name in sorted(allowed & numbers.keys()):
        lines += [(_JUMP_EQ, 0, 1, numbers[name]), (_RETURN, 0, 0, ALLOW)]
    for name, rule in (CHECKED if strict else {**CHECKED, **OPENING}).items():
        if name in numbers:
            body = _body(rule)
            lines += [(_JUMP_EQ, 0, len(body), numbers[name]), *body]
    for name in sorted(FATAL & numbers.keys()):
        lines += [(_JUMP_EQ, 0, 1, numbers[name]), (_RETURN, 0, 0, KILL)]
    lines += [(_RETURN, 0, 0, ERRNO | EPERM)]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def _body(rule: Rule) -> list[tuple[int, int, int, int]]:
    """What follows when the number is the rule's. Every way through it ends in a return."""
    refuse = (_RETURN, 0, 0, ERRNO | rule.errno)
    if not rule.checks:
        return [refuse]
    lines: list[tuple[int, int, int, int]] = []
    for check in rule.checks:
        lines += [(_LOAD, 0, 0, _ARGUMENTS_AT + 4 * check.word), (_AND, 0, 0, check.mask)]
        rest = len(check.values)
        for value in check.values:
            lines += [(_JUMP_EQ, rest, 0, value)]  # over the other values and the refusal
            rest -= 1
        lines += [refuse]
    return [*lines, (_RETURN, 0, 0, ALLOW)]
