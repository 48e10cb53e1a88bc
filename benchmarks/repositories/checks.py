"""What is checked of one model with one fusion, apart from what the library proves of itself."""

from __future__ import annotations

import random
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy
import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo import Patch
from fusionzoo._registry import registry
from fusionzoo.errors import FusionZooError, NoSiteError
from fusionzoo.patching import Call
from fusionzoo.patching.promises import APART, PADDING, Promise
from fusionzoo.patching.torch_calls import everything_in
from repositories.batches import changed, padded_otherwise

Outputs = list[Tensor]
#: Words of a reason that lies in the model or the batch.
EXCUSES = (
    "itself", "holds one sample", "no step of this batch is padding", "no axis of time", "come in one argument", "of another size",
    "no parameters",
)  # fmt: skip


class Model:
    """A repository's model with its call; every run begins from the same state and seed, and leaves them."""

    def __init__(self, model: nn.Module, call: Call):
        self.model, self.call = model, call
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def run(self, train: bool, call: Call | None = None) -> Outputs:
        """The floating-point outputs."""
        buffers = [(b, b.detach().clone()) for b in self.model.buffers()]
        self.model.train(train)
        seed(3)
        with torch.no_grad():
            out = (call or self.call).fresh().of(self.model)
            for buffer, before in buffers:
                buffer.copy_(before)
        return [x.detach().clone() for x in everything_in(out) if x.is_floating_point()]

    def both(self) -> list[Outputs]:
        """In eval mode and in training."""
        return [self.run(False), self.run(True)]

    def restore(self) -> None:
        """The parameters and buffers that it had."""
        self.model.load_state_dict(self.state)

    def backward(self) -> None:
        """Gradients of a loss over all outputs, in training."""
        self.model.train()
        seed(4)
        out = [x for x in everything_in(self.call.fresh().of(self.model)) if x.is_floating_point() and x.requires_grad]
        sum(((x - 1) ** 2).mean() for x in out).backward()  # type: ignore[union-attr]

    def refuses_training(self) -> str:
        """Why the bare model cannot be trained; empty where it can."""
        try:
            self.backward()
        except Exception as error:
            return _words(error)
        finally:
            self.model.zero_grad()
            self.restore()
        return ""

    def step(self, patch: Patch) -> dict[str, bool]:
        """Two steps of Adam; whether the first moves parameters of the fusion and of the host."""
        ours = {id(p) for p in patch.parameters()}
        own = [p for p in self.model.parameters() if id(p) in ours]
        host = [p for p in self.model.parameters() if id(p) not in ours and p.requires_grad]
        before = [p.detach().clone() for p in own], [p.detach().clone() for p in host]
        optimizer = torch.optim.Adam([p for p in self.model.parameters() if p.requires_grad], lr=1e-3)
        moved: dict[str, bool] = {}
        for _ in range(2):
            optimizer.zero_grad()
            self.backward()
            optimizer.step()
            for name, now, then in (("fusion", own, before[0]), ("host", host, before[1])):
                moved.setdefault(name, any(not torch.equal(p, q) for p, q in zip(now, then, strict=True)))
        return moved


def seed(number: int) -> None:
    """All random states that a model may draw from."""
    torch.manual_seed(number)
    numpy.random.seed(number)
    random.seed(number)


def same(xs: Any, ys: Any) -> bool:
    """Bit-identical outputs, of one run or several."""
    if isinstance(xs, list):
        return len(xs) == len(ys) and all(map(same, xs, ys))
    return xs.shape == ys.shape and torch.equal(xs.nan_to_num(), ys.nan_to_num())


@contextmanager
def without_adapters() -> Iterator[None]:
    """No adapter is known while the block runs."""
    names = registry.names
    with mock.patch.object(
        type(registry), "names", lambda self, kind="fusion", *a: [] if kind == "adapter" else names(kind, *a)
    ):
        yield


