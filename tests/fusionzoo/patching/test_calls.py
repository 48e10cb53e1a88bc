"""What `inputs=`, `find_sites` and `InputSite` take: tuples, dicts, batch objects, numbers and paths of arguments."""

from __future__ import annotations

import copy
import types
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import fusionzoo
from fusionzoo.errors import ModalityError, PatchError
from fusionzoo.patching import Call
from fusionzoo.patching.arguments import get_argument, set_argument
from fusionzoo.patching.calls import readings

G = torch.Generator().manual_seed(3)
TEXT, AUDIO = torch.randn(3, 5, 6, generator=G), torch.randn(3, 5, 4, generator=G)
MASK = torch.arange(5) < torch.tensor([[5], [3], [2]])
Fields = namedtuple("Fields", ["text", "audio", "umask"])


@dataclass
class Batch:
    text: Any
    audio: Any
    umask: Any


@dataclass(frozen=True, slots=True)
class Frozen:
    text: Any
    audio: Any
    umask: Any


class Plain:
    def __init__(self):
        self.text, self.audio, self.umask = TEXT, AUDIO, MASK


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.t, self.a, self.head = nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(8, 2)

    def join(self, text, audio):
        return self.head(torch.cat([self.t(text), self.a(audio)], -1))


class Several(Base):
    def forward(self, text, audio, umask=None):
        return self.join(text, audio)


class Keyed(Base):
    def forward(self, batch, extra=None, more=None):
        return self.join(batch["text"], batch["audio"])


class Attributed(Base):
    def forward(self, batch):
        return self.join(batch.text, batch.audio)


class Listed(Base):
    def forward(self, streams, umask=None):
        text, audio = streams[0], streams[1]
        return self.join(text, audio)


class Packed(Base):
    """One tensor holds both."""

    def forward(self, x, umask=None):
        return self.join(x[..., :6], x[..., 6:])


class Anything(Base):
    def forward(self, *args, **kwargs):
        return self.join(*args, **kwargs)


KEYED = {"text": TEXT, "audio": AUDIO, "umask": MASK}
DOORS = {
    "tuple": (Several, (TEXT, AUDIO, MASK)),
    "list": (Several, [TEXT, AUDIO, MASK]),
    "keyword arguments": (Several, KEYED),
    "pair": (Several, ((TEXT, AUDIO), {"umask": MASK})),
    "pair with a list": (Several, ([TEXT, AUDIO], {"umask": MASK})),
    "no arguments, keyword arguments": (Several, ((), KEYED)),
    "named tuple of arguments": (Several, Fields(TEXT, AUDIO, MASK)),
    "one dict": (Keyed, KEYED),
    "one dict with other keys": (Keyed, {**KEYED, "ids": ["a", "b", "c"], 7: "x"}),
    "one ordered dict": (Keyed, OrderedDict(KEYED)),
    "one dict in a tuple": (Keyed, (KEYED,)),
    "one dict in a list": (Keyed, [KEYED]),
    "one dict and keyword arguments": (Keyed, ((KEYED,), {"extra": None})),
    "one dict by its name": (Keyed, {"batch": KEYED}),
    "one dataclass": (Attributed, Batch(TEXT, AUDIO, MASK)),
    "one frozen dataclass": (Attributed, Frozen(TEXT, AUDIO, MASK)),
    "one named tuple": (Attributed, Fields(TEXT, AUDIO, MASK)),
    "one object": (Attributed, Plain()),
    "one namespace": (Attributed, types.SimpleNamespace(**KEYED)),
    "one list": (Listed, [TEXT, AUDIO]),
    "one tuple": (Listed, (TEXT, AUDIO)),
    "one list in a tuple": (Listed, ([TEXT, AUDIO], MASK)),
    "any arguments": (Anything, (TEXT, AUDIO)),
    "any keyword arguments": (Anything, {"text": TEXT, "audio": AUDIO}),
}
NAMES = {"Listed": {"streams[0]": "text", "streams[1]": "audio"}, "Anything": None}


def modalities_of(cls, inputs):
    if cls is Anything and isinstance(inputs, tuple):
        return ["text", "audio"]
    return NAMES.get(cls.__name__)


@pytest.mark.parametrize("door", DOORS)
def test_doors_of_patch(shake, door):
    cls, inputs = DOORS[door]
    torch.manual_seed(0)
    model = cls().eval()
    call = readings(model, inputs)[0][1]
    args, kwargs = call.args, call.kwargs
    names = modalities_of(cls, inputs)
    if cls is Listed and len(args) == 2 and isinstance(args[0], torch.Tensor):  # which only running it can tell
        args = (list(args),)
    expected = model(*args, **kwargs)
    before = copy.deepcopy(inputs)
    patch = fusionzoo.patch(model, "gated", inputs=inputs, modalities=names)
    assert set(patch.site.modalities) == {"text", "audio"}
    assert torch.equal(model(*args, **kwargs), expected)
    shake(patch)
    assert not torch.equal(model(*args, **kwargs), expected)
    assert str(before) == str(inputs) or isinstance(inputs, Plain)


