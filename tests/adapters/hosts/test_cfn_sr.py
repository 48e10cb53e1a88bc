"""CFN-SR's host: size, what it reads, other fusions in its place, the official names."""

from __future__ import annotations

import pytest
import torch
from clip_hosts import ClipHostTests

import fusionzoo
from fusionzoo.batch import Batch, Clip
from fusionzoo.encoders import MFCCNet, ResNeXt3D
from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo_adapters.hosts.cfn_sr import CFNSR

DIMS = {"visual": 3, "audio": 5}
TRUNKS = {"visual": {"layers": [1, 1, 1, 1], "groups": 2}, "audio": {"frames": 40, "widths": [8, 8]}}


def count(module):
    return sum(p.numel() for p in module.parameters())


def small(fusion="cfn-sr", classes=3, dims=DIMS, **options):
    torch.manual_seed(0)
    trunks = {m: TRUNKS[m] for m in dims}
    return CFNSR(dims, classes, 1, fusion, **{"encoders": trunks, **options}).eval()


def clips(batch=2, frames=8, seed=1):
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randint(256, (batch, frames, 3, 32, 32), generator=generator, dtype=torch.uint8)
    audio = torch.randn(batch, 40, 5, generator=generator)
    return make({"visual": Clip(visual), "audio": Clip(audio)}, batch)


def make(media, batch):
    zeros = torch.zeros(batch, 1, dtype=torch.long)
    return Batch({}, zeros == 0, zeros, zeros, [str(i) for i in range(batch)], None, [1] * batch, media)


def row(batch, i):
    media = {
        m: Clip(c.values[i : i + 1], None if c.mask is None else c.mask[i : i + 1]) for m, c in batch.clips.items()
    }
    return make(media, 1)


class TestCFNSR(ClipHostTests):
    HOST = "cfn-sr"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"variant": "official"}, 26_301_417),
        ({}, 26_301_416),
        ({"fusion": "late-average", "head": "none"}, 25_916_080),
        ({"fusion": "late-product", "head": "none"}, 25_916_080),
        ({"fusion": "multiplicative", "head": "none"}, 25_916_080),
        ({"fusion": "concat-fc", "head": "none"}, 26_870_824),
        ({"fusion": "msaf", "head": "sum", "variant": "official"}, 25_940_724),
    ],
)
def test_the_published_numbers_of_parameters(options, expected):
    with torch.device("meta"):
        assert count(CFNSR({"visual": 3, "audio": 13}, 8, 1, **options)) == expected


def test_one_modality_is_the_published_unimodal_network():
    with torch.device("meta"):
        assert count(CFNSR({"visual": 3}, 8, 1)) == 25_882_056
        assert count(CFNSR({"audio": 13}, 8, 1)) == 34_024
    assert small(dims={"audio": 5})(make({"audio": clips().clips["audio"]}, 2)).logits.shape == (2, 1, 3)


@pytest.mark.parametrize("fusion", ["cfn-sr", "mmtm", "msaf", "concat"])
def test_a_clip_does_not_depend_on_its_batch_and_every_weight_learns(fusion):
    host, batch = small(fusion), clips()
    out = host(batch).logits
    assert out.shape == (2, 1, 3)
    assert torch.allclose(out[:1], host(row(batch, 0)).logits, atol=1e-5)
    out.square().sum().backward()
    assert [n for n, p in host.named_parameters() if p.grad is None] == []


def test_the_official_block_mixes_the_batch():
    host, batch = small(variant="official"), clips()
    assert not torch.allclose(host(batch).logits[:1], host(row(batch, 0)).logits, atol=1e-6)


@pytest.mark.parametrize("fusion", ["cfn-sr", "concat"])
def test_padded_frames_are_never_read(fusion):
    host = small(fusion)
    short, long = clips(1, frames=5, seed=2), clips(1, frames=8, seed=3)
    visual = torch.full((2, 8, 3, 32, 32), 77, dtype=torch.uint8)
    visual[0], visual[1, :5] = long.clips["visual"].values[0], short.clips["visual"].values[0]
    audio = torch.cat([b.clips["audio"].values for b in (long, short)])
    mask = torch.arange(8) < torch.tensor([[8], [5]])
    together = host(make({"visual": Clip(visual, mask), "audio": Clip(audio)}, 2)).logits
    assert torch.allclose(together[0], host(long).logits[0], atol=1e-5)
    assert torch.allclose(together[1], host(short).logits[0], atol=1e-5)


