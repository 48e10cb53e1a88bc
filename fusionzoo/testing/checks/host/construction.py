"""Checks of a host: construction, placements, fusions, and what comes out."""

from __future__ import annotations

import torch

import fusionzoo
from fusionzoo.errors import FusionZooError, OptionError
from fusionzoo.fusion import Fusion
from fusionzoo.host import HostOutput
from fusionzoo.testing.comparisons import differs, finite, refuses
from fusionzoo.testing.runner import describe_error, fail, rules, skip
from fusionzoo.testing.subjects import CLASSES, SPEAKERS

_BUILD = "name its place with self.seam(place, widths), or build it with self.make_fusion(dims, out_dim)"

rule = rules("host", theme="construction", needs=("constructs", "runs"))


@rule(needs=("subclasses_base",))
def constructs(subject):
    """It is built from dims, num_classes and num_speakers."""
    try:
        host = subject.make()
    except Exception as error:
        fail(
            f"building it for {subject.dims} raises {describe_error(error)}",
            "take (dims, num_classes, num_speakers, ...)",
        )
    if host.dims != subject.dims or (host.num_classes, host.num_speakers) != (CLASSES, SPEAKERS):
        fail("dims, num_classes and num_speakers are not those it was built for", "pass them to super().__init__")


@rule(needs=("constructs",))
def runs(subject):
    """A batch gives a HostOutput with finite logits `(B, T, C)`."""
    out = subject.make()(subject.batch())
    if not isinstance(out, HostOutput):
        fail(
            f"it returns {type(out).__name__}",
            "encode returns a HostOutput; self.fused_output(fused, logits) makes one",
        )
    if tuple(out.logits.shape) != (3, 5, CLASSES):
        fail(f"the logits are {tuple(out.logits.shape)} instead of {(3, 5, CLASSES)}", "return (B, T, num_classes)")
    finite(out.logits, "the logits for random features", "look for a softmax or mean over an empty row")


@rule()
def output_contents(subject):
    """Streams are `(B, T, d)`, attention maps tensors by name, and losses finite scalars."""
    out = subject.make()(subject.batch())
    for name, x in out.streams.items():
        if not isinstance(x, torch.Tensor) or x.shape[0] != 3:
            fail(f"streams[{name!r}] is {tuple(getattr(x, 'shape', ()))}", "give tensors, batch first")
    for name, x in out.attention.items():
        if not isinstance(x, torch.Tensor):
            fail(f"attention[{name!r}] is a {type(x).__name__}", "give tensors by name")
    for name, loss in out.losses.items():
        if loss.dim() or not bool(loss.isfinite()):
            fail(f"losses[{name!r}] is {loss.detach()}", "losses are finite scalars")


@rule()
def class_counts(subject):
    """Any number of classes and speakers works."""
    for classes, speakers in ((2, 1), (7, 9)):
        host = subject.cls(subject.dims, classes, speakers, **subject.options).eval()
        batch = subject.batch()
        batch.speakers = batch.speakers.clamp(max=speakers - 1)
        width = host(batch).logits.shape[-1]
        if width != classes:
            fail(f"with num_classes={classes} the logits have width {width}", "use self.num_classes")


@rule()
def placements(subject):
    """Every placement of the class and of its card is built and runs, and no other."""
    declared = tuple(subject.cls.placements)
    if subject.spec is not None and tuple(subject.spec.placements) != declared:
        fail(f"the card has the placements {subject.spec.placements}, the class {declared}", "make them agree")
    for placement in declared:
        try:
            subject.make(placement=placement)(subject.batch())
        except Exception as error:
            fail(f"placement={placement!r}: {describe_error(error)}", "build it, or take it out of placements")
    refuses(lambda: subject.make(placement="no-such"), OptionError, "placement='no-such'", ("placement",))


def _contained(host: torch.nn.Module) -> list[Fusion]:
    return [part for part in host.modules() if isinstance(part, Fusion)]


@rule()
def takes_any_fusion(subject):
    """Every installed fusion that takes these modalities works inside it."""
    for name in fusionzoo.names():
        low, high = fusionzoo.card(name).modalities
        if low <= len(subject.dims) and (high is None or len(subject.dims) <= high):
            try:
                out = subject.make(fusion=name)(subject.batch())
            except Exception as error:
                fail(f"with fusion={name!r}: {describe_error(error)}", _BUILD)
            finite(out.logits, f"the logits with fusion={name!r}", "use fused.fused and the width fusion.out_dim")


