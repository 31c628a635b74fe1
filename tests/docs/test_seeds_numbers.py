"""The numbers of the table of the five documents: each that one line can check, checked; what it points to exists."""

import re

import pytest
from docs_blocks import ROOT

from groupwise.maths.advantages import group_normalized

PAGE = (ROOT / "docs" / "seeds.md").read_text(encoding="utf-8")


def test_the_advantages_that_document_003_works_out():
    by_hand = [[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]]
    for advantages, expected in zip(group_normalized([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), by_hand, strict=True):
        assert advantages == pytest.approx(expected, abs=2e-4)


def test_two_right_of_four():
    assert group_normalized([[1.0, 1.0, 0.0, 0.0]])[0][0] == pytest.approx(0.87, abs=0.005)


def test_every_test_recipe_and_script_that_the_table_names_is_there():
    paths = set(re.findall(r"`((?:tests|recipes)/[\w./-]+)`", PAGE)) - {"tests/..."}
    assert len(paths) >= 30
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_every_row_says_where_how_and_what_came_of_it():
    rows = [
        line
        for line in PAGE.splitlines()
        if line.startswith("| ") and not line.startswith(("| statement", "| setting"))
    ]
    assert len(rows) >= 100
    for row in rows:
        cells = re.split(r"(?<!\\)\|", row)[1:-1]
        assert len(cells) == 4, row
        reports_nothing = "none" in row or "no number" in row or "there is none" in row
        assert all(cell.strip() for cell in cells[1:]) or reports_nothing, row


@pytest.mark.parametrize("document", ["000", "001", "002", "003", "004"])
def test_every_document_has_its_part(document):
    assert f"\n## {document}: " in PAGE
