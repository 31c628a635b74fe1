"""Each check of the architecture is shown a package that breaks its rule, beside things that only look like it."""

import pytest

from test_architecture import (
    CHECKS,
    Package,
    cycles,
    forbidden_imports,
    forbidden_names,
    heavy_starts,
    literal_attributes,
    over_budget,
    wrong_arrows,
)

MANY = ", ".join(f"p{number}" for number in range(9))
BROKEN = {
    wrong_arrows: {
        "learner/a.py": "from groupwise.engines import b",
        "engines/b.py": "def f():\n    import groupwise.learner.a",
        "maths/c.py": "from ..types import Group",
        "config/d.py": "from groupwise import Recipe, __version__",
        "attic/e.py": "",
        "rollouts/fine.py": "from groupwise.models.load import x\nfrom groupwise.errors import y",
    },
    cycles: {
        "tasks/a.py": "from groupwise.tasks.b import f",
        "tasks/b.py": "def f():\n    from groupwise.tasks import a",
        "runs/c.py": "import groupwise.config.d",
        "config/d.py": "import groupwise.runs.e",
        "runs/e.py": "",
    },
    over_budget: {
        "cli/long.py": "\n" * 301,
        "cli/f.py": "def f():\n"
        + "    1\n" * 50
        + f"\nasync def g({MANY}): ...\nclass C:\n    def ok(self, {MANY[4:]}): ...",
    },
    literal_attributes: {"cli/a.py": "getattr(x, 'name', None)\nhasattr(x, 'y')\nsetattr(x, name, 1)"},
    forbidden_names: {"cli/utils.py": "class Sample: ...\nclass Sampling: ..."},
    forbidden_imports: {
        "cli/a.py": "def f():\n    import vllm.engine",
        "engines/b.py": "import vllm\nfrom trl import x",
        "maths/c.py": "import torch, transformers",
    },
    heavy_starts: {
        "runs/a.py": "from groupwise.models.b import x",
        "models/__init__.py": "",
        "models/b.py": "try:\n    import torch.nn\nexcept ImportError: ...",
        "cli/c.py": "def f():\n    import torch\nif TYPE_CHECKING:\n    import torch",
    },
}
EXPECTED = {
    wrong_arrows: [
        "groupwise.attic.e: room attic has no row in ARROWS",
        "groupwise.config.d imports groupwise.Recipe: no arrow config -> Recipe",
        "groupwise.engines.b imports groupwise.learner.a: no arrow engines -> learner",
        "groupwise.learner.a imports groupwise.engines.b: no arrow learner -> engines",
        "groupwise.maths.c imports groupwise.types: no arrow maths -> types",
    ],
    cycles: [
        "groupwise.tasks.a <- groupwise.tasks.b <- groupwise.tasks.a",
        "config <- runs <- config",
    ],
    over_budget: [
        "groupwise.cli.f.f: 51 lines, the budget is 50",
        "groupwise.cli.f.g: 9 parameters, the budget is 8",
        "groupwise.cli.long: 301 lines, the budget is 300",
    ],
    literal_attributes: ["groupwise.cli.a:1: getattr(x, 'name', None)", "groupwise.cli.a:2: hasattr(x, 'y')"],
    forbidden_names: ["module groupwise.cli.utils", "class groupwise.cli.utils.Sample"],
    forbidden_imports: [
        "groupwise.cli.a imports vllm.engine",
        "groupwise.engines.b imports trl",
        "groupwise.maths.c imports transformers: maths is torch at most",
    ],
    heavy_starts: ["groupwise.runs.a -> groupwise.models.b -> torch.nn"],
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_each_check_finds_what_it_looks_for(check, tmp_path):
    for name, text in BROKEN[check].items():
        path = tmp_path / "groupwise" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert sorted(map(normal, check(Package(tmp_path / "groupwise")))) == sorted(map(normal, EXPECTED[check]))


def normal(complaint: str) -> str:
    """A cycle may be told from any of its members."""
    members = complaint.split(" <- ")
    return complaint if len(members) == 1 else " <- ".join(sorted(set(members)))
