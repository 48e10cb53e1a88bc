"""Where the trace leaves open how streams lie, the reading that is proved is taken."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fusionzoo
from fusionzoo.errors import LayoutError, LeakError
from fusionzoo.patching.promises import APART, FITS, PADDING, PROVED

LENGTHS = [6, 3, 5, 2]
MASK = torch.arange(6) < torch.tensor(LENGTHS)[:, None]


def streams(time_first=False, seed=0):
    """Four dialogues of six steps: text of seven features, audio of five."""
    g = torch.Generator().manual_seed(seed)
    out = [torch.randn(4, 6, width, generator=g) for width in (7, 5)]
    return [x.transpose(0, 1).contiguous() for x in out] if time_first else out


def leaks(model, batch, shake, patch, axis=0, padding=None):
    """Which samples' outputs move as the last one changes, its padding and everybody's padding too."""
    shake(patch)
    model.eval()
    g = torch.Generator().manual_seed(5)
    other = [x.clone() for x in batch[:2]]
    for x in other:
        x.select(axis, -1).add_(torch.randn(x.select(axis, -1).shape, generator=g))
        if padding is not None:
            x[~padding] = 5.0
    with torch.no_grad():
        moved = (model(*batch) - model(*other, *batch[2:])).abs() > 1e-6
    if padding is not None:
        moved = moved & padding.unsqueeze(-1)
    return moved.movedim(axis, 0).flatten(1).any(1).tolist()


class Clips(nn.Module):
    """Convolutions over time: features stand before it, and the clips' length is whatever comes."""

    def __init__(self, join):
        super().__init__()
        self.text, self.audio = nn.Conv1d(7, 4, 3), nn.Conv1d(5, 4, 3)
        self.join = join
        self.head = nn.LazyConv1d(2, 1)
        self(torch.zeros(2, 7, 9), torch.zeros(2, 5, 9))

    def forward(self, text, audio):
        t, a = self.text(text), self.audio(audio)
        if self.join == "cat":
            y = torch.cat((t, a), 1)
        elif self.join == "sum":
            y = t + a
        elif self.join == "product":
            y = t * torch.sigmoid(a)
        else:
            y = torch.stack([t, a]).tanh().sum(0)
        return self.head(torch.relu(y)).mean(-1)


class Pictures(nn.Module):
    """Two kinds of pictures, joined along their channels."""

    def __init__(self):
        super().__init__()
        self.face, self.scene, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(1, 4, 3), nn.Conv2d(8, 2, 1)

    def forward(self, face, scene):
        return self.head(torch.cat((self.face(face), self.scene(scene)), 1)).mean((2, 3))


@pytest.mark.parametrize("fusion", ["gated", "lmam"])
@pytest.mark.parametrize("join", ["cat", "sum", "product", "stack"])
def test_the_length_of_a_clip_is_not_its_features(join, fusion, shake):
    torch.manual_seed(0)
    model, batch = Clips(join), (torch.randn(3, 7, 11), torch.randn(3, 5, 11))
    before = model(*batch)
    patch = fusionzoo.patch(model, fusion, inputs=batch)
    assert patch.site.widths == {"text": 4, "audio": 4}
    assert patch.site.feature_axis == -2
    assert patch.proof.holds(APART)
    assert patch.proof.holds(FITS)
    assert torch.equal(model(*batch), before)
    assert leaks(model, batch, shake, patch) == [False, False, True]
    model(torch.randn(2, 7, 30), torch.randn(2, 5, 30))


def test_nor_are_the_sides_of_a_picture():
    torch.manual_seed(0)
    model, batch = Pictures(), (torch.randn(3, 3, 9, 12), torch.randn(3, 1, 9, 12))
    patch = fusionzoo.patch(model, "gated", inputs=batch)
    assert patch.site.widths == {"face": 4, "scene": 4} or set(patch.site.widths.values()) == {4}
    model(torch.randn(2, 3, 20, 30), torch.randn(2, 1, 20, 30))


class Hidden(nn.Module):
    """Rows whose place in the batch cannot be followed: all that is known of them is their modality."""

    def forward(self, x):
        return torch.from_numpy(x.detach().numpy().reshape(-1, x.shape[-1]).copy())


class PaddedRows(nn.Module):
    """A padded batch, one row below the other while it is joined. `hidden`: what the rows are cannot be followed."""

    def __init__(self, time_first=False, hidden=False):
        super().__init__()
        self.text, self.audio, self.head = nn.Linear(7, 4), nn.Linear(5, 4), nn.Linear(8, 3)
        self.rnn = nn.GRU(3, 3, batch_first=not time_first)
        self.rows = Hidden() if hidden else nn.Flatten(0, 1)

    def forward(self, text, audio, umask=None):
        y = torch.cat([self.rows(self.text(text)), self.rows(self.audio(audio))], dim=1)
        return self.rnn(self.head(y).view(*text.shape[:2], -1))[0]


