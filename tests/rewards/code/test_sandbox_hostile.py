"""Each hostile program against each layer that claims to stop it, alone, and against all layers together."""

import os
import platform
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hostile_ideas import IDEAS
from hostile_programs import LISTED, OWN, Hostile

from groupwise.rewards.code.forkserver import ForkServer, Layers, UnavailableError
from groupwise.rewards.code.inside import landlock
from groupwise.rewards.code.inside.kernel import Kernel
from groupwise.rewards.code.outcome import Limits
from groupwise.rewards.code.runs import outcome_of, program_job

LAYERS = {
    "process": Layers(),
    "seccomp": Layers(("seccomp",)),
    "strict": Layers(("seccomp",), strict=True),
    "landlock": Layers(("landlock",)),
    "namespaces": Layers(("namespaces",)),
    "all": Layers(("seccomp", "landlock", "namespaces")),
    "both": Layers(("seccomp", "landlock")),
}

EVERY_ONE = (*LISTED, *OWN, *IDEAS)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layers are Linux's")


@pytest.fixture(scope="module")
def servers():
    started: dict[str, ForkServer | str] = {}

    def get(name: str) -> ForkServer:
        if name not in started:
            server = ForkServer(LAYERS[name], at_once=8)
            try:
                server.start()
            except UnavailableError as error:
                started[name] = str(error)
            else:
                started[name] = server
        found = started[name]
        if isinstance(found, str):
            pytest.skip(f"{name} does not work on this machine: {found}")
        return found

    yield get
    for server in started.values():
        if isinstance(server, ForkServer):
            server.close()


@pytest.fixture(scope="module")
def best(servers):
    """All layers that there are here: where user namespaces are refused, the other two."""
    try:
        return servers("all")
    except pytest.skip.Exception:
        return servers("both")


@pytest.fixture(scope="module")
def witness():
    """A process of the same user that must be alive afterwards, and unchanged."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def world(tmp_path_factory, witness):
    """What a program would reach if nothing held it: a secret, a folder to write to, four kinds of open doors."""
    folder = tmp_path_factory.mktemp("world")
    folder.chmod(0o777)
    secret = folder / ".ssh" / "id_ed25519"
    secret.parent.mkdir()
    secret.write_text("CANARY-7f3a")
    writable = folder / "writable"
    writable.mkdir(mode=0o777)
    short = Path(f"/tmp/groupwise-test-{os.getpid()}.sock")
    tcp, udp = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
    unix, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    tcp.bind(("127.0.0.1", 0))
    udp.bind(("127.0.0.1", 0))
    unix.bind(str(short))
    abstract.bind(f"\0groupwise-test-{os.getpid()}")
    for door in (tcp, unix, abstract):
        door.listen(64)
    for door in (tcp, udp, unix, abstract):
        door.setblocking(False)
    os.environ["CANARY"] = "CANARY-7f3a"
    words = {
        "secret": secret,
        "folder": writable,
        "tcp": tcp.getsockname()[1],
        "udp": udp.getsockname()[1],
        "unix": short,
        "abstract": f"groupwise-test-{os.getpid()}",
        "witness": witness.pid,
        "trainer": os.getpid(),
    }
    yield words, writable, (tcp, unix, abstract), udp
    for door in (tcp, udp, unix, abstract):
        door.close()
    short.unlink()
    del os.environ["CANARY"]


def claims():
    """The layers that a program is run against."""
    for hostile in EVERY_ONE:
        for layer in hostile.stopped_by:
            yield pytest.param(hostile, layer, id=f"{hostile.name}-{layer}")


def run(server: ForkServer, hostile: Hostile, words: dict[str, object]):
    program = hostile.program
    for word, value in words.items():
        program = program.replace("{" + word + "}", str(value))
    limits = Limits(cpu_seconds=hostile.cpu, wall_seconds=hostile.wall, memory_mb=512, output_kb=64)
    [ended] = server.submit([program_job(program, "", limits)]).result(60)
    return outcome_of(ended, limits)


def check(server, hostile, world, witness):
    words, writable, doors, udp = world
    pid = server.pid
    outcome = run(server, hostile, words)
    assert "HARM" not in outcome.stdout, outcome
    assert "CANARY" not in outcome.stdout + outcome.stderr
    assert outcome.is_known, outcome
    assert not hostile.ends or outcome.end in hostile.ends, outcome
    assert server.pid == pid
    assert witness.poll() is None
    assert os.getpriority(os.PRIO_PROCESS, witness.pid) == os.getpriority(os.PRIO_PROCESS, 0)
    assert [path for path in writable.iterdir() if path.stat().st_size > 64 << 10] == []
    if hostile.name != "disk_bomb":
        assert list(writable.iterdir()) == []
    for path in writable.iterdir():
        path.unlink()
    for door in doors:
        with pytest.raises(BlockingIOError):
            door.accept()
    with pytest.raises(BlockingIOError):
        udp.recv(100)
    if hostile.name == "daemonised_grandchild" and outcome.stdout.strip():
        assert gone(int(outcome.stdout)), "a grandchild outlived its grade"


def gone(pid: int) -> bool:
    """Whether a process ends within two seconds. In a namespace the number means another process, or none."""
    for _ in range(100):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return True
        if b"inside" not in command:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(("hostile", "layer"), list(claims()))
def test_a_layer_stops_what_it_claims_to_stop(hostile, layer, servers, world, witness):
    if layer == "landlock" and landlock.version(Kernel()) < hostile.abi:
        pytest.skip(f"Landlock stops it from ABI {hostile.abi} on, here it is {landlock.version(Kernel())}")
    check(servers(layer), hostile, world, witness)


@pytest.mark.parametrize("hostile", EVERY_ONE, ids=lambda hostile: hostile.name)
def test_all_layers_together_stop_everything(hostile, best, world, witness):
    check(best, hostile, world, witness)


DOES_HARM = (
    "read_etc read_ssh_key write symlink_out hard_link tcp udp unix_socket abstract_socket dns fork subprocess exec "
    "inode_bomb memory_outside_the_limit raw_fork sockets_of_every_family every_fcntl files_in_memory "
    "bytes_past_the_limits watch_files descriptors_by_message lowered_cpu_limit_raw command_line_of_another"
)


@pytest.mark.parametrize("name", DOES_HARM.split())
def test_without_a_layer_the_same_program_does_its_harm(name, servers, world):
    # Else the tests above would pass on programs that could not do it anyway.
    words, writable, doors, udp = world
    hostile = next(each for each in EVERY_ONE if each.name == name)
    assert "HARM" in run(servers("process"), hostile, words).stdout
    for path in writable.iterdir():
        path.unlink()
    for door in doors:
        with suppress(BlockingIOError):
            door.accept()[0].close()
    with suppress(BlockingIOError):
        udp.recv(100)


def test_the_list_has_what_was_promised():
    assert len(LISTED) >= 30
    assert len(OWN) >= 20 <= len(IDEAS)
    assert platform.machine() in ("x86_64", "aarch64")
