"""MMER (speech emotion): words attended with wav2vec's frames both ways, gated, pooled by their maxima, concatenated.

Wav2vec has random weights and two layers; its forward returns the loss first. Its package for annotations is replaced.
"""

import sys
from types import ModuleType
from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "Sreyan88/MMER"
COMMIT = "2b076fb11d"
SAMPLES = 3
STREAMS = {0: 0, 2: 0}
OLD = True  # asks for CUDA


def build(root: Any) -> Any:
    """As `run_iemocap.py` does."""
    import transformers

    sys.path.insert(0, str(root / "src"))
    sys.modules["textgrid"] = ModuleType("textgrid")
    import mmi_module

    config = transformers.Wav2Vec2Config(
        num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, conv_dim=[16] * 3, conv_stride=[5, 4, 4],
        conv_kernel=[10, 8, 4], num_feat_extract_layers=3,  # type: ignore[call-arg]  it takes any
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, apply_spec_augment=False,
    )  # fmt: skip

    class Wav2Vec2(transformers.Wav2Vec2Model):
        """Random weights."""

        @classmethod
        def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
            return cls(config)

    mmi_module.Wav2Vec2Model = Wav2Vec2
    own = mmi_module.BertConfig(50, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64)
    model = mmi_module.MMI_Model(own, 10, 4)
    mask = (torch.arange(9) < torch.tensor([9, 7, 4])[:, None]).long()
    text, lengths = torch.randn(3, 9, 768) * mask[..., None], torch.tensor([1600, 1200, 900])
    sound = torch.randn(3, 1600) * (torch.arange(1600) < lengths[:, None])
    return model, Call(text, mask, sound, lengths, torch.ones(3, 3, dtype=torch.long), torch.tensor([0, 2, 1])), {}
