"""Checks of a fusion: its auxiliary losses, in every call that training makes."""

from __future__ import annotations

import torch

from fusionzoo.testing.comparisons import close, finite, gradients, ragged, reached, sent_back
from fusionzoo.testing.runner import describe_error, fail, rules, skip

rule = rules("fusion", theme="auxiliary losses")
_FINITE = "clamp inside log, sqrt and division; masked means over at least one; no deviation over one sample"


def _losses(fusion, x, mask=None, attention=False):
    return fusion.fuse(x, mask, attention=attention).losses


def _has_losses(subject):
    found = _losses(subject.make().train(), subject.streams(), ragged())
    if not found:
        skip("it has no auxiliary losses")
    return found


@rule()
def losses_finite(subject):
    """Auxiliary losses are finite, and so are their gradients: one item, one step, missing modalities, equal or zero streams."""
    _has_losses(subject)
    x, mask = subject.streams(), ragged()
    equal = {m: subject.streams(seed=3)[next(iter(x))][..., :1].expand(-1, -1, d) for m, d in subject.dims.items()}
    cases = {
        "one item": (subject.streams(batch=1), None),
        "one item of one step": (subject.streams(batch=1, steps=1), None),
        "an item of padding alone": (x, mask & torch.tensor([[True], [False], [True]])),
        "equal streams": (equal, mask),
        "streams of zeros": ({m: torch.zeros_like(v) for m, v in x.items()}, mask),
        "streams around 1e3": ({m: v * 1e3 for m, v in x.items()}, mask),
        **{f"{m!r} missing": ({k: v for k, v in x.items() if k != m}, mask) for m in x},
        **{f"{m!r} alone": ({m: x[m]}, mask) for m in x},
    }
    for what, (streams, given) in cases.items():
        for training in (False, True):
            fusion = subject.make().train(training)
            streams = {m: v.detach().clone().requires_grad_() for m, v in streams.items()}
            try:
                losses = _losses(fusion, streams, given)
            except Exception as error:
                fail(f"with {what}, in {'training' if training else 'eval'}: {describe_error(error)}", _FINITE)
            for name, loss in losses.items():
                finite(loss, f"Fused.losses[{name!r}] with {what}", _FINITE)
            total = sum(losses.values(), torch.zeros(()))
            if total.requires_grad:
                total.backward()
            for name, g in {**gradients(fusion), **{m: v.grad for m, v in streams.items()}}.items():
                if g is not None:
                    finite(g, f"the gradient of {name} from the auxiliary losses with {what}", _FINITE)


@rule()
def losses_skip_padding(subject):
    """Auxiliary losses do not depend on what stands in the padding or how far it goes, in eval mode."""
    _has_losses(subject)
    fusion, x, mask = subject.make(), subject.streams(), ragged()
    expected = _losses(fusion, x, mask)
    fix = "average over real steps: masked_mean, or zero_padded(...).sum() / mask.sum()"
    rubbish = {m: torch.where(mask.unsqueeze(-1), v, 30.0) for m, v in x.items()}
    longer = {m: torch.cat([v, v.new_full((3, 4, v.shape[-1]), 2.0)], 1) for m, v in x.items()}
    more = torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], 1)
    for what, (streams, given) in {"content": (rubbish, mask), "length": (longer, more)}.items():
        for name, loss in _losses(fusion, streams, given).items():
            close(loss, expected[name], f"of Fused.losses[{name!r}] with the {what} of the padding", fix)


@rule()
def losses_ignore_order(subject):
    """Auxiliary losses do not depend on the order of the items, in eval mode."""
    _has_losses(subject)
    fusion, x, mask, order = subject.make(), subject.streams(), ragged(), [2, 0, 1]
    expected = _losses(fusion, x, mask)
    for name, loss in _losses(fusion, {m: v[order] for m, v in x.items()}, mask[order]).items():
        what = f"of Fused.losses[{name!r}] with the order of the items"
        close(loss, expected[name], what, "treat all items alike: couple no item with its neighbour in the batch")


@rule()
def losses_without_maps(subject):
    """Auxiliary losses are there, and the same, whether attention maps are asked for or not: training asks for none."""
    with_maps = subject.make().fuse(subject.streams(), ragged(), attention=True).losses
    without = subject.make().fuse(subject.streams(), ragged(), attention=False).losses
    if not with_maps and not without:
        skip("it has no auxiliary losses")
    lost = sorted(with_maps.keys() ^ without.keys())
    fix = "let streams.attention decide about maps alone"
    if lost:
        fail(f"Fused.losses[{lost[0]!r}] is there only with or only without attention maps", fix)
    for name, loss in without.items():
        close(loss, with_maps[name], f"of Fused.losses[{name!r}] without attention maps", fix)


@rule()
def losses_teach(subject):
    """Every auxiliary loss sends a gradient to a parameter or a stream."""
    names = list(_has_losses(subject))
    for name in names:

        def loss(fusion, given, name=name):
            return _losses(fusion.train(), *given)[name]

        felt = False
        values = []
        for seed in range(3):
            made = (subject.streams(seed=seed), ragged())
            fusion, (x, _), value = sent_back(subject, made, seed, loss=loss, leaves=True)
            values.append(float(value))
            found = {**gradients(fusion), **{f"stream {m}": v.grad for m, v in x.items()}}
            felt = felt or any(bool(g.any()) for g in reached(found).values())
        if not felt and any(values):  # one that is zero throughout has a weight of zero
            fail(f"Fused.losses[{name!r}] sends no gradient anywhere", "do not detach it; what only reports is no loss")
