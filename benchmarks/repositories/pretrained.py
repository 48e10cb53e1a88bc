"""Encoders of `transformers` with random weights, base widths and two layers in the place of downloads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

#: What stands in a name -> the kind that `AutoModel` makes of it.
KINDS = {"roberta": "Roberta", "hubert": "Hubert", "data2vec": "Data2VecAudio", "bert": "Bert"}


@contextmanager
def random_weights(**sizes: Any) -> Iterator[None]:
    """`from_pretrained` of every model and configuration makes a small random one while the block runs.

    Parameters
    ----------
    **sizes : object
        Of the configuration; two layers without it.
    """
    import transformers
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    small = {"num_hidden_layers": 2, **sizes}

    def config_of(cls: Any, name: object = None, **options: Any) -> Any:
        options.pop("num_labels", None)
        return cls(**{**small, **{k: v for k, v in options.items() if k.startswith(("output_", "hidden", "num_"))}})

    def model_of(cls: Any, name: object = None, *args: Any, config: Any = None, **options: Any) -> Any:
        given = {k: options[k] for k in ("args", "multimodal_config") if k in options}
        return cls(config_of(cls.config_class) if config is None else config, *args, **given)

    def auto(cls: Any, name: object = None, **options: Any) -> Any:
        kind = next(k for start, k in KINDS.items() if start in str(name))
        return getattr(transformers, kind + cls.__name__.removeprefix("Auto")).from_pretrained(name)

    with (
        mock.patch.object(transformers.AutoModel, "from_pretrained", classmethod(auto)),
        mock.patch.object(transformers.AutoConfig, "from_pretrained", classmethod(auto)),
        mock.patch.object(
            PreTrainedTokenizerBase, "from_pretrained", classmethod(lambda cls, *a, **k: mock.MagicMock())
        ),
        mock.patch.object(PretrainedConfig, "from_pretrained", classmethod(config_of)),
        mock.patch.object(PreTrainedModel, "from_pretrained", classmethod(model_of)),
    ):
        yield
