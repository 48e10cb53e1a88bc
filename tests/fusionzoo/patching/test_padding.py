"""What tells which steps of which stream are padding, and that neither its values nor how much there is of it is seen."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import fusionzoo
from fusionzoo.errors import LayoutError, LeakError
from fusionzoo.patching.promises import NOT_TRIED, PADDING, PROVED

LENGTHS = torch.tensor([9, 7, 4])
OTHERS = torch.tensor([3, 6, 5])


def mask(lengths=LENGTHS):
    return torch.arange(int(lengths.max())) < lengths[:, None]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def padding(patch):
    return next(p for p in patch.proof.promises if p.words == PADDING)


def moved(model, batch, at, real):
    """How far outputs move as values change where an argument is not real."""
    other = list(batch)
    x = batch[at].clone()
    x[~real] = x[~real] + 3 if x.is_floating_point() else x[~real] % 40 + 5
    other[at] = x
    with torch.no_grad():
        return float((model(*batch) - model(*other)).abs().max())


class Packed(nn.Module):
    """Two streams, each packed by its own lengths, which `unpack` finds in the arguments."""

    def __init__(self):
        super().__init__()
        self.a, self.v = nn.GRU(20, 8, batch_first=True), nn.GRU(12, 8, batch_first=True)
        self.head = nn.Linear(16, 4)

    def joined(self, *streams):
        last = [
            rnn(pack_padded_sequence(x, torch.as_tensor(n), batch_first=True, enforce_sorted=False))[1][-1]
            for rnn, (x, n) in zip((self.a, self.v), streams, strict=True)
        ]
        return self.head(torch.cat(last, 1))


class StreamsThenLengths(Packed):
    def forward(self, inputs):
        return self.joined(*zip(*inputs, strict=True))


class Pairs(Packed):
    def forward(self, audio, visual):
        return self.joined(audio, visual)


class Dict(Packed):
    def forward(self, batch):
        return self.joined((batch["audio"], batch["n"]["audio"]), (batch["visual"], batch["n"]["visual"]))


AUDIO, VISUAL, LIST = random(3, 9, 20), random(3, 6, 12), [3, 6, 5]


@pytest.mark.parametrize(
    ("host", "batch"),
    [
        (StreamsThenLengths, ([[AUDIO, VISUAL], [LENGTHS, OTHERS]],)),
        (StreamsThenLengths, (((AUDIO, VISUAL), (LENGTHS, LIST)),)),
        (Pairs, ((AUDIO, LENGTHS), (VISUAL, OTHERS))),
        (Pairs, ([AUDIO, LENGTHS], [VISUAL, LIST])),
        (Dict, ({"audio": AUDIO, "visual": VISUAL, "n": {"audio": LENGTHS, "visual": OTHERS}},)),
    ],
)
def test_lengths_are_found_inside_the_arguments(host, batch):
    torch.manual_seed(0)
    assert padding(fusionzoo.patch(host(), "lmam", inputs=batch)).state == PROVED


class WordsAndRegions(nn.Module):
    """Token ids beside their mask, and regions, joined in one sequence; `masked`: whether the host heeds the mask."""

    def __init__(self, masked=True):
        super().__init__()
        self.words, self.see, self.head = nn.Embedding(50, 8), nn.Linear(12, 8), nn.Linear(8, 4)
        self.masked = masked

    def forward(self, input_ids, attention_mask, regions_visual):
        x = torch.cat([self.see(regions_visual), self.words(input_ids)], 1)
        real = torch.cat([torch.ones(regions_visual.shape[:2]), attention_mask], 1)
        return self.head((x * real[..., None] if self.masked else x).sum(1))


def words():
    ids = torch.randint(1, 50, (3, 9), generator=torch.Generator().manual_seed(0))
    return ids, mask().float(), random(3, 5, 12)


@pytest.mark.parametrize("fusion", ["lmam", "gated", "cross-attention"])
def test_padding_among_token_ids_stays_unseen(fusion, shake):
    torch.manual_seed(0)
    model, batch = WordsAndRegions().eval(), words()
    patch = fusionzoo.patch(model, fusion, inputs=batch)
    assert padding(patch).state == PROVED
    shake(patch)
    assert moved(model, batch, 0, mask()) < 1e-6
    assert moved(model, batch, 0, ~mask()) > 1e-3


def test_a_host_that_sees_its_padding_itself_is_not_blamed():
    torch.manual_seed(0)
    found = padding(fusionzoo.patch(WordsAndRegions(masked=False), "lmam", inputs=words()))
    assert (found.state, found.why) == (NOT_TRIED, "in the model itself, padding reaches every output")


class PackedIds(nn.Module):
    """A float tensor (B, 3, T) of token ids, their mask and segments, as MMSA's models take it."""

    def __init__(self):
        super().__init__()
        self.words, self.audio, self.head = nn.Embedding(50, 8), nn.Linear(12, 8), nn.Linear(16, 4)

    def forward(self, text, audio):
        ids, real = text[:, 0].long(), text[:, 1, :, None]
        t = (self.words(ids) * real).sum(1) / real.sum(1)
        return self.head(torch.cat([t, self.audio(audio).mean(1)], -1))