def examine(
    builder: ModuleType, load: Callable[[], tuple[nn.Module, Call, dict[str, Any]]], fusion: str, alone: bool
) -> dict[str, Any]:
    """All checks of one model with one fusion: a record whose `state` is "right", "wrong", "refused" or "does not run"."""
    record: dict[str, Any] = {"fusion": fusion, "alone": alone, "state": "does not run"}
    torch.manual_seed(1)
    try:
        model, call, options = load()
        try:
            record["modernised"] = fusionzoo.modernise(model)
        except NoSiteError:
            record["modernised"] = []
        host = Model(model, call)
        bare = host.both()
        if not bare[0]:
            raise RuntimeError("the model returns no floating-point tensor")
        if why := host.refuses_training():
            raise RuntimeError(f"the backward pass of the bare model raises {why}")
    except Exception as error:  # a repository's own code raises whatever it likes
        return record | {"error": _words(error)}
    record |= {"model": type(model).__name__, "repeatable": same(bare, host.both()), "given": []}
    names = {n: sorted(vars(m)) for n, m in model.named_modules()}
    try:
        with without_adapters() if alone else nullcontext():
            record |= _checked(builder, host, put_in(builder, model, fusion, call, options, record), bare)
    except FusionZooError as error:
        return record | {"state": "refused", "error": _words(error)}
    except Exception as error:
        return record | {
            "state": "wrong",
            "error": _words(error),
            "log": "".join(traceback.format_exception(error))[-3000:],
        }
    record["checks"]["remove"] &= names == {n: sorted(vars(m)) for n, m in model.named_modules()}
    fine = all(v is not False for v in record["checks"].values())
    return record | {"state": "right" if fine else "wrong", "proved": proved(builder, record)}


def put_in(
    builder: ModuleType, model: nn.Module, fusion: str, call: Call, options: dict[str, Any], record: dict[str, Any]
) -> Patch:
    """The patch by one line; where an adapter knows the model, the site that it knows, proved with the call all the same.

    Parameters
    ----------
    builder : module
        Of the host.
    model : nn.Module
        The host.
    fusion : str
        What is put in.
    call : Call
        What the model is called with.
    options : dict
        What nothing in the model says, such as `modalities=`: tried only where the patch is refused, or not proved, without it.
    record : dict
        Gets `adapter`, `given` and, where something was given, `without`: the refusal.
    """
    try:
        known = fusionzoo.patch(model, fusion, dry_run=True)
    except NoSiteError:
        record["adapter"] = False
    else:
        record["adapter"], layer = True, known.layer
        told = {"site": known.site, "context": layer.context, "layout": layer.plan.layout}
        return fusionzoo.patch(model, fusion, inputs=call, **told)
    try:
        patch = fusionzoo.patch(model, fusion, inputs=call)
        unproved = [p for p in patch.proof.promises if p.state != "proved" and not excused(builder, said(p))]
        if not options or not unproved:
            return patch
        patch.remove()
        record |= {"given": sorted(options), "without": "; ".join(f"{p.words}: {p.state}, {p.why}" for p in unproved)}
    except FusionZooError as error:
        if not options:
            raise
        record |= {"given": sorted(options), "without": _words(error)}
    return fusionzoo.patch(model, fusion, inputs=call, **options)


def proved(builder: ModuleType, record: dict[str, Any]) -> bool:
    """Whether what the library could try is proved, and what it did not try lies in the model or the batch.

    Where the builder's own check can tell, what was not tried is no excuse.
    """
    own = {APART: record["checks"]["samples apart"], PADDING: record["checks"]["padding unseen"]}

    def fine(promise: dict[str, str]) -> bool:
        untold = promise["state"] == "not tried" and own.get(promise["words"]) is None and excused(builder, promise)
        return promise["state"] == "proved" or untold

    return all(map(fine, record["proof"]))


def said(promise: Promise) -> dict[str, str]:
    """A promise as the record has it."""
    return {"words": promise.words, "state": promise.state, "why": promise.why}


def excused(builder: ModuleType, promise: dict[str, str]) -> bool:
    """Whether what was not tried lies in the model or the batch."""
    excuses = (
        EXCUSES if hasattr(builder, "LENGTHS") else (*EXCUSES, "nothing in the call tells which steps are padding")
    )
    return promise["state"] == "not tried" and any(e in promise["why"] for e in excuses)


