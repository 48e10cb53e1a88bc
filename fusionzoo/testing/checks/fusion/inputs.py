"""Checks of a fusion: every form of input, what `fuse` returns, and what is refused."""

from __future__ import annotations

import torch

from fusionzoo.errors import ShapeError
from fusionzoo.fusion import Fused
from fusionzoo.testing.comparisons import close, ragged, refuses, same
from fusionzoo.testing.runner import describe_error, fail, rules, skip

rule = rules("fusion", theme="inputs")
_DOOR = "leave reading the input to the base class: implement combine, not forward"


@rule()
def flat_input(subject):
    """`(B, d)` streams give `(B, out)`, the same as one step of `(B, 1, d)`."""
    fusion, x = subject.make(), subject.streams(steps=1)
    out = fusion({m: v[:, 0] for m, v in x.items()})
    if tuple(out.shape) != (3, fusion.out_dim):
        fail(f"(B, d) streams give {tuple(out.shape)} instead of {(3, fusion.out_dim)}", _DOOR)
    expected = fusion(x)
    close(out, expected if subject.pools else expected[:, 0], "between (B, d) and (B, 1, d)", _DOOR)


@rule()
def sequence_input(subject):
    """A sequence of streams in the order of dims gives the same as a mapping."""
    fusion, x = subject.make(), subject.streams()
    same(fusion(list(x.values())), fusion(x), "between a list and a mapping", _DOOR)
    same(fusion(tuple(x.values())), fusion(x), "between a tuple and a mapping", _DOOR)


@rule()
def key_order(subject):
    """The order of the keys of a mapping does not matter."""
    fusion, x = subject.make(), subject.streams()
    fix = "go by self.names, not by the order of the caller's mapping"
    same(fusion(dict(reversed(x.items()))), fusion(x), "when the mapping's keys come in another order", fix)


@rule()
def fuse_equals_call(subject):
    """fuse(...).fused is what calling the fusion returns."""
    fusion, x, mask = subject.make(), subject.streams(), ragged()
    fix = "compute the attention maps that streams.attention asks for beside the result, not instead of it"
    close(fusion.fuse(x, mask).fused, fusion(x, mask), "between fuse(...).fused and calling it", fix)


@rule()
def fuse_contents(subject):
    """Fuse returns a Fused whose streams are modalities `(B, T, d)`, whose losses are finite scalars."""
    fusion = subject.make()
    result = fusion.fuse(subject.streams(), ragged())
    if not isinstance(result, Fused):
        fail(
            f"fuse returns {type(result).__name__}",
            "combine returns fusionzoo.Fused(fused, streams, attention, losses)",
        )
    for part in ("streams", "attention", "losses"):
        entries = getattr(result, part)
        odd = [k for k, v in entries.items() if not isinstance(k, str) or not isinstance(v, torch.Tensor)]
        if odd:
            fail(f"Fused.{part}[{odd[0]!r}] is not a tensor under a name", "give tensors by name")
    for name, x in result.streams.items():
        if name.partition(".")[0] not in fusion.names or x.shape[0] != 3:
            fail(
                f"Fused.streams[{name!r}] is {tuple(x.shape)}",
                f"name them by modality ({', '.join(fusion.names)}), batch first",
            )
    for name, loss in result.losses.items():
        if loss.dim() or not bool(loss.isfinite()):
            fail(f"Fused.losses[{name!r}] is {loss.detach()}", "losses are finite scalars")


@rule()
def streams_zero_at_padding(subject):
    """The per-modality streams of fuse are zero at padded steps."""
    mask = ragged()
    result = subject.make().fuse(subject.streams(), mask)
    for name, x in result.streams.items():
        if x.dim() == 3 and x.shape[1] == mask.shape[1] and bool((x[~mask] != 0).any()):
            fail(
                f"Fused.streams[{name!r}] is not zero at padded steps",
                "do not override fuse: the base class zeroes them",
            )


@rule()
def capabilities_kept(subject):
    """What the card claims, fuse delivers: attention maps and auxiliary losses."""
    claims = [c for c in ("attention", "losses") if subject.handles(c)]
    if not claims:
        skip("the card claims neither attention maps nor auxiliary losses")
    result = subject.make().fuse(subject.streams(), ragged())
    for claim in claims:
        if not getattr(result, claim):
            fail(f"the card claims {claim!r}, but Fused.{claim} is empty", f"fill it, or take {claim!r} out of handles")


