"""Encoders that a repository loads by name, with random weights, one layer and a small vocabulary: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

#: Of the names that a configuration knows, those that it has are set.
SMALL = {
    "num_hidden_layers": 1,
    "num_layers": 1,
    "intermediate_size": 32,
    "vocab_size": 200,
    "encoder_layers": 1,
    "decoder_layers": 1,
}


@contextmanager
def random_weights(**sizes: Any) -> Iterator[None]:
    """`from_pretrained` of models, configurations and tokenizers of `transformers` asks for no file while the block runs.

    Parameters
    ----------
    **sizes : int
        What else the configurations are given (`hidden_size`, `num_attention_heads`, ...).
    """
    import transformers
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.configuration_utils import PreTrainedConfig

    kinds = {"bert-": "Bert", "roberta-": "Roberta", "chinese-roberta": "Bert", "chinese-hubert": "Hubert"}

    def config(cls: Any, name: Any = "", *args: Any, **kwargs: Any) -> Any:
        if cls is PreTrainedConfig:
            raise ValueError(f"{name} names no kind of configuration")
        made = cls()
        for key, value in {**SMALL, **sizes}.items():
            if hasattr(made, key):
                setattr(made, key, value)
        return made

    def model(cls: Any, name: Any = "", *args: Any, config: Any = None, **kwargs: Any) -> Any:
        given = {k: kwargs[k] for k in ("multimodal_config", "beta_shift") if k in kwargs}
        return cls(config or cls.config_class.from_pretrained(name), *args, **given)

    def auto(cls: Any, name: Any = "", *args: Any, **kwargs: Any) -> Any:
        kind = next(k for start, k in kinds.items() if start in str(name).lower())
        part = "Config" if "Config" in cls.__name__ else "Model"
        return getattr(transformers, kind + part).from_pretrained(name)

    with (
        mock.patch.object(PreTrainedConfig, "from_pretrained", classmethod(config)),
        mock.patch.object(PreTrainedModel, "from_pretrained", classmethod(model)),
        mock.patch.object(PreTrainedTokenizerBase, "from_pretrained", classmethod(lambda cls, *a, **k: mock.MagicMock())),
        mock.patch.object(transformers.AutoModel, "from_pretrained", classmethod(auto)),
        mock.patch.object(transformers.AutoConfig, "from_pretrained", classmethod(auto)),
    ):
        yield


def tokens(lengths: Sequence[int], size: int | None = None, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Random token ids `(B, T)`, `pad` beyond each length, and their mask."""
    mask = torch.arange(size or max(lengths))[None] < torch.tensor(lengths)[:, None]
    return torch.where(mask, torch.randint(3, 200, mask.shape), pad), mask.long()


def bert_input(lengths: Sequence[int], size: int | None = None) -> Tensor:
    """Ids, mask and segments as one tensor `(B, 3, T)`, as MMSA and its heirs pass them."""
    ids, mask = tokens(lengths, size)
    return torch.stack([ids, mask, torch.zeros_like(ids)], dim=1).float()
