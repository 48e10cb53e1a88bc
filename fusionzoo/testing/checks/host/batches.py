"""Checks of a host: padding, batch independence, missing modalities, gradients to inputs, precision."""

from __future__ import annotations

from dataclasses import replace

import torch

from fusionzoo.objective import IGNORE
from fusionzoo.testing.comparisons import close, differs, finite, gradients, reached, run, same, sent_back
from fusionzoo.testing.runner import describe_error, fail, rules

rule = rules("host", theme="batches")
_PAD = (
    "hand batch.mask to every softmax, pool and recurrence (fusionzoo.numerics); pack sequences by batch.lengths_list()"
)


def _only(batch, row, steps=None):
    """One dialogue of a batch, without padding unless `steps` says so."""
    n = steps or batch.lengths_list()[row]
    cut = {m: x[row : row + 1, :n] for m, x in batch.features.items()}
    present = None if batch.present is None else {m: x[row : row + 1, :n] for m, x in batch.present.items()}
    rows = (t[row : row + 1, :n] for t in (batch.mask, batch.speakers, batch.labels))
    return replace(batch, **dict(zip(("mask", "speakers", "labels"), rows, strict=True)), features=cut,
                   ids=batch.ids[row : row + 1], present=present, lengths=[batch.lengths_list()[row]])  # fmt: skip


@rule()
def padding_output_zero(subject):
    """Logits at padded steps are exactly zero."""
    batch = subject.batch()
    logits = subject.make()(batch).logits
    if bool((logits[~batch.mask] != 0).any()):
        fail("logits at padded steps are not zero", "implement encode and leave forward to the base class")


@rule()
def padding_poison(subject):
    """NaN in padded features does not change a real step's logits."""
    host, batch = subject.make(), subject.batch()
    expected, out = host(batch).logits, host(subject.batch(fill=torch.nan)).logits
    same(
        out[batch.mask],
        expected[batch.mask],
        "when padded features hold NaN",
        f"take features as encode gets them; {_PAD}",
    )


@rule()
def padding_length(subject):
    """How far a dialogue is padded does not change its logits."""
    host = subject.make()
    short, long = host(subject.batch()).logits, host(subject.batch(steps=9)).logits
    close(long[:, :5], short, "with the length of the padding", _PAD)


@rule()
def padding_speakers(subject):
    """Speakers at padded steps are not read."""
    host, batch = subject.make(), subject.batch()
    other = replace(batch, speakers=torch.where(batch.mask, batch.speakers, 1))
    same(host(other).logits, host(batch).logits, "with the speakers at padded steps", _PAD)


@rule()
def padding_gradient(subject):
    """With NaN in padded features, no gradient is NaN."""
    host, batch = subject.make(), subject.batch(fill=torch.nan)
    subject.loss(host, batch).backward()
    for name, g in gradients(host).items():
        if g is not None:
            finite(g, f"the gradient of {name} with NaN in the padding", _PAD)


@rule()
def batch_independence(subject):
    """A dialogue's logits do not depend on the other dialogues of the batch."""
    host, batch = subject.make(), subject.batch((5, 4, 4))
    features = {m: torch.cat([x[:1], x[1:] * 3 + 1]) for m, x in batch.features.items()}
    fix = "no mean, softmax or normalisation over dim 0 or over the nodes of all dialogues"
    close(host(replace(batch, features=features)).logits[:1], host(batch).logits[:1], "with its batch", fix)


@rule()
def batch_size(subject):
    """A dialogue alone, without padding, has the logits that it has in a batch."""
    host, batch = subject.make(), subject.batch((5, 2, 3))
    logits = host(batch).logits
    for row, n in enumerate(batch.lengths_list()):
        close(host(_only(batch, row)).logits[0], logits[row, :n], f"when dialogue {row} comes alone", _PAD)


@rule()
def batch_order(subject):
    """Dialogues in another order have the same logits in that order."""
    host, batch, order = subject.make(), subject.batch(), [2, 0, 1]
    shuffled = replace(
        batch,
        features={m: x[order] for m, x in batch.features.items()},
        mask=batch.mask[order],
        speakers=batch.speakers[order],
        labels=batch.labels[order],
        ids=[batch.ids[i] for i in order],
        lengths=[batch.lengths_list()[i] for i in order],
    )
    close(
        host(shuffled).logits, host(batch).logits[order], "with the order of the dialogues", "sort back after packing"
    )


@rule()
def labels_unread(subject):
    """Labels and ids are not read: not in eval mode, not in training mode."""
    batch = subject.batch()
    other = replace(batch, labels=torch.where(batch.mask, (batch.labels + 1) % 3, IGNORE), ids=["x", "y", "z"])
    host = subject.make()
    for training in (False, True):
        host.train(training)
        logits = []
        for b in (batch, other):
            torch.manual_seed(2)
            logits.append(host(b).logits)
        mode = "training" if training else "eval"
        same(logits[1], logits[0], f"with the labels in {mode} mode", "labels belong to the objective")


