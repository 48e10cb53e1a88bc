"""Checks of an objective: what it weighs, what it divides by, and what it needs."""

from __future__ import annotations

from dataclasses import replace

import torch

from fusionzoo.errors import FusionZooError, OptionError
from fusionzoo.host import HostOutput
from fusionzoo.objective import IGNORE
from fusionzoo.testing.comparisons import close, differs, finite, step_after_step
from fusionzoo.testing.runner import describe_error, fail, rules, skip
from fusionzoo.testing.subjects import CLASSES

rule = rules("objective", theme="weights and scale", needs=("constructs", "runs"))


@rule()
def counts_of_any_type(subject):
    """Class counts are integers by nature: they give the loss of the same numbers as floats."""
    expected = subject.run(subject.make(class_counts=torch.tensor([5.0, 3.0, 1.0])), subject.inputs())
    try:
        loss = subject.run(subject.make(class_counts=torch.tensor([5, 3, 1])), subject.inputs())
    except Exception as error:
        fail(f"class counts of dtype int64: {describe_error(error)}", "compute with self.class_counts.float()")
    close(loss, expected, "when the class counts are integers", "compute with self.class_counts.float()")


@rule()
def rare_classes_count_no_less(subject):
    """Class counts never make an utterance of a frequent class weigh more beside one of a rare class."""
    out, batch = subject.case()
    where = [tuple((batch.labels == c).nonzero()[0].tolist()) for c in (0, 1)]

    def ratio(counts):
        objective = subject.make(class_counts=torch.tensor(counts))
        logits = torch.zeros_like(out.logits).requires_grad_()  # every class as likely: weights alone differ
        loss = objective(HostOutput(logits, out.streams), batch)
        if loss.requires_grad:
            loss.backward()
        if logits.grad is None:
            skip("the loss does not read the logits")
        first, second = (float(logits.grad[i].norm()) for i in where)
        return first / second if second else None

    frequent, rare = ratio([90.0, 5.0, 5.0]), ratio([5.0, 90.0, 5.0])
    if frequent is not None and rare is not None and frequent > rare * 1.001:
        fail(
            f"an utterance of class 0 weighs {frequent:.3g} times one of class 1 where class 0 is frequent, "
            f"and {rare:.3g} times where it is rare",
            "weights go with the inverse of the counts",
        )


@rule(needs=("constructs", "runs", "padding_values", "unlabelled_values"))
def divides_by_what_is_labelled(subject):
    """Real utterances without a label do not change the scale: the loss is that of the labelled ones alone."""
    out, batch = subject.case()
    if _reads_streams(subject, out, batch):
        skip("it reads streams, of unlabelled utterances too")
    labels = batch.labels.clone()
    labels[0, 3:] = IGNORE
    mask = batch.mask.clone()
    mask[0, 3:] = False
    objective = subject.make()
    close(
        objective(out, replace(batch, labels=labels)),
        objective(out, replace(batch, labels=labels, mask=mask)),
        "between utterances that have no label and ones that are not there",
        f"divide by (labels != {IGNORE}).sum(), at least one",
    )


def _reads_streams(subject, out, batch) -> bool:
    streams = {k: v.detach().requires_grad_() for k, v in out.streams.items()}
    loss = subject.make()(HostOutput(out.logits.detach().requires_grad_(), streams), batch)
    if not loss.requires_grad:
        return True
    loss.backward()
    return any(v.grad is not None for v in streams.values())


@rule()
def unlabelled_is_true(subject):
    """Where uses_labels is False, other labels of the same utterances give the same loss."""
    if subject.cls.uses_labels:
        skip("uses_labels is True")
    out, batch = subject.case()
    other = replace(batch, labels=torch.where(batch.labels == IGNORE, IGNORE, (batch.labels + 1) % CLASSES))
    objective = subject.make()
    if differs(objective(out, other), objective(out, batch)):
        fail("uses_labels is False, but other labels give another loss", "say uses_labels = True")


@rule()
def float16_finite(subject):
    """float16 logits and streams give a finite loss and finite gradients, near those of float32."""
    out, batch = subject.case(scale=8.0)
    objective = subject.make()
    exact = objective(out, batch)
    low = HostOutput(out.logits.half().requires_grad_(), {k: v.half().requires_grad_() for k, v in out.streams.items()})
    fix = "start with logits.float(): 1e-8 is zero in float16"
    try:
        loss = objective(low, batch)
        if loss.requires_grad:
            loss.float().backward()
    except RuntimeError as error:
        fail(f"float16 logits raise {describe_error(error)}", fix)
    finite(loss, "the loss of float16 logits", fix)
    close(loss.float(), exact, "with float16 logits", fix, rtol=0.1, atol=0.05)
    for name, x in {"the logits": low.logits, **low.streams}.items():
        if x.grad is not None:
            finite(x.grad, f"the gradient of {name} in float16", fix)


@rule()
def absent_stream_explained(subject):
    """A host that does not report a stream which it needs gets an error of ours that says which, or a loss."""
    out, batch = subject.case()
    objective = subject.make()
    for lacking in ([], [k for k in out.streams if k.partition(".")[0] != "audio"]):
        kept = {k: out.streams[k] for k in lacking}
        what = "without any stream" if not kept else "without the streams of 'audio'"
        try:
            loss = objective(HostOutput(out.logits, kept), batch)
        except FusionZooError:
            continue
        except Exception as error:
            fail(
                f"{what} it raises {describe_error(error)}",
                "go by objective.need(out, name), or raise fusionzoo.errors.StreamError that names the stream",
            )
        finite(loss, f"the loss {what}", "skip what is not there")


@rule(needs=("constructs",))
def counts_of_another_length_refused(subject):
    """Class counts that are not one per class raise OptionError."""
    try:
        subject.make(class_counts=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    except OptionError:
        return
    except Exception as error:
        fail(f"five class counts for {CLASSES} classes raise {describe_error(error)}", "leave them to the base class")
    fail(f"five class counts are taken for {CLASSES} classes", "leave them to the base class")


@rule()
def holds_no_graph(subject):
    """Training step after step behind a host can be sent backward: nothing is kept with the graph of an earlier step."""
    objective = subject.make().train()

    def loss(step: int) -> torch.Tensor:
        out, batch = subject.case(step)
        weight = torch.ones(()).requires_grad_()
        # As behind a host: what the streams were computed from is freed by each backward pass.
        behind = HostOutput((out.logits * weight).tanh(), {k: (v * weight).tanh() for k, v in out.streams.items()})
        return objective(behind, batch)

    step_after_step(loss)
