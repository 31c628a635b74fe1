"""Secrets that must not be written, and ordinary settings that must."""

import tomllib

import pytest

from groupwise.runs.redaction import redact_arguments, redact_text, redacted

CANARY = "Canary0123456789Canary0123456789"


@pytest.mark.parametrize(
    "text",
    [
        f"hf_{CANARY}",
        f"see sk-{CANARY} here",
        f"ghp_{CANARY}",
        "AKIA0123456789CANARY",
        f"Authorization: Bearer {CANARY}",
        f"eyJhbGciOiJI.{CANARY}.{CANARY}",
        f"https://me:{CANARY}@host/path",
        f"postgres://me:{CANARY}@host:5432/db",
        f"https://{CANARY}@github.com/me/repo",
        f"https://host/file?a=1&token={CANARY}&b=2",
        f"https://host/file?X-Amz-Signature={CANARY}",
        f'api_key = "{CANARY}"',
        f"judge.api-key={CANARY}",
        f'{{"password": "{CANARY}"}}',
        f"settings = {{password = '{CANARY}', n = 3}}",
        f"WANDB_API_KEY={CANARY}",
        f"token={CANARY}",
    ],
)
def test_a_secret_does_not_survive(text):
    assert CANARY not in redact_text(text)
    assert "CANARY" not in redact_text(text)
    assert "[redacted]" in redact_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "token_budget = 8192",
        "max_new_tokens = 512",
        "stop_token_ids = [1, 2]",
        'settings = {eos_token = "<|im_end|>"}',
        'id = "Qwen/Qwen2.5-0.5B-Instruct"',
        'revision = "7ae557604adf67be50417f59c2c2f167def9a775"',
        "hf_models/mine and hf-internal-testing/tiny",
        "git@github.com:me/repo and https://host/a@b",
        "a ratio of 3:4@5",
        "the token: it was wrong",
    ],
)
def test_ordinary_text_is_left_alone(text):
    assert redact_text(text) == text


def test_what_stands_around_a_secret_stays():
    assert redact_text("https://me:pw@host/x?token=abc&n=1") == "https://me:[redacted]@host/x?token=[redacted]&n=1"


def test_toml_stays_toml():
    text = f"a = 1\n[judge]\napi_key = \"{CANARY}\"  # recipe.toml:3\npassword = 'x\\'\nsecret = 12\nlast = true\n"
    assert tomllib.loads(redact_text(text)) == {
        "a": 1,
        "judge": {"api_key": "[redacted]", "password": "[redacted]", "secret": 12, "last": True},
    }


def test_the_value_of_a_secret_variable_is_found_anywhere(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalr/odd+shape=")
    monkeypatch.setenv("SOME_TOKEN", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallelism-value")
    assert redact_text("x wJalr/odd+shape= 1 parallelism-value") == "x [redacted] 1 parallelism-value"


def test_arguments():
    arguments = [
        "train",
        "recipe.toml",
        "--token",
        "abc",
        "--hf-token=abc",
        "rewards.0.settings.api_key=abc def",
        "learner.token_budget=64",
        f"model.id=https://me:{CANARY}@host/m",
        "--password",
        "--verbose",
    ]
    assert redact_arguments(arguments) == [
        "train",
        "recipe.toml",
        "--token",
        "[redacted]",
        "--hf-token=[redacted]",
        "rewards.0.settings.api_key=[redacted]",
        "learner.token_budget=64",
        "model.id=https://me:[redacted]@host/m",
        "--password",
        "--verbose",
    ]


def test_a_tree_of_settings():
    settings = {
        "rewards": [{"function": "judge", "settings": {"api_key": CANARY, "url": f"https://a:{CANARY}@b"}}],
        "token_budget": 8192,
        "secret": None,
        "deep": ({"hf_token": 12345},),
    }
    assert redacted(settings) == {
        "rewards": [{"function": "judge", "settings": {"api_key": "[redacted]", "url": "https://a:[redacted]@b"}}],
        "token_budget": 8192,
        "secret": None,
        "deep": [{"hf_token": "[redacted]"}],
    }