def _maps(subject):
    fusion = subject.make()
    found = fusion.fuse(subject.streams(), ragged()).attention
    if not found:
        skip("it has no attention maps")
    return found


@rule()
def attention_sums_to_one(subject):
    """Attention over the last axis sums to one (maps `q->k`: over all keys of q together), or to zero without keys."""
    groups: dict[str, list[torch.Tensor]] = {}
    for name, weights in _maps(subject).items():
        groups.setdefault(name.split("->")[0] if "->" in name else name, []).append(weights)
    for name, parts in groups.items():
        total = torch.stack([p.sum(-1) for p in parts]).sum(0)
        wrong = ~((total - 1).abs() < 1e-3) & ~(total.abs() < 1e-6)
        if bool(wrong.any()):
            fail(
                f"the attention {name!r} sums to {float(total[wrong][0]):.3g} over its last axis instead of 1",
                "take the softmax over the keys (masked_softmax(scores, mask, dim=-1)), or transpose the map",
            )
        if not bool((total > 0.5).any()):
            fail(f"the attention {name!r} is zero everywhere", "return the weights that were used")


@rule()
def attention_not_negative(subject):
    """Attention weights are finite and not negative."""
    for name, weights in _maps(subject).items():
        if not bool(weights.isfinite().all()) or bool((weights < 0).any()):
            fail(
                f"the attention {name!r} has a weight of {float(weights.min()):.3g}",
                "return the weights after the softmax",
            )


