"""What a patch promises is tried out on the caller's batch before it is handed over."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import fusionzoo
from fusionzoo.errors import FusionZooWarning, LeakError, PatchError
from fusionzoo.patching.promises import APART, BROKEN, COMPLETE, FELT, FITS, LATER, LEARNS, NOT_TRIED, PADDING, PROVED
from fusionzoo_plugins.gated import Gated

ALL = (APART, PADDING, FITS, FELT, COMPLETE, LEARNS)

MASK = torch.arange(7) < torch.tensor([[7], [5], [2], [4]])  # (B, T)


def streams(time_first=False, count=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    out = [torch.randn(count, 7, width, generator=g) for width in (6, 5)]
    return [x.transpose(0, 1).contiguous() for x in out] if time_first else out


def states(patch):
    return {p.words: p.state for p in patch.proof.promises}


def why(patch, words):
    return next(p.why for p in patch.proof.promises if p.words == words)


class Masked(nn.Module):
    """Two encoders, a recurrence that is told the lengths, and a head."""

    def __init__(self):
        super().__init__()
        self.t, self.a, self.rnn = nn.Linear(6, 8), nn.Linear(5, 8), nn.GRU(16, 8, batch_first=True)
        self.drop, self.norm, self.head = nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, text, audio, umask):
        x = torch.cat([self.t(text), self.a(audio)], -1)
        packed = nn.utils.rnn.pack_padded_sequence(x, umask.sum(1).cpu(), True, False)
        y, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], True, total_length=x.shape[1])
        return self.head(self.drop(self.norm(y.transpose(1, 2)).transpose(1, 2)))


class OutOfSight(nn.Module):
    """What it computes cannot be followed: all that is known of a row afterwards is its modality."""

    def __init__(self, width):
        super().__init__()
        self.line = nn.Linear(width, 8)

    def forward(self, x):
        return torch.from_numpy(self.line(x).detach().numpy().reshape(-1, 8).copy())


class Unseen(nn.Module):
    """Time first, which only the mask beside it tells, and the encoders hide which row is which step."""

    def __init__(self):
        super().__init__()
        self.t, self.a, self.head = OutOfSight(6), OutOfSight(5), nn.Linear(16, 3)

    def forward(self, text, audio, umask):
        t, b = text.shape[:2]
        return self.head(torch.cat([self.t(text).view(t, b, 8), self.a(audio).view(t, b, 8)], -1))


class Mixing(Gated):
    """A fusion that mixes the samples of a batch, which no reading of the layout can mend."""

    def combine(self, streams):
        fused = super().combine(streams)
        return replace(fused, fused=fused.fused + fused.fused.flatten(0, -2).mean(0))


class Centred(Masked):
    """Mixes the samples of a batch itself."""

    def forward(self, text, audio, umask):
        x = torch.cat([self.t(text), self.a(audio)], -1)
        return self.head(self.rnn(x)[0] - x.mean())


class Two(nn.Module):
    """Three modalities; a pair is joined for the second output, all of them for the first."""

    def __init__(self):
        super().__init__()
        self.pair, self.all = nn.Linear(11, 2), nn.Linear(15, 3)

    def forward(self, text, audio, visual):
        pair = self.pair(torch.cat([text, audio], -1))
        return self.all(torch.cat([text, audio, visual], -1)), pair


def test_an_ordinary_host_is_proved_and_left_as_it_was():
    torch.manual_seed(0)
    model, batch = Masked().train(), (*streams(), MASK)
    model.head.eval()
    before, state = {n: m.training for n, m in model.named_modules()}, copy.deepcopy(model.state_dict())
    numbers = torch.get_rng_state()
    patch = fusionzoo.patch(model, "lmam", inputs=batch)
    assert states(patch) == dict.fromkeys(ALL, PROVED)
    assert 5 <= patch.proof.forwards <= 15
    assert f"in {patch.proof.forwards} forwards" in str(patch)
    assert "proved     samples stay apart" in str(patch)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert {n: m.training for n, m in model.named_modules() if n in before} == before
    now = model.state_dict()
    assert all(torch.equal(now[k], v) for k, v in state.items())
    assert patch.calls == 0
    assert all(not p.any() for p in patch.layer.out.parameters())  # asleep again


def test_another_reading_of_layout_and_padding_is_taken_where_it_is_proved(shake):
    torch.manual_seed(0)
    model, batch = Unseen(), (*streams(time_first=True), MASK)
    patch = fusionzoo.patch(model, "lmam", inputs=batch)
    assert patch.site.sure
    assert (patch.site.layout, patch.layer.plan.layout) == ("(T, B, d)", "(T, B, d)")
    assert states(patch)[APART] == states(patch)[PADDING] == PROVED
    shake(patch)
    real = MASK.T.clone()
    real[:, 0] = False
    other = [x.clone() for x in batch[:2]]
    for x in other:
        x[~MASK.T] = 9.0
        x[:, 0] += 1.0
    with torch.no_grad():
        moved = (model(*batch) - model(*other, MASK)).abs().amax(-1)
    assert not moved[real].any()
    assert moved[:, 0].any()


def test_a_leak_is_refused_and_the_model_is_as_before():
    torch.manual_seed(0)
    model, batch = Masked().eval(), (*streams(), MASK)
    expected = model(*batch)
    widths = fusionzoo.find_sites(model, *batch)[0].widths
    with pytest.raises(LeakError, match="changing one sample moves outputs of others") as caught:
        fusionzoo.patch(model, Mixing(widths), inputs=batch)
    assert isinstance(caught.value, PatchError)
    assert not any("fusionzoo" in name for name, _ in model.named_modules())
    assert torch.equal(model(*batch), expected)
    patch = fusionzoo.patch(model, Mixing(widths), inputs=batch, prove=False)  # on one's own responsibility
    assert set(states(patch).values()) == {NOT_TRIED}
    assert "nothing tried: prove=False" in str(patch)


def test_a_host_that_mixes_samples_itself_is_not_blamed():
    torch.manual_seed(0)
    patch = fusionzoo.patch(Centred(), "lmam", inputs=(*streams(), MASK))
    assert states(patch)[APART] == NOT_TRIED
    assert "itself mixes" in why(patch, APART)


def test_what_a_batch_cannot_show_is_said():
    torch.manual_seed(0)
    patch = fusionzoo.patch(Masked(), "gated", inputs=(*streams()[:2], torch.ones(4, 7)))
    assert states(patch)[APART] == PROVED
    assert "no step of this batch is padding" in why(patch, PADDING)
    model = Masked()
    site = fusionzoo.find_sites(model, *streams(), MASK)[0]
    assert "no batch was given" in str(fusionzoo.patch(model, "gated", site))


def test_the_site_that_reaches_the_first_output_is_first_and_what_is_left_out_is_said():
    torch.manual_seed(0)
    batch = torch.randn(4, 6), torch.randn(4, 5), torch.randn(4, 4)
    model = Two()
    patch = fusionzoo.patch(model, "gated", inputs=batch)
    assert states(patch)[FELT] == states(patch)[COMPLETE] == PROVED
    patch.remove()
    pair = next(s for s in fusionzoo.find_sites(model, *batch) if len(s.modalities) == 2)
    with pytest.warns(FusionZooWarning, match="only output 1 does.*visual reaches none"):
        patch = fusionzoo.patch(model, "gated", pair, inputs=batch)
    assert (states(patch)[FELT], why(patch, FELT)) == (BROKEN, "only output 1 does")
    assert (states(patch)[COMPLETE], why(patch, COMPLETE)[:6]) == (BROKEN, "visual")


@pytest.mark.parametrize("mode", ["residual", "replace"])
def test_either_mode_is_proved_against_the_bare_host(mode):
    torch.manual_seed(0)
    patch = fusionzoo.patch(Masked(), "lmam", inputs=(*streams(), MASK), mode=mode)
    assert set(states(patch).values()) == {PROVED}


def test_an_input_site_keeps_what_one_run_of_the_model_tells():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(11, 8), nn.Linear(8, 3)

        def forward(self, U, seq_lengths):
            return self.head(self.rnn(U)[0])

    torch.manual_seed(0)
    batch = torch.cat(streams(time_first=True), -1), [7, 5, 2, 4]
    for arg in ("U", 0):
        site = fusionzoo.InputSite(arg, widths={"text": 6, "audio": 5})
        patch = fusionzoo.patch(Joined(), "lmam", site, inputs=batch)
        assert patch.site.layout == "(T, B, d)"
        assert str(patch.layer.context) == "lengths from the argument seq_lengths"
        assert states(patch)[APART] == PROVED


class Captioner(nn.Module):
    """Words come one after the other, each with the picture; `both` ways where it does not write but reads."""

    def __init__(self, both=False):
        super().__init__()
        self.words, self.see = nn.Embedding(50, 8), nn.Linear(12, 8)
        self.rnn = nn.GRU(16, 8, batch_first=True, bidirectional=both)
        self.head = nn.Linear(16 if both else 8, 50)

    def forward(self, input_ids, regions_visual):
        words = self.words(input_ids)
        picture = self.see(regions_visual).mean(1, keepdim=True).expand_as(words)
        return self.head(self.rnn(torch.cat([words, picture], -1))[0])


def written():
    g = torch.Generator().manual_seed(4)
    return torch.randint(50, (4, 7), generator=g), torch.randn(4, 5, 12, generator=g)


def test_a_fusion_that_lets_a_token_see_later_ones_is_refused():
    torch.manual_seed(0)
    model, batch = Captioner(), written()
    with pytest.raises(LeakError, match=r"later tokens stay unseen .*such as gated"):
        fusionzoo.patch(model, "lmam", inputs=batch)
    assert states(fusionzoo.patch(model, "gated", inputs=batch))[LATER] == PROVED


def test_a_model_that_reads_both_ways_promises_nothing_of_later_tokens():
    torch.manual_seed(0)
    assert LATER not in states(fusionzoo.patch(Captioner(both=True), "lmam", inputs=written()))


class HeadsThatHaveAttended(nn.Module):
    """Every modality has a head of its own, which all modalities reach; the streams are joined for the last one."""

    def __init__(self):
        super().__init__()
        self.t, self.a, self.cross = nn.Linear(6, 8), nn.Linear(5, 8), nn.Linear(8, 8)
        self.of_t, self.of_a, self.of_all = nn.Linear(8, 3), nn.Linear(8, 3), nn.Linear(16, 3)

    def forward(self, text, audio):
        t, a = self.t(text), self.a(audio)
        t, a = t * torch.sigmoid(self.cross(a)), a * torch.sigmoid(self.cross(t))
        return self.of_t(t), self.of_a(a), self.of_all(torch.cat([t, a], -1))


def test_where_several_outputs_may_be_the_main_one_it_is_said_which_one_feels_the_fusion():
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(1)
    model, batch = HeadsThatHaveAttended(), (torch.randn(4, 6, generator=g), torch.randn(4, 5, generator=g))
    site = next(s for s in fusionzoo.find_sites(model, *batch) if s.kind == "cat")
    felt = next(p for p in fusionzoo.patch(model, "gated", site, inputs=batch).proof.promises if p.words == FELT)
    assert felt.state == PROVED
    assert felt.why == "output 2 does, which as many modalities reach as output 0"


class CutByCounts(nn.Module):
    """Frames and sounds of all clips in one list each, with lengths of their own, beside words that are a batch."""

    def __init__(self):
        super().__init__()
        self.see, self.hear, self.read, self.head = nn.Linear(6, 4), nn.Linear(5, 4), nn.Linear(7, 4), nn.Linear(12, 3)

    def forward(self, visual, n_frames, audio, n_sounds, text):
        seen = torch.stack([x.mean(0) for x in self.see(visual).split(n_frames)])
        heard = torch.stack([x.mean(0) for x in self.hear(audio).split(n_sounds)])
        return self.head(torch.cat([seen, heard, self.read(text).mean(1)], -1))


def test_each_stream_may_be_cut_by_counts_of_its_own():
    torch.manual_seed(0)
    batch = torch.randn(17, 6), [8, 6, 3], torch.randn(15, 5), [5, 7, 3], torch.randn(3, 9, 7)
    patch = fusionzoo.patch(CutByCounts(), "gated", inputs=batch)
    assert patch.proof.holds(APART)
    with pytest.raises(LeakError, match="changing one sample moves outputs of others"):
        fusionzoo.patch(CutByCounts(), Mixing(patch.site.widths), inputs=batch)
