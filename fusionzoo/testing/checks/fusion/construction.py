"""Checks of a fusion: construction, widths, numbers of modalities, declared parameters."""

from __future__ import annotations

import torch
from torch import nn

from fusionzoo.errors import OptionError
from fusionzoo.testing.comparisons import finite, refuses
from fusionzoo.testing.runner import describe_error, fail, rules, skip

rule = rules("fusion", theme="construction", needs=("constructs",))


@rule(needs=("subclasses_base",))
def constructs(subject):
    """It is built from a mapping of modality to width and an output width."""
    try:
        fusion = subject.make()
    except Exception as error:
        fail(f"building it for {subject.dims} raises {describe_error(error)}", "take (dims, out_dim=None, *, options)")
    if dict(getattr(fusion, "dims", {})) != subject.dims or fusion.names != tuple(subject.dims):
        fail(
            "dims and names are not those it was built for",
            "call super().__init__(dims, out_dim, missing=missing) first",
        )


@rule()
def runs(subject):
    """`(B, T, d)` streams give finite `(B, T, out)`, or `(B, out)` where the card says that the method pools."""
    fusion = subject.make()
    out = fusion(subject.streams())
    expected = (3, fusion.out_dim) if subject.pools else (3, 5, fusion.out_dim)
    if not isinstance(out, torch.Tensor) or tuple(out.shape) != expected:
        seen = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        fix = (
            "handles={'pools'} on the card is for methods that return one vector" if out is not None else "return Fused"
        )
        fail(f"streams of 3 items and 5 steps give {seen} instead of {expected}", fix)
    finite(out, "the output for random input", "look for a division, log or sqrt of zero")


@rule()
def options_from_sequence(subject):
    """A sequence of widths works like a mapping, with the names m0, m1, ..."""
    widths = list(subject.dims.values())
    fusion = subject.make(dims=widths)
    expected = tuple(f"m{i}" for i in range(len(widths)))
    if fusion.names != expected:
        fail(
            f"for dims={widths} the names are {fusion.names} instead of {expected}", "pass dims on to super().__init__"
        )
    fusion(list(subject.streams().values()))


@rule()
def modality_counts(subject):
    """Every number of modalities that the class declares is built and runs."""
    low, high = subject.modality_range()
    names, widths = list(subject.dims), list(subject.dims.values())
    for count in range(low, min(high or low + 3, low + 3) + 1):
        keys = [*names, *(f"extra{i}" for i in range(count))][:count]
        dims = dict(zip(keys, [*widths, *range(4, 4 + count)][:count], strict=True))
        try:
            subject.make(dims=dims)(subject.streams(dims=dims))
        except OptionError as error:
            if subject.options:
                skip(f"these options refuse {count} modalities: {error}")
            fail(f"with {count} modalities: {error}", f"declare modalities = (low, high), not {(low, high)}")
        except Exception as error:
            fail(f"with {count} modalities ({dims}): {describe_error(error)}", f"declare modalities, now {(low, high)}")


@rule()
def modality_count_refused(subject):
    """A number of modalities outside the declared range raises OptionError."""
    low, high = subject.modality_range()
    one_less = dict(list(subject.dims.items())[: low - 1])
    refuses(lambda: subject.make(dims=one_less), OptionError, f"building it for {low - 1} modalities")
    if high is not None:
        more = {f"m{i}": 4 + i for i in range(high + 1)}
        refuses(lambda: subject.make(dims=more), OptionError, f"building it for {high + 1} modalities")


@rule()
def bad_widths_refused(subject):
    """A width that is zero, negative or no integer raises OptionError."""
    first = next(iter(subject.dims))
    for width in (0, -3, 2.5):
        dims = {**subject.dims, first: width}
        refuses(lambda d=dims: subject.make(dims=d), OptionError, f"the width {width!r} of {first!r}")


@rule()
def missing_choice_refused(subject):
    """An unknown value of missing= raises OptionError."""
    refuses(lambda: subject.make(missing="no-such"), OptionError, "missing='no-such'")


@rule(needs=("constructs", "runs"))
def out_dim_default(subject):
    """out_dim=None means the anchor's width."""
    fusion = subject.make(out_dim=None)
    width = subject.dims[next(iter(subject.dims))]
    out = fusion(subject.streams())
    if fusion.out_dim != width or out.shape[-1] != width:
        fail(
            f"with out_dim=None the output has width {out.shape[-1]} and out_dim is {fusion.out_dim}; the anchor has {width}",
            "use self.out_dim as super().__init__ sets it, and self.set_width(width)",
        )


@rule(needs=("constructs", "runs"))
def out_dim_honoured(subject):
    """Any out_dim is the width of the output."""
    for out_dim in (1, 6, 33):
        got = subject.make(out_dim=out_dim)(subject.streams()).shape[-1]
        if got != out_dim:
            fail(
                f"with out_dim={out_dim} the output has width {got}",
                "call self.set_width(width of what combine returns)",
            )


@rule(needs=("constructs", "runs"))
def any_widths(subject):
    """Unequal, equal and very small widths all work."""
    names = list(subject.dims)
    for widths in (
        [8] * len(names),
        list(range(3, 3 + len(names))),
        list(range(9, 9 - len(names), -1)),
        [1] * len(names),
    ):
        dims = dict(zip(names, [max(1, w) for w in widths], strict=True))
        try:
            subject.make(dims=dims)(subject.streams(dims=dims))
        except OptionError:
            # An option such as heads=4 or rank=3 may be impossible for a width, and says so.
            if not subject.options:
                raise
        except Exception as error:
            fail(
                f"with the widths {dims}: {describe_error(error)}",
                "project modalities whose width the method cannot use",
            )


@rule()
def no_needless_projection(subject):
    """No output projection is built where the method's own width is out_dim already."""
    own = getattr(subject.make(), "out", None)
    width = own.in_features if isinstance(own, nn.Linear) else subject.make().out_dim
    out = subject.make(out_dim=width).out
    if isinstance(out, nn.Linear) and out.in_features == out.out_features:
        fail(
            f"with out_dim={width} a {width} x {width} projection is built after the fusion",
            "use self.set_width(width)",
        )


@rule()
def parameter_count(subject):
    """parameter_count(...) is the number of trainable parameters that the constructor builds, on the meta device too."""
    names = list(subject.dims)
    equal = dict.fromkeys(names, 8)
    for dims in (subject.dims, equal):
        for options in ({"out_dim": 10}, {"out_dim": None}, {"out_dim": 8}, {"out_dim": 10, "missing": "learned"}):
            merged = {**options, **subject.options}
            try:
                built = sum(p.numel() for p in subject.make(dims=dims, **merged).parameters() if p.requires_grad)
            except OptionError:
                if dims is subject.dims or not subject.options:
                    raise
                continue  # options such as heads=3 are impossible for these widths, and say so
            try:
                declared = subject.cls.parameter_count(dims, **merged)
            except Exception as error:
                fail(
                    f"for dims={dims}, {merged} counting raises {describe_error(error)}",
                    "in the constructor, read no value of a tensor and name no device: it has to run on torch's meta device",
                )
            if declared != built:
                fail(
                    f"for dims={dims}, {merged} it declares {declared} parameters and builds {built}",
                    "leave parameter_count to the base class, or correct yours",
                )
