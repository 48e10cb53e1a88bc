"""Foal-Net (audio-visual emotion): two chains of cross-attention, pooled and concatenated, beside two tasks over the batch.

WavLM has random weights and two layers.
"""

from typing import Any

import torch

from fusionzoo.patching import Call

REPOSITORY = "ASolitaryMan/Foal-Net"
COMMIT = "781849fdf6"
SAMPLES = 3
STREAMS = {"input_values": 0, "vinput_values": 0}


def build(root: Any) -> Any:
    """As `train.py` does."""
    import transformers

    wavlm: Any = transformers.WavLMModel
    wavlm.freeze_feature_extractor = wavlm.freeze_feature_encoder  # its name then
    from model import MultiTaskModel

    config = transformers.WavLMConfig(
        hidden_size=1024, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, conv_dim=[16] * 3,
        conv_stride=[5, 4, 4], conv_kernel=[10, 8, 4], num_feat_extract_layers=3,  # type: ignore[call-arg]  it takes any
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    sound = torch.arange(1600) < torch.tensor([1600, 1200, 900])[:, None]
    frames = torch.arange(7) < torch.tensor([7, 5, 3])[:, None]
    streams = {
        "input_values": torch.randn(3, 1600) * sound,
        "vinput_values": torch.randn(3, 7, 768) * frames[..., None],
    }
    masks = {"attention_mask": sound.long(), "vattention_mask": frames}
    given = {"modalities": {"input_values": "audio", "vinput_values": "visual"}}
    return MultiTaskModel(config), Call(**streams, **masks, emo_label=torch.tensor([0, 2, 1])), given
