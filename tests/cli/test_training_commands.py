"""`groupwise train` and `groupwise sft`: what they say before and after, and that they do what the recipe says."""

from groupwise.runs.folder import RunFolder


def test_train_says_what_the_recipe_comes_to(recipe, groupwise, small):
    ended = groupwise("train", "recipe.toml", "optimizer.lr=2e-5")
    assert (ended.code, ended.err) == (0, "")
    header = dict(line.split(maxsplit=1) for line in ended.out.splitlines()[:7])
    assert header == {
        # 107 embeddings of 32, two layers of 12,896 and a norm; the head is the embeddings.
        "model": f"{small}  Qwen2ForCausalLM, 28.2k parameters, all trained",
        "device": "cpu, float32, trunk and branch",
        "task": "arithmetic: 30 problems to train on, 6 held out; prompts of up to 5 tokens (limit 248)",
        "rewards": "correctness + 0.1 x length",
        "algorithm": "grpo: group_normalized, clipped_ratio 0.8 to 1.2, sequence_mean, no KL term",
        "training": "2 steps of 2 problems x 4 completions, adamw at 2e-05",
        "run": "runs/toy",
    }


def test_train_says_where_everything_is_and_what_next(recipe, groupwise):
    ended = groupwise("train", "recipe.toml")
    assert ended.out.endswith(
        "run    runs/toy\n"
        "model  runs/toy/model\n"
        "\n"
        "talk to it     groupwise sample runs/toy\n"
        "evaluate it    groupwise eval runs/toy\n"
        "take it along  groupwise export runs/toy --out toy-model\n"
    )
    run = RunFolder.open(recipe.parent / "runs/toy")
    assert run.status == "finished"
    assert [row["label"] for row in run.evaluations()] == ["before", "after"]
    assert [row["step"] for row in run.metrics.read()] == [1, 2]


def test_an_evaluation_is_advised_of_what_is_held_out(recipe, groupwise):
    ended = groupwise("train", "recipe.toml", "train.steps=1", "evaluation.problems=2")
    assert "evaluate it    groupwise eval runs/toy evaluation.problems=6\n" in ended.out
    (recipe.parent / "rows.jsonl").write_text('{"prompt": "1+1=?", "answer": "2"}\n')
    rows = 'task={kind = "dataset", path = "rows.jsonl"}'
    ended = groupwise("train", "recipe.toml", rows, "train.steps=1", "run.name=none-held-out")
    assert ended.code == 0, ended.err
    assert "evaluate it" not in ended.out


def test_overrides_win_and_are_on_record(recipe, groupwise):
    groupwise("train", "recipe.toml", "train.steps=1", "lora.r=2", "algorithm.beta=0.1")
    run = RunFolder.open(recipe.parent / "runs/toy")
    loaded = run.recipe()
    assert (loaded.recipe.train.steps, loaded.recipe.lora.r, loaded.recipe.algorithm.beta) == (1, 2, 0.1)
    assert "steps = 1  # command line\n" in (run.path / "recipe.toml").read_text()


def test_lora_and_the_kl_term_are_in_the_header(recipe, groupwise):
    ended = groupwise("train", "recipe.toml", "train.steps=1", "lora.r=2", "algorithm.beta=0.1")
    # r = 2 on 7 linear layers in each of 2 layers: 2 x 2 x (64 + 48 + 48 + 64 + 128 + 128 + 128)
    assert "30.6k parameters, 2,432 of them trained (LoRA r = 2)\n" in ended.out
    assert "sequence_mean, KL k3 x 0.1\n" in ended.out


def test_prompts_that_are_dropped_are_told(recipe, groupwise):
    (recipe.parent / "rows.jsonl").write_text(
        '{"prompt": "1+1=?", "answer": "2"}\n{"prompt": "12345678901234567890=?", "answer": "3"}\n'
    )
    task = 'task={kind = "dataset", path = "rows.jsonl", max_prompt_tokens = 10}'
    ended = groupwise("train", "recipe.toml", task, "train.steps=1")
    assert ended.code == 0, ended.err
    told = "2 prompts, the longest of 22 tokens (limit 10); 1 too long and dropped: rows/train/1"
    assert f"{told}. Raise task.max_prompt_tokens or lower" in ended.out
    assert (ended.out.count("too long and dropped"), ended.out.count("held out")) == (1, 1), "each is told once"
    assert ended.out.count("holds no problems out") == 1
    assert "1 problems to train on, 0 held out; prompts of up to 22 tokens (limit 10, 1 dropped)\n" in ended.out


def test_sft_and_the_command_that_goes_on_from_it(recipe, groupwise):
    ended = groupwise("sft", "recipe.toml", "train.group_size=2", "run.name=warm")
    assert (ended.code, ended.err) == (0, "")
    assert "training   2 steps of 4 demonstrations, adamw at 0.001\n" in ended.out
    assert "rewards" not in ended.out.splitlines()[3]
    further = next(line for line in ended.out.splitlines() if line.startswith("train it by rewards"))
    words = further.split()[4:]
    assert words[:4] == ["groupwise", "train", "recipe.toml", "train.group_size=2"]
    assert words[4:] == ["model.id=runs/warm/model", "run.name=warm-2"]
    assert groupwise(*words[1:]).code == 0
    trained = RunFolder.open(recipe.parent / "runs/warm-2").recipe().recipe
    assert (trained.model.id, trained.train.group_size) == (str(recipe.parent / "runs/warm/model"), 2)


def test_sft_names_the_recipe_that_was_written_for_its_model(recipe, groupwise):
    (recipe.parent / "broken.toml").write_text("[model")
    (recipe.parent / "further.toml").write_text('[model]\nid = "runs/warm/model"\n')
    ended = groupwise("sft", "recipe.toml", "run.name=warm", "optimizer.lr=1e-4")
    assert "train it by rewards  groupwise train further.toml\n" in ended.out


def test_a_model_beside_the_recipe_is_found_from_anywhere(recipe, groupwise, small, tmp_path, monkeypatch):
    (tmp_path / "model").symlink_to(small)
    recipe.write_text(recipe.read_text().replace(str(small), "model"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert groupwise("train", "../recipe.toml", "train.steps=1").code == 0
    assert (elsewhere / "runs/toy/model/model.safetensors").is_file()