def test_packed_ids_bring_their_own_mask():
    torch.manual_seed(0)
    ids, real, audio = words()
    text = torch.stack([ids * real, real, torch.zeros_like(real)], 1)
    assert padding(fusionzoo.patch(PackedIds(), "lmam", inputs=(text, audio))).state == PROVED


class TwoMasks(nn.Module):
    """Each stream has its own mask, and before it a token that stands for all of it."""

    def __init__(self):
        super().__init__()
        self.t, self.v, self.cls = nn.Linear(20, 8), nn.Linear(12, 8), nn.Embedding(2, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 4)

    def joined(self, cls, t, v):
        return torch.cat([torch.cat([cls, t], 1), torch.cat([cls, v], 1)], dim=1)

    def forward(self, text, visual, text_mask, visual_mask):
        cls = self.cls.weight[:1].expand(len(text), 1, 8)
        one = torch.ones(len(text), 1, dtype=torch.bool)
        x = self.joined(cls, self.t(text), self.v(visual))
        real = torch.cat([one, text_mask, one, visual_mask], 1)
        y = self.encoder(x, src_key_padding_mask=~real) * real[..., None]
        return self.head(y.sum(1))


class Apart(TwoMasks):
    """The tokens stand between the streams."""

    def joined(self, cls, t, v):
        return torch.cat([cls, t, cls, v], dim=1)


class Attending(nn.Module):
    """The query has a mask, and keys of another length have theirs."""

    def __init__(self):
        super().__init__()
        self.t, self.v, self.head = nn.Linear(20, 8), nn.Linear(12, 8), nn.Linear(8, 4)
        self.cross = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, text, visual, text_mask, visual_mask):
        v = self.v(visual)
        y = self.cross(self.t(text), v, v, key_padding_mask=~visual_mask, need_weights=False)[0]
        return self.head((y * text_mask[..., None]).sum(1))


BOTH = AUDIO, VISUAL, mask(), mask(OTHERS)


PAIRS = [(host, fusion) for host in (TwoMasks, Apart, Attending) for fusion in ("lmam", "gated", "cross-attention")]


@pytest.mark.parametrize(
    ("host", "fusion"), [p if i % 4 == 0 else pytest.param(*p, marks=pytest.mark.slow) for i, p in enumerate(PAIRS)]
)
def test_every_stream_has_its_own_mask(host, fusion, shake, tmp_path):
    torch.manual_seed(0)
    model = host().eval()
    patch = fusionzoo.patch(model, fusion, inputs=BOTH)
    assert padding(patch).state == PROVED
    shake(patch)
    for at, real in ((0, mask()), (1, mask(OTHERS))):
        assert moved(model, BOTH, at, real) < 1e-6
    with torch.no_grad():
        expected = model(*BOTH)
        path = patch.save(tmp_path / "patch.safetensors")
        patch.remove()
        fusionzoo.load_patch(model, path)
        assert torch.equal(model(*BOTH), expected)


