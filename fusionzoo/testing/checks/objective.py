"""Checks of an objective: a finite scalar in every edge case, that depends on what it should and on nothing else."""

from __future__ import annotations

from dataclasses import replace

import torch

from fusionzoo.errors import OptionError
from fusionzoo.host import HostOutput
from fusionzoo.objective import IGNORE
from fusionzoo.testing.comparisons import close, counts, differs, finite, largest, reached
from fusionzoo.testing.runner import describe_error, fail, rules, skip
from fusionzoo.testing.subjects import CLASSES

rule = rules("objective", theme="objective", needs=("constructs", "runs"))
_IGNORED = f"select labels != {IGNORE} first; divide by their number, at least one"


@rule(needs=("subclasses_base",))
def constructs(subject):
    """It is built from num_classes, with class counts and without."""
    for extra in ({}, {"class_counts": None}):
        try:
            subject.build(**extra)
        except Exception as error:
            if extra and subject.options and isinstance(error, OptionError):
                continue  # an option that needs the counts says so
            fail(f"building it raises {describe_error(error)}", "take (num_classes, class_counts=None, *, options)")


@rule(needs=("constructs",))
def runs(subject):
    """A batch gives a finite scalar."""
    loss = subject.run(subject.make(), subject.inputs())
    if not isinstance(loss, torch.Tensor) or loss.dim():
        fail(
            f"it returns {tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__}",
            "return a scalar",
        )
    finite(loss, "the loss of random logits", "use log_softmax, not log(softmax)")


def _leaves(out):
    """The same output as leaves that want a gradient, as training's streams do: the output, and its tensors."""
    logits = out.logits.detach().requires_grad_()
    streams = {k: v.detach().requires_grad_() for k, v in out.streams.items()}
    return HostOutput(logits, streams), [logits, *streams.values()]


def _loss_and_gradient(subject, case, what):
    """The loss, and per utterance `(B, T, n)` the gradients of the logits and of all streams."""
    out, batch = case
    out, tensors = _leaves(out)
    loss = subject.make()(out, batch)
    finite(loss, f"the loss {what}", _IGNORED)
    if loss.requires_grad:
        loss.backward()
    gradient = torch.cat([torch.zeros_like(x) if x.grad is None else x.grad for x in tensors], -1)
    finite(gradient, f"the gradient {what}", _IGNORED)
    return loss.detach(), gradient


@rule()
def no_labels(subject):
    """A batch without a labelled utterance gives zero, with zero gradient."""
    out, batch = subject.case()
    usual, usual_gradient = _loss_and_gradient(subject, (out, batch), "of random logits")
    batch = replace(batch, labels=torch.full_like(batch.labels, IGNORE))
    loss, gradient = _loss_and_gradient(subject, (out, batch), "without any label")
    if bool(counts(loss, usual.abs())) or bool(counts(gradient, largest(usual_gradient)).any()):
        fail(f"without any label the loss is {float(loss):.3g}, or its gradient is not zero", _IGNORED)


@rule()
def no_labels_backward(subject):
    """The loss of a batch without labels can be sent backward like any other."""
    out, batch = subject.case()
    batch = replace(batch, labels=torch.full_like(batch.labels, IGNORE))
    loss = subject.make()(_leaves(out)[0], batch)
    if not loss.requires_grad:
        fail("without any label the loss has no graph, so that backward() raises", "return logits.sum() * 0 there")


@rule()
def one_label(subject):
    """One labelled utterance in the batch is enough."""
    out, batch = subject.case()
    labels = torch.full_like(batch.labels, IGNORE)
    labels[0, 0] = 1
    _loss_and_gradient(subject, (out, replace(batch, labels=labels)), "with one label")


@rule()
def one_class(subject):
    """A batch in which all labels are of one class gives a finite loss."""
    out, batch = subject.case()
    for c in range(CLASSES):
        labels = torch.where(batch.mask, c, IGNORE)
        _loss_and_gradient(subject, (out, replace(batch, labels=labels)), f"with labels of class {c} only")


@rule()
def single_utterance(subject):
    """A batch of one utterance gives a finite loss."""
    _loss_and_gradient(subject, subject.case(batch=1, steps=1), "of one utterance")


@rule()
def empty_class(subject):
    """A class without training utterances gives a finite loss, even when the batch has one."""
    out, batch = subject.case()
    objective = subject.build(class_counts=torch.tensor([5.0, 3.0, 0.0])).eval()
    finite(objective(out, batch), "the loss with a class count of zero", "clamp the counts before dividing by them")


@rule()
def extreme_logits(subject):
    """Logits of size 1e4, right or wrong, give a finite loss and gradient."""
    _loss_and_gradient(subject, subject.case(scale=1e4), "of logits around 1e4; use log_softmax or logsumexp")


