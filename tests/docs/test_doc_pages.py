"""What pages claim beside their code: functions and settings exist, generated pages are fresh, the site builds."""

import dataclasses
import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from docs_blocks import ROOT
from trl import GRPOConfig

from groupwise.config.schema import find, root, task_kinds

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.zh.md", *sorted(DOCS.rglob("*.md"))]
SECTIONS = set(root()["properties"])


@pytest.fixture(scope="module")
def site():
    spec = importlib.util.spec_from_file_location("docs_site", DOCS / "site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_function_that_a_page_names_exists(site):
    names = site.names_in_pages()
    assert len(names) >= 20
    assert [name for name in names if site.named(name) is None] == []
    assert site.named("groupwise.maths.divergences.k9") is None


def test_generated_pages_are_fresh(site):
    for name, text in (("configuration.md", site.configuration()), ("functions.md", site.functions())):
        assert (DOCS / name).read_text(encoding="utf-8") == text, "stale: run python docs/site.py"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_that_a_page_names_exists(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = re.findall(r"`([a-z_]+(?:\.\w+)+)(?: = [^`]*|=[^`]*)?`", text)
    settings = {
        name
        for name in named
        if name.split(".")[0] in SECTIONS and not name.endswith((".md", ".py", ".toml", ".json", ".jsonl"))
    }
    unknown = {
        name
        for name in settings
        if all(find(tuple(int(p) if p.isdigit() else p for p in name.split(".")), kind) is None for kind in kinds())
        and find(("rewards", 0, *name.split(".")[1:])) is None
    }
    assert unknown == set()


def test_the_chinese_page_names_every_section_of_a_recipe():
    page = (DOCS / "zh" / "configuration.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == SECTIONS


def kinds():
    return (None, *task_kinds())


@pytest.mark.parametrize("path", [DOCS / "trl.md", DOCS / "zh" / "trl.md"], ids=lambda path: path.parent.name)
def test_the_names_of_trl_are_trls(path):
    known = {field.name for field in dataclasses.fields(GRPOConfig)} | {"max_prompt_length", "warmup_ratio"}
    rows = re.findall(r"^\| (`[^|]*) \|", path.read_text(encoding="utf-8"), re.MULTILINE)
    names = {name for row in rows for name in re.findall(r"`(\w+)(?:=[^`]*)?`", row)} - {"GRPOConfig"}
    assert len(names) >= 15
    assert names <= known, names - known


def test_every_page_has_its_chinese_twin_or_is_reference():
    only_english = {"algorithms", "architecture", "functions", "measurements", "seeds", "sandbox", "reliability"}
    english, chinese = ({p.stem for p in folder.glob("*.md")} for folder in (DOCS, DOCS / "zh"))
    assert chinese <= english
    assert {"index", "quickstart", "theory", "rewards", "tuning", "trl", "recipes", "configuration"} <= chinese
    assert only_english.isdisjoint(chinese)


class Loads(HTMLParser):
    """What a page fetches by itself: scripts, styles, pictures."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attributes):
        names = {"script": "src", "img": "src", "link": "href"}
        given = dict(attributes)
        if tag in names and given.get("rel") not in ("canonical", "alternate", "prev", "next"):
            self.addresses.append(given.get(names[tag]) or "")


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theory = (tmp_path / "site" / "zh" / "theory.html").read_text(encoding="utf-8")
    assert theory.count("<math") >= 10 and "$$" not in theory
    assert 'href="../functions.html#groupwise.maths.divergences.k3"' in theory
    for path in (tmp_path / "site").rglob("*.html"):
        loads = Loads()
        loads.feed(path.read_text(encoding="utf-8"))
        assert [address for address in loads.addresses if "//" in address] == []
