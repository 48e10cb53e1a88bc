"""What a refusal proposes: where a stream was lost, and lines that can be pasted and then hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from zoo.wrapped import MASK, make

import fusionzoo
from fusionzoo.errors import FusionZooWarning, LayoutError, ModalityError, NoSiteError, PatchError, PatchOptionError
from fusionzoo.patching.promises import LEARNS


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.t, self.a, self.head, self.table = nn.Linear(6, 8), nn.Linear(5, 8), nn.Linear(16, 2), nn.Embedding(8, 8)

    def joined(self, text, audio):
        return self.head(torch.cat([text, audio], -1))


class Numpy(Base):
    def forward(self, text, audio):
        return self.joined(torch.from_numpy(self.t(text).detach().numpy()), self.a(audio))  # lost


class Number(Base):
    def forward(self, text, audio):
        return self.a(audio) * self.t(text).mean().item()  # lost


class Listed(Base):
    def forward(self, text, audio):
        return self.joined(torch.tensor(self.t(text).tolist()), self.a(audio))  # lost


class Chosen(Base):
    def forward(self, text, audio):
        return self.joined(self.table(self.t(text).argmax(-1)), self.a(audio))  # lost


class Truth(Base):
    def forward(self, text, audio):
        return self.a(audio) * (self.t(text) > 0).float()  # lost


class Dropped(Base):
    def forward(self, text, audio):
        self.t(text)
        return self.a(audio)


class Compared(Base):
    def forward(self, text, audio):
        return F.cosine_similarity(self.t(text), self.a(audio))  # met


class Dual(Base):
    def forward(self, text, audio):
        return self.t(text), self.a(audio)


class Mapped(Base):
    def forward(self, text, audio):
        return self.head(torch.vmap(lambda t, a: torch.cat([t, a], -1))(self.t(text), self.a(audio)))


SAID = {
    Numpy: r"text leaves torch by numpy\(\) at .*test_words.py:LINE in Numpy.forward; audio reaches the output without",
    Number: r"text leaves torch by item\(\) at .*test_words.py:LINE in Number.forward",
    Listed: r"text leaves torch by tolist\(\) at .*test_words.py:LINE in Listed.forward",
    Chosen: r"text is turned into positions by argmax\(\) at .*test_words.py:LINE in Chosen.forward",
    Truth: r"text is turned into truth values by gt\(\) at .*test_words.py:LINE in Truth.forward",
    Dropped: r"text is last seen in linear\(\) at .*test_words.py:\d+ in Dropped.forward",
    Compared: r"Nearest: cosine_similarity\(\) at .*test_words.py:LINE in Compared.forward takes text and audio, but is no join",
    Dual: r"text and audio each reach the output without the others",
    Mapped: r"text and audio reach the output together, joined where nothing can be seen",
}


@pytest.mark.parametrize("cls", SAID)
def test_where_a_stream_was_lost_is_said(cls):
    lines = Path(__file__).read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"class {cls.__name__}("))
    line = next((i for i, line in enumerate(lines[start:], start + 1) if line.endswith(("# lost", "# met"))), 0)
    with pytest.raises(NoSiteError, match=SAID[cls].replace("LINE", str(line))):
        fusionzoo.find_sites(make(cls), torch.randn(3, 6), torch.randn(3, 5))


def test_one_tensor_for_two_streams_is_said():
    class Same(nn.Module):
        def forward(self, text, audio):
            return torch.cat([text, audio], -1)

    x = torch.randn(3, 6)
    with pytest.raises(NoSiteError, match="text and audio are one and the same tensor"):
        fusionzoo.find_sites(Same(), x, x)


class Flat(Base):
    def forward(self, text, audio, umask):
        return self.joined(self.t(text).reshape(-1, 8), self.a(audio).reshape(-1, 8))


class Nodes(Base):
    def forward(self, text, audio, sizes):
        return self.joined(self.t(text), self.a(audio))


STEPS = (torch.randn(3, 5, 6), torch.randn(3, 5, 5))
FLAT = {
    "a padded batch, flattened": (Flat, (*STEPS, MASK), {}),
    "by name": (Flat, (), {"text": STEPS[0], "audio": STEPS[1], "umask": MASK}),
    "nodes": (Nodes, (torch.randn(10, 6), torch.randn(10, 5), [5, 3, 2]), {}),
    "nodes, lengths in a tensor": (Nodes, (torch.randn(10, 6), torch.randn(10, 5), torch.tensor([5, 3, 2])), {}),
}


@pytest.mark.parametrize("name", FLAT)
def test_a_refusal_of_flat_nodes_proposes_a_line_that_holds(name):
    cls, args, kwargs = FLAT[name]
    site = fusionzoo.find_sites(make(cls), *args, **kwargs)[0]
    assert "hints" not in site.to_dict()
    with pytest.raises(LayoutError, match="fits this call") as refused:
        fusionzoo.patch(make(cls), "lmam", site, layout="(N, d)")
    line = re.search(r"context=(lambda model, args, kwargs: \{.*?\})", str(refused.value)).group(1)
    patch = fusionzoo.patch(make(cls), "lmam", site, layout="(N, d)", context=eval(line))
    patch.verify(*args, **kwargs)


def test_rows_that_do_not_lie_together_are_not_proposed_as_dialogues():
    class Turned(Base):
        def forward(self, text, audio, sizes):
            return self.joined(
                self.t(text).transpose(0, 1).reshape(-1, 8), self.a(audio).transpose(0, 1).reshape(-1, 8)
            )

    site = fusionzoo.find_sites(make(Turned), *STEPS, [5, 5, 5])[0]
    assert not any("sizes" in h or "args[2]" in h for h in site.hints)
    with pytest.raises(LayoutError, match=r"\{'lengths': \[T\] \* B\}"):
        fusionzoo.patch(make(Turned), "lmam", site, layout="(N, d)")


class Masked(Base):
    def forward(self, text, audio, umask):
        return self.joined(self.t(text), self.a(audio))


SQUARE = torch.randn(5, 5, 6), torch.randn(5, 5, 5), torch.ones(5, 5)


@pytest.mark.parametrize(
    "call", [(*STEPS, MASK.flip(1)), SQUARE], ids=["padded in front", "as many steps as dialogues"]
)
def test_a_warning_names_the_mask_that_may_be_missing(call):
    site = fusionzoo.find_sites(make(Masked), *call)[0]
    with pytest.warns(FusionZooWarning, match="which steps are padding") as warned:
        patch = fusionzoo.patch(make(Masked), "lmam", site)
    assert warned[0].filename == __file__
    patch.remove()
    line = re.search(r"context=(lambda model, args, kwargs: \{.*?\})", str(warned[0].message)).group(1)
    patch = fusionzoo.patch(make(Masked), "lmam", site, context=eval(line), layout="(B, T, d)")
    patch.verify(*call)


def test_a_hint_at_joined_features_keeps_what_was_proved():
    class Early(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(11, 4)

        def forward(self, u, umask):
            return self.rnn(u)[0]

    call = (torch.randn(5, 3, 11), MASK)
    site = fusionzoo.find_sites(make(Early), *call)[0]
    with pytest.raises(ModalityError, match="widths=") as refused:
        fusionzoo.patch(make(Early), "lmam", site)
    line = re.search(r"site=(fusionzoo.InputSite\(.*\))", str(refused.value)).group(1)
    told = eval(line.replace("'text': ..., 'audio': ...", "'text': 6, 'audio': 5"))
    assert (told.layout, told.context) == ("(T, B, d)", ("umask", "mask"))
    assert eval(told.as_code()).to_dict() == told.to_dict()
    patch = fusionzoo.patch(make(Early), "lmam", told)
    assert "mask from the argument umask" in patch.summary()


TEXT, AUDIO = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), torch.randn(3, 5)


class Plain(Base):
    def forward(self, text, audio):
        return self.joined(self.t(text), self.a(audio))


class Silent(Plain):
    def forward(self, text, audio):
        self.seen = super().forward(text, audio)


class Decoding(Plain):
    def forward(self, text, audio):
        y = super().forward(text, audio)
        return y.square().mean() if self.training else y.argmax(-1).tolist()


def test_a_model_that_returns_nothing_is_refused_and_one_that_only_trains_is_said():
    with pytest.raises(PatchError, match=r"Silent returns no tensor for this call.*prove=False"):
        fusionzoo.patch(Silent(), "gated", inputs=(TEXT, AUDIO))
    with pytest.warns(
        FusionZooWarning, match=r"nothing tried: in eval mode, the model returns no floating-point tensor"
    ):
        fusionzoo.patch(Decoding(), "gated", inputs=(TEXT, AUDIO))


@pytest.mark.parametrize(("given", "meant"), [("input", "inputs"), ("layuot", "layout"), ("context_", "context")])
def test_a_misspelt_argument_is_no_option_of_the_fusion(given, meant):
    with pytest.raises(PatchOptionError, match=f"no argument '{given}'; did you mean '{meant}'"):
        fusionzoo.patch(Plain(), "gated", **{given: (TEXT, AUDIO)})


def test_numpy_arrays_are_named():
    with pytest.raises(ModalityError, match=r"text, audio of Plain are numpy arrays.*torch\.as_tensor"):
        fusionzoo.patch(Plain(), "gated", inputs=(TEXT.numpy(), AUDIO.numpy()))


def test_two_fusions_at_one_site_are_said(tmp_path):
    model = Plain()
    path = fusionzoo.patch(model, "gated", inputs=(TEXT, AUDIO)).save(tmp_path / "patch.safetensors")
    with pytest.warns(FusionZooWarning, match="another fusion at .* already"):
        fusionzoo.load_patch(model, path).remove()
    with pytest.warns(FusionZooWarning, match="another fusion at .* already"):
        fusionzoo.patch(model, "concat", inputs=(TEXT, AUDIO))


def test_the_summary_has_the_line_for_an_optimizer_from_before():
    model = Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    patch = fusionzoo.patch(model, "gated", inputs=(TEXT, AUDIO))
    (line,) = re.findall(r"optimizer\.add_param_group\(.*\)", str(patch))
    before = [p.clone() for p in patch.parameters()]
    eval(line, {"optimizer": optimizer, "patch": patch, "list": list})
    model(TEXT, AUDIO).square().sum().backward()
    optimizer.step()
    assert not all(torch.equal(p, q) for p, q in zip(patch.parameters(), before, strict=True))


def test_gradients_are_tried_in_inference_mode_too():
    model = Plain()
    with torch.inference_mode():
        patch = fusionzoo.patch(model, "gated", inputs=(TEXT, AUDIO))
    assert patch.proof.holds(LEARNS)
    model(TEXT, AUDIO).sum().backward()
