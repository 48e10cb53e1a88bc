"""Multimodal models of `transformers`, tiny and with random weights: each gives a model and the keyword arguments of a call.

Four samples; where the model takes a mask of text, one of them is two tokens shorter.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

Builder = Callable[[], tuple[nn.Module, Mapping[str, Any]]]
MODELS: dict[str, Builder] = {}
SCORERS: dict[str, Builder] = {}

#: Samples, tokens, vocabulary; the token that stands for a picture or a sound.
B, T, VOCABULARY, PLACE = 4, 7, 60, 55
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
TEXT = {
    **SIZE,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION = {**SIZE, "image_size": 16, "patch_size": 8}
LLAMA = {**TEXT, "model_type": "llama", "num_key_value_heads": 2}
OPT = {**TEXT, "model_type": "opt", "ffn_dim": 37, "word_embed_proj_dim": 32}
QUERIES = {**TEXT, "encoder_hidden_size": 32}
RESNET = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16],
    "depths": [1, 1],
    "layer_type": "basic",
    "out_features": ["stage1", "stage2"],
}


def of(register: dict[str, Any]) -> Callable[[Any], Any]:
    """A decorator that puts a builder among the others; a model that the installed version lacks is skipped."""

    def put(build: Any) -> Any:
        @functools.wraps(build)
        def make() -> tuple[nn.Module, Mapping[str, Any]]:
            transformers = pytest.importorskip("transformers")
            torch.manual_seed(0)
            try:
                model, call = build(transformers)
            except AttributeError as error:
                if "module transformers has no attribute" not in str(error):
                    raise
                pytest.skip(f"transformers {transformers.__version__} has no {build.__name__}: {error}")
            alive(model).eval()
            if transformers.__version__ < "5":  # pictures and sounds among the tokens were counted in another way
                try:
                    model(**call)
                except (RuntimeError, ValueError) as error:
                    pytest.skip(
                        f"{build.__name__} of transformers {transformers.__version__} does not take this call: {error}"
                    )
            return model, call

        register[build.__name__] = make
        return make

    return put


def alive(model: nn.Module) -> nn.Module:
    """Weights so large that every layer does something, gates that begin at zero included."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() >= 2:
                p.normal_(0, 0.5 if "embed" in name else max(p[0].numel(), 1) ** -0.5)
            elif not bool(p.any()):
                p.normal_(0, 0.3)
    return model


def tokens(length: int = T, places: range = range(0)) -> Tensor:
    """Token ids, those of a picture or a sound among them."""
    ids = torch.randint(4, 50, (B, length))
    ids[:, list(places)] = PLACE
    return ids


def mask(length: int = T) -> Tensor:
    """Which tokens are real."""
    return (torch.arange(length) < torch.tensor([length, length - 2, length, length])[:, None]).long()


def pictures(size: int = 16) -> Tensor:
    """Pictures with three colours."""
    return torch.randn(B, 3, size, size)


def seen(**more: Any) -> dict[str, Any]:
    """Text and pictures, as most models take them."""
    return {"input_ids": tokens(), "attention_mask": mask(), "pixel_values": pictures(), **more}


# -- models that join ---------------------------------------------------------------------------------------------------


@of(MODELS)
def lxmert(tf):
    config = tf.LxmertConfig(
        **{k: v for k, v in TEXT.items() if k != "num_hidden_layers"},
        l_layers=1,
        x_layers=2,
        r_layers=1,
        visual_feat_dim=20,
    )
    call = {"input_ids": tokens(), "attention_mask": mask(), "visual_feats": torch.randn(B, 5, 20)}
    return tf.LxmertModel(config), {**call, "visual_pos": torch.rand(B, 5, 4)}


@of(MODELS)
def vilt(tf):
    return tf.ViltModel(tf.ViltConfig(**TEXT, image_size=16, patch_size=8)), seen()


