"""Tiny models with random weights, in memory or saved as folders, as a hub would give them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "i",
    "you",
    "know",
    "the",
    "coffee",
    "is",
    "good",
    "bad",
    "very",
    "oh",
    "my",
    "god",
    "what",
    "no",
    "yes",
]


def text_config(**changes):
    return transformers.BertConfig(
        **{
            "vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 24, **changes,
        }
    )  # fmt: skip


def tokenizer(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    return transformers.BertTokenizer(str(folder / "vocab.txt"))


def text_model(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    words = tokenizer(folder)
    transformers.AutoModel.from_config(text_config()).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def audio_config(kind: str = "hubert", norm: str = "group", **changes):
    cls = {
        "hubert": transformers.HubertConfig,
        "wav2vec2": transformers.Wav2Vec2Config,
        "wavlm": transformers.WavLMConfig,
    }
    return cls[kind](
        **{
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
            "conv_dim": (8, 8), "conv_kernel": (10, 4), "conv_stride": (5, 4), "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "feat_extract_norm": norm,
            "do_stable_layer_norm": norm == "layer", "num_buckets": 8, "max_bucket_distance": 16, **changes,
        }
    )  # fmt: skip


def audio_model(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    transformers.AutoModel.from_config(audio_config()).save_pretrained(folder)
    settings = {"sampling_rate": 8000, "do_normalize": True, "feature_extractor_type": "Wav2Vec2FeatureExtractor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def clip_config():
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vision |= {"image_size": 32, "patch_size": 16}
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 20,
    }
    return transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)


def vision_model(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    transformers.AutoModel.from_config(clip_config()).save_pretrained(folder)
    settings = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