@pytest.mark.parametrize("door", [d for d in DOORS if not d.startswith(("pair", "no arguments"))])
def test_doors_of_find_sites(door):
    cls, inputs = DOORS[door]
    torch.manual_seed(0)
    model = cls().eval()
    sites = fusionzoo.find_sites(model, inputs, modalities=modalities_of(cls, inputs)) if cls is not Anything else None
    assert sites is None or set(sites[0].modalities) == {"text", "audio"}


def test_one_tensor_that_holds_both(shake):
    torch.manual_seed(0)
    model, x = Packed().eval(), torch.cat([TEXT, AUDIO], -1)
    patch = fusionzoo.patch(model, "gated", inputs=x, modalities={"x": {"text": 6, "audio": 4}})
    expected = model(x)
    shake(patch)
    assert not torch.equal(model(x), expected)


@pytest.mark.parametrize(
    ("model", "inputs", "words"),
    [
        (Several(), {"text": TEXT, "label": AUDIO}, "missing a required argument: 'audio'|unexpected keyword"),
        (Several(), {"words": TEXT, "sound": AUDIO}, r"Several.forward\(text, audio, umask\)"),
        (Several(), (TEXT, AUDIO, MASK, MASK), "too many positional"),
        (Several(), TEXT, "missing a required argument: 'audio'"),
        (Several(), Batch(TEXT, AUDIO, MASK), r"inputs=\(batch,\)"),
        (Several(), 5, "not int"),
        (Several(), "text", "not str"),
        (Several(), (), "missing a required argument"),
    ],
)
def test_inputs_that_fit_nothing_are_refused_in_words(model, inputs, words):
    with pytest.raises(PatchError, match=words):
        fusionzoo.patch(model, "gated", inputs=inputs)


def test_arguments_that_do_not_fit_are_said_in_words():
    with pytest.raises(PatchError, match="missing a required argument: 'audio'"):
        fusionzoo.find_sites(Several(), TEXT)
    with pytest.raises(PatchError, match="unexpected keyword argument 'sound'"):
        fusionzoo.find_sites(Several(), TEXT, sound=AUDIO)
    torch.manual_seed(0)
    model = Several()
    patch = fusionzoo.patch(model, "gated", inputs=(TEXT, AUDIO))
    with pytest.raises(PatchError, match="too many positional arguments"):
        patch.verify(TEXT, AUDIO, MASK, MASK)


def test_a_call_means_itself_for_find_sites_and_for_patch():
    """Where a list could be the arguments or one of them, a `Call` says which, in the same form for both."""
    model = Listed()
    call = Call([TEXT, AUDIO], umask=MASK)
    names = modalities_of(Listed, [TEXT, AUDIO])
    site = fusionzoo.find_sites(model, call, modalities=names)[0]
    patch = fusionzoo.patch(model, "gated", inputs=call, modalities=names)
    assert (patch.site.where, patch.site.kind) == (site.where, site.kind)
    assert patch.calls == 0
    assert str(call) == "Call(list of 2, umask=tensor [3, 5])"
    with pytest.raises(PatchError, match=r"does not fit .* as the call: .*unexpected keyword argument 'nothing'"):
        fusionzoo.patch(model, "gated", inputs=Call(TEXT, nothing=AUDIO))


def test_where_two_readings_fail_both_are_named():
    class Deaf(Base):
        def forward(self, x, y=None):
            return self.head(self.t(x).repeat(1, 1, 2))

    with pytest.raises(Exception) as caught:
        fusionzoo.patch(Deaf(), "gated", inputs=[TEXT, TEXT])
    assert "as 2 arguments, then as one argument" in "".join(caught.value.__notes__)


# -- InputSite ---------------------------------------------------------------------------------------------------------

WIDTHS = {"text": 6, "audio": 4}
X = torch.cat([TEXT, AUDIO], -1)


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(10, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, umask, x, *more, scale=1.0):
        return self.head(self.rnn(x)[0]) * scale


class InBatch(Joined):
    def forward(self, batch):
        x = batch.x if hasattr(batch, "x") else batch["x"] if hasattr(batch, "keys") else batch[1]
        return super().forward(None, x)


@dataclass(frozen=True)
class Holding:
    x: Any


Pair = namedtuple("Pair", ["n", "x"])


