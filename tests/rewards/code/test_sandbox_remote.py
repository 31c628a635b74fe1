"""A sandbox server that speaks SandboxFusion's /run_code, and the ways in which one can fail."""

import ast
import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from groupwise.errors import RewardError
from groupwise.rewards.code import Limits, SandboxSettings, UnitTests, open_sandbox, wasm
from groupwise.rewards.code.remote import run_remotely


@pytest.fixture
def server():
    """A server that answers what it is told to, and remembers what it was asked."""
    state = SimpleNamespace(answer={}, status=200, asked=[], paths=[])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            state.paths.append(self.path)
            state.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = state.answer if isinstance(state.answer, bytes) else json.dumps(state.answer).encode()
            self.send_response(state.status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{listening.server_port}/"
    yield state
    listening.shutdown()
    listening.server_close()


def ran(**result):
    return {"status": "Success", "message": "", "run_result": {"status": "Finished", "return_code": 0} | result}


def test_a_program_runs_there(server):
    server.answer = ran(stdout="42\n", stderr="", execution_time=0.02)
    sandbox = open_sandbox(SandboxSettings(url=server.url, cpu_seconds=2.0))
    try:
        outcome = asyncio.run(sandbox.run("print(42)", "in"))
    finally:
        sandbox.close()
    assert (outcome.end, outcome.stdout, outcome.wall_seconds) == ("finished", "42\n", 0.02)
    assert server.paths == ["/run_code"]
    [asked] = server.asked
    assert asked["code"] == "print(42)"
    assert asked["stdin"] == "in"
    assert asked["language"] == "python"
    assert asked["run_timeout"] == 2.0
    assert "expected" not in json.dumps(asked)
    assert str(sandbox.boundary) == f"REMOTE ({server.url})"


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        ({"status": "Failed", "run_result": {"status": "Finished", "return_code": 1, "stderr": "x"}}, "crashed"),
        ({"status": "Failed", "run_result": {"status": "TimeLimitExceeded"}}, "cpu"),
        ({"status": "Failed", "run_result": {"status": "Error"}}, "lost"),
        ({"status": "SandboxError", "message": "no room", "run_result": None}, "lost"),
        (b"not json", "lost"),
        ([], "lost"),
        (ran(stdout="x" * 3000), "output"),
    ],
)
def test_its_failures_are_not_the_answers(server, answer, end):
    server.answer = answer
    outcome = run_remotely(server.url, "x", "", Limits(output_kb=2))
    assert outcome.end == end
    assert outcome.is_known == (end != "lost")


def test_a_server_that_is_not_there_is_unknown(server):
    server.status = 500
    assert run_remotely(server.url, "x", "", Limits()).end == "lost"
    assert run_remotely("http://127.0.0.1:9", "x", "", Limits()).end == "lost"


def test_unit_tests_are_refused_there_with_words():
    sandbox = open_sandbox(SandboxSettings(url="http://127.0.0.1:9"))
    with pytest.raises(RewardError, match="unit tests cannot run in a sandbox of level REMOTE"):
        asyncio.run(sandbox.test("x = 1", UnitTests(("assert x",))))
    sandbox.close()


class Eryx:
    """What the WebAssembly wheel offers, played by this interpreter on programs of our own."""

    class ResourceLimits:
        def __init__(self, execution_timeout_ms, max_memory_bytes):
            self.seconds, self.bytes = execution_timeout_ms / 1000, max_memory_bytes

    class Sandbox:
        def __init__(self, resource_limits):
            assert (resource_limits.seconds, resource_limits.bytes) == (4.0, 512 << 20)

        def execute(self, code):
            if "raise" in code:
                raise RuntimeError("ValueError")
            first, rest = code.split("json.loads(", 1)
            assert first.startswith("import io, json, sys")
            stdin, program = rest.split("))\n", 1)
            assert program == "print(input())"
            return SimpleNamespace(stdout=json.loads(ast.literal_eval(stdin)) + "\n")


def test_wasm_gets_its_input_and_limits(monkeypatch):
    monkeypatch.setattr(wasm.importlib, "import_module", lambda name: Eryx)
    outcome = wasm.run_in_wasm("print(input())", "a 'b'", Limits())
    assert (outcome.end, outcome.stdout) == ("finished", "a 'b'\n")
    assert wasm.run_in_wasm("raise ValueError", "", Limits()).end == "crashed"
