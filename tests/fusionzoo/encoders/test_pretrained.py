"""Encoders of transformers models, tiny and random: masks, batches, freezing, layers, and models that cannot be had."""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from fusionzoo.encoders import AudioEncoder, TextEncoder, VideoEncoder, pool
from fusionzoo.encoders.pretrained import find_model
from fusionzoo.errors import MissingDependency, ModelError, OptionError

spec = importlib.util.spec_from_file_location("tiny_models", Path(__file__).parent / "models.py")
assert spec is not None
assert spec.loader is not None
tiny = importlib.util.module_from_spec(spec)
sys.modules["tiny_models"] = tiny
spec.loader.exec_module(tiny)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "text": tiny.text_model(root / "text"),
        "audio": tiny.audio_model(root / "audio"),
        "video": tiny.vision_model(root / "video"),
    }


# ---------------------------------------------------------------------- words


def test_text_in_a_batch_is_text_alone(folders):
    encoder = TextEncoder(folders["text"])
    texts = ["i know", "oh my god what is the coffee", "no"]
    states, mask = encoder(**encoder.tokenize(texts))
    assert states.shape == (3, 9, 16)
    assert mask.sum(1).tolist() == [4, 9, 3]
    for i, text in enumerate(texts):
        alone, _ = encoder(**encoder.tokenize([text]))
        assert torch.allclose(states[i, : alone.shape[1]], alone[0], atol=1e-5)
    assert not states[~mask].any()
    assert encoder.lengths(texts) == [4, 9, 3]


def test_text_is_cut_where_the_model_ends_or_the_caller_says(folders):
    long = ["coffee " * 50]
    assert TextEncoder(folders["text"]).tokenize(long)["input_ids"].shape == (1, 24)
    assert TextEncoder(folders["text"], max_length=7).tokenize(long)["input_ids"].shape == (1, 7)


def test_layers_of_a_text_model(folders):
    def states(layer):
        encoder = TextEncoder(folders["text"], layer=layer)
        out = encoder(**encoder.tokenize(["i know you"])).states
        assert out.shape[-1] == encoder.width
        return out

    last, views = states("last"), states("views")
    assert torch.equal(states(-1), last)
    assert torch.equal(states("4"), last)
    assert torch.equal(views[..., -16:], last)
    assert torch.allclose(views.unflatten(-1, (4, 16)).mean(-2), states("mean4"), atol=1e-6)
    assert not torch.equal(states(0), last)
    with pytest.raises(OptionError, match="4 layers"):
        states(9)
    with pytest.raises(OptionError, match="did you mean 'last'"):
        TextEncoder(folders["text"], layer="lasst")


def test_frozen_stays_in_eval_mode_and_trained_gets_gradients_everywhere(folders):
    frozen = TextEncoder(folders["text"]).train()
    assert not frozen.model.training
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not frozen(**frozen.tokenize(["i know"])).states.requires_grad
    assert TextEncoder(folders["text"], train_mode=True).train().model.training

    trained = TextEncoder(folders["text"], trainable=True).eval()
    encoded = trained(**trained.tokenize(["i know", "no"]))
    (pool(*encoded) ** 2).sum().backward()
    without = [n for n, p in trained.named_parameters() if p.grad is None]
    assert not without


def test_an_item_without_a_word_is_zeros_and_no_nan(folders):
    encoder = TextEncoder(folders["text"], trainable=True)
    ids = encoder.tokenize(["i know"])["input_ids"].repeat(2, 1)
    mask = torch.tensor([[True] * 4, [False] * 4])
    states, _ = encoder(ids, mask)
    states.sum().backward()
    assert not states[1].any()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


def test_from_config_needs_no_file():
    encoder = TextEncoder.from_config(tiny.text_config(), trainable=True)
    assert encoder(torch.tensor([[2, 5, 3]])).states.shape == (1, 3, 16)
    with pytest.raises(ModelError, match="tokenizer"):
        encoder.tokenize(["i"])


# ---------------------------------------------------------------------- sound


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2", "wavlm"])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_sound_in_a_batch_is_sound_alone(kind, norm):
    torch.manual_seed(0)
    encoder = AudioEncoder.from_config(tiny.audio_config(kind, norm)).eval()
    clips = [torch.randn(n) * 0.1 + 0.05 for n in (900, 411, 60, 7)]
    batch = encoder.collate(clips)
    batch["wave"] = batch["wave"].masked_fill(~batch["mask"], float("nan"))
    states, mask = encoder(**batch)
    assert torch.isfinite(states).all()
    assert mask.sum(1).tolist() == [44, 20, 2, 1]  # of 7 samples, fewer than a frame has: one frame
    for i, clip in enumerate(clips):
        alone, own = encoder(**encoder.collate([clip]))
        assert own.all()
        assert torch.allclose(states[i, : alone.shape[1]], alone[0], atol=1e-4), f"clip {i}"
    assert not states[~mask].any()


