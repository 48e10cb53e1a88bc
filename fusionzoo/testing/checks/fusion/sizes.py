"""Checks of a fusion: long dialogues, more modalities, equal widths, any anchor, any names."""

from __future__ import annotations

import torch

from fusionzoo.errors import FusionZooError, OptionError
from fusionzoo.testing.comparisons import (
    close,
    differs,
    gradients,
    ragged,
    reached,
    run,
    sent_back,
    tensor_state,
    without_gradient,
)
from fusionzoo.testing.runner import DEFAULT_NEEDS, describe_error, fail, rules, skip

rule = rules("fusion", theme="sizes")

#: Longer than any dialogue of the field's data sets (110 utterances), than a table of 128 or 256 and than a block of 64.
_LONG, _PADDED = 261, 300


def _built(subject, dims, **options):
    """For these widths, or the check is left where the options under check make it impossible and say so."""
    try:
        return subject.make(dims=dims, **options)
    except OptionError as error:
        if subject.options:
            skip(f"these options refuse {dims}: {error}")
        raise


@rule(needs=(*DEFAULT_NEEDS, "calls_independent", "padding_length", "full_mask"))
def long_sequences(subject):
    """A sequence of 261 steps works, every step of it is read, and padding it to 300 changes nothing."""
    fusion, x = subject.make(), subject.streams(batch=1, steps=_LONG)
    try:
        out = fusion(x)
        longer = {m: torch.cat([v, torch.full_like(v[:, : _PADDED - _LONG], 3.0)], 1) for m, v in x.items()}
        padded = fusion(longer, torch.arange(_PADDED).unsqueeze(0) < _LONG)
    except Exception as error:
        fail(
            f"{_LONG} steps raise {describe_error(error)}",
            "compute positions instead of looking them up in a table, or make the table as long as it is asked for",
        )
    fix = "look at blocks, windows and tables at their ends, where the last one is not full"
    close(padded[:, :_LONG] if padded.dim() == 3 else padded, out, f"with the padding of {_LONG} steps", fix)
    moved = {m: torch.cat([v[:, :-2], v[:, -2:] + 1], 1) for m, v in x.items()}
    if not differs(
        fusion(moved)[..., -2:, :] if out.dim() == 3 else fusion(moved), out[..., -2:, :] if out.dim() == 3 else out
    ):
        fail(f"the last of {_LONG} steps are not read", "cut nothing off")


@rule(needs=(*DEFAULT_NEEDS, "gradient_to_parameters", "modalities_used", "parameter_count", "modality_counts"))
def more_modalities(subject):
    """With more than three modalities every one acts, every parameter learns, and the declared number is the built one."""
    low, high = subject.modality_range()
    if high is not None and high < 4:
        skip(f"the class takes at most {high} modalities")
    for count in range(max(low, 4), min(high or 5, 5) + 1):
        dims = {f"m{i}": 4 + i for i in range(count)}
        _built(subject, dims)
        if count == max(low, 4):
            _all_live(subject, dims, f"with {count} modalities")
        _declared(subject, dims)


@rule(needs=(*DEFAULT_NEEDS, "gradient_to_parameters", "modalities_used"))
def equal_widths(subject):
    """With equal widths every modality acts and every parameter learns."""
    dims = dict.fromkeys(subject.dims, 8)
    _built(subject, dims)
    _all_live(subject, dims, "with equal widths")


def _all_live(subject, dims, where):
    x = subject.streams(dims=dims)
    out = run(subject, (x,), dims=dims)
    for m in dims:
        if not differs(run(subject, ({**x, m: subject.streams(seed=1, dims=dims)[m]},), dims=dims), out):
            fail(f"{where} the output does not depend on {m!r}", "go over self.names, not over a fixed number of them")
    names: list[str] = []
    moved: set[str] = set()
    for seed in range(3):
        fusion, _, _ = sent_back(subject, (subject.streams(seed=seed, dims=dims), ragged()), seed, dims=dims)
        names = [n for n, _ in fusion.named_parameters() if n not in without_gradient(fusion)]
        moved |= {n for n, g in reached(gradients(fusion)).items() if bool(g.any())}
        if moved.issuperset(names):
            break
    dead = [n for n in names if n not in moved]
    if dead:
        fail(f"{where} {dead[0]} receives no gradient", "look parts up by a modality's place, not by its width")


def _declared(subject, dims):
    options = {"out_dim": 10, **subject.options}
    built = sum(p.numel() for p in subject.make(dims=dims, **options).parameters() if p.requires_grad)
    declared = subject.cls.parameter_count(dims, **options)
    if declared != built:
        fail(
            f"for {len(dims)} modalities it declares {declared} parameters and builds {built}",
            "leave parameter_count to the base class, or correct yours",
        )


@rule(needs=(*DEFAULT_NEEDS, "out_dim_default"))
def narrow_anchor(subject):
    """An anchor that is not the widest modality is the anchor all the same: its width is that of the output."""
    names, widths = list(subject.dims), sorted(subject.dims.values())
    dims = dict(zip(names, widths, strict=True))
    fusion = _built(subject, dims, out_dim=None)
    seen = fusion(subject.streams(dims=dims)).shape[-1]
    if seen != widths[0] or fusion.out_dim != widths[0]:
        fail(
            f"for {dims} and out_dim=None the output has width {seen}; the first modality has {widths[0]}",
            "the anchor is self.names[0], and self.out_dim is its width",
        )


#: Other names for the same streams: orders of every kind, none of the field's words, dots and spaces.
_NAMES = (
    ("zeta", "alpha", "mid"),
    ("b", "c", "a"),
    ("m0", "m10", "m2"),
    ("x.first", "x.second", "y z"),
    ("9", "_", "é"),
)


@rule(needs=(*DEFAULT_NEEDS, "construction_follows_seed"))
def names_are_free(subject):
    """What the modalities are called changes neither the weights nor the output; names may hold dots and spaces."""
    count = len(subject.dims)
    x = list(subject.streams().values())
    expected, weights = subject.make()(x, ragged()), tensor_state(subject.make())
    for names in _NAMES:
        called = [*names, *(f"more{i}" for i in range(count))][:count]
        dims = dict(zip(called, subject.dims.values(), strict=True))
        try:
            fusion = subject.make(dims=dims)
        except FusionZooError as error:
            if subject.options:
                skip(f"these options refuse the names {called}: {error}")
            raise
        except Exception as error:
            fail(f"for the names {called}: {describe_error(error)}", "number parts; a module's name may hold no dot")
        out = fusion(dict(zip(called, x, strict=True)), ragged())
        what = f"when the modalities are called {', '.join(called)}"
        fix = "let nothing depend on hash(name), on the order of a set, or on a word such as 'text'"
        close(out, expected, what, fix, rtol=0, atol=0)
        if [v.shape for v in tensor_state(fusion).values()] != [v.shape for v in weights.values()]:
            fail(f"the state dict differs {what}", fix)
