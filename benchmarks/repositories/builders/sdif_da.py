"""SDIF-DA: six vectors stacked through a transformer without a batch axis first, then concatenated."""

from types import SimpleNamespace
from typing import Any

from fusionzoo.patching import Call
from repositories.batches import features, packed_tokens
from repositories.pretrained import random_weights

REPOSITORY = "JoeYing1019/SDIF-DA"
COMMIT = "ca974a6"
LENGTHS = [9, 7, 5, 4]
STREAMS = {1: 0, 2: 0}  # not the packed token ids


def build(root: Any) -> Any:
    """The configuration for MIntRec."""
    from backbones.FusionNets.SDIF import SDIF

    args = SimpleNamespace(
        text_backbone="bert-base-uncased", cache_path="", video_feat_dim=20, audio_feat_dim=768, text_feat_dim=768, device="cpu",
        dst_feature_dims=768, n_levels_cross=1, n_levels_self=1, dropout_rate=0.2, cross_dp_rate=0.3, cross_num_heads=12,
        self_num_heads=8, num_labels=20, aug=True, aug_dp=0.3,
    )  # fmt: skip
    with random_weights(vocab_size=90, num_hidden_layers=1, intermediate_size=64):
        model = SDIF(args)
    video, audio = features(LENGTHS, 20, 768, time_first=False)
    return model, Call(packed_tokens(LENGTHS).long(), video, audio), {}
