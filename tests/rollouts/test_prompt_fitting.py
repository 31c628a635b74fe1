import pytest

from groupwise.errors import TaskError
from groupwise.rollouts.prompts import FitReport, fit
from groupwise.types import Problem
from toys import CHAT_TEMPLATE, char_tokenizer, ids_of

PLAIN = char_tokenizer()
PROBLEMS = [Problem(f"t/{n}", text) for n, text in enumerate(["123", "12345", "1234567", "1234"])]


def test_drop_leaves_long_problems_out_and_counts_them():
    fitted = fit(PROBLEMS, PLAIN, limit=4)
    assert [p.id for p in fitted.problems] == ["t/0", "t/3"]
    assert fitted.prompt_ids == (ids_of("123"), ids_of("1234"))
    assert fitted.report == FitReport(problems=4, limit=4, longest=7, dropped=2, first_long=("t/1", "t/2"))
    assert str(fitted.report) == ("4 prompts, the longest of 7 tokens (limit 4); 2 too long and dropped: t/1, t/2")


def test_truncate_keeps_the_end():
    fitted = fit(PROBLEMS, PLAIN, limit=4, policy="truncate")
    assert fitted.problems == tuple(PROBLEMS)
    assert fitted.prompt_ids == (ids_of("123"), ids_of("2345"), ids_of("4567"), ids_of("1234"))
    assert (fitted.report.truncated, fitted.report.dropped) == (2, 0)
    assert "2 too long and truncated: t/1, t/2" in str(fitted.report)


def test_truncate_keeps_the_token_that_begins_a_text():
    with_bos = char_tokenizer(bos=True)
    assert fit(PROBLEMS[:2], with_bos, limit=4, policy="truncate").prompt_ids == (
        (2, *ids_of("123")),
        (2, *ids_of("345")),
    )
    assert fit(PROBLEMS[1:2], with_bos, limit=1, policy="truncate").prompt_ids == (ids_of("5"),)


def test_error_names_the_first_ones():
    with pytest.raises(TaskError, match=r"2 of 4 prompts have more than 4 tokens, the longest 7: t/1, t/2\. Raise"):
        fit(PROBLEMS, PLAIN, limit=4, policy="error")


def test_prompts_that_fit_are_left_alone_under_every_policy():
    for policy in ("drop", "truncate", "error"):
        fitted = fit(PROBLEMS, PLAIN, limit=7, policy=policy)
        assert fitted.problems == tuple(PROBLEMS) and fitted.report == FitReport(4, 7, 7)
        assert str(fitted.report) == "4 prompts, the longest of 7 tokens (limit 7)"


def test_everything_dropped_is_an_error():
    with pytest.raises(TaskError, match=r"all 4 prompts have more than 2 tokens.*the shortest has 3"):
        fit(PROBLEMS, PLAIN, limit=2)


def test_no_room_for_prompts():
    with pytest.raises(TaskError, match=r"no room for prompts, 0 tokens:.*max_new_tokens"):
        fit(PROBLEMS, PLAIN, limit=0)


def test_the_style_and_the_system_prompt_count():
    chat = char_tokenizer(CHAT_TEMPLATE)
    expected = (2, *ids_of("[system]Hm."), 1, *ids_of("[user]123"), 1, *ids_of("[assistant]"))
    fitted = fit(PROBLEMS[:1], chat, limit=100, system_prompt="Hm.")
    assert fitted.prompt_ids == (expected,) and fitted.report.longest == len(expected)
    assert fit(PROBLEMS[:1], chat, limit=100, style="plain").prompt_ids == (ids_of("123"),)


def test_what_cannot_be_rendered_names_the_problem():
    with pytest.raises(TaskError, match="t/9: its prompt has no tokens"):
        fit([Problem("t/9", "")], PLAIN, limit=4)
    with pytest.raises(TaskError, match="t/9: a prompt holds half a character"):
        fit([Problem("t/9", "\ud800")], PLAIN, limit=4)


def test_many_long_ones_are_counted_but_not_all_named():
    problems = [Problem(f"t/{n}", "12345") for n in range(9)] + [Problem("ok", "1")]
    report = fit(problems, PLAIN, limit=4).report
    assert report.dropped == 9 and report.first_long == ("t/0", "t/1", "t/2", "t/3", "t/4")
    assert str(report).endswith("9 too long and dropped: t/0, t/1, t/2, t/3, t/4, ...")


def test_no_problems_fit_trivially():
    assert fit([], PLAIN, limit=4).report == FitReport(problems=0, limit=4, longest=0)
