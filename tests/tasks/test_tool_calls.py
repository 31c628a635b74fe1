"""What a model wrote becomes calls; functions become tools; whatever goes wrong is told to the model."""

import asyncio
import functools
import json
import threading
import time
from typing import Literal

import pytest

from groupwise.errors import TaskError
from groupwise.tasks.environments import Reply, Tool, ToolBox, with_tools, world_of
from groupwise.tasks.environments.calls import Broken, Call, calls_in
from groupwise.types import Problem

ADD = {"name": "add", "arguments": {"a": 1, "b": 2}}


def add(a: int, b: int = 1) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


async def slowly(unit: Literal["C", "F"]) -> dict:
    """Read the thermometer.

    Args:
        unit: Which scale.
    """
    await asyncio.sleep(0)
    return {"degrees": 20, "unit": unit}


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>{json.dumps(ADD)}</tool_call>",
        f"Let me see.\n<tool_call>\n{json.dumps(ADD)}\n</tool_call>\n",
        json.dumps({"name": "add", "parameters": {"a": 1, "b": 2}}),
        f"[TOOL_CALLS] [{json.dumps(ADD)}]",
        json.dumps({"name": "add", "arguments": json.dumps(ADD["arguments"])}),
        f"<tool_call>{json.dumps({'function': ADD})}</tool_call>",
        "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\n2\n</parameter>\n</function>\n</tool_call>",
    ],
    ids=["hermes", "hermes in text", "llama", "mistral", "text in text", "openai", "qwen coder"],
)
def test_one_call_in_each_format(text):
    assert calls_in(text) == [Call("add", {"a": 1, "b": 2})]


def test_several_calls_none_and_broken_ones():
    two = f"<tool_call>{json.dumps(ADD)}</tool_call><tool_call>{json.dumps({'name': 'now'})}</tool_call>"
    assert calls_in(two) == [Call("add", {"a": 1, "b": 2}), Call("now", {})]
    assert calls_in(f"{json.dumps(ADD)}; {json.dumps(ADD)}") == [Call("add", {"a": 1, "b": 2})] * 2
    for text in ("", "The sum is 3.", '{"answer": 3}', "[1, 2]", "[]", "{", '"name"', "{} {}"):
        assert calls_in(text) == [], text
    for text in (
        "<tool_call>{",
        "<tool_call>add(1)</tool_call>",
        "<tool_call>[3]</tool_call>",
        "<tool_call>null</tool_call>",
    ):
        (broken,) = calls_in(text)
        assert isinstance(broken, Broken) and broken.why


@pytest.mark.parametrize(
    "text", ["<tool_call>" * 20_000, "{" * 200_000, "[" * 200_000, ";" * 100_000, '{"name":' * 5000]
)
def test_no_text_takes_long(text):
    start = time.perf_counter()
    calls_in(text)
    assert time.perf_counter() - start < 2


def test_a_function_and_its_docstring_are_a_schema():
    schema = Tool.of(add).schema["function"]
    assert schema["name"] == "add"
    assert schema["description"] == "Add two numbers."
    assert schema["parameters"]["properties"]["a"] == {"type": "integer", "description": "The first."}
    assert schema["parameters"]["required"] == ["a"]

    def bare(a):
        """Nothing is known of a."""

    with pytest.raises(TaskError, match="'bare' cannot be a tool"):
        Tool.of(bare)
    with pytest.raises(TaskError, match="two tools have one name"):
        with_tools([add, add])


@pytest.mark.parametrize(
    ("tools", "told"),
    [
        (add, r"tools is 'add' alone, and it has to be a list of functions: tools=\[add\]"),
        ("add", r"tools is a str, 'add': it has to be a list of functions, such as tools=\[add\]"),
        (3, "tools is a int, 3: it has to be a list"),
        ({"add": add}, "tools is a dict, .*: it has to be a list"),
    ],
)
def test_tools_that_are_no_list_are_told_what_to_write(tools, told):
    with pytest.raises(TaskError, match=told):
        with_tools(tools)


def said(box, text):
    reply = asyncio.run(box.step(text))
    return [message["content"] for message in reply.messages], reply.done


