"""Words to token states: any transformers text model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fusionzoo.encoders._base import Encoder
from fusionzoo.encoders.outputs import Encoded, check_layer, choose_layer
from fusionzoo.encoders.pretrained import ModelFiles, find_model, load_model, load_tokenizer, transformers
from fusionzoo.errors import ModelError
from fusionzoo.numerics import zero_padded
from fusionzoo.plugin import plugin

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


class TextEncoder(Encoder):
    """A pretrained text model (BERT, RoBERTa, DeBERTa, ...) and its tokenizer.

    Parameters
    ----------
    name : a local folder, or a model of the hub such as `"roberta-large"`.
    trainable : fine-tune it; False freezes it.
    train_mode : keep a frozen model's dropout active (see `Encoder`).
    layer : `"last"`, an index, `"mean4"`, or `"views"`, the last four layers side by side (width 4 d).
    max_length : tokens, the special ones included; longer texts are cut. None: what the model was made for.
    revision : of a model of the hub.

    Shapes: ids and mask `(B, T)` -> states `(B, T, width)` and the same mask.

    >>> encoder = TextEncoder("roberta-large")  # doctest: +SKIP
    >>> states, mask = encoder(**encoder.tokenize(["I know.", "Oh my God!"]))  # doctest: +SKIP
    >>> states.shape  # doctest: +SKIP
    torch.Size([2, 6, 1024])
    """

    medium = "text"

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        trainable: bool = False,
        train_mode: bool = False,
        layer: str | int = "last",
        max_length: int | None = None,
        revision: str | None = None,
    ):
        layer = check_layer(layer)
        files = find_model(name, revision)
        self._build(load_model(files), load_tokenizer(files), files, trainable, train_mode, layer, max_length)

    def _build(
        self,
        model: Any,
        tokenizer: Any,
        files: ModelFiles | None,
        trainable: bool,
        train_mode: bool,
        layer: str | int,
        max_length: int | None,
    ) -> None:
        model = _encoder_of(model)
        super().__init__(model, files, trainable, train_mode)
        self.tokenizer, self.layer = tokenizer, layer
        self.max_length = max_length or _longest(model, tokenizer, files)
        hidden: int = model.config.hidden_size
        self.width = 4 * hidden if layer == "views" else hidden

    @classmethod
    def from_config(
        cls,
        config: PretrainedConfig,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        trainable: bool = False,
        train_mode: bool = False,
        layer: str | int = "last",
        max_length: int | None = None,
    ) -> TextEncoder:
        """With random weights from a transformers configuration; without a tokenizer it takes ids only."""
        encoder = cls.__new__(cls)
        model = transformers().AutoModel.from_config(config)
        encoder._build(model, tokenizer, None, trainable, train_mode, check_layer(layer), max_length)
        return encoder

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """`input_ids` and bool `mask`, `(B, T)`, on the model's device, for `forward`."""
        if self.tokenizer is None:
            raise ModelError("this TextEncoder was made from a configuration without a tokenizer; give from_config one")
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        ids, mask = batch["input_ids"], batch["attention_mask"].bool()
        return {"input_ids": ids.to(self.device), "mask": mask.to(self.device)}

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before cutting, the special ones included."""
        return [len(ids) for ids in self.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Encoded:
        """States of the tokens and their mask."""
        mask = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask.bool()
        # An item without any word still needs a key to attend to.
        attended = mask.long()
        attended[:, 0] |= ~mask.any(1)
        every = self.layer != "last"
        with self._gradients():
            out = self.model(input_ids=input_ids, attention_mask=attended, output_hidden_states=every)
        states = choose_layer(out.last_hidden_state, out.hidden_states if every else None, self.layer)
        return Encoded(zero_padded(states, mask), mask)


def _encoder_of(model: Any) -> Any:
    """The part that reads, of a model that also writes (T5, BART); the pooler, which nothing here uses, is left out."""
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    if not hasattr(model.config, "hidden_size"):
        raise ModelError(f"{type(model).__name__} is not a model for text: its configuration has no hidden_size.")
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # no output depends on it: its parameters would never get a gradient
    return model


def _longest(model: Any, tokenizer: Any, files: ModelFiles | None) -> int:
    """What the model says it was made for: sentence-transformers' file, the tokenizer, its positions."""
    limits = [files.json("sentence_bert_config.json").get("max_seq_length")] if files is not None else []
    limits.append(getattr(tokenizer, "model_max_length", None))
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and positions > 0:
        # RoBERTa counts from the position after that of the padding.
        shift = (
            model.config.pad_token_id + 1 if model.config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
        )
        limits.append(positions - shift)
    return min((n for n in limits if n and n < 1_000_000), default=512)


def sentence_settings(files: ModelFiles) -> dict[str, Any]:
    """Pooling and normalisation that a sentence-transformers model comes with; empty for any other model."""
    modules = files.json("modules.json").get("")
    if not isinstance(modules, list):
        return {}
    pooling = files.json("1_Pooling", "config.json")
    chosen = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max"}
    names = [how for key, how in chosen.items() if pooling.get(key)]
    if len(names) != 1:
        names = [m for m in [pooling.get("pooling_mode")] if m in chosen.values()]
    if not names:
        return {}
    return {"pooling": names[0], "normalise": any(str(m.get("type", "")).endswith("Normalize") for m in modules)}


fusionzoo_register = plugin(
    TextEncoder,
    name="text",
    summary="words to token states by any transformers model that reads: BERT, RoBERTa, sentence-transformers",
)
