"""Keep secrets out of the run folder: tokens, keys and passwords in arguments, recipes, log lines and tracker settings.

    redact_text("https://me:hunter2@host/data")          ->  "https://me:[redacted]@host/data"
    redact_arguments(["train", "--token", "abc"])        ->  ["train", "--token", "[redacted]"]
    redacted({"settings": {"api_key": "abc"}})           ->  {"settings": {"api_key": "[redacted]"}}

Three things give a secret away: its shape (`hf_...`, `sk-...`, a password in a URL), the name it is given
(`api_key = ...`), and that it is the value of an environment variable with such a name. The environment itself is never
written. A recipe that held a secret is stored without it and asks for it again when it is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

REDACTED = "[redacted]"

_NAMES = (
    r"(?:api|access|secret|private)[_-]?key|secret|passwd|password"
    r"|(?:hf|hub|auth|access|api|bearer|refresh|session|github|wandb)[_-]?token"
)
_SECRET_NAME = re.compile(rf"(?:.*[^A-Za-z0-9])?(?:{_NAMES})|(?:.*[^A-Za-z0-9_])?token", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(r"(?:.*_)?(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS|KEY|KEY_ID)", re.IGNORECASE)
_SHORTEST_SECRET = 8  # shorter values of variables ("1", "true") would redact half of every text

_SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bapi_org_[A-Za-z0-9]{16,}|\bsk-[A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{16,}"
    r"|\bgithub_pat_\w{16,}|\bglpat-[\w-]{16,}|\bxox[abprs]-[\w-]{10,}|\bAKIA[0-9A-Z]{16}\b|\bwandb_v\d_\w{16,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"
)
_BEARER = re.compile(r"\b(Bearer\s+)[\w.~+/-]{8,}=*", re.IGNORECASE)
_USER_AND_PASSWORD = re.compile(r"\b([a-z][a-z0-9+.-]*://[^\s/:@\"']*):[^\s/@\"']+@", re.IGNORECASE)
_USER_ONLY = re.compile(r"\b(https?://)[^\s/:@\"']+@", re.IGNORECASE)
_QUERY = re.compile(rf"([?&](?:{_NAMES}|token|key|signature|sig|x-amz-[\w-]+)=)[^&\s\"'#]+", re.IGNORECASE)
_VALUE = r""""(?:[^"\\\n]|\\.)*"|'[^'\n]*'|(?!(?:[\d.+-]+|true|false)(?![^\s,\]}]))[^\s,"'&{}\[\]]+"""
_NAMED = re.compile(
    rf"""(?<![A-Za-z0-9])((?:{_NAMES})["']?\s*[=:]\s*|(?<!_)token["']?\s*=\s*)({_VALUE})""", re.IGNORECASE
)


def redact_text(text: str) -> str:
    """The text without its secrets. TOML and JSON stay well-formed: a quoted value stays quoted."""
    for value in _values_of_secret_variables():
        text = text.replace(value, REDACTED)
    text = _SHAPES.sub(REDACTED, text)
    text = _BEARER.sub(rf"\1{REDACTED}", text)
    text = _USER_AND_PASSWORD.sub(rf"\1:{REDACTED}@", text)
    text = _USER_ONLY.sub(rf"\1{REDACTED}@", text)
    text = _QUERY.sub(rf"\1{REDACTED}", text)
    return _NAMED.sub(_keep_quotes, text)


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line without its secrets: `--token x`, `--token=x`, `a.api_key=x`, and what `redact_text` finds."""
    kept: list[str] = []
    value_is_secret = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        named = is_secret_name(name.lstrip("-"))
        if value_is_secret and not argument.startswith("--"):
            kept.append(REDACTED)
        elif named and equals:
            kept.append(f"{name}={REDACTED}")
        else:
            kept.append(redact_text(argument))
        value_is_secret = named and not equals and name.startswith("-")
    return kept


def redacted(value: Any) -> Any:
    """The same for a tree of mappings and lists: values under a secret's name, and secrets inside strings."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {key: REDACTED if _hides(key, item) else redacted(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in cast("Sequence[Any]", value)]
    return value


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name holds a secret: `api_key`, `judge.hf_token`; not `eos_token`, `token_budget`."""
    return _SECRET_NAME.fullmatch(name) is not None


def _hides(key: Any, item: Any) -> bool:
    return isinstance(key, str) and item is not None and is_secret_name(key)


def _keep_quotes(found: re.Match[str]) -> str:
    quote = found[2][0] if found[2][0] in "\"'" else ""
    return f"{found[1]}{quote}{REDACTED}{quote}"


def _values_of_secret_variables() -> list[str]:
    """Longest first, so that no value is cut by a shorter one inside it."""
    values = {
        value
        for name, value in os.environ.items()
        if _SECRET_VARIABLE.fullmatch(name) and len(value) >= _SHORTEST_SECRET
    }
    return sorted(values, key=len, reverse=True)