@pytest.mark.parametrize(
    ("cls", "arg", "args", "kwargs"),
    [
        (Joined, 1, (MASK, X), {}),
        (Joined, 1, (MASK,), {"x": X}),
        (Joined, 1, (), {"x": X, "umask": MASK}),
        (Joined, "1", (MASK, X), {}),
        (Joined, "x", (MASK,), {"x": X}),
        (Joined, 1, (X, X), {}),
        (InBatch, "batch['x']", ({"x": X},), {}),
        (InBatch, "0['x']", ({"x": X},), {}),
        (InBatch, "0['x']", (), {"batch": {"x": X}}),
        (InBatch, "batch.x", (Holding(X),), {}),
        (InBatch, "batch.x", (types.SimpleNamespace(x=X),), {}),
        (InBatch, "batch.x", (Pair(1, X),), {}),
        (InBatch, "batch[1]", ([TEXT, X],), {}),
        (InBatch, "batch[-1]", ((TEXT, X),), {}),
    ],
)
def test_an_input_site_by_name_number_or_path(shake, tmp_path, cls, arg, args, kwargs):
    torch.manual_seed(0)
    model = cls().eval()
    expected, before = model(*args, **kwargs), copy.deepcopy((args, kwargs))
    site = fusionzoo.InputSite(arg, widths=WIDTHS, layout="(B, T, d)")
    patch = fusionzoo.patch(model, "gated", site=site, inputs=(args, kwargs))
    assert torch.equal(model(*args, **kwargs), expected)
    shake(patch)
    changed = model(*args, **kwargs)
    assert not torch.equal(changed, expected)
    assert str(before) == str((args, kwargs))
    patch.save(tmp_path / "p.safetensors")
    torch.manual_seed(0)
    other = cls().eval()
    fusionzoo.load_patch(other, tmp_path / "p.safetensors")
    assert torch.equal(other(*args, **kwargs), changed)


def test_only_the_argument_that_is_meant_is_changed(shake):
    class Two(nn.Module):
        def forward(self, a, b):
            return a, b

    model = Two()
    patch = fusionzoo.patch(model, "gated", site=fusionzoo.InputSite(0, widths=WIDTHS, layout="(B, T, d)"))
    shake(patch)
    a, b = model(X, X)
    assert not torch.equal(a, X)
    assert torch.equal(b, X)


def test_input_sites_that_no_call_can_have_are_refused_in_words():
    model = InBatch()
    for arg, words in (
        (3, "has no argument 3: it takes 1"),
        ("bach", "did you mean 'batch'"),
        ("[0]", "no argument's name"),
    ):
        with pytest.raises(PatchError, match=words):
            fusionzoo.patch(model, "gated", site=fusionzoo.InputSite(arg, widths=WIDTHS))
    for arg in (-1, True, None, 1.5):
        with pytest.raises(PatchError, match="counted from 0"):
            fusionzoo.InputSite(arg, widths=WIDTHS)
    with pytest.raises(ModalityError, match="maps modality to width"):
        fusionzoo.InputSite(0, widths=[6, 4])


@pytest.mark.parametrize(
    ("arg", "args", "words"),
    [
        ("batch['y']", ({"x": X},), "no item 'y' in batch, which is a dict with 'x'"),
        ("batch.y", (Holding(X),), "no attribute 'y' in batch, which is a Holding"),
        ("batch[5]", ([TEXT, X],), "no item 5 in batch, which is a list of 2"),
        ("batch['x'][0]['z']", ({"x": [{}]},), r"no item 'z' in batch\['x'\]\[0\]"),
    ],
)
def test_paths_that_a_call_does_not_have_are_said_in_words(arg, args, words):
    with pytest.raises(PatchError, match=words):
        fusionzoo.patch(InBatch(), "gated", site=fusionzoo.InputSite(arg, widths=WIDTHS), inputs=(args, {}))


def test_an_argument_that_this_call_leaves_out_is_said_in_words():
    def forward(x=None, y=None, *rest, **more):
        return x

    assert get_argument(forward, (), {"y": 5}, "1") == 5
    assert get_argument(forward, (1, 2, 3, 4), {}, "rest[1]") == 4
    assert get_argument(forward, (1, 2, 3, 4), {}, "3") == 4
    assert set_argument(forward, (1, 2, 3, 4), {}, "rest[1]", 9) == ((1, 2, 3, 9), {})
    assert set_argument(forward, (), {"z": {"k": 1}}, "z['k']", 9) == ((), {"z": {"k": 9}})
    for path in ("0", "x", "rest[0]", "7"):
        with pytest.raises(PatchError, match="it has 1: y"):
            get_argument(forward, (), {"y": 5}, path)