@rule()
def lengths_optional(subject):
    """A batch without `lengths` gives the same logits."""
    host, batch = subject.make(), subject.batch()
    close(host(replace(batch, lengths=None)).logits, host(batch).logits, "without lengths", "use batch.lengths_list()")


@rule()
def inputs_untouched(subject):
    """The batch is not changed."""
    host, batch, fresh = subject.make(), subject.batch(), subject.batch()
    host(batch)
    tensors = {**batch.features, "mask": batch.mask, "speakers": batch.speakers, "labels": batch.labels}
    before = {**fresh.features, "mask": fresh.mask, "speakers": fresh.speakers, "labels": fresh.labels}
    changed = [
        k for k in {*before, *tensors} if k not in tensors or k not in before or not torch.equal(tensors[k], before[k])
    ]
    if changed or batch.lengths != fresh.lengths or batch.ids != fresh.ids:
        fail(f"a forward pass changes the batch: {', '.join(sorted(changed)) or 'lengths or ids'}", "work on copies")


@rule()
def single_item(subject):
    """A batch of one dialogue of one utterance works, in eval and in training mode."""
    host, batch = subject.make(), subject.batch((1,))
    for training in (False, True):
        try:
            logits = host.train(training)(batch).logits
        except Exception as error:
            fail(
                f"B=1, T=1, training={training}: {describe_error(error)}", "no bare squeeze(); LayerNorm for BatchNorm"
            )
        if tuple(logits.shape) != (1, 1, 3) or not bool(logits.isfinite().all()):
            fail(f"B=1, T=1, training={training} gives {tuple(logits.shape)}, or NaN", "no bare squeeze()")


@rule()
def missing_modality(subject):
    """A modality missing from the batch gives finite logits that differ from those with it."""
    host, batch = subject.make(), subject.batch()
    whole = run(subject, batch)
    for m in subject.dims:
        lacking = replace(batch, features={k: x for k, x in batch.features.items() if k != m})
        try:
            logits = host(lacking).logits
        except Exception as error:
            fail(f"without {m!r}: {describe_error(error)}", "hand None to the fusion; features[m] is None when missing")
        finite(logits, f"the logits without {m!r}", _PAD)
        if not differs(run(subject, lacking), whole):
            fail(f"the logits without {m!r} are the same as with it", "use every modality")


@rule()
def missing_items(subject):
    """A modality missing from one dialogue changes that dialogue only, and its values there are not read."""
    host, batch = subject.make(), subject.batch()
    whole = host(batch).logits
    for m in subject.dims:
        there = batch.mask.clone()
        there[0] = False
        x = batch.features[m].clone()
        x[0] = torch.nan
        logits = host(replace(batch, features={**batch.features, m: x}, present={m: there})).logits
        finite(logits, f"the logits when dialogue 0 lacks {m!r}", "hand the mask that encode receives to the fusion")
        close(logits[1:], whole[1:], f"of the other dialogues when dialogue 0 lacks {m!r}", "decide per item")


@rule()
def gradient_to_modalities(subject):
    """Gradient reaches every modality at every real step."""
    batch = subject.batch()
    felt = {m: torch.zeros(3, 5, dtype=torch.bool) for m in subject.dims}
    for seed in range(3):
        _, batch, _ = sent_back(subject, subject.batch(seed=seed), seed, leaves=True)
        for m, there in reached({m: x.grad for m, x in batch.features.items()}).items():
            if there.dim():
                felt[m] |= there.any(-1)
    for m, steps in felt.items():
        blind = int((batch.mask & ~steps).sum())
        if blind:
            fail(
                f"{blind} of {int(batch.mask.sum())} utterances of {m!r} receive no gradient",
                "do not detach or drop it",
            )


@rule()
def statistics_travel(subject):
    """fit_features changes the logits, and a state dict carries the statistics."""
    host, batch = subject.make(), subject.batch()
    before = host(batch).logits
    host.fit_features({m: (torch.full((d,), 0.5), torch.full((d,), 2.0)) for m, d in subject.dims.items()})
    after = host(batch).logits
    if not differs(before, after):
        fail("fit_features does not change the logits", "read features as encode gets them, not batch.features")
    fresh = subject.make(1)
    fresh.load_state_dict(host.state_dict())
    same(fresh(batch).logits, after, "when the statistics are saved and loaded", "keep self.standardize")


@rule()
def autocast(subject):
    """Under bfloat16 autocast the logits are finite and near the float32 ones."""
    host, batch = subject.make(), subject.batch()
    exact = host(batch).logits
    try:
        with torch.autocast("cpu", torch.bfloat16):
            out = host(batch).logits
    except RuntimeError as error:
        fail(
            f"autocast raises {describe_error(error)}", "convert with .to(x.dtype) before in-place writes and index_put"
        )
    finite(out, "the logits under autocast", "a fill such as -1e9 overflows: use torch.finfo(scores.dtype).min")
    if not float((out.float() - exact).norm() / exact.norm().clamp(min=1e-6)) < 0.15:
        fail("the logits under autocast are far from the float32 ones", "compute what needs precision in float32")