@rule()
def equal_logits(subject):
    """Equal logits, and streams of zeros, give a finite loss and gradient."""
    out, batch = subject.case()
    zeros = HostOutput(torch.zeros_like(out.logits), {k: torch.zeros_like(v) for k, v in out.streams.items()})
    _loss_and_gradient(subject, (zeros, batch), "of zeros; norm and sqrt have infinite slope there")


@rule()
def two_classes(subject):
    """Two classes work."""
    subject.options = {k: v for k, v in subject.options.items() if not _per_class(v)}
    objective = subject.build(2).eval()
    out, batch = subject.case()
    labels = torch.where(batch.mask, batch.labels.clamp(0, 1), IGNORE)
    streams = {k: v[..., :2] if k.endswith(".logits") else v for k, v in out.streams.items()}
    loss = objective(HostOutput(out.logits[..., :2], streams), replace(batch, labels=labels))
    finite(loss, "the loss of two classes", "use self.num_classes")


def _per_class(value):
    """Whether an option is a sequence of numbers, one per class."""
    return isinstance(value, (list, tuple, torch.Tensor)) and not any(isinstance(v, str) for v in value)


@rule()
def padding_values(subject):
    """Logits and streams at padded steps do not change the loss and receive no gradient."""
    out, batch = subject.case()
    expected, _ = _loss_and_gradient(subject, (out, batch), "of random logits")
    for value in (3.0, -1e4):
        real = batch.mask.unsqueeze(-1)
        streams = {k: torch.where(real, v, value) for k, v in out.streams.items()}
        case = HostOutput(torch.where(real, out.logits, value), streams), batch
        loss, gradient = _loss_and_gradient(subject, case, f"with {value} in the padding")
        close(loss, expected, f"with {value} in padded logits and streams", _IGNORED)
        if bool(counts(gradient, largest(gradient))[~batch.mask].any()):
            fail("padded steps receive a gradient", _IGNORED)


@rule()
def padding_length(subject):
    """More padding does not change the loss."""
    out, batch = subject.case()

    def longer(x, value=0.0):
        return torch.cat([x, torch.full_like(x[:, :1], value).expand(-1, 3, *x.shape[2:])], 1)

    padded = replace(
        batch,
        features={m: longer(x) for m, x in batch.features.items()},
        mask=longer(batch.mask, False),
        speakers=longer(batch.speakers, 0),
        labels=longer(batch.labels, IGNORE),
    )
    more = HostOutput(longer(out.logits), {k: longer(v) for k, v in out.streams.items()})
    objective = subject.make()
    close(objective(more, padded), objective(out, batch), "with the length of the padding", _IGNORED)


@rule()
def unlabelled_values(subject):
    """Logits of real but unlabelled utterances receive no gradient."""
    out, batch = subject.case()
    labels = batch.labels.clone()
    labels[0, 1:3] = IGNORE
    _, gradient = _loss_and_gradient(subject, (out, replace(batch, labels=labels)), "with unlabelled utterances")
    if bool(counts(gradient, largest(gradient))[0, 1:3, :CLASSES].any()):
        fail(f"utterances labelled {IGNORE} receive a gradient", _IGNORED)


@rule()
def batch_order(subject):
    """The order of the dialogues does not change the loss."""
    (out, batch), order, objective = subject.case(), [2, 0, 1], subject.make()
    shuffled = replace(
        batch,
        features={m: x[order] for m, x in batch.features.items()},
        mask=batch.mask[order],
        speakers=batch.speakers[order],
        labels=batch.labels[order],
        ids=[batch.ids[i] for i in order],
    )
    moved = HostOutput(out.logits[order], {k: v[order] for k, v in out.streams.items()})
    close(objective(moved, shuffled), objective(out, batch), "with the order of the dialogues", "treat all alike")


@rule()
def gradient_to_logits(subject):
    """Every labelled utterance's logits, or a stream, receive gradient."""
    out, batch = subject.case()
    logits = out.logits.requires_grad_()
    streams = {k: v.requires_grad_() for k, v in out.streams.items()}
    loss = subject.make()(HostOutput(logits, streams), batch)
    if not loss.requires_grad:
        fail("the loss depends neither on the logits nor on a stream", "do not detach, argmax or compare")
    loss.backward()
    felt = torch.zeros_like(batch.mask)
    for there in reached({"logits": logits.grad, **{f"stream {k}": v.grad for k, v in streams.items()}}).values():
        if there.dim():
            felt |= there.any(-1)
    blind = int(((batch.labels != IGNORE) & ~felt).sum())
    if blind:
        fail(
            f"{blind} of {int(batch.mask.sum())} labelled utterances receive no gradient",
            "do not detach, argmax or compare",
        )


