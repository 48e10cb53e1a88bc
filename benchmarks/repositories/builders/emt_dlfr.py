"""EMT-DLFR: global tokens of three modalities stacked, then concatenated with the vectors; complete and incomplete views."""

from types import SimpleNamespace
from typing import Any

import torch

from fusionzoo.patching import Call
from repositories.batches import features, packed_tokens
from repositories.pretrained import random_weights

REPOSITORY = "sunlicai/EMT-DLFR"
COMMIT = "e9f0960"
LENGTHS = [9, 7, 5, 4]
STREAMS = {(1, 0): 0, (1, 1): 0, (2, 0): 0, (2, 1): 0}  # not the packed token ids


def build(root: Any) -> Any:
    """MOSI's configuration, narrower."""
    from models.missingTask.EMT_DLFR import EMT_DLFR

    args = SimpleNamespace(
        need_data_aligned=False, language="en", use_finetune=True, feature_dims=(768, 5, 20), a_lstm_hidden_size=16,
        v_lstm_hidden_size=16, a_lstm_layers=1, v_lstm_layers=1, text_out=768, audio_out=16, video_out=16, a_lstm_dropout=0.0,
        v_lstm_dropout=0.0, d_model=16, fusion_layers=2, heads=2, learnable_pos_emb=False, emb_dropout=0.0, attn_dropout=0.0,
        ff_dropout=0.1, ff_expansion=2, mpu_share=True, modality_share=True, layer_share=True, attn_act_fn="tanh",
        gmc_tokens_pred_dim=16, text_pred_dim=16, audio_pred_dim=16, video_pred_dim=16, recon_loss="SmoothL1Loss",
        post_fusion_dropout=0.3, post_fusion_dim=16, fusion_method="emt",
    )  # fmt: skip
    with random_weights(vocab_size=90, num_hidden_layers=1, intermediate_size=64):
        model = EMT_DLFR(args)
    steps = torch.tensor(LENGTHS)
    audio, audio_m, video, video_m = features(LENGTHS, 5, 5, 20, 20, time_first=False)
    text = [packed_tokens([n + 2 for n in LENGTHS]) for _ in range(2)]
    text[1][:, 1:] = text[0][:, 1:]
    return model, Call((text[0], text[1]), (audio, audio_m, steps), (video, video_m, steps)), {}