@pytest.mark.parametrize("time_first", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
def test_rows_of_a_padded_batch_are_that_batch(time_first, masked, hidden, shake):
    torch.manual_seed(0)
    model = PaddedRows(time_first, hidden)
    batch = [*streams(time_first), *([MASK] if masked else [])]
    patch = fusionzoo.patch(model, "lmam", inputs=tuple(batch))
    taken = patch.layer.plan.layout
    assert taken == ("(T*B, d)" if time_first else "(B*T, d)") or (hidden and taken == "(B, d)")
    assert patch.proof.holds(APART)
    padding = MASK.T if time_first else MASK
    assert leaks(model, batch, shake, patch, int(time_first), padding if masked else None) == [False] * 3 + [True]
    if taken != "(B, d)":
        shorter = [x[:5] if time_first else x[:, :5] for x in batch[:2]]
        assert model(*shorter, *([MASK[:, :5]] if masked else [])).shape[int(time_first)] == 4


def test_padded_rows_are_told_by_hand(shake):
    torch.manual_seed(0)
    model, batch = PaddedRows(), (*streams(), MASK)
    site = fusionzoo.find_sites(model, *batch)[0]
    site.context = None
    with pytest.raises(LayoutError, match="padded"):
        fusionzoo.patch(model, "lmam", site)
    told = {"mask": lambda m, a, k: {"mask": MASK}, "lengths": lambda m, a, k: {"lengths": LENGTHS}}
    for context in told.values():
        patch = fusionzoo.patch(model, "lmam", site, layout="B*T,d", context=context)
        assert leaks(model, batch, shake, patch, padding=MASK) == [False, False, False, True]
        patch.remove()
    patch = fusionzoo.patch(model, "lmam", site, layout="(B*T, d)", context=lambda m, a, k: {"lengths": [1] * 5})
    with pytest.raises(LayoutError, match="does not divide"):
        model(*batch)


class Nodes(nn.Module):
    """A list of utterances, one dialogue after the other."""

    def __init__(self):
        super().__init__()
        self.text, self.audio, self.head = nn.Linear(7, 4), nn.Linear(5, 4), nn.Linear(8, 3)

    def forward(self, text, audio, lengths):
        numbers = (
            lengths
            if isinstance(lengths, list)
            else lengths.sum(1).long().tolist()
            if lengths.dim() == 2
            else lengths.tolist()
        )
        t, a = (torch.cat([x[i, :n] for i, n in enumerate(numbers)]) for x in (self.text(text), self.audio(audio)))
        return self.head(torch.cat([t, a], -1))


@pytest.mark.parametrize("form", ["list", "tensor", "umask"])
def test_the_rows_of_one_dialogue_may_be_those_of_several_in_the_next_batch(form, shake):
    torch.manual_seed(0)

    class Host(Nodes):
        if form == "umask":

            def forward(self, text, audio, umask):
                return super().forward(text, audio, umask)

    model = Host()
    one, several = {
        "list": ([6], LENGTHS),
        "tensor": (torch.tensor([6]), torch.tensor(LENGTHS)),
        "umask": (torch.ones(1, 6), MASK.float()),
    }[form]
    text, audio = streams()
    patch = fusionzoo.patch(model, "lmam", inputs=(text[:1], audio[:1], one))
    assert patch.layer.plan.layout == "(N, d)"
    assert patch.proof.holds(APART)  # on two copies of it
    shake(patch)
    other = text.clone()
    other[-1] += 1.0
    with torch.no_grad():
        moved = (model(text, audio, several) - model(other, audio, several)).abs().amax(1) > 1e-6
    assert [bool(x.any()) for x in moved.split(LENGTHS)] == [False, False, False, True]


class Ranks(nn.Module):
    """A product whose first axis is a rank and whose second one counts samples; one feature, at the end."""

    def __init__(self):
        super().__init__()
        self.t, self.a = (nn.Parameter(torch.randn(3, w, 1)) for w in (7, 5))

    def forward(self, text, audio):
        return (torch.matmul(text, self.t) * torch.matmul(audio, self.a)).sum(0)


def test_as_many_samples_are_not_features(shake):
    torch.manual_seed(0)
    model, batch = Ranks(), (torch.randn(4, 7), torch.randn(4, 5))
    patch = fusionzoo.patch(model, "gated", inputs=batch)
    assert patch.site.widths == {"text": 1, "audio": 1}
    assert leaks(model, batch, shake, patch) == [False, False, False, True]
    model(torch.randn(9, 7), torch.randn(9, 5))


class Recurrent(nn.Module):
    """Nothing but the recurrence tells which axis is time."""

    def __init__(self, batch_first):
        super().__init__()
        self.rnn, self.head = nn.LSTM(12, 4, batch_first=batch_first, bidirectional=True), nn.Linear(8, 3)

    def forward(self, text, audio):
        return self.head(self.rnn(torch.cat([text, audio], -1))[0])


@pytest.mark.parametrize("batch_first", [False, True])
def test_the_axis_of_samples_is_the_one_along_which_the_host_keeps_places_apart(batch_first, shake):
    torch.manual_seed(0)
    model, batch = Recurrent(batch_first), streams(not batch_first)
    patch = fusionzoo.patch(model, "lmam", inputs=tuple(batch))
    assert patch.layer.plan.layout == ("(B, T, d)" if batch_first else "(T, B, d)")
    assert patch.proof.holds(APART)
    assert leaks(model, batch, shake, patch, int(not batch_first)) == [False, False, False, True]


class Frames(nn.Module):
    """Frames of all clips in one list, so many for every clip; the sound is one row for each."""

    def __init__(self):
        super().__init__()
        self.see, self.hear = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)
        self.head = nn.Linear(8, 3)

    def forward(self, audio, video):  # (B, d), (B * frames, 3, h, w)
        seen = self.see(video).mean((2, 3)).view(len(audio), -1, 4).mean(1)
        return self.head(torch.cat([self.hear(audio), seen], -1))