def call(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def test_calls_are_checked_run_and_answered():
    def fails() -> str:
        """Always."""
        raise ValueError("no luck")

    def long() -> str:
        """Much."""
        return "x" * 100_000

    box = ToolBox([Tool.of(function) for function in (add, slowly, fails, long)])
    assert said(box, call("add", a=2, b=3)) == (["5"], False)
    assert said(box, call("add", a="2")) == (["3"], False), "what can be read as a number is one"
    assert said(box, call("slowly", unit="C")) == (['{"degrees": 20, "unit": "C"}'], False)
    (wrong,), _ = said(box, call("slowly", unit="K"))
    assert wrong.startswith("error: slowly: unit: ")
    (missing,), _ = said(box, call("add"))
    assert missing == "error: add: a: Field required"
    (more,), _ = said(box, call("add", a=1, c=2))
    assert more.startswith("error: add: c: Extra inputs")
    assert said(box, call("subtract", a=1)) == (
        ["error: there is no tool 'subtract'. There are: add, slowly, fails, long"],
        False,
    )
    assert said(box, call("fails")) == (["error: ValueError: no luck"], False)
    (much,), _ = said(box, call("long"))
    assert len(much) < 8100 and much.endswith("(100000 characters)")
    assert said(box, call("add", a=1) + call("add", a=2)) == (["2", "3"], False)
    assert said(box, "The answer is 5.") == ([], True)
    assert (box.calls, box.failures) == (11, 5)


def test_parameters_may_be_called_anything_that_a_call_can_name():
    def odd(schema: int, _b: int = 7, model_config: str = "", self: bool = False) -> str:
        """Names that libraries keep for themselves.

        Args:
            schema: One.
            _b: Two.
            model_config: Three.
            self: Four.
        """
        return f"{schema} {_b} {model_config!r} {self}"

    box = ToolBox([Tool.of(odd)])
    assert said(box, call("odd", schema=1)) == (["1 7 '' False"], False)
    assert said(box, call("odd", schema=1, _b="2", model_config="c", self=True)) == (["1 2 'c' True"], False)

    def many(*numbers: int) -> int:
        """Add them all.

        Args:
            numbers: Any.
        """
        return sum(numbers)

    def by_place(a: int, /) -> int:
        """Give it back.

        Args:
            a: Any.
        """
        return a

    for function, name in ((many, "'*numbers'"), (by_place, "'a'")):
        with pytest.raises(TaskError, match="cannot be a tool: arguments come by name") as caught:
            Tool.of(function)
        assert name in str(caught.value)


class Mute(Exception):  # noqa: N818
    def __str__(self):
        raise ValueError("not even this")


def test_nothing_that_a_tool_does_ends_the_run_or_holds_it_up():
    def leaves() -> str:
        """Exit."""
        raise SystemExit(3)

    def mute() -> str:
        """Raise what cannot be shown."""
        raise Mute

    def half() -> str:
        """Half characters, many."""
        raise ValueError("\ud800" * 100_000)

    def hangs() -> str:
        """Wait for ever."""
        threading.Event().wait()
        return ""

    box = ToolBox([Tool.of(function) for function in (add, leaves, mute, half, hangs)])
    assert said(box, call("leaves")) == (["error: RuntimeError: SystemExit: 3"], False)
    assert said(box, call("mute")) == (["error: Mute"], False)
    (told,), _ = said(box, call("half"))
    assert told.isascii() and len(told) < 8100
    box.seconds = 0.05
    started = time.monotonic()
    for _ in range(40):  # more than any pool has threads
        assert said(box, call("hangs")) == (["error: TimeoutError: hangs gave no result within 0.05 s"], False)
    assert said(box, call("add", a=1)) == (["2"], False)
    assert time.monotonic() - started < 20
    many, _ = said(box, call("add", a=1) * 1000)
    assert len(many) == 32


class Counter:
    """By TRL's convention."""

    def reset(self, start=0, **row) -> str | None:
        self.value = start
        return f" You have {start}."

    def increment(self, by: int) -> int:
        """Count up.

        Args:
            by: How far.
        """
        self.value += by
        return self.value

    def _hidden(self):
        pass

    def get_reward(self) -> float:
        return float(self.value)


def test_a_class_by_trls_convention():
    world = world_of(Counter, tools=[add])
    assert world.name == "Counter" and world.earns
    assert [schema["function"]["name"] for schema in world.tools] == ["increment", "add"]
    first, second = world.make(), world.make()
    assert asyncio.run(first.reset(Problem("p", "x", {"start": 3}))) == " You have 3."
    asyncio.run(second.reset(Problem("p", "x", {})))
    assert said(first, call("increment", by=2)) == (["5"], False)
    assert asyncio.run(first.reward()) == 5.0
    assert asyncio.run(second.reward()) == 0.0, "each completion has its own"
    assert world.shown(first).value == 5
    world.shown(second).get_reward = lambda: None
    assert asyncio.run(second.reward()) is None, "it does not grade this one"
    with pytest.raises(TaskError, match="has no method reset"):
        world_of(dict)
    with pytest.raises(TaskError, match="raised TypeError"):
        world_of(lambda: 1 + "")


def test_properties_are_no_tools_and_are_not_read():
    class Shop(Counter):
        @property
        def till(self):
            raise RuntimeError("not before the reset")

        @functools.cached_property
        def stock(self):
            raise RuntimeError("nor this")

    world = world_of(Shop)
    assert [schema["function"]["name"] for schema in world.tools] == ["increment"]
    world.make()


def test_a_class_by_our_protocol_but_for_its_async_is_told_so():
    class Half:
        def reset(self, problem):
            return None

        async def step(self, said):
            return Reply(done=True)

    with pytest.raises(TaskError, match=r"Half\.reset and Half\.step are not both async"):
        world_of(Half)


def test_a_constructor_that_leaves_is_told():
    class Leaves(Counter):
        def __init__(self):
            raise SystemExit("no connection")

    with pytest.raises(TaskError, match="raised SystemExit: no connection"):
        world_of(Leaves)


def test_a_class_by_our_protocol():
    class Echo:
        async def reset(self, problem):
            return None

        async def step(self, said):
            return Reply.of(said, reward=1.0)

    world = world_of(Echo)
    assert (world.name, world.tools, world.earns) == ("Echo", (), True)
    with pytest.raises(TaskError, match="no use for tools"):
        world_of(Echo, tools=[add])
