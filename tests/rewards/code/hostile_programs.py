"""Programs that try to do harm, and which layers claim to stop each.

A program prints HARM when it has done what it tried. Words in braces are filled in by the test: a secret file, a
folder, ports that listen, a process that must live. A layer that does not claim a program is never given it.
"""

from dataclasses import dataclass

SECCOMP, STRICT, LANDLOCK, NAMESPACES, PROCESS = "seccomp", "strict", "landlock", "namespaces", "process"
FILTERED = (SECCOMP, STRICT)
BOUND = (SECCOMP, STRICT, LANDLOCK, NAMESPACES)
EVERY = (PROCESS, *BOUND)
LIMITED = (PROCESS,)
"""What the process limits stop, which are there whatever else is: tried with them alone, and with all layers."""

RAW = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"
def raw(x86, arm, *arguments):
    return libc.syscall(ctypes.c_long(x86 if X86 else arm), *[
        ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
"""


@dataclass(frozen=True)
class Hostile:
    name: str
    program: str
    stopped_by: tuple[str, ...]
    ends: tuple[str, ...] = ()
    """How it may end; empty: any way."""
    abi: int = 1
    """The Landlock ABI from which on Landlock stops it."""
    cpu: float = 1.0
    wall: float = 5.0


def attempt(line, then="print('HARM', flush=True)", before=""):
    """A program that tries one line and says whether it got through."""
    return f"import os\n{before}\ntry:\n    {line}\nexcept (OSError, ValueError):\n    pass\nelse:\n    {then}\n"


LISTED = [
    Hostile("read_etc", attempt("open('/etc/passwd').read()"), (STRICT, LANDLOCK, NAMESPACES)),
    Hostile("read_ssh_key", attempt("open('{secret}').read()"), (STRICT, LANDLOCK, NAMESPACES)),
    Hostile(
        "parents_environment",
        "import os\nfor pid in ('{trainer}', str(os.getppid())):\n    try:\n"
        "        if b'CANARY' in open(f'/proc/{pid}/environ', 'rb').read(): print('HARM')\n"
        "    except OSError: pass\n",
        (STRICT, LANDLOCK, NAMESPACES),
    ),
    Hostile("write", attempt("open('{folder}/written', 'w').write('x')"), BOUND),
    Hostile(
        "symlink_out",
        attempt("os.symlink('/etc/passwd', '{folder}/link'); open('{folder}/link').read()"),
        BOUND,
    ),
    Hostile("hard_link", attempt("os.link('{secret}', '{folder}/hard')"), BOUND),
    Hostile("own_memory_by_proc", attempt("open('/proc/self/mem', 'r+b').close()"), BOUND),
    Hostile(
        "tcp",
        attempt("socket.create_connection(('127.0.0.1', {tcp}), 1).send(b'x')", before="import socket"),
        BOUND,
        abi=4,
    ),
    Hostile(
        "udp",
        attempt(
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp}))",
            before="import socket",
        ),
        (SECCOMP, STRICT, NAMESPACES),
    ),
    Hostile(
        "unix_socket",
        attempt("socket.socket(socket.AF_UNIX).connect('{unix}')", before="import socket"),
        (SECCOMP, STRICT, NAMESPACES),
    ),
    Hostile(
        "abstract_socket",
        attempt("socket.socket(socket.AF_UNIX).connect('\\0{abstract}')", before="import socket"),
        BOUND,
        abi=6,
    ),
    Hostile(
        "dns",
        attempt(
            "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(QUERY, ('127.0.0.1', {udp}))",
            before="import socket\nQUERY = bytes.fromhex('00010100000100000000000006736563726574036f72670000010001')",
        ),
        (SECCOMP, STRICT, NAMESPACES),
    ),
    Hostile("fork", attempt("pid = os.fork()", "os._exit(0) if pid == 0 else print('HARM')"), FILTERED),
    Hostile(
        "subprocess",
        attempt("subprocess.run(['/bin/sh', '-c', 'true'], check=True)", before="import subprocess"),
        BOUND,
    ),
    Hostile("exec", attempt("os.execv('/bin/echo', ['echo', 'HARM'])"), BOUND),
    Hostile(
        "ten_thousand_threads",
        "import threading, time\nthreading.stack_size(65536)\n"
        "for _ in range(10_000): threading.Thread(target=time.sleep, args=(100,), daemon=True).start()\n",
        LIMITED,
        wall=3.0,
    ),
    Hostile("kill_parent", attempt("os.kill(os.getppid(), 9)"), (SECCOMP, STRICT), ends=("violation",)),
    Hostile("kill_another", attempt("os.kill({witness}, 9)"), (SECCOMP, STRICT, LANDLOCK, NAMESPACES), abi=6),
    Hostile("loop", "while True: pass", LIMITED, ends=("cpu",), cpu=0.3),
    Hostile("sleep", "import time\ntime.sleep(1000)", LIMITED, ends=("wall",), wall=0.5),
    Hostile("memory", "x = bytearray(8 << 30)\nprint('HARM')", LIMITED, ends=("crashed",)),
    Hostile(
        "memory_slowly",
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
        LIMITED,
        ends=("crashed",),
        cpu=5.0,
    ),
    Hostile("big_integer", "x = 9 ** 9 ** 9\nprint('HARM')", LIMITED, ends=("cpu", "crashed"), cpu=0.3),
    Hostile("output_flood", "while True: print('x' * 4096)", LIMITED, ends=("crashed", "output"), cpu=5.0),
    Hostile(
        "output_flood_that_ignores_errors",
        "import os\nwhile True:\n    try: os.write(1, b'x' * 65536)\n    except OSError: pass\n",
        LIMITED,
        ends=("cpu", "output"),
        cpu=0.3,
    ),
    Hostile("redos", "import re\nre.match('(a+)+$', 'a' * 40 + 'b')\nprint('HARM')", LIMITED, ends=("cpu",), cpu=0.3),
    Hostile(
        "deep_recursion",
        "import sys\nsys.setrecursionlimit(10 ** 9)\nx = []\nfor _ in range(10 ** 5): x = [x]\nrepr(x)\nprint('HARM')",
        LIMITED,
        ends=("crashed", "cpu"),
    ),
    Hostile(
        "ptrace",
        RAW + "if raw(101, 117, 0x4206, {witness}, 0, 0) == 0: print('HARM')\n",
        BOUND,
    ),
    Hostile("unshare", RAW + "if raw(272, 97, 0x10000000) == 0: print('HARM')\n", FILTERED, ends=("violation",)),
    Hostile(
        "io_uring",
        RAW + "if raw(425, 425, 4, ctypes.create_string_buffer(256)) >= 0: print('HARM')\n",
        FILTERED,
        ends=("violation",),
    ),
    Hostile(
        "bpf",
        RAW + "if raw(321, 280, 0, ctypes.create_string_buffer(128), 128) >= 0: print('HARM')\n",
        FILTERED,
        ends=("violation",),
    ),
    Hostile("keyctl", RAW + "if raw(250, 219, 0, -3, 1) >= 0: print('HARM')\n", FILTERED, ends=("violation",)),
    Hostile("segfault", "import ctypes\nctypes.string_at(1)\nprint('HARM')", LIMITED, ends=("crashed",)),
    Hostile(
        "daemonised_grandchild",
        "import os, sys, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        os.write(1, b'%d\\n' % os.getpid())\n        time.sleep(600)\n    os._exit(0)\n"
        "time.sleep(0.2)\n",
        EVERY,
    ),
    Hostile(
        "ignored_sigxcpu",
        "import signal\nfor n in (signal.SIGXCPU, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
        "    signal.signal(n, signal.SIG_IGN)\nwhile True: pass\n",
        LIMITED,
        ends=("cpu",),
        cpu=0.3,
    ),
    Hostile(
        "inode_bomb",
        attempt("[open('{folder}/' + str(n), 'w').close() for n in range(100)]"),
        BOUND,
    ),
    Hostile(
        "disk_bomb",
        attempt("[f.write('x' * (1 << 20)) for f in [open('{folder}/big', 'w')] for _ in range(64)]"),
        EVERY,
    ),
]
"""The list of the promises page."""

OWN = [
    Hostile(
        "memory_of_another",
        attempt("open('/proc/{witness}/mem', 'rb').close()"),
        (STRICT, LANDLOCK, NAMESPACES),
    ),
    Hostile(
        "read_memory_of_another",
        RAW + "class Vector(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]\n"
        "b = ctypes.create_string_buffer(8)\nv = Vector(ctypes.addressof(b), 8)\n"
        "if raw(310, 270, {witness}, ctypes.byref(v), 1, ctypes.byref(v), 1, 0) > 0: print('HARM')\n",
        BOUND,
    ),
    Hostile(
        "signal_by_descriptor_owner",
        "import fcntl, os, signal, socket\na, b = socket.socketpair()\n"
        "try:\n    fcntl.fcntl(a, fcntl.F_SETOWN, {witness})\n    fcntl.fcntl(a, 10, signal.SIGKILL)\n"
        "    fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)\n    b.send(b'x')\n"
        "except OSError: pass\nelse: print('HARM')\n",
        FILTERED,
    ),
    Hostile(
        "limits_of_another",
        attempt("resource.prlimit({witness}, resource.RLIMIT_CPU, (1, 1))", before="import resource"),
        (SECCOMP, STRICT, NAMESPACES),
    ),
    Hostile(
        "raise_own_limits",
        attempt("resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", before="import resource"),
        EVERY,
    ),
    Hostile("priority_of_another", attempt("os.setpriority(os.PRIO_PROCESS, {witness}, 19)"), (*FILTERED, NAMESPACES)),
    Hostile("affinity_of_another", attempt("os.sched_setaffinity({witness}, {0})"), (*FILTERED, NAMESPACES)),
    Hostile("memory_outside_the_limit", attempt("os.memfd_create('x')"), FILTERED),
    Hostile(
        "shared_memory_left_behind",
        RAW + "if raw(29, 194, 4242, 4096, 0o1666) >= 0: print('HARM')\n",
        FILTERED,
    ),
    Hostile("shared_memory_file", attempt("open('/dev/shm/groupwise-hostile', 'w').write('x')"), BOUND),
    Hostile(
        "message_queue",
        RAW + "if raw(240, 180, b'groupwise', 0o102, 0o600, 0) >= 0: print('HARM')\n",
        FILTERED,
    ),
    Hostile(
        "type_into_a_terminal",
        attempt("[fcntl.ioctl(fd, 0x5412, b'x') for fd in (0, 1, 2)]", before="import fcntl"),
        FILTERED,
    ),
    Hostile("kernel_memory", attempt("open('/dev/mem', 'rb')"), EVERY),
    Hostile("kernel_log", attempt("open('/dev/kmsg', 'rb')"), (STRICT, LANDLOCK, NAMESPACES)),
    Hostile(
        "descriptor_of_another",
        "import os\ntry:\n    fd = os.pidfd_open({witness})\nexcept OSError: pass\nelse: print('HARM')\n",
        (*FILTERED, NAMESPACES),
    ),
    Hostile(
        "other_calling_convention",
        RAW + "if X86 and libc.syscall(ctypes.c_long(0x40000000 + 39)) > 0: print('HARM')\n"
        "if not X86: os.kill(os.getpid(), 31)\n",
        FILTERED,
        ends=("violation",),
    ),
    Hostile(
        "calls_of_32_bits",
        "import ctypes, mmap, os\n"
        "if os.uname().machine == 'x86_64':\n"
        "    page = mmap.mmap(-1, 4096, prot=7)\n"
        "    page.write(bytes.fromhex('53b814000000cd805bc3'))\n"
        "    at = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "    if ctypes.CFUNCTYPE(ctypes.c_int)(at)() > 0: print('HARM')\n",
        FILTERED,
    ),
    Hostile("userfaultfd", RAW + "if raw(323, 282, 0) >= 0: print('HARM')\n", FILTERED, ends=("violation",)),
    Hostile(
        "perf_events",
        RAW + "if raw(298, 241, ctypes.create_string_buffer(128), 0, -1, -1, 0) >= 0: print('HARM')\n",
        FILTERED,
        ends=("violation",),
    ),
    Hostile(
        "files_by_handle",
        RAW + "if raw(304, 265, -100, ctypes.create_string_buffer(64), 0) >= 0: print('HARM')\n",
        FILTERED,
        ends=("violation",),
    ),
    Hostile(
        "mount_as_root",
        RAW + "if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0: print('HARM')\n",
        EVERY,
    ),
    Hostile("chroot", attempt("os.chroot('/')"), EVERY),
    Hostile("host_name", attempt("socket.sethostname('owned')", before="import socket"), EVERY),
    Hostile("set_the_clock", attempt("time.clock_settime(time.CLOCK_REALTIME, 0)", before="import time"), EVERY),
    Hostile("become_someone_else", attempt("os.setuid(12345)"), (*FILTERED,)),
    Hostile(
        "capabilities_again",
        RAW + "h = (ctypes.c_uint32 * 2)(0x20080522, 0)\nd = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)\n"
        "if raw(126, 91, h, d) == 0: print('HARM')\n",
        EVERY,
    ),
    Hostile(
        "descriptors_left_open",
        "import os, stat\nfor fd in range(3, 2000):\n    try: os.fstat(fd)\n    except OSError: continue\n"
        "    print('HARM', fd)\n",
        EVERY,
        ends=("finished",),
    ),
    Hostile("environment", "import os\nif os.environ: print('HARM', os.environ)", EVERY, ends=("finished",)),
    Hostile(
        "canary_in_memory",
        # Everything that the interpreter can reach, from its own garbage collector.
        "import gc, sys\nneedle = 'CANARY' + '-7f3a'\n"
        "for thing in gc.get_objects():\n"
        "    if type(thing) is dict and thing is not globals():\n"
        "        if any(type(value) is str and needle in value for value in thing.values()): print('HARM')\n",
        EVERY,
        ends=("finished",),
    ),
    Hostile(
        "loop_at_exit", "import atexit\n@atexit.register\ndef f():\n    while True: pass\n", LIMITED, ("cpu",), cpu=0.3
    ),
    Hostile(
        "thread_that_never_ends",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\n",
        LIMITED,
        ends=("wall",),
        wall=0.5,
    ),
    Hostile(
        "finaliser_that_raises",
        "class A:\n    def __del__(self): raise SystemExit(0)\na = A()\ndel a\nraise SystemError('x')\n",
        LIMITED,
        ends=("crashed",),
    ),
    Hostile("parentheses", "(" * 100_000, LIMITED, ends=("crashed",)),
    Hostile("expression_of_a_megabyte", "x = " + "-" * 1_000_000 + "1", LIMITED, ends=("crashed", "cpu")),
    Hostile(
        "compressed_bomb",
        "import zlib\nd = zlib.decompressobj()\nc = zlib.compress(bytes(1 << 26), 9)\n"
        "x = [zlib.decompress(c) for _ in range(100)]\nprint('HARM')\n",
        LIMITED,
        ends=("crashed", "cpu"),
    ),
    Hostile("wide_format", "x = f'{1:>{10 ** 12}}'\nprint('HARM')", LIMITED, ends=("crashed",)),
    Hostile(
        "timer_flood",
        "import signal\nsignal.signal(signal.SIGALRM, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)\nwhile True: pass\n",
        LIMITED,
        ends=("cpu",),
        cpu=0.3,
    ),
    Hostile("closes_everything", "import os\nos.closerange(0, 100)\nwhile True: pass", LIMITED, ("cpu",), cpu=0.3),
    Hostile("null_bytes", "print('a\\0b')\nx = '\0'", LIMITED, ends=("crashed",)),
    Hostile(
        "raw_fork",
        RAW + "pid = raw(57, 220, 17, 0, 0, 0, 0) if X86 else raw(56, 220, 17, 0, 0, 0, 0)\n"
        "if pid == 0: os._exit(0)\nif pid > 0: print('HARM')\n",
        FILTERED,
    ),
    Hostile(
        "fork_bomb",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n",
        FILTERED,
        ends=("cpu",),
        cpu=0.3,
    ),
    Hostile(
        "open_in_another_way",
        RAW + "how = (ctypes.c_uint64 * 3)(0o102, 0o600, 0)\n"
        "if raw(437, 437, -100, b'{folder}/by-openat2', how, 24) >= 0: print('HARM')\n",
        BOUND,
    ),
]
"""What else came to mind."""
