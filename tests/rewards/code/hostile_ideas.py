"""More programs that try to do harm: ways around the filter, ways to be graded by nobody, what belongs to others."""

from hostile_programs import EVERY, FILTERED, LANDLOCK, LIMITED, NAMESPACES, RAW, STRICT, Hostile, attempt

HIDDEN = (STRICT, LANDLOCK, NAMESPACES)


def calls(*entries, before=""):
    """A program that makes system calls (number on x86-64, on aarch64, arguments) and says which got through."""
    lines = [
        f"if (X86 or {arm is not None}) and raw({x86}, {arm or 0}, {given}) >= 0: print('HARM', {x86})"
        for x86, arm, given in entries
    ]
    return RAW + "b = ctypes.create_string_buffer(256)\n" + before + "\n".join(lines) + "\n"


IDEAS = [
    # Graded by nobody: an answer that is unknown costs nothing, so none may choose that.
    Hostile(
        "lowered_cpu_limit",
        "import resource\ntry: resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nexcept (OSError, ValueError): pass\n"
        "while True: pass\n",
        FILTERED,
        ends=("cpu",),
        cpu=1.2,
    ),
    Hostile(
        "lowered_cpu_limit_raw",
        RAW + "limit = (ctypes.c_uint64 * 2)(1, 1)\nif raw(160, 164, 0, limit) == 0: print('HARM')\n"
        "if raw(302, 261, 0, 0, limit, 0) == 0: print('HARM')\n"
        "if raw(302, 261, os.getpid(), 0, limit, 0) == 0: print('HARM')\n",
        FILTERED,
    ),
    Hostile("kill_itself", "import os\nos.kill(os.getpid(), 9)", FILTERED, ends=("violation",)),
    Hostile("kill_everyone", "import os\nos.kill(-1, 9)", FILTERED, ends=("violation",)),
    Hostile("kill_its_group", "import os\nos.killpg(0, 9)", FILTERED, ends=("violation",)),
    Hostile("stop_itself", "import signal\nsignal.raise_signal(signal.SIGSTOP)\nprint('HARM')", FILTERED, wall=1.0),
    Hostile("kill_a_thread_of_another", calls((234, 131, "{witness}, {witness}, 9")), FILTERED),
    Hostile(
        "thread_bomb",
        # No stack of its own, so no limit of memory ends it: only what the machine has of threads.
        RAW + "b = ctypes.create_string_buffer(65536)\n"
        "top = ctypes.c_void_p(ctypes.addressof(b) + 61440 & -16)\n"
        "pause = ctypes.cast(libc.pause, ctypes.c_void_p)\n"
        "for n in range(10 ** 6): libc.clone(pause, top, 0x50f00, None)\n",
        LIMITED,
        ends=("crashed",),
    ),
    # What belongs to others.
    Hostile(
        "packages_of_others",
        "import os\nfor name in ('site-packages', 'dist-packages'):\n"
        "    for place, _, files in os.walk(os.path.join(os.path.dirname(os.__file__), name)):\n"
        "        for file in files:\n            try: open(os.path.join(place, file), 'rb').close()\n"
        "            except OSError: pass\n            else: print('HARM', file); raise SystemExit\n",
        HIDDEN,
    ),
    Hostile(
        "command_line_of_another",
        attempt("open('/proc/{trainer}/cmdline', 'rb').read()"),
        HIDDEN,
    ),
    Hostile(
        "files_of_another",
        "import os\nfor name in ('cwd', 'exe', 'fd/1', 'root'):\n"
        "    try: print('HARM', os.readlink('/proc/{witness}/' + name))\n    except OSError: pass\n",
        (STRICT, LANDLOCK, NAMESPACES),
    ),
    Hostile("list_the_processes", attempt("os.listdir('/proc')"), HIDDEN),
    Hostile("watch_files", calls((294, 26, "0"), (253, None, "0")), FILTERED),
    Hostile("watch_all_files", calls((300, 262, "0, 0")), FILTERED, ends=("violation",)),
    Hostile(
        "descriptors_by_message",
        "import array, socket\na, b = socket.socketpair()\n"
        "try: a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [1]))])\n"
        "except OSError: pass\nelse: print('HARM')\n",
        FILTERED,
    ),
    Hostile(
        "a_handle_of_whoever_made_the_socket",
        RAW + "import socket, struct\na, b = socket.socketpair()\n"
        "try: pid = struct.unpack('i', a.getsockopt(1, 77, 4))[0]\nexcept OSError: pid = 1\n"
        "if raw(424, 424, pid, 0, 0, 0) == 0: print('HARM')\n",
        FILTERED,
    ),
    Hostile("faults_of_its_own", attempt("open('/dev/userfaultfd', 'rb')"), HIDDEN),
    # Ways around the filter.
    Hostile(
        "sockets_of_every_family",
        RAW + "pair = (ctypes.c_int * 2)()\n"
        "for family in range(50):\n    for kind in (1, 2, 3, 4, 5, 6, 10):\n"
        "        if raw(41, 198, family, kind, 0) >= 0: print('HARM', family, kind)\n"
        "        if (family, kind) != (1, 1) and raw(53, 199, family, kind, 0, pair) >= 0: print('HARM', family)\n",
        FILTERED,
    ),
    Hostile(
        "every_prctl",
        RAW + "for option in range(80):\n"
        "    if option not in (3, 15, 16) and raw(157, 167, option, 1, 0, 0, 0) >= 0: print('HARM', option)\n",
        FILTERED,
    ),
    Hostile(
        "every_fcntl",
        RAW + "for command in range(1100):\n"
        "    if command not in (0, 1, 2, 3, 4, 1030) and raw(72, 25, 1, command, 1) >= 0: print('HARM', command)\n",
        FILTERED,
    ),
    Hostile(
        "every_ioctl_of_a_file",
        RAW + "b = ctypes.create_string_buffer(256)\nfor kind in (0x54, 0x66, 0x89, 0x94, 0x12, 0xAA, 0xAE, 0xFF):\n"
        "    for number in range(256):\n        request = kind << 8 | number\n"
        "        if request not in (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451):\n"
        "            if raw(16, 29, 1, request, b) >= 0: print('HARM', hex(request))\n",
        FILTERED,
    ),
    Hostile("files_in_memory", calls((319, 279, "b, 0"), (447, 447, "0")), FILTERED),
    Hostile(
        "bytes_past_the_limits",
        "import os\nr, w = os.pipe()\nos.write(w, b'x' * 64)\n"
        + calls(
            (275, 76, "r, 0, 1, 0, 16, 0"),
            (276, 77, "r, w, 16, 0"),
            (40, 71, "1, 3, 0, 16"),
            (326, 285, "3, 0, 1, 0, 16, 0"),
        ),
        FILTERED,
    ),
    Hostile("grow_the_output", calls((77, 46, "1, 1 << 40"), (285, 47, "1, 0, 0, 1 << 40")), FILTERED),
    Hostile("output_far_away", attempt("os.pwrite(1, b'x', 1 << 40)"), EVERY),
    Hostile("change_its_own_input", attempt("os.pwrite(0, b'x', 0)"), EVERY),
    Hostile("change_its_own_text", attempt("os.pwrite(3, b'x', 0)"), EVERY),
    Hostile(
        "new_worlds_by_clone",
        RAW + "for flags in (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000, 0x100, 0x4000):\n"
        "    pid = raw(56, 220, flags | 17, 0, 0, 0, 0)\n    if pid == 0: os._exit(0)\n"
        "    if pid > 0: print('HARM', hex(flags))\n"
        "a = (ctypes.c_uint64 * 11)(*[0] * 4, 17)\npid = raw(435, 435, a, 88)\n"
        "if pid == 0: os._exit(0)\nif pid > 0: print('HARM')\n",
        FILTERED,
    ),
    Hostile(
        "a_process_by_spawn",
        attempt("os.posix_spawn('/bin/true', ['true'], {})"),
        FILTERED,
    ),
    Hostile("a_filter_of_its_own", calls((317, 277, "1, 8, b"), (157, 167, "22, 2, b")), FILTERED),
    Hostile("a_timer_that_signals", calls((222, 107, "0, 0, b"), (282, 74, "-1, b, 8, 0")), FILTERED),
    Hostile(
        "ahead_of_all_others",
        calls(
            (144, 119, "0, 1, b"),
            (314, 274, "0, b, 0"),
            (251, 30, "1, 0, 0"),
            (203, 122, "0, 128, b"),
            (141, 140, "0, 0, 5"),
            before="b[0] = 1\n",
        ),
        FILTERED,
    ),
    Hostile(
        "memory_that_stays",
        calls((151, 230, "1"), (149, 228, "b, 16"), (237, 235, "b, 16, 0, 0, 0, 0"), (238, 237, "0, 0, 0")),
        FILTERED,
    ),
    Hostile("addresses_without_chance", calls((135, 92, "0x40000")), FILTERED),
    Hostile("keys_of_the_machine", calls((248, 217, "b'user', b'x', b'y', 1, -3")), FILTERED, ends=("violation",)),
    Hostile("reap_another", calls((448, 448, "1, 0")), FILTERED),
    Hostile("change_the_clock_slowly", calls((159, 171, "b")), FILTERED, ends=("violation",)),
    # What is used up.
    Hostile("errors_flood", "import os\nwhile True: os.write(2, b'x' * 65536)", LIMITED, ends=("crashed", "output")),
    Hostile(
        "descriptor_bomb",
        "import os\nkept = []\nwhile True:\n    try: kept += os.pipe()\n    except OSError: break\n"
        "if len(kept) > 64: print('HARM')\n",
        EVERY,
        ends=("finished",),
    ),
    Hostile(
        "memory_without_end",
        attempt("mmap.mmap(-1, 1 << 40)", before="import mmap"),
        EVERY,
    ),
    Hostile(
        "last_words",
        "import signal, sys, threading, time\n"
        "for n in range(1, 32):\n    try: signal.signal(n, lambda *_: print('HARM', flush=True))\n"
        "    except (OSError, ValueError): pass\n"
        "def f():\n    while True: pass\n"
        "threading.Thread(target=f).start()\n",
        LIMITED,
        ends=("cpu",),
        cpu=0.3,
    ),
]
"""What came to mind at a second look."""