def test_a_single_clip_gives_what_transformers_gives(folders):
    encoder = AudioEncoder(folders["audio"])
    assert (encoder.rate, encoder.scale) == (8000, "standard")
    wave = torch.randn(1, 500)
    scaled = (wave - wave.mean()) / torch.sqrt(wave.var(unbiased=False) + 1e-7)
    with torch.no_grad():
        expected = encoder.model(scaled).last_hidden_state
    assert torch.allclose(encoder(wave).states, expected, atol=1e-5)


def test_scales_of_samples():
    torch.manual_seed(0)
    model = AudioEncoder.from_config(tiny.audio_config(), scale="int16")
    wave = torch.randn(1, 300) * 0.1
    as_int = model(wave).states
    model.scale = "unit"
    assert torch.allclose(as_int, model((wave * 32768).round()).states, atol=1e-5)


def test_fine_tuning_all_but_the_front_end():
    torch.manual_seed(0)
    encoder = AudioEncoder.from_config(tiny.audio_config(), trainable="transformer").train()
    encoder(torch.randn(2, 300)).states.square().sum().backward()
    assert all(p.grad is None for p in encoder.model.feature_extractor.parameters())
    assert encoder.model.encoder.layers[0].attention.q_proj.weight.grad is not None


def test_an_audio_encoder_survives_saving_and_copying(folders):
    import copy

    encoder = AudioEncoder(folders["audio"])
    other = AudioEncoder.from_config(tiny.audio_config())
    other.load_state_dict(encoder.state_dict())
    batch = encoder.collate([torch.randn(300), torch.randn(100)])
    assert torch.equal(encoder(**batch).states, other(**batch).states)
    assert torch.equal(encoder(**batch).states, copy.deepcopy(encoder)(**batch).states)


# ---------------------------------------------------------------------- pictures


def test_clip_gives_its_projection_and_a_frame_does_not_depend_on_others(folders):
    encoder = VideoEncoder(folders["video"], chunk=2)
    assert encoder.width == 12
    clips = [torch.randint(0, 256, (n, 3, 40, 64), dtype=torch.uint8) for n in (3, 1)]
    batch = encoder.collate(clips)
    states, mask = encoder(**batch, prepared=True)
    assert states.shape == (2, 3, 12)
    assert mask.sum(1).tolist() == [3, 1]
    assert torch.allclose(states[1, 0], encoder(clips[1].unsqueeze(0)).states[0, 0], atol=1e-5)
    assert not states[~mask].any()
    assert VideoEncoder(folders["video"], picture="pooled").width == 16


def test_a_clip_of_the_models_size_is_only_normalised(folders):
    encoder = VideoEncoder(folders["video"])
    frame = torch.rand(1, 3, 32, 32)
    assert torch.allclose(encoder.prepare(frame) * encoder.std + encoder.mean, frame, atol=1e-6)
    assert encoder.prepare(torch.rand(2, 3, 90, 50)).shape == (2, 3, 32, 32)


def test_other_vision_models():
    import transformers

    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=16
    )
    encoder = VideoEncoder.from_config(config, trainable=True, picture="mean")
    encoder(torch.rand(1, 2, 3, 32, 32)).states.square().sum().backward()
    assert encoder.model["vision"].embeddings.cls_token.grad is not None


def test_a_model_of_the_wrong_kind_is_named(folders):
    with pytest.raises(ModelError, match="not a vision model"):
        VideoEncoder(folders["text"])
    with pytest.raises(ModelError, match="not a model of raw sound"):
        AudioEncoder(folders["text"])


# ---------------------------------------------------------------------- models that cannot be had


def test_offline_names_the_folder_and_the_environment(monkeypatch):
    def refuse(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelError, match=r"roberta-nowhere.*local folder.*HF_HOME.*HF_ENDPOINT"):
        find_model("roberta-nowhere")


def test_folders_that_are_no_models(tmp_path, folders):
    with pytest.raises(ModelError, match="no such folder"):
        find_model(tmp_path / "nothing")
    with pytest.raises(ModelError, match=r"config\.json"):
        find_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="no weights"):
        find_model(tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        find_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="cannot be loaded"):
        TextEncoder(tmp_path)


def test_without_transformers_the_extra_is_named(monkeypatch, folders):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependency, match=r"fusionzoo\[encoders\]"):
        TextEncoder(folders["text"])