def test_a_sample_may_have_several_rows_of_a_stream():
    torch.manual_seed(0)
    patch = fusionzoo.patch(Frames(), "gated", inputs=(torch.randn(3, 5), torch.randn(12, 3, 8, 8)))
    assert {p.words: p.state for p in patch.proof.promises}[APART] == PROVED


class Fading(nn.Module):
    """What came early in a clip is too small to be seen at the end of it; nothing but the outputs' size tells samples."""

    def __init__(self):
        super().__init__()
        self.t, self.a, self.head = nn.Linear(7, 8), nn.Linear(5, 8), nn.Linear(16, 1)

    def forward(self, text, audio):  # (B, T, d), every clip as long
        h = text.new_zeros(len(text), 16)
        for t, a in zip(self.t(text).unbind(1), self.a(audio).unbind(1), strict=True):
            h = 1e-9 * h + torch.cat([t, a], -1)
        return self.head(h)


def test_a_step_that_fades_out_is_no_sample():
    torch.manual_seed(0)
    patch = fusionzoo.patch(Fading(), "gated", inputs=tuple(streams()))
    assert patch.proof.holds(APART)


class OneChannel(nn.Module):
    """Pictures of one channel: two axes that all streams have in common, of which the model is built for one."""

    def __init__(self):
        super().__init__()
        self.a, self.v, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(1, 6, 3), nn.Linear(12, 4)

    def forward(self, audio, image):  # (B, 1, h, w)
        return self.head(torch.cat((self.a(audio).amax((2, 3)), self.v(image).amax((2, 3))), 1))


def test_an_axis_that_the_model_takes_one_place_of_counts_no_samples():
    torch.manual_seed(0)
    patch = fusionzoo.patch(OneChannel(), "gated", inputs=(torch.randn(3, 1, 12, 10), torch.randn(3, 1, 8, 8)))
    assert patch.proof.holds(APART)


def test_values_of_made_batches_are_the_batchs_own():
    class Buckets(nn.Module):
        def __init__(self):
            super().__init__()
            self.age, self.see, self.head = nn.Embedding(5, 4), nn.Linear(7, 4), nn.Linear(8, 3)

        def forward(self, text, audio):  # audio in [0, 1]
            return self.head(
                torch.cat([self.see(text), self.age((4 * audio[:, 0]).long()) * audio.mean(1)[:, None]], -1)
            )

    torch.manual_seed(0)
    patch = fusionzoo.patch(Buckets(), "gated", inputs=(torch.randn(4, 7), torch.rand(4, 5)))
    assert patch.proof.holds(APART)


def test_a_layout_that_the_caller_says_is_not_replaced_by_another():
    torch.manual_seed(0)
    model, batch = Recurrent(True), streams()
    with pytest.raises(LeakError, match="sample"):
        fusionzoo.patch(model, "lmam", inputs=tuple(batch), layout="(T, B, d)")
    patch = fusionzoo.patch(model, "lmam", inputs=tuple(batch), layout="(B, T, d)")
    assert patch.proof.holds(APART)


def test_padding_of_convolved_clips_stays_unseen():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.text, self.audio, self.head = nn.Conv1d(7, 4, 1), nn.Conv1d(5, 4, 1), nn.Conv1d(8, 2, 1)

        def forward(self, text, audio, umask):
            y = torch.cat((self.text(text), self.audio(audio)), 1)
            return (self.head(y) * umask.unsqueeze(1)).sum(-1)

    torch.manual_seed(0)
    text, audio = (x.transpose(1, 2) for x in streams())
    patch = fusionzoo.patch(Masked(), "lmam", inputs=(text, audio, MASK.float()))
    assert patch.site.widths == {"text": 4, "audio": 4}
    assert patch.proof.holds(APART)
    assert patch.proof.holds(PADDING)
