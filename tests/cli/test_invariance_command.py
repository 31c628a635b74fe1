"""`groupwise doctor --invariance`: a line for each way, and the exit code."""

import json

from groupwise.learner import invariance as proof


def test_a_recipe_is_proven(groupwise, recipe):
    ended = groupwise("doctor", "--invariance", "recipe.toml", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert told["ok"]
    assert {finding["about"] for finding in told["findings"]} == {"invariance"}
    assert all(finding["values"]["difference"] <= 1e-10 for finding in told["findings"])
    texts = [finding["text"] for finding in told["findings"]]
    assert any(text.startswith("two ranks") for text in texts)
    assert any(text.startswith("padded: differs by") for text in texts)


def test_a_difference_is_an_error_with_its_cure(groupwise, recipe, monkeypatch):
    monkeypatch.setattr(proof, "CLOSE", -1.0)
    monkeypatch.setattr(proof, "TwoRanks", Nobody)
    ended = groupwise("doctor", "--invariance", "recipe.toml")
    assert ended.code == 1
    assert "error   invariance  padded: differs by" in ended.out
    assert 'set model.attention = "plain"' in ended.out


class Nobody:
    def __init__(self, subject):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def gradient(self, way):
        return {}


def test_what_is_no_model_is_one_message(groupwise, tmp_path):
    ended = groupwise("doctor", "--invariance", "no.toml")
    assert ended.code == 1
    assert "no.toml" in ended.err
