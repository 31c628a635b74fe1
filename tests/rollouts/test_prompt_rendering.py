import pytest

from groupwise.errors import TaskError
from groupwise.rollouts.chat import render
from toys import CHAT_TEMPLATE, char_tokenizer, ids_of

BOS, EOS = 2, 1
TALK = (
    {"role": "user", "content": " hi \n"},
    {"role": "assistant", "content": "yes"},
    {"role": "user", "content": "so"},
)


@pytest.fixture(scope="module")
def plain():
    return char_tokenizer()


@pytest.fixture(scope="module")
def chat():
    return char_tokenizer(CHAT_TEMPLATE, bos=True, eos_behind=True)


def test_plain_text_is_taken_to_the_letter(plain):
    assert render(" 1+1= ", plain) == ids_of(" 1+1= ")
    assert render(" 1+1= ", plain, system_prompt=" Add.\n") == ids_of("Add.\n 1+1= ")


def test_a_conversation_in_plain_style_is_its_contents_below_each_other(plain):
    assert render(TALK, plain) == ids_of("hi\nyes\nso")
    assert render(TALK, plain, style="plain", system_prompt="Be brief.") == ids_of("Be brief.\nhi\nyes\nso")


def test_auto_takes_the_template_where_there_is_one(plain, chat):
    assert render("hi", plain, style="auto") == render("hi", plain, style="plain") == ids_of("hi")
    assert render("hi", chat, style="auto") == render("hi", chat, style="chat")


def test_a_chat_starts_with_one_bos_and_ends_with_the_assistant_s_header(chat):
    assert render("hi", chat) == (BOS, *ids_of("[user]hi"), EOS, *ids_of("[assistant]"))
    assert render("hi", chat, system_prompt="Hm.") == (
        BOS,
        *ids_of("[system]Hm."),
        EOS,
        *ids_of("[user]hi"),
        EOS,
        *ids_of("[assistant]"),
    )


def test_a_conversation_that_ends_with_the_assistant_is_continued(chat):
    prompt = ({"role": "user", "content": "1+1"}, {"role": "assistant", "content": "is "})
    assert render(prompt, chat) == (BOS, *ids_of("[user]1+1"), EOS, *ids_of("[assistant]is "))


def test_plain_text_gets_the_tokens_in_front_and_none_behind():
    both = char_tokenizer(bos=True, eos_behind=True)
    assert render("1+1=", both) == (BOS, *ids_of("1+1="))
    assert render("1+1=", char_tokenizer(eos_behind=True)) == ids_of("1+1=")
    assert render("1+1=", char_tokenizer(bos=True)) == (BOS, *ids_of("1+1="))


def test_an_end_token_that_the_text_itself_holds_is_the_user_s():
    both = char_tokenizer(bos=True, eos_behind=True)
    assert render("a<eos>", both) == (BOS, *ids_of("a"), EOS)


def test_chat_style_without_a_template_names_the_cure(plain):
    with pytest.raises(TaskError, match=r"no chat template: set it to 'plain' or 'auto'"):
        render("hi", plain, style="chat")


def test_two_system_prompts_contradict_each_other(plain, chat):
    prompt = ({"role": "system", "content": "Mine."}, {"role": "user", "content": "hi"})
    for tokenizer in (plain, chat):
        with pytest.raises(TaskError, match=r"task.system_prompt is set too.*'Mine.'"):
            render(prompt, tokenizer, system_prompt="Yours.")
    assert render(prompt, plain) == ids_of("Mine.\nhi")


def test_a_template_that_refuses_a_role_says_so():
    picky = char_tokenizer("{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system!') }}{% endif %}hi")
    with pytest.raises(TaskError, match=r"roles system, user: No system!.*leave task.system_prompt away"):
        render("hi", picky, system_prompt="Hm.")


def test_half_characters_are_refused_with_their_place(plain, chat):
    for tokenizer in (plain, chat):
        with pytest.raises(TaskError, match=r"half a character, '\\ud800' at position"):
            render("ab\ud800", tokenizer)


def test_odd_prompts(plain, chat):
    assert render("", plain) == ()
    assert render("", chat) == (BOS, *ids_of("[user]"), EOS, *ids_of("[assistant]"))
    assert render("a\x00b", plain) == (*ids_of("a"), 3, *ids_of("b"))
    assert len(render("x" * 200_000, plain)) == 200_000
    with pytest.raises(TaskError, match="without a single message"):
        render((), plain)
