"""Every style of join: found first, bit-identical at step 0, learns, and is taken out without a trace."""

from __future__ import annotations

import copy

import pytest
import torch

import fusionzoo


def tensor(out):
    return out["logits"] if isinstance(out, dict) else out


def test_found(build, style):
    model, args, kwargs = build(style)
    site = fusionzoo.find_sites(model, *args, **kwargs)[0]
    assert site.kind == style.kind
    assert sorted(site.modalities) == sorted(style.modalities)
    assert site.layout == style.layout
    assert site.file.endswith("hosts.py")
    assert site.live


@pytest.mark.parametrize("mode", ["residual", "replace"])
@pytest.mark.parametrize("fusion", ["lmam", "cross-attention", "gated"])
@pytest.mark.filterwarnings("ignore:.*looks across steps")
def test_patch(build, shake, style, fusion, mode):
    model, args, kwargs = build(style)
    expected = tensor(model(*args, **kwargs))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    attributes = [(n, set(vars(m))) for n, m in model.named_modules()]
    state = torch.get_rng_state()
    site = fusionzoo.find_sites(model, *args, **kwargs)[0]
    patch = fusionzoo.patch(model, fusion, site, mode=mode)
    assert torch.equal(torch.get_rng_state(), state)
    got = tensor(model(*args, **kwargs))
    assert patch.calls == site.calls
    assert got.shape == expected.shape
    if mode == "residual":
        assert torch.equal(got.view(torch.int32), expected.view(torch.int32))
    shake(patch)
    changed = tensor(model(*args, **kwargs))
    assert not torch.equal(changed, expected)
    changed.square().sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
    assert all(p.grad is not None for p in patch.parameters())
    assert any(p.grad.any() for p in patch.parameters()) or fusion == "concat"
    with torch.no_grad():
        model(*args, **kwargs)  # a host may keep what it computed, which could not be copied with its graph
    other = copy.deepcopy(model)
    assert torch.equal(tensor(other(*args, **kwargs)), changed)
    patch.remove()
    assert torch.equal(tensor(model(*args, **kwargs)), expected)
    assert torch.equal(tensor(other(*args, **kwargs)), changed)
    assert [(n, set(vars(m))) for n, m in model.named_modules()] == attributes
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)


def test_a_generic_list_beside_audio_and_visual_is_text():
    from fusionzoo.patching.modalities import find_modalities

    def named(**arguments):
        return [f.modality for f in find_modalities(arguments)]

    x = torch.randn(4, 3, 2)
    assert named(U=[x, x], U_a=x, U_v=x) == ["text", "text", "audio", "visual"]
    assert named(U=x, U_a=x) == ["text", "audio"]
    assert named(x=[x, x, x]) == ["x0", "x1", "x2"]
    assert named(x=[x, x], visual=x) == ["x0", "x1", "visual"]  # which of the two is text is not said


class GatedPairs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gates = torch.nn.ModuleList(torch.nn.Linear(8, 4) for _ in range(3))
        self.head = torch.nn.Linear(12, 2)

    def gated(self, gate, a, b):
        z = torch.sigmoid(gate(torch.cat([a, b], -1)))
        return z * a + (1 - z) * b

    def forward(self, text, audio, visual):
        pairs = (text, audio), (text, visual), (audio, visual)
        return self.head(torch.cat([self.gated(g, *p) for g, p in zip(self.gates, pairs, strict=True)], -1))


def test_the_join_of_all_pairs_goes_before_the_join_of_one():
    model, args = GatedPairs(), [torch.randn(3, 4) for _ in range(3)]
    site = fusionzoo.find_sites(model, *args)[0]
    assert site.kind == "cat"
    assert site.modalities == ("text+audio", "text+visual", "audio+visual")


class MaskedSlots(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = torch.nn.GRU(4, 4, batch_first=True), torch.nn.Linear(4, 2)

    def forward(self, text, audio, utterance_mask):
        del utterance_mask
        slots = torch.cat([self.rnn(text)[0].unsqueeze(-2), audio.unsqueeze(-2)], dim=-2)
        return self.head(slots.mean(-2))


def test_slots_have_the_mask_of_the_arguments():
    mask = torch.arange(5) < torch.tensor([[5], [3], [2]])
    site = fusionzoo.find_sites(MaskedSlots(), torch.randn(3, 5, 4), torch.randn(3, 5, 4), mask.float())[0]
    assert (site.kind, site.layout, site.context) == ("rows", "(B, T, d)", ("utterance_mask", "mask"))