@rule()
def labels_used(subject):
    """Other labels give another loss, unless the class says that it reads only which utterances have one."""
    if not subject.cls.uses_labels:
        skip("uses_labels is False: it compares streams with each other")
    out, batch = subject.case()
    objective = subject.make()
    # Not a permutation of the classes: a contrastive loss reads only which labels are equal.
    other = replace(batch, labels=torch.where(batch.labels == 1, 0, batch.labels))
    if not differs(objective(out, batch), objective(out, other)):
        fail("the loss does not depend on the labels", "use batch.labels")


@rule()
def prefers_truth(subject):
    """Logits that point at the labels lose less than logits that point elsewhere."""
    out, batch = subject.case()
    objective = subject.make()
    right = torch.nn.functional.one_hot(batch.labels.clamp(min=0), CLASSES).float() * batch.mask.unsqueeze(-1) * 3
    good = objective(HostOutput(right, out.streams), batch)
    bad = objective(HostOutput(right.roll(1, -1), out.streams), batch)
    if not differs(good, bad):
        skip("the loss does not read the logits")
    if not float(good) < float(bad):
        fail(f"the loss is {good:.4g} for right and {bad:.4g} for wrong predictions", "check the sign: lower is better")


@rule()
def descends(subject):
    """Small steps down the gradient lower the loss."""
    out, batch = subject.case()
    objective = subject.make()
    tensors = [out.logits.clone().requires_grad_(), *(v.clone().requires_grad_() for v in out.streams.values())]

    def loss():
        return objective(HostOutput(tensors[0], dict(zip(out.streams, tensors[1:], strict=True))), batch)

    first = loss()
    for _ in range(5):
        gradient = torch.autograd.grad(loss(), tensors, allow_unused=True)
        with torch.no_grad():
            for t, g in zip(tensors, gradient, strict=True):
                if g is not None:
                    t -= 0.05 * g
    if not float(loss()) < float(first):
        fail(
            f"five steps down the gradient take the loss from {float(first):.4g} to {float(loss()):.4g}",
            "check its sign",
        )


@rule()
def inputs_untouched(subject):
    """Neither the output nor the batch is changed in place."""
    (out, batch), (before, fresh) = subject.case(), subject.case()
    subject.make()(out, batch)
    pairs = [(out.logits, before.logits), (batch.labels, fresh.labels), (batch.mask, fresh.mask)]
    pairs += [(out.streams[k], before.streams[k]) for k in before.streams if k in out.streams]
    if not all(torch.equal(a, b) for a, b in pairs) or set(out.streams) != set(before.streams):
        fail("computing the loss changes the output or the batch", "work on copies; no logits[...] = ...")


@rule()
def half_precision(subject):
    """bfloat16 logits, as mixed precision gives them, give a finite loss near the float32 one."""
    out, batch = subject.case()
    objective = subject.make()
    low = HostOutput(out.logits.bfloat16(), {k: v.bfloat16() for k, v in out.streams.items()})
    try:
        loss = objective(low, batch)
    except RuntimeError as error:
        fail(f"bfloat16 logits raise {describe_error(error)}", "start with logits.float()")
    finite(loss, "the loss of bfloat16 logits", "start with logits.float()")
    close(loss.float(), objective(out, batch), "with bfloat16 logits", "start with logits.float()", rtol=0.1, atol=0.05)


@rule()
def gradcheck(subject):
    """In float64 the gradients of the logits and of the streams agree with finite differences."""
    out, batch = subject.case(batch=2, steps=2)
    objective = subject.make().double()
    out, leaves = _leaves(HostOutput(out.logits.double(), {k: v.double() for k, v in out.streams.items()}))
    first = objective(out, batch)
    if first.requires_grad:
        first.backward()
    # What receives no gradient at all is constant on purpose (a teacher, a target); what does, must receive the right one.
    read = [i for i, x in enumerate(leaves) if x.grad is not None] or [0]

    def loss(*given):
        tensors = [x.detach() for x in leaves]
        for i, x in zip(read, given, strict=True):
            tensors[i] = x
        return objective(HostOutput(tensors[0], dict(zip(out.streams, tensors[1:], strict=True))), batch).double()

    # Wide differences: losses compute in float32 on purpose (mixed precision), which is too coarse for 1e-6.
    try:
        torch.autograd.gradcheck(loss, [leaves[i] for i in read], eps=1e-2, atol=5e-3, rtol=1e-2)
    except RuntimeError as error:
        fail(
            f"the gradient is not that of the loss: {' '.join(str(error).split())[:300]}",
            "look for .detach() and no_grad",
        )
