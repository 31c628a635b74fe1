"""The page and the words of a walk: one file that loads nothing, the same story in both languages."""

import asyncio
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import import_module
from string import Formatter

import pytest

from groupwise.explain.chapters import chapters
from groupwise.explain.example import prepare
from groupwise.explain.page import page
from groupwise.explain.plot import Plot
from groupwise.explain.walk import walk_of
from groupwise.explain.words import words


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    async def walked():
        return await walk_of(await prepare(tmp_path_factory.mktemp("walk"), [], seed=0))

    return asyncio.run(walked())


class Seen(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.open, self.addresses = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "action")]
        if tag not in ("meta", "rect", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_is_whole_and_loads_nothing(walk, language):
    text = page(walk, language)
    seen = Seen()
    seen.feed(text)
    assert seen.open == []
    assert seen.tags.count("svg") == 4 and seen.tags.count("h2") == 8
    assert not {"script", "link", "img", "iframe", "object"} & set(seen.tags)
    assert seen.addresses == [] and "url(" not in text and "@import" not in text
    assert "+0.94" in text and "nan" not in text.lower().replace("nanmean", "")


def test_what_a_model_wrote_is_text_on_the_page(walk):
    hostile = "<script>alert(1)</script>\x1b[31m"
    answers = tuple(replace(answer, text=hostile, again=hostile) for answer in walk.answers)
    text = page(replace(walk, answers=answers))
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text and "\x1b" not in text


def test_both_languages_say_the_same_things():
    def places(text):
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    english, chinese = words("en"), words("zh")
    assert list(english) == list(chinese)
    assert {key: places(text) for key, text in english.items()} == {key: places(text) for key, text in chinese.items()}
    same = {key for key in english if english[key] == chinese[key]}
    assert same <= {"token", "tokens"}
    assert all(re.search(r"[\u4e00-\u9fff]", text) for key, text in chinese.items() if key not in same | {"tokens"})


def test_formulas_are_told_in_the_language_of_the_page(walk):
    english, chinese = (chapters(walk, words(language)) for language in ("en", "zh"))
    for place in (2, 4, 5, 6):
        assert "`" not in english[place].formulas[0]
        assert re.search(r"[\u4e00-\u9fff]", chinese[place].formulas[0])
    assert chinese[3].table.head == ("更新", "采样时的 logprob", "现在的 logprob", "差", "概率比")


def test_every_function_that_a_chapter_names_exists(walk):
    for chapter in chapters(walk, words("en")):
        for name in chapter.code:
            module, _, attribute = name.rpartition(".")
            try:
                found = vars(import_module(module))[attribute]
            except ModuleNotFoundError:  # a method: module.Class.method
                module, _, kind = module.rpartition(".")
                found = vars(vars(import_module(module))[kind])[attribute]
            assert callable(found)


def test_a_plot_puts_things_where_they_belong():
    plot = Plot((0, 10), (0, 2))
    plot.dot(0, 0, "good")
    plot.dot(10, 2, "bad", "<b>")
    plot.bar(1, 2, 1, "soft")
    text = plot.svg('says "this"')
    assert 'cx="52.0" cy="224.0"' in text  # 640 x 260 less the margins: 52 left, 36 below
    assert 'cx="624.0" cy="14.0"' in text  # 16 right, 14 above
    assert 'x="109.2" y="119.0" width="57.2" height="105.0"' in text
    assert "<title>&lt;b&gt;</title>" in text and "says &quot;this&quot;" in text
