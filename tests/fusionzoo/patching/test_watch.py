"""What a batch could not show is tried with the first one that can, and a proof goes with its patch into the file."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import fusionzoo
from fusionzoo.errors import CheckpointError, FusionZooWarning, LeakError, PatchError
from fusionzoo.patching.promises import APART, BROKEN, FELT, LEARNS, NOT_TRIED, PADDING, PROVED


def states(patch):
    return {p.words: p.state for p in patch.proof.promises}


def nothing(model, args, kwargs):
    """A context that tells nothing, in the place of the mask that would give a wrong layout away."""
    return {}


def batch(count, padded=False):
    g = torch.Generator().manual_seed(3)
    lengths = [5, 3, 4][:count] if padded else [5] * count
    mask = (torch.arange(5) < torch.tensor(lengths)[:, None]).float()
    names = [f"dialogue {i}" for i in range(count)]
    return torch.randn(count, 5, 6, generator=g), torch.randn(count, 5, 4, generator=g), mask, names


class Named(nn.Module):
    """A batch comes with the names of its dialogues, so that no other can be made of one alone."""

    def __init__(self):
        super().__init__()
        self.text, self.audio = nn.Linear(6, 8), nn.Linear(4, 8)
        self.norm, self.drop, self.head = nn.BatchNorm1d(16), nn.Dropout(0.4), nn.Linear(16, 3)

    def forward(self, text, audio, umask, names):
        for _ in zip(names, text, strict=True):
            pass
        y = torch.cat([self.text(text), self.audio(audio)], -1)
        y = self.drop(self.norm(y.flatten(0, 1)).view(*y.shape))
        return self.head(y * umask.unsqueeze(-1))


def test_the_first_batch_of_several_shows_the_rest_and_is_not_disturbed():
    torch.manual_seed(0)
    model = Named()
    twin = copy.deepcopy(model)
    patch = fusionzoo.patch(model, "lmam", inputs=batch(1), layout="(B, T, d)")
    assert states(patch)[APART] == states(patch)[PADDING] == NOT_TRIED
    before = patch.proof
    model(*batch(1))
    assert patch.proof == before
    twin(*batch(1))
    outputs = []
    for each in (twin, model):
        torch.manual_seed(1)
        outputs.append(each(*batch(3, padded=True)))
    assert torch.equal(*outputs)
    assert model.training
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in twin.state_dict().items())
    assert states(patch)[APART] == states(patch)[PADDING] == PROVED
    assert patch.proof.forwards > before.forwards
    assert "with text [1, 5, 6]" in str(patch)
    after = patch.proof
    model(*batch(3))
    assert patch.proof is after
    outputs[1].sum().backward()
    assert all(p.grad is not None for p in patch.layer.out.parameters())


def test_a_leak_that_shows_later_is_an_error_until_the_patch_is_out():
    torch.manual_seed(0)
    model = Named().eval()
    expected = model(*batch(3))
    patch = fusionzoo.patch(model, "lmam", inputs=batch(1), layout="(T, B, d)", context=nothing)
    model(*batch(1))
    for _ in range(2):
        with pytest.raises(LeakError, match=r"could not show.*moves outputs of others"):
            model(*batch(3))
    assert states(patch)[APART] == BROKEN
    patch.remove()
    assert torch.equal(model(*batch(3)), expected)


def test_a_copy_of_a_patched_model_watches_by_itself():
    torch.manual_seed(0)
    model = Named()
    fusionzoo.patch(model, "lmam", inputs=batch(1), layout="(T, B, d)", context=nothing)
    twin = copy.deepcopy(model)
    with pytest.raises(LeakError):
        twin(*batch(3))
    model(*batch(1))


def test_a_compiled_model_is_left_alone():
    torch.manual_seed(0)
    model = Named().eval()
    patch = fusionzoo.patch(model, "gated", inputs=batch(1), layout="(B, T, d)")
    graph = torch.export.export(model, batch(3)).module()
    assert states(patch)[APART] == NOT_TRIED
    assert torch.allclose(graph(*batch(3)), model(*batch(3)), atol=1e-6)
    assert states(patch)[APART] == PROVED


def test_the_proof_is_saved_and_says_where_it_comes_from(tmp_path):
    torch.manual_seed(0)
    model = Named()
    patch = fusionzoo.patch(model, "lmam", inputs=batch(3, padded=True))
    path = patch.save(tmp_path / "p.safetensors")
    loaded = fusionzoo.load_patch(Named(), path)
    assert states(loaded) == states(patch)
    assert loaded.proof.file == "p.safetensors"
    assert "with text [3, 5, 6], audio [3, 5, 4]; read from p.safetensors, not tried on this model" in str(loaded)
    again = fusionzoo.load_patch(Named(), loaded.save(tmp_path / "q.safetensors"))
    assert again.proof.file == "q.safetensors"


def test_a_loaded_patch_tries_what_was_left(tmp_path):
    torch.manual_seed(0)
    patch = fusionzoo.patch(Named(), "lmam", inputs=batch(1), layout="(T, B, d)", context=nothing)
    model = Named()
    fusionzoo.load_patch(model, patch.save(tmp_path / "p.safetensors"), context=nothing)
    with pytest.raises(LeakError):
        model(*batch(3))


def test_files_of_before_load_and_damaged_proofs_are_refused(tmp_path):
    torch.manual_seed(0)
    patch = fusionzoo.patch(Named(), "lmam", inputs=batch(3))
    path = patch.save(tmp_path / "p.safetensors")
    with safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["fusionzoo_patch"])
    for proof in (
        None,
        {"promises": "all"},
        {"promises": [{"words": "x", "state": "sure", "why": ""}], "forwards": 1, "batch": ""},
    ):
        old = {k: v for k, v in meta.items() if k != "proof"} | ({} if proof is None else {"proof": proof})
        save_file(load_file(path), path, {"fusionzoo_patch": json.dumps(old)})
        if proof is None:
            assert "kept no proof" in str(fusionzoo.load_patch(Named(), path))
        else:
            with pytest.raises(CheckpointError, match="proof"):
                fusionzoo.load_patch(Named(), path)


class Detached(nn.Module):
    """A join behind which gradients end; a second one, further on, that learns."""

    def __init__(self, second):
        super().__init__()
        self.text, self.audio, self.head = nn.Linear(6, 8), nn.Linear(4, 8), nn.Linear(16, 3)
        self.late = second

    def forward(self, text, audio):
        t, a = self.text(text), self.audio(audio)
        y = self.head(torch.cat([t, a], -1).detach())
        return y + (t[..., :3] * a[..., :3]) if self.late else y


def test_a_site_that_cannot_learn_is_refused_unless_asked_for():
    torch.manual_seed(0)
    inputs = torch.randn(4, 6), torch.randn(4, 4)
    model = Detached(second=False)
    grads = {n: p.requires_grad for n, p in model.named_parameters()}
    with pytest.raises(LeakError, match="the fusion can learn"):
        fusionzoo.patch(model, "gated", inputs=inputs)
    with pytest.warns(FusionZooWarning, match="no output has a gradient"):
        patch = fusionzoo.patch(model, "gated", 0, inputs=inputs)
    assert states(patch)[LEARNS] == BROKEN
    patch.remove()
    assert {n: p.requires_grad for n, p in model.named_parameters()} == grads
    patch = fusionzoo.patch(Detached(second=True), "gated", inputs=inputs)
    assert states(patch)[LEARNS] == PROVED
    assert patch.site.kind != "cat"


def test_nor_does_a_fusion_go_where_nothing_reaches_the_output():
    class Unused(Detached):
        def forward(self, text, audio):
            t, a = self.text(text), self.audio(audio)
            self.head(torch.cat([t, a], -1))
            return t

    torch.manual_seed(0)
    inputs = torch.randn(4, 6), torch.randn(4, 4)
    with pytest.raises(PatchError, match=r"no output does|site=0"):
        fusionzoo.patch(Unused(False), "gated", inputs=inputs)
    with pytest.warns(FusionZooWarning, match="no output does"):
        patch = fusionzoo.patch(Unused(False), "gated", 0, inputs=inputs)
    assert states(patch)[FELT] == BROKEN


class Heads(nn.Module):
    """A head of each stream, a loss, and last the prediction from both."""

    def __init__(self):
        super().__init__()
        self.text, self.audio, self.both = nn.Linear(6, 3), nn.Linear(4, 3), nn.Linear(10, 3)

    def forward(self, text, audio):
        return text.mean() + audio.mean(), self.text(text), self.audio(audio), self.both(torch.cat([text, audio], -1))


def test_the_main_output_is_the_one_that_most_modalities_reach():
    torch.manual_seed(0)
    patch = fusionzoo.patch(Heads(), "gated", inputs=(torch.randn(4, 6), torch.randn(4, 4)))
    assert states(patch)[FELT] == PROVED
    assert "output 3" in next(p.why for p in patch.proof.promises if p.words == FELT)


def test_a_site_that_leaves_a_stream_out_is_taken_last_and_says_so():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(14, 3)

        def forward(self, text, audio, visual):
            return self.head(
                torch.cat([text * torch.sigmoid(audio), text + torch.tanh(visual), torch.ones(len(text), 2)], -1)
            )

    torch.manual_seed(0)
    inputs = tuple(torch.randn(4, 6) for _ in range(3))
    model = Pairs()
    patch = fusionzoo.patch(model, "gated", inputs=inputs)
    assert len(patch.site.modalities) >= 2
    assert not patch.proof.broken()
