"""What makes the site of these pages: two pages that are generated, and formulas and links that mkdocs does not know.

    python docs/site.py          writes configuration.md and functions.md anew (a test fails when they are stale)
    mkdocs build --strict        uses this file as its hooks; `make docs` does both

Formulas between dollar signs become MathML while the site is built, so no page loads a script or a font from anywhere.
A function of groupwise in backquotes, `groupwise.maths.divergences.k3`, becomes a link to what it says of itself.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from copy import copy
from importlib import import_module
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
CHINESE = "中文"
"""The part of the navigation that is the Chinese site."""
GENERATED = ("configuration.md", "functions.md")
NAME = re.compile(r"(?<![`\w\[])`(groupwise(?:\.\w+){2,})`(?!\])")
FENCE = re.compile(r"(^[ \t]*```.*?^[ \t]*```[ \t]*$)", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`[^`\n]+`)")
BLOCK_FORMULA = re.compile(r"^\$\$\s*\n(.*?)\n\$\$\s*$", re.MULTILINE | re.DOTALL)
WRAPPED = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n(?=[\u3000-\u9fff\uff00-\uffef])")
"""A line end between two Chinese characters is no blank."""
PICTURE = re.compile(r"!\[([^\]]*)\]\((images/[^)]+)\)")
INLINE_FORMULA = re.compile(r"(?<![\\$\w])\$([^$\n]+)\$(?![\w$])")


def named(name: str) -> object:
    """The function, method, class or module of that dotted name; None if there is none.

    Example: `named("groupwise.learner.learner.Learner.update")`
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = vars(found).get(part)
            if found is None:
                return None
        return found
    return None


def names_in_pages() -> list[str]:
    """Every function that a page names in backquotes, generated pages aside."""
    pages = [path for path in sorted(DOCS.rglob("*.md")) if path.name not in GENERATED]
    return sorted({name for path in pages for name in NAME.findall(path.read_text(encoding="utf-8"))})


def configuration() -> str:
    """Every setting of a recipe, from the schema."""
    from groupwise.config import schema_rows, section_doc

    lines = [
        "# Configuration",
        "",
        "Every setting of a recipe. This page is made from the schema that checks recipes: `python docs/site.py`.",
        "",
        "A setting is written in its table of the recipe, or under its whole name on the command line:",
        "",
        "<!-- run: train.steps=1 train.prompts_per_step=1 sampling.max_new_tokens=4 evaluation.problems=2 -->",
        "```bash",
        "groupwise train recipe.toml optimizer.lr=2e-5 lora.r=16",
        "```",
    ]
    section = ""
    for row in schema_rows():
        table = row.name.partition(".")[0]
        if table != section:
            section = table
            lines += ["", f"## {table}", ""]
            if "." in row.name:
                lines += [section_doc(table), ""]
            lines += ["| setting | what it may be | default | |", "|---|---|---|---|"]
        cells = (f"`{row.name.replace('.0.', '.')}`", row.type, f"`{row.default}`", row.doc)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def functions() -> str:
    """What the functions that pages name say of themselves, and every entry that a recipe may choose."""
    from groupwise.learner.algorithm import TABLES
    from groupwise.rewards.load import BUILT_IN

    lines = [
        "# Functions",
        "",
        "The functions that these pages name, in their own words, and all that a recipe chooses.",
    ]
    for title, group in (
        *((f"algorithm.{table.kind}", list(table.values())) for table in TABLES),
        ("rewards.function", list(BUILT_IN.values())),
    ):
        lines += ["", f"## {title}"]
        for function in group:
            lines += _entry(f"{function.__module__}.{function.__qualname__}", function)
    known = set(re.findall(r"\{ #(\S+) \}", "\n".join(lines)))
    lines += ["", "## Others"]
    for name in names_in_pages():
        if name not in known and callable(function := named(name)):
            lines += _entry(name, function)
    return "\n".join(lines) + "\n"


def _entry(name: str, function: Callable[..., Any]) -> Iterator[str]:
    yield from ("", f"### {name.rpartition('.')[2]} {{ #{name} }}", "", "```text", f"{name}{_signature(function)}", "")
    yield from (inspect.getdoc(function) or "").replace("```", "'''").splitlines()
    yield "```"


def _signature(function: Callable[..., Any]) -> str:
    """Names and defaults; types are in the source."""
    parts: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        parts.append(f"{'**' if parameter.kind is parameter.VAR_KEYWORD else ''}{parameter.name}{default}")
    return f"({', '.join(parts)})"


def write() -> None:
    """Write the generated pages."""
    for name, text in (("configuration.md", configuration()), ("functions.md", functions())):
        (DOCS / name).write_text(text, encoding="utf-8")


def on_config(config: Any) -> Any:
    """Pages that the navigation does not name stand at its end."""
    listed = set(re.findall(r"[\w/-]+\.(?:md|ipynb)", str(config["nav"])))
    others = [path.name for path in sorted(DOCS.glob("*.md")) if path.name not in listed]
    if others:
        config["nav"].append({"More": others})
    return config


def on_page_context(context: dict[str, Any], page: Any, config: Any, nav: Any) -> dict[str, Any]:
    """A Chinese page is a page of a Chinese site: its own pages beside it, and the words of the theme in Chinese."""
    chinese = page.file.src_uri.startswith("zh/")
    config.theme["language"] = "zh" if chinese else "en"
    mine = copy(nav)
    mine.items = [item for item in nav.items if (item.title == CHINESE) == chinese]
    mine.items = mine.items[0].children if chinese else mine.items
    mine.homepage = mine.items[0]
    return {**context, "nav": mine}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Formulas and links, everywhere but in code blocks. A picture that a measurement has yet to draw is said so."""
    markdown = PICTURE.sub(
        lambda found: found[0] if (DOCS / found[2]).is_file() else f"*{found[1]}: not drawn yet*", markdown
    )
    parts = FENCE.split(markdown)
    return "".join(part if place % 2 else _text(part, page.file.src_uri) for place, part in enumerate(parts))


def _text(text: str, source: str) -> str:
    # In a span, for a line that begins with <math> is a paragraph of its own to Markdown.
    text = WRAPPED.sub("", text)
    to_root = "../" * source.count("/")
    if source not in GENERATED:
        text = NAME.sub(lambda found: _linked(found[1], to_root), text)
    text = BLOCK_FORMULA.sub(lambda found: f'<div class="formula">{mathml(found[1], "block")}</div>', text)
    parts = CODE.split(text)
    return "".join(
        part if place % 2 else INLINE_FORMULA.sub(lambda found: f"<span>{mathml(found[1], 'inline')}</span>", part)
        for place, part in enumerate(parts)
    )


def _linked(name: str, to_root: str) -> str:
    """Modules have no entry to link to."""
    return f"[`{name}`]({to_root}functions.md#{name})" if callable(named(name)) else f"`{name}`"


def mathml(formula: str, display: str) -> str:
    """LaTeX as MathML, which browsers draw by themselves."""
    from latex2mathml.converter import convert

    return convert(formula.strip(), display=display)


if __name__ == "__main__":
    sys.path.insert(0, str(DOCS.parent / "src"))
    write()