@pytest.mark.parametrize("form", ["mask", "lengths"])
def test_a_context_may_tell_of_every_stream(form):
    def told(model, args, kwargs):
        if form == "mask":
            return {"mask": {"text": args[2], "visual": args[3]}}
        return {"lengths": {"text": args[2].sum(1), "visual": args[3].sum(1).tolist()}}

    torch.manual_seed(0)
    assert padding(fusionzoo.patch(Attending(), "gated", inputs=BOTH, context=told)).state == PROVED
    constant = {"mask": {"text": mask(), "visual": mask(OTHERS)}}
    assert padding(fusionzoo.patch(Attending(), "gated", inputs=BOTH, context=lambda m, a, k: constant)).state == PROVED
    with pytest.raises(LayoutError, match=r"tells of 'audio', and the streams are text, visual"):
        fusionzoo.patch(Attending(), "gated", inputs=BOTH, context=lambda m, a, k: {"mask": {"audio": mask()}})
    with pytest.raises(LeakError, match="padded steps move outputs") as leak:
        fusionzoo.patch(Attending(), "gated", inputs=BOTH, context=lambda m, a, k: {"mask": {"text": mask()}})
    assert "level 'utterance'" not in str(leak.value)  # of which it is one


class Convolved(nn.Module):
    """Features stand before time, and a mask by another name is laid over the streams before they are joined."""

    def __init__(self):
        super().__init__()
        self.a, self.v = nn.Conv1d(20, 8, 3, padding=1), nn.Conv1d(12, 8, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, audio, visual, frames):
        k = frames[:, None].float()
        y = torch.cat([self.a(audio * k), self.v(visual * k)], 1).relu() * k
        return self.head(y.sum(-1) / k.sum(-1))


@pytest.mark.parametrize("fusion", ["lmam", "cross-attention"])
def test_how_much_padding_there_is_does_not_matter(fusion, shake):
    torch.manual_seed(0)
    model, audio, visual = Convolved().eval(), random(3, 20, 9), random(3, 12, 9)
    patch = fusionzoo.patch(model, fusion, inputs=(audio, visual, mask()))
    assert padding(patch).state == PROVED
    assert str(patch.layer.context) == "mask from the argument frames"
    shake(patch)
    with torch.no_grad():
        alone = model(audio[2:, :, :4], visual[2:, :, :4], mask()[2:, :4])
        assert torch.allclose(alone, model(audio, visual, mask())[2:], atol=1e-5)


class Onward(nn.Module):
    """Knows no mask, and goes forward in time alone: what comes after a step is not seen."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(32, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, audio, visual):
        return self.head(self.rnn(torch.cat([audio, visual], -1))[0])


def test_zeros_at_the_end_are_padding_where_nothing_else_tells(shake, tmp_path):
    torch.manual_seed(0)
    real = mask()[..., None]
    model, batch = Onward().eval(), (random(3, 9, 20) * real, random(3, 9, 12) * real)
    patch = fusionzoo.patch(model, "lmam", inputs=batch)
    assert str(patch.layer.context) == "zeros from the argument audio"
    assert "zeros after the streams" in padding(patch).why
    shake(patch)
    longer = [torch.cat([x, torch.zeros(3, 2, x.shape[-1])], 1) for x in batch]
    with torch.no_grad():
        expected = model(*batch)
        assert torch.allclose(model(*longer)[:, :9][mask()], expected[mask()], atol=1e-5)
        path = patch.save(tmp_path / "patch.safetensors")
        patch.remove()
        fusionzoo.load_patch(model, path)
        assert torch.equal(model(*batch), expected)


class Whole(nn.Module):
    """Every step of every sample is seen; there is no mask."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(32, 4)

    def forward(self, audio, visual):
        return self.head(torch.cat([audio.mean(1), visual.mean(1)], -1))


def test_a_model_that_sees_every_last_step_has_no_padding():
    torch.manual_seed(0)
    found = padding(fusionzoo.patch(Whole(), "gated", inputs=(random(3, 9, 20), random(3, 6, 12))))
    assert found.state == NOT_TRIED
    assert "the model itself sees the last step of every sample" in found.why


def test_one_output_at_zero_is_not_kept_from_padding():
    class Rectified(Whole):
        def forward(self, audio, visual):
            y = super().forward(audio, visual)
            return torch.cat([y[:, 1:], torch.relu(y[:, :1] - 9)], -1)

    torch.manual_seed(0)
    real = mask()
    batch = (AUDIO * real[..., None], random(3, 9, 12))
    assert not fusionzoo.patch(Rectified(), "gated", inputs=batch).proof.broken()
