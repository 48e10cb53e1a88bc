"""Encoders without a pretrained model: sizes, shapes, weights of the official names, and MFCCs against librosa's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionzoo.encoders import MFCCNet, ResNeXt3D, VisExtNet, mfcc, pool
from fusionzoo.errors import FusionZooError, MissingDependency, OptionError, ReferenceWeightsError, ShapeError

TINY = (1, 1, 1, 1)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_published_parameter_counts():
    with torch.device("meta"):
        assert count(ResNeXt3D(8)) == 25_882_056
        assert count(ResNeXt3D()) == 25_865_664
        assert count(VisExtNet(detector=None)) == 44_549_160
    assert count(MFCCNet(classes=8)) == 34_024
    assert count(MFCCNet()) == 20_704


def test_resnext_maps_have_the_published_shape():
    with torch.device("meta"):
        net = ResNeXt3D(layers=TINY, groups=32).eval()
        assert net.maps(torch.zeros(1, 3, 30, 224, 224)).shape == (1, 2048, 2, 7, 7)
    with pytest.raises(ShapeError, match=r"\(B, 3, F, H, W\)"):
        net.maps(torch.zeros(1, 30, 3, 224, 224))


def test_resnext_loads_checkpoints_of_data_parallel_training_and_leaves_out_their_head():
    torch.manual_seed(0)
    source, target = ResNeXt3D(5, layers=TINY, groups=2).eval(), ResNeXt3D(layers=TINY, groups=2).eval()
    target.load_reference({f"module.{k}": v for k, v in source.state_dict().items() if "num_batches" not in k})
    clip = torch.rand(1, 3, 8, 32, 32)
    assert torch.equal(source.maps(clip), target.maps(clip))
    with pytest.raises(ReferenceWeightsError, match=r"layer1\.0\.conv1"):
        target.load_reference({k: v for k, v in source.state_dict().items() if "layer1.0.conv1" not in k})


def test_mfccnet_says_which_number_of_frames_its_head_takes():
    with pytest.raises(ShapeError, match="frames=100"):
        MFCCNet(classes=8)(torch.zeros(1, 13, 100))


def test_mfccs_are_librosas():
    t = np.arange(108045) / 44100
    wave = (np.sin(2 * np.pi * (200 + 300 * t) * t) * np.exp(-t)).astype("float32")[:8000]
    # librosa 0.11: feature.mfcc(y=wave, sr=16000, n_mfcc=5, n_fft=512, hop_length=256, n_mels=40)[:, ::8]
    expected = [
        [-220.243, -313.270, -324.319, -314.224],
        [109.084, 55.724, 41.042, 54.679],
        [26.787, 52.205, 40.197, 51.993],
        [24.407, 46.865, 38.818, 47.788],
        [17.977, 40.379, 36.949, 42.436],
    ]
    ours = mfcc(torch.from_numpy(wave), 16000, 5, window=512, hop=256, bands=40)
    assert np.allclose(ours[:, ::8].numpy(), expected, atol=2e-3)
    assert mfcc(torch.zeros(2, 108045)).shape == (2, 13, 212)


def test_visextnet_averages_faces_and_gives_zeros_without_any():
    torch.manual_seed(0)
    found = {3: 2, 5: 0}  # pictures of that red have so many faces

    def detector(picture):
        return picture[:, :8, :8].repeat(found[int(picture[0, 0, 0])], 1, 1, 1)

    net = VisExtNet(7, detector=detector, frames=2, size=32, layers=TINY).eval()
    clips = [torch.full((3, 3, 16, 16), 3, dtype=torch.uint8), torch.full((2, 3, 16, 16), 5, dtype=torch.uint8)]
    states, mask = net(**net.collate(clips))
    assert mask.sum(1).tolist() == [4, 0]  # two frames are kept, of two faces each
    vectors = pool(states, mask)
    assert vectors.shape == (2, 7)
    assert not vectors[1].any()
    assert torch.allclose(vectors[0], states[0, 0], atol=1e-5)
    assert net.detected_by == "detector"


def test_the_absence_of_a_face_detector_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "facenet_pytorch", None)
    with pytest.warns(UserWarning, match="no face detector"):
        net = VisExtNet(4, layers=TINY)
    assert "whole pictures" in net.detected_by
    with pytest.raises(MissingDependency, match="facenet-pytorch"):
        VisExtNet(4, detector="mtcnn", layers=TINY)
    with pytest.raises(OptionError, match="detector"):
        VisExtNet(4, detector="haar", layers=TINY)


@pytest.mark.parametrize("how", ["mean", "cls", "max", "min"])
def test_pooling_reads_no_padding(how):
    states, mask = torch.randn(2, 5, 3), torch.arange(5) < torch.tensor([[3], [0]])
    poisoned = states.masked_fill(~mask.unsqueeze(-1), float("nan"))
    out = pool(poisoned, mask, how)
    by_hand = {
        "mean": states[0, :3].mean(0),
        "cls": states[0, 0],
        "max": states[0, :3].amax(0),
        "min": states[0, :3].amin(0),
    }
    assert torch.allclose(out[0], by_hand[how])
    assert not out[1].any()
    with pytest.raises(FusionZooError, match="did you mean 'mean'"):
        pool(states, mask, "meen")
