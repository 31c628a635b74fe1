"""The policy: a causal language model that gives the logprobs of whole groups.

It runs in one of two ways, chosen by the self-check when it is loaded:

- **trunk and branch**: all groups in one flat row, each prompt computed once, no padding;
- **plain**: one padded row per completion through the model's own attention. Slower, and right for any model.

Both give features for the same completion tokens in the same order, so nothing above knows which one runs. Between
calls the model is an ordinary model of transformers: whoever handed it over can go on using it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from groupwise.models.attention import NAME, attention_name, unpadded, use_attention
from groupwise.models.features import predicting
from groupwise.models.fused import Fused
from groupwise.models.head import Head
from groupwise.models.layout import PackedLayout
from groupwise.models.tiles import scored
from groupwise.models.transfer import on_device
from groupwise.models.trees import PackedTrees, Tree, targets_of

Attention = Literal["trunk_and_branch", "plain"]

_LENGTHS = 256
"""In 16 bits on a CPU a packed row has a multiple of so many tokens."""
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
"""Rotary embeddings whose angles depend on the longest sequence in the batch once it is longer than the length that
the model was first trained at."""


class Policy:
    """A model, its tokenizer and the way it is run.

    Example:

        policy = load_policy(recipe.model)
        trees = [Tree(trunk=(5, 8, 13), branches=((2, 3, 1), (4, 1)))]
        logprobs_T, entropies_T = policy.logprobs(trees, temperature=1.0)      # five numbers, differentiable
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, adapted: PeftModel | None = None
    ) -> None:
        self.model = model
        """The transformers model; with LoRA, the one inside, whose layers carry the adapters."""
        self.tokenizer = tokenizer
        self.adapted = adapted
        """With LoRA, peft's wrapper around the same model."""
        self.attention: Attention = "plain"
        self.why_plain = "not checked"
        """Why trunk and branch is not used; empty when it is."""
        self.head: Callable[[Tensor], Tensor] = Head.of(model)
        self.beginning: dict[str, Tensor] | None = None
        """The trained weights as they were where training began, once a reference that stays there needs them: in the
        same program a later run of the same policy is held against the same."""
        self._fused = Fused(model)
        self._models = [module for module in model.modules() if isinstance(module, PreTrainedModel)]

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the forward pass."""
        return self.model.dtype

    @property
    def vocabulary(self) -> int:
        """Number of token ids that the model can predict."""
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def context(self) -> int:
        """Longest sequence that the model has positions for; with a rotary embedding that changes with the length of
        the batch, the longest that does not change it, as a token's logprob must not depend on its neighbours."""
        settings = cast(Mapping[str, Any], self.model.config.get_text_config().to_dict())
        names = ("max_position_embeddings", "n_positions", "max_sequence_length")
        known = [int(settings[name]) for name in names if settings.get(name)]
        rope = cast(Mapping[str, Any], settings.get("rope_parameters") or {})
        for terms in (rope, *(nested for nested in rope.values() if isinstance(nested, Mapping))):
            if terms.get("rope_type") in LENGTH_DEPENDENT_ROPE and "original_max_position_embeddings" in terms:
                known.append(int(terms["original_max_position_embeddings"]))
        return min(known) if known else 1 << 30

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name; a tied one appears once."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def use(self, attention: Attention, why_plain: str = "") -> None:
        """Switch between the two ways. The self-check decides; tests compare."""
        self.attention, self.why_plain = attention, why_plain

    def use_own_logits(self) -> None:
        """For a model whose head is not understood: its own logits take the place of the features."""
        self.head = _identity

    @contextmanager
    def training(self) -> Generator[None]:
        """Training mode, for a forward pass and its backward pass: adapter dropout and checkpointing are on.

        For nothing else: sampler and learner must be the same function, and models have more than dropout that is
        random in training mode, such as routers with noise.
        """
        with self._attention_at_work():
            for module in self.model.modules():
                checkpointed = vars(module).get("gradient_checkpointing") is True
                module.training = checkpointed or (isinstance(module, nn.Dropout) and module.p > 0)
            try:
                yield
            finally:
                self.model.eval()

    def features(self, trees: Sequence[Tree]) -> Tensor:
        """What the head turns into logits, one row per completion token: [T, hidden]."""
        return self._packed_features(trees) if self.attention == "trunk_and_branch" else self._padded_features(trees)

    def logprobs(
        self,
        trees: Sequence[Tree],
        *,
        temperature: float = 1.0,
        chunk: int = 1024,
        with_entropy: bool = False,
        entropy_gradient: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """`log_softmax(logits / temperature)` in fp32 of every completion token, and the entropy at each, if wanted.

        Shapes: [T] and [T], T being the completion tokens of all trees in order. See `groupwise.maths.logprobs`.
        """
        return scored(
            self.features(trees),
            targets_of(trees, self.device),
            self.head,
            temperature=temperature,
            chunk=chunk,
            with_entropy=with_entropy,
            entropy_gradient=entropy_gradient,
        )

    def run_backbone(self, **inputs: Any) -> Any:
        """The model without its head; with an odd head, the whole model, whose logits are then the features."""
        with self._attention_at_work():
            return self.model(**inputs) if self.head is _identity else self.model.base_model(**inputs)

    def features_of(self, output: Any) -> Tensor:
        """The features in what `run_backbone` returned: [rows, tokens, hidden]."""
        return cast(Tensor, output.logits if self.head is _identity else output.last_hidden_state)

    @contextmanager
    def _attention_at_work(self) -> Generator[None]:
        """Inside, the model attends by trunk and branch, if the policy does; outside as it always did."""
        if self.attention == "plain":
            yield
            return
        before = attention_name(self.model)
        use_attention(self.model, NAME)
        try:
            with self._fused.at_work(), unpadded(self._models):
                yield
        finally:
            use_attention(self.model, before)

    def _packed_features(self, trees: Sequence[Tree]) -> Tensor:
        packed = PackedTrees.of([*trees, *self._fillers(trees)], self.device)
        output = self.run_backbone(
            input_ids=packed.ids, position_ids=packed.positions, use_cache=False, layout=PackedLayout(packed)
        )
        return predicting(self.features_of(output)[0], packed)

    def _fillers(self, trees: Sequence[Tree]) -> list[Tree]:
        """A prompt that nobody goes on from: with it the row has one of few lengths. In 16 bits on a CPU torch compiles
        a matrix product for each number of tokens."""
        if self.device.type != "cpu" or self.dtype.itemsize != 2:
            return []
        missing = -sum(tree.fed for tree in trees) % min(_LENGTHS, self.context)
        return [Tree((0,) * missing)] if missing else []

    def _padded_features(self, trees: Sequence[Tree]) -> Tensor:
        """One right-padded row per completion: with causal attention no real token sees the padding."""
        asked = [(tree, index) for tree in trees for index, branch in enumerate(tree.branches) if branch]
        if not asked:
            return self.features_of(self._run_padded([(0,)]))[0, :0]
        output = self.features_of(self._run_padded([(*tree.trunk, *tree.branches[i][:-1]) for tree, i in asked]))
        wanted = [_rows(output[row], len(tree.trunk) - 1, tree.asked(i)) for row, (tree, i) in enumerate(asked)]
        return torch.cat(wanted)

    def _run_padded(self, rows: Sequence[Sequence[int]]) -> Any:
        longest = max(map(len, rows))
        ids = on_device([[*row, *[row[-1]] * (longest - len(row))] for row in rows], self.device)
        lengths = on_device([len(row) for row in rows], self.device)
        mask = (torch.arange(longest, device=self.device)[None] < lengths[:, None]).long()
        return self.run_backbone(input_ids=ids, attention_mask=mask, use_cache=False)


def _rows(features: Tensor, start: int, places: Sequence[int]) -> Tensor:
    """Those places behind the start; a view where they follow each other."""
    if isinstance(places, range):
        return features[start + places.start : start + places.stop]
    return features[[start + place for place in places]]


def _identity(logits: Tensor) -> Tensor:
    return logits
