"""CFN-SR's network of clips: size, what it reads, other fusions in its place, the official names."""

from __future__ import annotations

import pytest
import torch

import fusionzoo
from fusionzoo.encoders import MFCCNet, ResNeXt3D
from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo_adapters.hosts.cfn_sr import CFNSRNetwork


def count(module):
    return sum(p.numel() for p in module.parameters())


def small(fusion="cfn-sr", variant="default", classes=3):
    torch.manual_seed(0)
    video = ResNeXt3D(layers=(1, 1, 1, 1), groups=2, rectified_stem=variant != "official")
    audio = MFCCNet(5, frames=40, widths=(8, 8))
    return CFNSRNetwork(classes, fusion, video=video, audio=audio, variant=variant).eval()


def clips(batch=2):
    generator = torch.Generator().manual_seed(1)
    shapes = (batch, 3, 8, 32, 32), (batch, 5, 40)
    return [torch.rand(*shape, generator=generator) for shape in shapes]


def test_the_published_number_of_parameters():
    assert count(CFNSRNetwork(variant="official")) == 26_301_417
    assert count(CFNSRNetwork()) == 26_301_416


def test_a_clip_does_not_depend_on_its_batch_and_every_weight_learns():
    network, (video, audio) = small(), clips()
    together = network(video, audio)
    assert together.shape == (2, 3)
    assert torch.allclose(together[:1], network(video[:1], audio[:1]), atol=1e-5)
    together.square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
    official = small(variant="official")
    assert not torch.allclose(official(video, audio)[:1], official(video[:1], audio[:1]), atol=1e-6)


@pytest.mark.parametrize("name", ["concat", "mcb", "concat-fc"])
def test_another_fusion_takes_the_pooled_vectors(name):
    network = small((name, {"out_dim": 6}))
    assert not network.on_maps
    assert network(*clips()).shape == (2, 3)


def test_an_instance_of_the_fusion():
    maps = {"video": 32 * 4, "audio": 8}
    fusion = fusionzoo.get("cfn-sr")(maps, out_dim=sum(maps.values()), width=8, layers=1)
    assert small(fusion).on_maps


def test_loading_the_official_names_whole_or_not_at_all():
    source, target = small(variant="official"), small(variant="official")
    state = {"fc." + k: v for k, v in source.fc.state_dict().items()}
    places = {"conv1": 0, "bn1": 1, "layer1": 3, "layer2": 4, "layer3": 5, "layer4": 6}
    for name, place in places.items():
        part = getattr(source.video, name).state_dict()
        state |= {f"video_model_blocks.0.{place}.{k}": torch.rand_like(v.float()) for k, v in part.items()}
    with pytest.raises(ReferenceWeightsError):
        target.load_reference(state)
    assert all(torch.equal(v, target.state_dict()[k]) for k, v in source.state_dict().items())  # the seed is the same
    with pytest.raises(ReferenceWeightsError, match="official"):
        small().load_reference(state)
    with pytest.raises(OptionError, match="without a head"):
        CFNSRNetwork(audio=MFCCNet(classes=8), video=source.video)