def _checked(builder: ModuleType, host: Model, patch: Patch, bare: list[Outputs]) -> dict[str, Any]:
    model = host.model
    site = patch.site
    record: dict[str, Any] = {
        "site": {
            "kind": site.kind,
            "where": site.where,
            "layout": patch.layer.plan.layout,
            "widths": dict(site.widths),
        },
        "proof": [said(p) for p in patch.proof.promises],
        "forwards": patch.proof.forwards,
    }
    checks: dict[str, bool | None] = {"step 0": same(host.both(), bare)}
    record["checks"] = checks
    seen = independent(builder, host, patch)
    checks |= {"samples apart": seen["apart"], "padding unseen": seen["padding"], "felt": seen["felt"]}
    record["moved"] = host.step(patch)
    checks["step"] = all(record["moved"].values())
    trained = host.both()
    with tempfile.TemporaryDirectory() as folder:
        file = patch.save(Path(folder) / "patch.safetensors")
        context = patch.layer.context
        patch.remove()
        checks["step"] &= not same(host.run(False), trained[0])
        again = fusionzoo.load_patch(model, file, context=context)
        checks["saved"] = same(host.both(), trained)
        again.remove()
    host.restore()
    checks["remove"] = same(host.both(), bare)
    return record


def independent(builder: ModuleType, host: Model, patch: Patch) -> dict[str, bool | None]:
    """Whether samples stay apart and padding unseen as in the bare host, by what the builder says of its batch; None: not known.

    The patch is put to sleep again afterwards.
    """
    calls = _calls(builder, host.call)
    base = host.run(False)  # the fusion adds exactly zero
    asleep = {name: _moved(base, host.run(False, call), 0) for name, call in calls.items()}
    told: dict[str, bool | None] = {"apart": None, "padding": None, "felt": None}
    try:
        with _awake(patch):
            now = host.run(False)
            awake = {
                name: _moved(now, host.run(False, call), 1e-3)
                for name, call in calls.items()
                if name in ("one", "padding")
            }
    except Exception:  # the host bears no other values where the fusion's go
        return told
    seen, main = _moved(base, now, 1e-4), getattr(builder, "MAIN", None)
    told["felt"] = seen is None or any(bool(x.any()) for x in (seen if main is None else [seen[main]]))
    own, others, moves = asleep.get("one"), asleep.get("others"), awake.get("one")
    if own and others and moves:
        kept = [o & ~x for o, x in zip(others, own, strict=True)]
        if any(bool(k.any()) for k in kept):
            told["apart"] = not any(bool((m & k).any()) for m, k in zip(moves, kept, strict=True))
    own, reached, moves = asleep.get("padding"), asleep.get("padded"), awake.get("padding")
    if own and reached and moves:
        kept = [r & ~o for r, o in zip(reached, own, strict=True)]  # of samples that have padding
        if any(bool(k.any()) for k in kept):
            told["padding"] = not any(bool((m & ~o).any()) for m, o in zip(moves, own, strict=True))
    return told


def _calls(builder: ModuleType, call: Call) -> dict[str, Call]:
    """The builder's call with one sample changed, the others changed, padding changed, those changed that have padding."""
    streams, lengths = getattr(builder, "STREAMS", {}), getattr(builder, "LENGTHS", None)
    flat = lengths if getattr(builder, "FLAT", False) else None
    samples = len(lengths) if lengths else getattr(builder, "SAMPLES", 0)
    calls: dict[str, Call] = {}
    if samples > 1:
        calls["one"] = changed(call, [0], streams, flat)
        calls["others"] = changed(call, list(range(1, samples)), streams, flat)
    padded = padded_otherwise(call, streams, lengths) if lengths and not flat else None
    if lengths and padded is not None:
        calls["padding"] = padded
        short = [i for i, n in enumerate(lengths) if n < max(lengths)]
        calls["padded"] = changed(call, short, streams, None)
    return calls


@contextmanager
def _awake(patch: Patch) -> Iterator[None]:
    """Random numbers in the place of the zeros by which the fusion comes in."""
    zero = [p for p in patch.parameters() if not p.detach().any()]
    torch.manual_seed(9)
    try:
        with torch.no_grad():
            for p in zero:
                p.normal_(std=0.3 / max(p.shape[-1], 1) ** 0.5)
        yield
    finally:
        with torch.no_grad():
            for p in zero:
                p.zero_()


def _moved(before: Outputs, after: Outputs, share: float) -> list[Any] | None:
    """Where outputs moved by more than a share of the largest one; with features of a step taken together."""
    if [x.shape for x in before] != [x.shape for x in after]:
        return None
    out = []
    for x, y in zip(before, after, strict=True):
        x, y = x.double().nan_to_num(), y.double().nan_to_num()
        hit = (x - y).abs() > share * max(float(x.abs().max()) if x.numel() else 0.0, 1e-12)
        out.append(hit.any(-1, keepdim=True).expand_as(hit) if hit.dim() > 1 else hit)
    return out


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