@rule()
def fusion_forms(subject):
    """A fusion given as name, as (name, options) and as instance is the one inside."""
    host = subject.make(fusion=("concat", {"missing": "learned"}))
    inside = _contained(host)
    if not inside:
        fail("it contains no Fusion", f"{_BUILD} and keep it as an attribute")
    if inside[0].missing != "learned":
        fail("the options of fusion=(name, options) are lost", _BUILD)
    own, seen = inside[0], []
    instance = fusionzoo.get("concat")(own.dims, own.out_dim)
    combine = instance.combine
    instance.combine = lambda streams: seen.append(1) or combine(streams)
    subject.make(fusion=instance)(subject.batch())
    if not seen:
        fail("a fusion given as an instance is not used", _BUILD)


@rule()
def fusion_called(subject):
    """The fusion inside is called through its public interface, and its output matters."""
    host, batch, seen = subject.make(), subject.batch(), []
    inside = _contained(host)
    if not inside:
        fail("it contains no Fusion", f"{_BUILD} and keep it as an attribute")
    before = host(batch).logits
    for fusion in inside:
        combine = fusion.combine
        fusion.combine = lambda streams, combine=combine: seen.append(1) or _scaled(combine(streams))
    after = host(batch).logits
    if not seen:
        fail(
            "a forward pass does not call the fusion",
            "call self.fusion(streams, mask) or self.fusion.fuse(streams, mask)",
        )
    if not differs(before, after):
        fail("the fusion's output does not change the logits", "use fused.fused, or fused.streams")


def _scaled(fused):
    fused.fused = fused.fused * 1.5 + 0.1
    # Hosts between whose layers a fusion sits go on with its streams.
    fused.streams = {name: x * 1.5 + 0.1 for name, x in fused.streams.items()}
    return fused


@rule()
def fusion_losses_kept(subject):
    """Auxiliary losses of the fusion appear among the host's losses."""
    host = subject.make()
    for fusion in _contained(host):
        combine = fusion.combine
        fusion.combine = lambda streams, combine=combine: _with_loss(combine(streams))
    if "of-the-check" not in host(subject.batch()).losses:
        fail("an auxiliary loss of the fusion is lost", "call fuse(...), and return self.fused_output(fused, logits)")


def _with_loss(fused):
    fused.losses = {**fused.losses, "of-the-check": fused.fused.mean()}
    return fused


@rule()
def single_modality(subject):
    """One modality works, or is refused with an error that says so."""
    low, _ = subject.modality_range()
    dims = dict(list(subject.dims.items())[:1])
    if subject.spec is not None and low > 1:
        refuses(lambda: subject.make(dims=dims), FusionZooError, "a single modality")
        return
    try:
        host = subject.make(dims=dims)
    except FusionZooError as error:
        if subject.spec is not None:
            fail(
                f"the card's modalities are {subject.spec.modalities}, but one is refused: {error}",
                "declare modalities = (2, None) on the class",
            )
        skip(f"the host takes no single modality: {error}")
    finite(host(subject.batch(dims=dims)).logits, "the logits for one modality", "skip the fusion with one modality")


@rule()
def more_speakers(subject):
    """A dialogue with more speakers than it was built for works, or is refused with an error that says so."""
    batch = subject.batch((5,))
    batch.speakers[0] = torch.tensor([0, 1, 2, 3, 5])
    try:
        out = subject.make()(batch)
    except FusionZooError:
        return
    except Exception as error:
        fail(
            f"speakers up to 5 with num_speakers={SPEAKERS}: {describe_error(error)}",
            "clamp them to num_speakers - 1, or raise a ShapeError that says what to do",
        )
    finite(out.logits, "the logits with surplus speakers", "clamp them to num_speakers - 1")


@rule()
def unknown_modality_refused(subject):
    """A batch with a modality that it was not built for raises a FusionZooError that names it."""
    batch = subject.batch()
    batch.features["no-such"] = torch.randn(3, 5, 4)
    refuses(lambda: subject.make()(batch), FusionZooError, "an unknown modality", ("no-such",))


@rule()
def wrong_width_refused(subject):
    """Features of the wrong width raise a FusionZooError that names the modality."""
    batch = subject.batch()
    last = list(subject.dims)[-1]
    batch.features[last] = torch.cat([batch.features[last]] * 2, -1)
    refuses(lambda: subject.make()(batch), FusionZooError, f"a wrong width of {last!r}", (last,))
