"""Every command and every program in the documentation runs."""

import re

import pytest
from docs_blocks import FENCE, ROOT, Page, blocks_of

PAGES = [
    ROOT / "README.md",
    ROOT / "README.zh.md",
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if p.name not in ("functions.md",)),
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_page_runs(path, tmp_path, capsys):
    text = path.read_text(encoding="utf-8")
    blocks = blocks_of(text)
    unseen = re.findall(r"^ {4}(?:groupwise|make|python|pip) .*", FENCE.sub("", text), re.MULTILINE)
    assert unseen == [], "a command that stands in no block"
    assert len(blocks) == len(re.findall(r"^ *```", text, re.MULTILINE)) // 2, "a block that the runner does not see"
    if not blocks:
        return
    page = Page(tmp_path)
    for block in blocks:
        try:
            page.run(block)
        except BaseException as error:
            said = capsys.readouterr()
            pytest.fail(f"{path.name}:{block.line} ({block.word}): {error!r}\n{said.out[-1500:]}\n{said.err[-1500:]}")
    assert page.ran == len(blocks)


def test_the_runner_sees_what_is_wrong(tmp_path):
    page = Page(tmp_path)
    for text, why in {
        "```bash\ngroupwise trian recipe.toml\n```": "ended with 1",
        "```bash\nmake tea\n```": "no make tea",
        "```bash\npip install 'groupwise[teapot]'\n```": "no extra",
        "```bash\ncurl example.org\n```": "nobody knows",
        "```python\nassert 1 == 2, 'no'\n```": "^no",
        "```toml\n[train]\ngroupsize = 3\n```": "no setting",
        "```\nwhatever\n```": "''",
        "```jsonl\n{broken\n```": "Expecting",
    }.items():
        (block,) = blocks_of(text)
        with pytest.raises((Exception, pytest.fail.Exception), match=why):
            page.run(block)