@pytest.mark.parametrize("fusion", ["cfn-sr", "late-average"])
def test_a_clip_without_sound_has_finite_logits_and_leaves_the_others_alone(fusion):
    host, batch = small(fusion, head="none" if fusion == "late-average" else "linear"), clips()
    expected = host(batch).logits
    batch.present = {"audio": torch.tensor([[True], [False]])}
    out = host(batch).logits
    assert torch.allclose(out[0], expected[0], atol=1e-5)
    assert out.isfinite().all()
    assert not torch.allclose(out[1], expected[1], atol=1e-5)
    if fusion == "cfn-sr":
        with pytest.raises(ShapeError, match="needs them all"):
            host(make({"visual": batch.clips["visual"]}, 2))


def test_every_fusion_fits():
    batch = clips()
    for name in fusionzoo.names():
        low, high = fusionzoo.card(name).modalities
        if low <= 2 and (high is None or high >= 2):
            out = small(name)(batch)
            assert out.logits.shape == (2, 1, 3), name
            assert out.logits.isfinite().all(), name


@pytest.mark.parametrize("fusion", ["cfn-sr", "mmtm", "msaf", "concat", "late-average"])
def test_under_autocast(fusion):
    host, batch = small(fusion), clips()
    exact = host(batch).logits
    with torch.autocast("cpu", torch.bfloat16):
        out = host(batch).logits
    assert out.isfinite().all()
    assert (out.float() - exact).norm() < 0.2 * exact.norm() + 0.05


def test_an_instance_of_the_fusion():
    maps = {"video": 32 * 4, "audio": 8}
    fusion = fusionzoo.get("cfn-sr")(maps, out_dim=sum(maps.values()), width=8, layers=1)
    assert small(fusion).on_maps
    assert small(fusionzoo.get("mmtm")(maps, out_dim=sum(maps.values())), stages=1)(clips()).logits.shape == (2, 1, 3)


def test_published_modules_start_from_checkpoints_of_one_modality(tmp_path):
    torch.manual_seed(5)
    video = ResNeXt3D(8, layers=(1, 1, 1, 1), groups=2)
    torch.save({f"module.{k}": v for k, v in video.state_dict().items()}, tmp_path / "fold_1_resnext50_best.pth")
    alone = small(dims={"audio": 5})
    from fusionzoo._weights import pack_weights

    (tmp_path / "run").mkdir()
    (tmp_path / "run/model.safetensors").write_bytes(pack_weights(alone.state_dict()))
    host = small(weights={"visual": str(tmp_path / "fold_1_resnext50_best.pth"), "audio": str(tmp_path / "run")})
    assert torch.equal(host.encoders["visual"].layer4[0].conv1.weight, video.layer4[0].conv1.weight)
    assert torch.equal(host.encoders["audio"].conv3.weight, alone.encoders["audio"].conv3.weight)
    with pytest.raises(OptionError, match="no such file"):
        small(weights={"audio": str(tmp_path / "none")})


def test_loading_the_official_names_whole_or_not_at_all():
    source, target = small(variant="official"), small(variant="official")
    state = {"fc." + k: v for k, v in source.head.state_dict().items()}
    places = {"conv1": 0, "bn1": 1, "layer1": 3, "layer2": 4, "layer3": 5, "layer4": 6}
    for name, place in places.items():
        part = getattr(source.encoders["visual"], name).state_dict()
        state |= {f"video_model_blocks.0.{place}.{k}": torch.rand_like(v.float()) for k, v in part.items()}
    with pytest.raises(ReferenceWeightsError):
        target.load_reference(state)
    assert all(torch.equal(v, target.state_dict()[k]) for k, v in source.state_dict().items())  # the seed is the same
    with pytest.raises(ReferenceWeightsError, match="official"):
        small().load_reference(state)


def test_what_cannot_be_built():
    with pytest.raises(OptionError, match="without a head"):
        small(encoders={"visual": TRUNKS["visual"], "audio": MFCCNet(5, classes=8)})
    with pytest.raises(OptionError, match="head='none'"):
        small(head="none")
    with pytest.raises(OptionError, match="head='sum'"):
        small("concat", head="sum")
    with pytest.raises(OptionError, match="stages"):
        small(stages=3)
    with pytest.raises(OptionError, match="encoders"):
        small(encoders={"text": {}})