@rule()
def attention_skips_padding(subject):
    """Real steps give padded keys exactly zero attention."""
    mask = ragged()
    looked = False
    for name, weights in _maps(subject).items():
        keys, queries = weights.shape[-1], weights.shape[-2] if weights.dim() > 2 else 0
        if weights.shape[0] != 3 or keys % 5 or queries % 5 or not queries:
            continue  # not a map from steps to steps: gates over modalities, for example
        looked = True
        key_mask, query_mask = mask.repeat(1, keys // 5), mask.repeat(1, queries // 5)
        shape = (3, *[1] * (weights.dim() - 3))
        padded = query_mask.view(*shape, queries, 1) & ~key_mask.view(*shape, 1, keys)
        given = torch.where(padded, weights, 0.0).abs().max()
        if float(given) != 0:
            fail(
                f"the attention {name!r} gives padded steps up to {float(given):.3g}",
                "use masked_softmax with streams.present",
            )
    if not looked:
        skip("no attention map goes from steps to steps")


@rule()
def inputs_untouched(subject):
    """The caller's streams and masks are not changed in place."""
    fusion, x, mask = subject.make(), subject.streams(), ragged()
    masks = {m: mask.clone() for m in x}
    before = {m: v.clone() for m, v in x.items()}
    fusion(x)
    fusion.fuse(x, mask)
    fusion(x, masks)
    changed = [m for m in x if not torch.equal(x[m], before[m])]
    if changed:
        fail(
            f"the stream {changed[0]!r} was changed in place",
            "use x + y instead of x += y, and no x[...] = on the input",
        )
    if not torch.equal(mask, ragged()) or not all(torch.equal(m, mask) for m in masks.values()):
        fail("the mask was changed in place", "work on a copy of the mask")
    if list(x) != list(before) or list(masks) != list(before):
        fail("entries of the caller's mapping were added or removed", "do not change the mapping that was handed in")


@rule()
def memory_layout(subject):
    """Streams that are not contiguous in memory give the same."""
    fusion, x = subject.make(), subject.streams()
    views = {m: v.transpose(0, 1).contiguous().transpose(0, 1) for m, v in x.items()}
    for mask in (None, ragged()):
        try:
            out = fusion(views, mask)
        except Exception as error:
            fail(f"non-contiguous streams raise {describe_error(error)}", "use reshape or flatten instead of view")
        close(out, fusion(x, mask), "with the memory layout of the input", "do not use as_strided or .data_ptr()")


@rule()
def single_step(subject):
    """One step (T=1) works."""
    fusion = subject.make()
    out = fusion(subject.streams(steps=1), torch.ones(3, 1, dtype=torch.bool))
    expected = (3, fusion.out_dim) if subject.pools else (3, 1, fusion.out_dim)
    if tuple(out.shape) != expected or not bool(out.isfinite().all()):
        fail(
            f"T=1 gives {tuple(out.shape)}, finite: {bool(out.isfinite().all())}; expected {expected}",
            "no bare squeeze()",
        )


@rule()
def single_item(subject):
    """One item (B=1) works."""
    fusion = subject.make()
    out = fusion(subject.streams(batch=1), torch.ones(1, 5, dtype=torch.bool))
    expected = (1, fusion.out_dim) if subject.pools else (1, 5, fusion.out_dim)
    if tuple(out.shape) != expected or not bool(out.isfinite().all()):
        fail(
            f"B=1 gives {tuple(out.shape)}, finite: {bool(out.isfinite().all())}; expected {expected}",
            "no bare squeeze()",
        )


@rule()
def training_on_one(subject):
    """Training on one item of one step works."""
    fusion = subject.make().train()
    x = subject.streams(batch=1, steps=1)
    try:
        out = fusion(x)
    except Exception as error:
        fail(f"in training mode, B=1 and T=1 raise {describe_error(error)}", "use LayerNorm instead of BatchNorm")
    if not bool(out.isfinite().all()):
        fail("in training mode, B=1 and T=1 give NaN or infinity", "do not divide by a deviation over one sample")


@rule()
def unaligned_lengths(subject):
    """Where the card claims unaligned sequences, every modality may have its own length and mask."""
    if not getattr(subject.cls, "unaligned", False):
        skip("the method fuses aligned streams, step by step")
    fusion = subject.make()
    lengths = [4 + 2 * i for i in range(len(subject.dims))]
    x = {m: subject.streams(steps=n, seed=i)[m] for i, (m, n) in enumerate(zip(subject.dims, lengths, strict=True))}
    masks = {m: torch.ones(v.shape[:2], dtype=torch.bool) for m, v in x.items()}
    last = list(x)[-1]
    masks[last][:, 3:] = False
    try:
        out = fusion(x, masks)
    except ShapeError as error:
        skip(f"these options fuse aligned streams only: {error}")
    expected = (3, fusion.out_dim) if subject.pools else (3, lengths[0], fusion.out_dim)
    if tuple(out.shape) != expected:
        fail(f"lengths {lengths} give {tuple(out.shape)} instead of {expected}", "return the anchor's length")
    cut = {**x, last: x[last][:, :3]}
    fix = "attend only where streams.present[m] is True"
    close(fusion(cut, {**masks, last: masks[last][:, :3]}), out, f"with the padding of the unaligned {last!r}", fix)


@rule()
def unaligned_declared(subject):
    """The card's `unaligned` and the class attribute agree, and aligned methods refuse different lengths."""
    unaligned = bool(getattr(subject.cls, "unaligned", False))
    if subject.spec is not None and ("unaligned" in subject.spec.handles) != unaligned:
        fail(
            f"the class says unaligned={unaligned}, its card's handles are {sorted(subject.spec.handles)}",
            "make them agree",
        )
    if unaligned:
        return
    x = subject.streams()
    last = list(x)[-1]
    refuses(lambda: subject.make()({**x, last: x[last][:, :3]}), ShapeError, "streams of different lengths")


@rule()
def wrong_width_refused(subject):
    """A stream of the wrong width raises ShapeError that names it."""
    x = subject.streams()
    last = list(x)[-1]
    bad = {**x, last: torch.cat([x[last], x[last]], -1)}
    refuses(lambda: subject.make()(bad), ShapeError, f"a wrong width of {last!r}", (last,))


@rule()
def unknown_stream_refused(subject):
    """A stream under an unknown name raises ShapeError that names it."""
    x = subject.streams()
    bad = {**x, "no-such-stream": next(iter(x.values()))}
    refuses(lambda: subject.make()(bad), ShapeError, "an unknown stream", ("no-such-stream",))


@rule()
def float_mask_refused(subject):
    """A mask that is not bool raises ShapeError: 1.0 may mean real or padded, depending on who wrote it."""
    refuses(lambda: subject.make()(subject.streams(), torch.ones(3, 5)), ShapeError, "a float mask", ("bool",))


@rule()
def wrong_mask_shape_refused(subject):
    """A mask of another shape raises ShapeError."""
    bad = torch.ones(3, 4, dtype=torch.bool)
    refuses(lambda: subject.make()(subject.streams(), bad), ShapeError, "a mask of the wrong shape", ("shape",))


@rule()
def integer_stream_refused(subject):
    """A stream of integers raises ShapeError."""
    x = {m: v.long() for m, v in subject.streams().items()}
    refuses(lambda: subject.make()(x), ShapeError, "an integer stream", ("dtype",))