@of(MODELS)
def visual_bert(tf):
    model = tf.VisualBertModel(tf.VisualBertConfig(**TEXT, visual_embedding_dim=20))
    call = {"input_ids": tokens(), "attention_mask": mask(), "visual_embeds": torch.randn(B, 5, 20)}
    return model, {**call, "visual_attention_mask": torch.ones(B, 5, dtype=torch.long)}


@of(MODELS)
def layoutlmv3(tf):
    config = tf.LayoutLMv3Config(
        **TEXT, max_2d_position_embeddings=64, coordinate_size=6, shape_size=4, input_size=16, patch_size=8
    )
    return tf.LayoutLMv3Model(config), seen(bbox=torch.randint(0, 60, (B, T, 1)).repeat(1, 1, 4))


def _blip(tf):
    return tf.BlipConfig(text_config={**QUERIES, "sep_token_id": 2}, vision_config=VISION, projection_dim=16)


@of(MODELS)
def blip_caption(tf):
    return tf.BlipForConditionalGeneration(_blip(tf)), seen()


@of(MODELS)
def blip_question(tf):
    return tf.BlipForQuestionAnswering(_blip(tf)), seen(labels=tokens(4))


@of(MODELS)
def blip_retrieval(tf):
    return tf.BlipForImageTextRetrieval(_blip(tf)), seen()


@of(MODELS)
def bridgetower(tf):
    wide = {**TEXT, "hidden_size": 64, "num_hidden_layers": 3}
    vision = {"image_size": 16, "patch_size": 8, "hidden_size": 64, "num_hidden_layers": 3, "num_channels": 3}
    joined = {**SIZE, "hidden_size": 64, "num_attention_heads": 2, "contrastive_hidden_size": 16}
    return tf.BridgeTowerModel(tf.BridgeTowerConfig(text_config=wide, vision_config=vision, **joined)), seen()


@of(MODELS)
def idefics(tf):
    vision = {"embed_dim": 32, "image_size": 16, "patch_size": 8, **SIZE}
    config = tf.IdeficsConfig(
        **TEXT, additional_vocab_size=0, cross_layer_interval=1, use_resampler=False, vision_config=vision
    )
    call = seen(image_attention_mask=torch.ones(B, T, 1, dtype=torch.long))
    return tf.IdeficsForVisionText2Text(config), {**call, "pixel_values": pictures()[:, None]}


@of(MODELS)
def grounding_dino(tf):
    config = tf.GroundingDinoConfig(
        backbone_config=tf.ResNetConfig(**RESNET),
        text_config={"model_type": "bert", **TEXT},
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=37,
        decoder_ffn_dim=37,
        num_queries=5,
        num_feature_levels=2,
        encoder_n_points=2,
        decoder_n_points=2,
        max_text_len=16,
    )
    return tf.GroundingDinoModel(config), seen(pixel_values=pictures(64))


@of(MODELS)
def clipseg(tf):
    vision = {**VISION, "num_hidden_layers": 3}
    decoder = {"extract_layers": [1, 2], "reduce_dim": 16, "decoder_num_attention_heads": 4}
    config = tf.CLIPSegConfig(
        text_config=TEXT, vision_config=vision, projection_dim=16, decoder_intermediate_size=20, **decoder
    )
    return tf.CLIPSegForImageSegmentation(config), seen()


@of(MODELS)
def owlvit(tf):
    config = tf.OwlViTConfig(text_config=TEXT, vision_config=VISION, projection_dim=32)
    return tf.OwlViTForObjectDetection(config), seen()


