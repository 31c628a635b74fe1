"""From a folder to a policy and back: precision, tied weights, adapters, and every way a folder can be wrong."""

import json
import os
import shutil

import pytest
import torch
import transformers as t
from peft import PeftModel
from safetensors.torch import load_file

from architectures import FALCON, LLAMA, alone, model_of, policy_of, ragged_trees
from groupwise.config.sections import LoraSection, ModelSection
from groupwise.errors import ModelError
from groupwise.models.load import load_policy, pick_device, pick_dtype, stored_dtype
from groupwise.models.save import save_policy
from toys import char_tokenizer


def stored(folder, model="qwen2", **changes):
    """A model folder as transformers writes it."""
    made = model_of(model, **changes) if isinstance(model, str) else model
    made.save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return str(folder)


def loaded(folder, lora=None, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return load_policy(ModelSection(id=str(folder), **settings), lora)


def logprobs(policy_or_model):
    with torch.no_grad():
        if isinstance(policy_or_model, torch.nn.Module):
            return alone(policy_or_model, ragged_trees())
        return policy_or_model.logprobs(ragged_trees())[0]


def close(one, other, tolerance=1e-5):
    return torch.allclose(logprobs(one), logprobs(other), atol=tolerance, rtol=0)


def shaken(policy, seed=0):
    """The policy after some training."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in policy.trainable().values():
            parameter += 0.1 * torch.randn_like(parameter)
    return policy


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2", "gemma3", "mamba", "falcon, rotary"])
def test_a_folder_is_the_model_that_was_saved(name, tmp_path):
    policy = loaded(stored(tmp_path, name))
    assert close(policy, model_of(name))
    assert policy.tokenizer.eos_token_id == 1
    assert not policy.model.training
    assert all(parameter.requires_grad for parameter in policy.model.parameters())


@pytest.mark.parametrize(
    ("wanted", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_it_is_loaded_in_the_precision_that_is_asked_for(wanted, dtype, tmp_path):
    policy = loaded(stored(tmp_path), dtype=wanted, device="cpu")
    assert policy.dtype == dtype == next(policy.model.parameters()).dtype
    assert policy.attention == "trunk_and_branch"
    assert close(policy, model_of("qwen2"), 0.5)
    logprobs_T, _ = policy.logprobs(ragged_trees())
    assert logprobs_T.dtype == torch.float32
    logprobs_T.sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == dtype for p in policy.trainable().values())


def test_auto_on_a_cpu_is_fp32_whatever_is_stored(tmp_path):
    folder = stored(tmp_path, model_of("qwen2").bfloat16())
    assert stored_dtype(ModelSection(id=folder)) == "bf16"
    assert loaded(folder, device="cpu").dtype == torch.float32
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32


def test_devices(monkeypatch):
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    for wanted in ("cuda", "cuda:1", "mps"):
        with pytest.raises(ModelError, match=rf'model.device = "{wanted}".*Use "auto" or "cpu"'):
            pick_device(wanted)


@pytest.mark.parametrize(("name", "tied"), [("qwen2", True), ("gemma2", True), ("gpt2", True), ("llama", False)])
def test_tied_weights_are_tied_after_loading_training_and_saving(name, tied, tmp_path):
    policy = shaken(loaded(stored(tmp_path / "one", name)))
    save_policy(policy, tmp_path / "two")
    again = loaded(tmp_path / "two")
    for model in (policy.model, again.model):
        assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) is tied
    assert close(policy, again)
    assert not close(policy, model_of(name), 1e-2)
    assert ("lm_head.weight" in load_file(tmp_path / "two" / "model.safetensors")) is not tied


def test_what_is_saved_is_what_plain_transformers_loads(tmp_path):
    policy = shaken(policy_of("gemma2"))
    save_policy(policy, tmp_path / "new" / "folder")
    plain = t.AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "folder").eval()
    assert close(policy, plain)
    assert t.AutoTokenizer.from_pretrained(tmp_path / "new" / "folder").eos_token == "<eos>"


# --- folders that are wrong -----------------------------------------------------------------------------------------


def refusal(folder, **settings):
    with pytest.raises(ModelError) as caught:
        loaded(folder, **settings)
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message
    return message


def test_a_folder_that_is_not_there(tmp_path):
    assert "there is no such folder" in refusal(tmp_path / "nowhere")
    assert "there is no such folder. Name the folder of a model" in refusal("./nowhere")
    (tmp_path / "model.safetensors").touch()
    assert "it is a file, not a folder" in refusal(tmp_path / "model.safetensors")


def test_an_id_that_nobody_has():
    message = refusal("nowhere-1b")
    assert "no folder of that name here" in message and "hub" in message


def test_a_folder_without_a_configuration(tmp_path):
    char_tokenizer().save_pretrained(tmp_path)
    assert "There is no config.json in it" in refusal(tmp_path)


def test_an_empty_folder(tmp_path):
    assert "There is no config.json in it" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["qwen2", "gemma2", "bloom", "mamba"])
def test_a_folder_without_a_tokenizer(name, tmp_path):
    """For some architectures transformers then makes one that knows no word: every prompt would be empty."""
    model_of(name).save_pretrained(tmp_path)
    assert "no tokenizer could be loaded from this folder. It has no tokenizer: copy tokenizer.json" in refusal(
        tmp_path
    )


def test_a_folder_without_weights(tmp_path):
    stored(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert "It has no weights (model.safetensors): copy them into it" in refusal(tmp_path)


def test_weights_that_were_cut_off(tmp_path):
    stored(tmp_path)
    os.truncate(tmp_path / "model.safetensors", 5000)
    assert "Its weights are damaged or cut off: copy or download them again." in refusal(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "never-heard-of"}', "{}"])
def test_a_configuration_that_is_none(text, tmp_path):
    stored(tmp_path)
    (tmp_path / "config.json").write_text(text)
    refusal(tmp_path)


def test_weights_of_another_size(tmp_path):
    stored(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    assert "no model could be loaded" in refusal(tmp_path)


def test_a_model_without_its_head(tmp_path):
    """transformers would load it with a random head, and say so in a warning that nobody reads."""
    model_of("llama").model.save_pretrained(tmp_path)
    char_tokenizer().save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "holds no weights for lm_head.weight" in message and "random" in message


def test_an_encoder_decoder(tmp_path):
    settings = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 99}
    stored(tmp_path, t.T5ForConditionalGeneration(t.T5Config(**settings)))
    assert "T5Config" in refusal(tmp_path)


def test_a_classifier(tmp_path):
    model = t.BertForSequenceClassification(t.BertConfig(**{**FALCON, "intermediate_size": 32}))
    assert "holds no weights for" in refusal(stored(tmp_path, model))


def test_a_model_object_without_a_head():
    with pytest.raises(ModelError, match="LlamaModel has no language-model head"):
        policy_of(t.LlamaModel(t.LlamaConfig(**LLAMA)))


def test_code_that_comes_with_a_model_does_not_run(tmp_path):
    stored(tmp_path, "llama")
    config = json.loads((tmp_path / "config.json").read_text())
    names = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": names}))
    for module in ("configuration_own", "modeling_own"):
        (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    message = refusal(tmp_path)
    assert "Python code of its own" in message
    assert "model.trust_remote_code = true" in message and "model.revision" in message
    assert not (tmp_path / "ran").exists()


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written to"):
        save_policy(policy_of("qwen2"), tmp_path / "file" / "model")


# --- LoRA -----------------------------------------------------------------------------------------------------------


def test_at_first_an_adapter_changes_nothing(tmp_path):
    folder = stored(tmp_path)
    assert torch.equal(logprobs(loaded(folder, LoraSection(r=4))), logprobs(loaded(folder)))


def test_all_linear_is_every_linear_layer_but_the_head():
    policy = policy_of("llama", lora=LoraSection(r=4))
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in policy.trainable()}
    assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all("lora_" in name for name in policy.trainable())
    assert len(policy.trainable()) == 3 * 7 * 2


def test_named_targets_and_rank():
    policy = policy_of("llama", lora=LoraSection(r=5, targets=["q_proj", "layers.2.mlp.up_proj"]))
    shapes = {name: tuple(p.shape) for name, p in policy.trainable().items()}
    assert {name.split(".lora_")[0] for name in shapes} == {
        *(f"model.layers.{i}.self_attn.q_proj" for i in range(3)),
        "model.layers.2.mlp.up_proj",
    }
    assert shapes["model.layers.2.mlp.up_proj.lora_A.default.weight"] == (5, 32)
    assert shapes["model.layers.2.mlp.up_proj.lora_B.default.weight"] == (48, 5)


def test_alpha_over_r_is_the_scale():
    """Twice the alpha is twice B."""
    one, two = (policy_of("llama", lora=LoraSection(r=4, alpha=alpha)) for alpha in (8.0, 16.0))
    with torch.no_grad():
        for factor, policy in ((2.0, one), (1.0, two)):
            for name, parameter in policy.trainable().items():
                if "lora_B" in name:
                    parameter.fill_(0.05 * factor)
    assert close(one, two)
    assert not close(one, model_of("llama"), 1e-2)


def test_adapters_are_fp32_whatever_the_model_is(tmp_path):
    policy = loaded(stored(tmp_path), LoraSection(r=4), dtype="bf16", device="cpu")
    assert policy.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in policy.trainable().values()} == {torch.float32}


@pytest.mark.parametrize(
    ("model", "targets", "why"),
    [
        ("llama", ["nope"], "it has no layer called nope"),
        ("llama", ["q_proj", "qproj", "v_prj"], "it has no layer called qproj, v_prj"),
        ("llama", "q_proj", "regular expression"),
        ("llama", ["input_layernorm"], "not supported"),
        ("qwen2", ["lm_head"], "one matrix"),
        ("qwen2", ["q_proj", "embed_tokens"], "one matrix"),
    ],
)
def test_targets_that_do_not_fit(model, targets, why):
    with pytest.raises(ModelError) as caught:
        policy_of(model, lora=LoraSection(targets=targets))
    message = str(caught.value)
    assert why in message and repr(targets) in message
    assert "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj" in message


def test_the_layers_of_gpt2_have_names_too():
    with pytest.raises(ModelError, match="c_attn, c_fc, c_proj, lm_head"):
        policy_of("gpt2", lora=LoraSection(targets=["q_proj"]))
    assert policy_of("gpt2", lora=LoraSection(targets=["c_attn"])).trainable()


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("qwen2", "all-linear"),
        ("llama", ["q_proj"]),
        ("gpt2", "all-linear"),
        ("qwen3-moe", "all-linear"),
        ("mamba", ["in_proj"]),
    ],
)
def test_an_adapter_is_saved_alone_and_loads_again(name, targets, tmp_path):
    base = stored(tmp_path / "base", name)
    policy = shaken(loaded(base, LoraSection(r=4, targets=targets)))
    save_policy(policy, tmp_path / "adapter")
    assert not close(policy, model_of(name), 1e-2)
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    assert not [key for key in load_file(tmp_path / "adapter" / "adapter_model.safetensors") if "lora_" not in key]
    assert close(loaded(tmp_path / "adapter"), policy)
    assert close(PeftModel.from_pretrained(model_of(name), tmp_path / "adapter").eval(), policy)


@pytest.mark.parametrize("name", ["qwen2", "llama", "gemma2", "falcon, rotary"])
def test_merged_it_is_an_ordinary_model(name, tmp_path):
    policy = shaken(policy_of(name, lora=LoraSection(r=4)))
    before = logprobs(policy)
    save_policy(policy, tmp_path, merge=True)
    plain = t.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert close(plain, policy)
    assert not (tmp_path / "adapter_config.json").exists()
    assert torch.equal(logprobs(policy), before), "saving changes nothing"
    tied = plain.config.tie_word_embeddings
    assert (plain.get_input_embeddings().weight is plain.get_output_embeddings().weight) is tied


def test_an_untied_head_may_be_adapted(tmp_path):
    policy = shaken(policy_of("llama", lora=LoraSection(r=4, targets=["lm_head", "q_proj"])))
    assert policy.attention == "trunk_and_branch"
    save_policy(policy, tmp_path, merge=True)
    assert close(t.AutoModelForCausalLM.from_pretrained(tmp_path).eval(), policy)


def test_an_adapter_upon_an_adapter_is_not_lost(tmp_path):
    """The second one's base is the first one's merger, which no folder holds. So the whole model is saved."""
    base = stored(tmp_path / "base")
    save_policy(shaken(loaded(base, LoraSection(r=4))), tmp_path / "one")
    policy = shaken(loaded(tmp_path / "one", LoraSection(r=2)), seed=1)
    assert not close(policy, loaded(tmp_path / "one"), 1e-2)
    save_policy(policy, tmp_path / "two")
    assert close(loaded(tmp_path / "two"), policy)
    assert close(t.AutoModelForCausalLM.from_pretrained(tmp_path / "two").eval(), policy)


def test_an_adapter_upon_a_model_in_memory_is_not_lost(tmp_path):
    policy = shaken(policy_of("qwen2", lora=LoraSection(r=4)))
    save_policy(policy, tmp_path)
    assert close(loaded(tmp_path), policy)


# --- adapters that are wrong ----------------------------------------------------------------------------------------


def adapter(tmp_path):
    base = stored(tmp_path / "base")
    save_policy(shaken(loaded(base, LoraSection(r=4))), tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_whose_base_is_gone(tmp_path):
    folder = adapter(tmp_path)
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(ModelError, match=r"base.*there is no such folder"):
        loaded(folder)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"base_model_name_or_path": null}'])
def test_an_adapter_that_names_no_base(text, tmp_path):
    folder = adapter(tmp_path)
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        loaded(folder)


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_an_adapter_that_does_not_fit(damage, tmp_path):
    folder = adapter(tmp_path)
    if damage == "gone":
        (folder / "adapter_model.safetensors").unlink()
    elif damage == "cut":
        os.truncate(folder / "adapter_model.safetensors", 1000)
    else:
        stored(tmp_path / "base", "qwen2", hidden_size=64)
    with pytest.raises(ModelError, match="adapter"):
        loaded(folder)


def test_a_model_that_could_not_read_what_it_writes():
    model = model_of("llama")
    model.lm_head = torch.nn.Linear(32, 128, bias=False)  # as padded to a round number, and the embedding not
    with pytest.raises(ModelError, match="predicts 128 tokens and has embeddings for 99 of them only"):
        policy_of(model)
    wider = model_of("llama")
    wider.model.embed_tokens = torch.nn.Embedding(128, 32)
    assert policy_of(wider).vocabulary == 99