@of(MODELS)
def mllama(tf):
    vision = {"image_size": 16, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_global_layers": 1}
    vision |= {"attention_heads": 4, "intermediate_size": 37, "intermediate_layers_indices": [0], "max_num_tiles": 1}
    vision |= {"vision_output_dim": 64, "supported_aspect_ratios": [[1, 1]]}
    text = {**TEXT, "num_hidden_layers": 3, "num_key_value_heads": 2, "cross_attention_layers": [1]}
    text["rope_scaling"] = {"rope_type": "default"}
    model = tf.MllamaForConditionalGeneration(
        tf.MllamaConfig(vision_config=vision, text_config=text, image_token_index=VOCABULARY - 2)
    )
    one = torch.ones(B, 1, dtype=torch.long)
    call = seen(aspect_ratio_ids=one, aspect_ratio_mask=one[..., None])
    return model, {
        **call,
        "pixel_values": pictures()[:, None, None],
        "cross_attention_mask": torch.ones(B, T, 1, 1, dtype=torch.long),
    }


@of(MODELS)
def vision_encoder_decoder(tf):
    both = tf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(tf.ViTConfig(**VISION), tf.BertConfig(**TEXT))
    call = {"pixel_values": pictures(), "decoder_input_ids": tokens(), "decoder_attention_mask": mask()}
    return tf.VisionEncoderDecoderModel(both), call


@of(MODELS)
def speech_encoder_decoder(tf):
    heard = tf.Wav2Vec2Config(
        **SIZE,
        conv_dim=(16, 16),
        conv_stride=(4, 4),
        conv_kernel=(8, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    both = tf.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(heard, tf.BertConfig(**TEXT))
    call = {"input_values": torch.randn(B, 200), "decoder_input_ids": tokens(), "decoder_attention_mask": mask()}
    return tf.SpeechEncoderDecoderModel(both), call


@of(MODELS)
def whisper(tf):
    config = tf.WhisperConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=37,
        decoder_ffn_dim=37,
        num_mel_bins=8,
        max_source_positions=10,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    call = {"input_features": torch.randn(B, 8, 20), "decoder_input_ids": tokens(), "decoder_attention_mask": mask()}
    return tf.WhisperModel(config), call


@of(MODELS)
def flava(tf):
    joined = {**SIZE, "hidden_size": 32}
    config = tf.FlavaConfig(
        image_config=VISION, text_config=TEXT, multimodal_config=joined, hidden_size=32, projection_dim=16
    )
    return tf.FlavaModel(config), seen()


def _blip_2(tf, kind, **more):
    places = {"num_query_tokens": 4, "image_token_index": PLACE}
    return getattr(tf, f"{kind}Config")(
        vision_config=VISION, qformer_config={**QUERIES, **more}, text_config=OPT, **places
    )


@of(MODELS)
def blip_2(tf):
    model = tf.Blip2ForConditionalGeneration(_blip_2(tf, "Blip2"))
    return model, seen(input_ids=tokens(places=range(4)))


@of(MODELS)
def blip_2_retrieval(tf):
    model = tf.Blip2ForImageTextRetrieval(_blip_2(tf, "Blip2", use_qformer_text_input=True))
    return model, seen(use_image_text_matching_head=True)


@of(MODELS)
def instructblip(tf):
    model = tf.InstructBlipForConditionalGeneration(_blip_2(tf, "InstructBlip"))
    asked = {"qformer_input_ids": tokens(5), "qformer_attention_mask": mask(5)}
    return model, seen(input_ids=tokens(places=range(4)), **asked)


CLIP_VISION = {"model_type": "clip_vision_model", **VISION}


@of(MODELS)
def llava(tf):
    config = tf.LlavaConfig(
        vision_config=CLIP_VISION, text_config=LLAMA, image_token_index=PLACE, vision_feature_layer=-1
    )
    return tf.LlavaForConditionalGeneration(config), seen(input_ids=tokens(places=range(1, 5)))


@of(MODELS)
def vipllava(tf):
    config = tf.VipLlavaConfig(
        vision_config=CLIP_VISION, text_config=LLAMA, image_token_index=PLACE, vision_feature_layers=[-1, -2]
    )
    return tf.VipLlavaForConditionalGeneration(config), seen(input_ids=tokens(places=range(1, 5)))


@of(MODELS)
def paligemma(tf):
    vision = {"model_type": "siglip_vision_model", **VISION}
    text = {**LLAMA, "model_type": "gemma", "head_dim": 8}
    config = tf.PaliGemmaConfig(vision_config=vision, text_config=text, image_token_index=PLACE, projection_dim=32)
    return tf.PaliGemmaForConditionalGeneration(config), seen(input_ids=tokens(places=range(4)))


@of(MODELS)
def kosmos_2(tf):
    text = {"vocab_size": VOCABULARY, "embed_dim": 32, "layers": 2, "ffn_dim": 37, "attention_heads": 4}
    config = tf.Kosmos2Config(
        text_config={**text, "max_position_embeddings": 64}, vision_config=VISION, latent_query_num=3
    )
    where = torch.zeros(B, T, dtype=torch.long)
    where[:, 1:4] = 1
    return tf.Kosmos2ForConditionalGeneration(config), seen(image_embeds_position_mask=where)


@of(MODELS)
def qwen_2_audio(tf):
    heard = {"model_type": "qwen2_audio_encoder", "d_model": 32, "num_mel_bins": 8, "encoder_attention_heads": 4}
    heard |= {"encoder_ffn_dim": 37, "encoder_layers": 2, "max_source_positions": 10}
    config = tf.Qwen2AudioConfig(
        audio_config=heard, text_config={**LLAMA, "model_type": "qwen2"}, audio_token_index=PLACE
    )
    call = {"input_ids": tokens(9, places=range(1, 6)), "attention_mask": torch.ones(B, 9, dtype=torch.long)}
    call["feature_attention_mask"] = torch.ones(B, 20, dtype=torch.long)
    return tf.Qwen2AudioForConditionalGeneration(config), {**call, "input_features": torch.randn(B, 8, 20)}


@of(MODELS)
def voxtral(tf):
    heard = {**SIZE, "vocab_size": VOCABULARY, "intermediate_size": 128, "num_mel_bins": 8, "max_source_positions": 8}
    config = tf.VoxtralConfig(audio_config=heard, text_config=LLAMA, audio_token_id=PLACE)
    call = {"input_ids": tokens(places=range(1, 3)), "attention_mask": mask()}
    return tf.VoxtralForConditionalGeneration(config), {**call, "input_features": torch.randn(B, 8, 16)}


# -- models that only compare ------------------------------------------------------------------------------------------


@of(SCORERS)
def clip(tf):
    return tf.CLIPModel(tf.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)), seen()


@of(SCORERS)
def altclip(tf):
    config = tf.AltCLIPConfig(text_config={**TEXT, "project_dim": 16}, vision_config=VISION, projection_dim=16)
    return tf.AltCLIPModel(config), seen()


@of(SCORERS)
def siglip(tf):
    return tf.SiglipModel(tf.SiglipConfig(text_config=TEXT, vision_config=VISION)), seen()


@of(SCORERS)
def align(tf):
    vision = {"image_size": 32, "hidden_dim": 32, "width_coefficient": 0.1, "depth_coefficient": 0.1}
    vision |= {"num_block_repeats": [1] * 4, "kernel_sizes": [3, 3, 5, 3], "strides": [1, 2, 2, 1]}
    vision |= {"in_channels": [8] * 4, "out_channels": [8, 8, 8, 32], "expand_ratios": [1, 2, 2, 2]}
    vision["depthwise_padding"] = []
    config = tf.AlignConfig(text_config=TEXT, vision_config=vision, projection_dim=8)
    return tf.AlignModel(config), seen(pixel_values=pictures(32))


@of(SCORERS)
def clap(tf):
    audio = {"spec_size": 32, "window_size": 4, "num_mel_bins": 8, "patch_size": 4, "patch_stride": [4, 4]}
    audio |= {"hidden_size": 32, "patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2]}
    audio |= {"num_hidden_layers": 2, "projection_dim": 16, "enable_fusion": False}
    config = tf.ClapConfig(text_config={**TEXT, "pad_token_id": 1}, audio_config=audio, projection_dim=16)
    call = {"input_ids": tokens(), "attention_mask": mask(), "input_features": torch.randn(B, 1, 32, 8)}
    return tf.ClapModel(config), call
