"""One forward pass in which every tensor carries labels, and every meeting of different streams is noted."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from fusionzoo.patching.call_chain import Step, chain, receiver, user_frames
from fusionzoo.patching.modalities import Leaf
from fusionzoo.patching.torch_calls import ATTENTIONS, PRODUCTS, everything_in, name_of, sequences_in, tensors_in
from fusionzoo.patching.trace.events import Event, Meeting, Operand, Trace
from fusionzoo.patching.trace.labels import (
    MODALITY_MASK,
    compress,
    expand,
    is_pure,
    leaf,
    merge,
    modalities,
    plane,
    read_positions,
)
from fusionzoo.patching.trace.last_seen import Call, gave_tensor
from fusionzoo.patching.trace.no_trace_left import untouched
from fusionzoo.patching.trace.propagation import combined, propagate
from fusionzoo.patching.trace.torch_operations import RECURRENT, RESHAPES
from fusionzoo.patching.whose_code import HostCode


@dataclass
class TorchCall:
    """A call of a torch operation: its plain name, its arguments, the tensors among them, and whose call it is."""

    name: str
    args: Any
    kwargs: Any
    inputs: list[Tensor]
    frame: FrameType


class Tracer(TorchFunctionMode):
    """Propagates labels through every torch call and notes joins."""

    def __init__(self, model: nn.Module, trace: Trace, joins: Mapping[str, Meeting], stop: FrameType):
        super().__init__()
        self.model, self.trace, self.joins, self.stop = model, trace, joins, stop
        self.host = HostCode(model)
        self.labels: dict[int, Tensor] = {}
        self.keep: dict[int, Tensor] = {}  # so that no id is used twice
        self.registered = {id(m): name for name, m in model.named_modules()}
        self.results: dict[int, int] = {}
        self.origins: dict[int, int] = {}  # of results in whatever shape
        self.via: dict[int, int] = {}
        self.weights: set[int] = set()  # what a softmax gave, in whatever shape
        self.waiting: set[int] = set()
        self.given: dict[int, list[Any]] = {}  # what each module was last called with
        self.frames: list[Any] = []  # kept, so that no id is used twice
        self.returned: dict[int, tuple[int, ...]] = {}

    def get(self, x: Any) -> Tensor | None:
        """The labels of a tensor."""
        return self.labels.get(id(x)) if isinstance(x, Tensor) else None

    def tag(self, x: Tensor, labels: Tensor, via: int = 0) -> None:
        """Give a tensor its labels; `via` are the events that it came through, two bits for each.

        The first says that, the second that it was not as weights alone.
        """
        self.labels[id(x)] = labels
        self.keep[id(x)] = x
        if via:
            self.via[id(x)] = via

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if name in ("shape", "dtype", "device", "requires_grad", "grad_fn", "is_leaf", "dim", "size", "layout", "ndim"):
            return func(*args, **kwargs)
        inputs = tensors_in(args) + tensors_in({k: v for k, v in kwargs.items() if k != "out"})
        tagged = [x for x in inputs if id(x) in self.labels]
        if name == "embedding" and not tagged:
            self._look_up(inputs[0])
        if not tagged:
            return func(*args, **kwargs)
        if self.waiting:
            self._consume(tagged, sys._getframe(1))
        before = [(x, self.labels[id(x)]) for x in tagged] if name in self.joins else []
        taken = tuple(self.labels[id(x)] for x in tagged)
        out = func(*args, **kwargs)
        self.trace.calls.append(Call(name, *self._place(sys._getframe(1)), taken, gave_tensor(out)))
        weights = [x for x in tagged if id(x) in self.weights]
        via = self._through(tagged, weights if len(weights) < len(tagged) else [])
        if name == "__setitem__":
            self._assign(args)
            if len(before) > 1:
                via |= self._join(TorchCall(name, args, kwargs, inputs, sys._getframe(1)), before, [], args[0])
                self.via[id(args[0])] = self.via.get(id(args[0]), 0) | via
            return out
        if before:
            got = {id(x): lab for x, lab in before}
            new = propagate(name, func, args, kwargs, out, lambda x: got.get(id(x), self.labels.get(id(x))))
        else:
            new = propagate(name, func, args, kwargs, out, self.get)
        if len(before) > 1:
            via |= self._join(TorchCall(name, args, kwargs, inputs, sys._getframe(1)), before, new, out)
        self._results(name, new, via, inputs, tagged[0])
        if name == "softmax" or len(weights) == len(tagged):
            self.weights.update(id(x) for x, _ in new)
        self._vote(name, args, kwargs)
        return out

    def _through(self, tagged: Sequence[Tensor], weights: Sequence[Tensor]) -> int:
        """The events that a result came through; those of weights, as weights, where they meet what they weigh."""
        every_first = (1 << 2 * len(self.trace.events)) // 3
        via = 0
        for x in tagged:
            mine = self.via.get(id(x), 0)
            via |= mine & every_first if any(x is w for w in weights) else mine
        return via

    def _look_up(self, index: Tensor) -> None:
        """Note an argument whose name says no modality but which is used like tokens."""
        for one in self.trace.leaves:
            if (index is one.tensor or index._base is one.tensor) and one.path not in self.trace.looked_up:
                self.trace.looked_up.append(one.path)

    def _place(self, frame: FrameType | None) -> tuple[CodeType | None, int]:
        """The model's function that runs, and its line."""
        while frame is not None and frame is not self.stop:
            if frame.f_code.co_filename in self.host:
                return frame.f_code, frame.f_lineno
            frame = frame.f_back
        return None, 0

    def _results(self, name: str, new: list[Any], via: int, inputs: list[Tensor], first: Tensor) -> None:
        """Tag what an operation returned; what it only gave another shape stays the result of the same join."""
        for x, labels in new:
            self.tag(x, labels, via)
            if name in RESHAPES and (origin := self.origins.get(id(first))) is not None:
                self.origins[id(x)] = origin
            base = x._base
            if base is not None and any(x is t for t in inputs) and id(base) not in (id(t) for t in inputs):
                self._written(base, labels, via)

    # -- writing into tensors -------------------------------------------------------------------------------------

    def _assign(self, args: Sequence[Any]) -> None:
        target, index, value = args
        labels = self.labels.get(id(target))
        incoming = self.get(value)
        if incoming is None and labels is None:
            return
        full = torch.zeros(1, dtype=torch.int64, device=target.device) if labels is None else labels.to(target.device)
        full = full.expand(target.shape).clone()
        try:
            full[index] = 0 if incoming is None else expand(incoming.to(target.device), value.shape)
        except (IndexError, RuntimeError, ValueError):
            return
        self.tag(target, compress(full), self.via.get(id(target), 0) | self.via.get(id(value), 0))

    def _written(self, base: Tensor, labels: Tensor, via: int) -> None:
        old = self.labels.get(id(base))
        new = merge(labels).reshape([1] * base.dim())
        self.tag(base, new if old is None else old | new, via | self.via.get(id(base), 0))

    # -- joins ----------------------------------------------------------------------------------------------------

    def _join(self, call: TorchCall, before: list[tuple[Tensor, Tensor]], new: list[Any], out: Any) -> int:
        """Note a join, if the call is one: the bit by which what comes of it will be known."""
        operands, results = self._operands(call.inputs, before), tensors_in(out)
        if call.name in ATTENTIONS and _differ(operands):
            operands = operands[:3]  # query, keys and values
        if not results or not (_differ(operands) or (self.joins[call.name].listed and self._all_hold_all(operands))):
            return 0
        join = self.joins[call.name].as_called(call.name, call.args, call.kwargs, call.inputs)
        if join is None:
            return 0
        frames = user_frames(call.frame, self.stop, self.host)
        found = chain(frames, self.registered) if frames else None
        if found is None:
            if frames:
                count = sum(o.bits != 0 for o in operands)
                self.trace.seen.append(f"{call.name} of {count} streams outside any module's method")
            return 0
        owner, steps = found
        first = results[0]
        event = Event(
            index=len(self.trace.events),
            join=join,
            op=call.name,
            operands=operands,
            result=tuple(first.shape),
            result_labels=next((lab for x, lab in new if x is first), None),
            dtype=first.dtype,
            device=first.device,
            owner=owner,
            path=self.registered[id(owner)],
            steps=steps,
            axis=join.axis(call.name, call.args, call.kwargs, first.dim()),
            frame=id(frames[0]),
        )
        if join.attends:
            self._attention(event, call, frames)
        self.trace.events.append(event)
        self.results[id(first)] = self.origins[id(first)] = event.index
        self.waiting.add(id(first))
        self.keep[id(first)] = first
        return 3 << 2 * event.index

    def _all_hold_all(self, operands: list[Operand]) -> bool:
        """Whether streams that have taken from one another before are put together, and not the parts of one."""
        streams = [o for o in operands if o.bits]
        ways = {self.via.get(o.tensor, 0) for o in streams}
        mixed = all(o.bits & (o.bits - 1) for o in streams)
        return mixed and 2 <= len(streams) == len(ways) <= len(self.trace.names)

    def _operands(self, inputs: list[Tensor], before: list[tuple[Tensor, Tensor]]) -> list[Operand]:
        """The operands of a call as they were before it, which may have written into one."""
        known = {id(t): v for t, v in before}
        operands = [self._operand(x) for x in inputs]
        for o in operands:
            o.labels = known.get(o.tensor)
            o.bits = 0 if o.labels is None else modalities(o.labels)
        for o, x in zip(operands, inputs, strict=True):  # indices lead nothing
            o.bits = o.bits if x.is_floating_point() or x.is_complex() else 0
        return operands

    def _attention(self, event: Event, call: TorchCall, frames: list[FrameType]) -> None:
        """The site of an attention is the call whose arguments are the streams, wherever the products stand."""
        if call.name in ATTENTIONS:
            event.raw = call.name, event.operands, event.owner, event.path, event.steps
        event.op = "attention"
        lifted = self._called(call.frame, frames[0], event.owner, event.steps) or self._lift(frames)
        scores: Event | None = None
        if lifted is not None:
            event.owner, event.steps, event.operands, event.callee = lifted
            event.path, event.lifted, event.frame = self.registered[id(event.owner)], True, id(self.frames[-1])
        elif call.name in PRODUCTS or call.name == "einsum":
            scores = self._scores(call.inputs[:2], frames[0])
        if scores is not None:
            scores.absorbed, event.scores = True, scores.index
            event.operands = [next(o for o in scores.operands if o.bits), event.operands[1]]
        elif lifted is not None or event.raw is not None:
            query = next(o for o in event.operands if o.bits)
            event.result, event.result_labels = query.shape, query.labels

    def _scores(self, inputs: list[Tensor], frame: FrameType) -> Event | None:
        """The product of query and keys, in the same function, from which a product with values takes its weights."""
        via = self.via.get(id(inputs[0]), 0)
        for event in reversed(self.trace.events):
            if (
                via >> 2 * event.index & 1
                and event.op == "attention"
                and not event.lifted
                and event.frame == id(frame)
                and event.scores is None
                and len(event.operands) == 2
                and event.result[-2:] == tuple(inputs[0].shape[-2:])
            ):
                return event
        return None

    def _called(self, frame: FrameType | None, user: FrameType, owner: nn.Module, steps: list[Step]) -> Any:
        """A library's attention module that the model's own code calls: its arguments are the streams."""
        found = None
        while frame is not None and frame is not user:  # the outermost one is what the model calls
            module = receiver(frame)
            if isinstance(module, nn.Module) and id(module) in self.given and frame.f_code.co_name == "forward":
                streams = [self._operand(x) for x in sequences_in(self._arguments(frame)[0])]
                if len({o.bits for o in streams if o.bits}) > 1:
                    found = owner, steps, streams, module
            frame = frame.f_back
        if found is not None:
            self.frames.append(self.given[id(found[3])])
        return found

    def _operand(self, x: Tensor) -> Operand:
        labels = self.labels.get(id(x))
        bits = 0 if labels is None else modalities(labels)
        produced = self.results.get(id(x), -1), self.origins.get(id(x), -1)
        return Operand(id(x), tuple(x.shape), labels, bits, *produced)

    def _lift(self, frames: list[FrameType]) -> tuple[nn.Module, list[Step], list[Operand], nn.Module | None] | None:
        """The call whose arguments are the streams that an attention, written out in matrix products, attends between."""
        for i, frame in enumerate(frames[:-1]):
            if frame.f_code.co_name.startswith("<"):
                continue
            given, called = self._arguments(frame)
            streams = [self._operand(x) for x in sequences_in(given)]
            if not _are_streams(streams):
                continue
            found = chain(frames[i + 1 :], self.registered)
            if found is not None:
                self.frames.append(frame if called is None else self.given[id(called)])
                return (*found, streams, called)
        return None

    def _arguments(self, frame: FrameType) -> tuple[list[Tensor], nn.Module | None]:
        """The tensors that a call was given, and the module that was called, where they were noted when it was."""
        code, module = frame.f_code, receiver(frame)
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if isinstance(module, nn.Module) and id(module) in self.given and code.co_name == "forward":
            return tensors_in(self.given[id(module)]), module  # forward may have bound the names anew
        return tensors_in([frame.f_locals.get(n) for n in names]), None

    def _consume(self, tagged: list[Tensor], frame: FrameType) -> None:
        for x in tagged:
            if id(x) in self.waiting:
                self.waiting.discard(id(x))
                event = self.trace.events[self.results[id(x)]]
                event.consumer = self._describe(frame, event)

    def _describe(self, frame: FrameType | None, event: Event) -> str:
        """The module that reads a result, by the innermost call of a module between there and the join's own function."""
        while frame is not None and frame is not self.stop:
            owner = receiver(frame) if frame.f_code.co_argcount else None
            if isinstance(owner, nn.Module) and id(owner) in self.registered:
                name = self.registered[id(owner)]
                kind = type(owner).__name__
                for attribute in ("in_features", "input_size", "embed_dim"):
                    if isinstance(width := getattr(owner, attribute, None), int):
                        kind += f"({width})"
                        break
                return f"{name or '<root>'}:{kind}"
            frame = frame.f_back
        return ""

    def _vote(self, name: str, args: Any, kwargs: Any) -> None:
        """Recurrences and attentions tell which of the input's axes is time."""
        if name in RECURRENT and len(args) > 2 and not (isinstance(args[1], Tensor) and args[1].dim() == 1):
            x, axis = args[0], 1 if args[-1] is True else 0
        elif name == "_pack_padded_sequence":
            x, axis = args[0], 1 if len(args) > 2 and args[2] else 0
        elif name == "multi_head_attention_forward":
            x, axis = args[0], 0
        elif name == "scaled_dot_product_attention":
            x, axis = args[0], args[0].dim() - 2
        else:
            return
        labels = self.get(x)
        if labels is None or labels.dim() <= axis or labels.shape[axis] < 2:
            return
        for i in (0, 1):
            along = read_positions(labels.movedim(axis, 0).flatten(1)[:, 0], i)
            if bool((along >= 0).all()) and len(torch.unique(along)) > 1:
                self.trace.time_votes[i] += 1

    # -- modules --------------------------------------------------------------------------------------------------

    def module_done(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        """What a module computed out of sight keeps its first stream's labels; rows of a stacked list stay whose they were."""
        outs = tensors_in(out)
        if not outs:
            return
        self.returned[id(module)] = tuple(outs[0].shape)
        given = [(x, lab) for x in (*tensors_in(args), *tensors_in(kwargs)) if (lab := self.get(x)) is not None]
        if not given:
            return
        for o in outs:
            # What is the same for every sample, as sines and cosines of positions are, is of no sample.
            of_none = o.dim() > 1 and o.shape[0] == 1 < max((x.shape[0] for x, _ in given if x.dim()), default=1)
            if o.is_floating_point() and id(o) not in self.labels and not of_none:
                via = 0
                for x, _ in given:
                    via |= self.via.get(id(x), 0)
                self.tag(o, combined(o, given), via)
        x, lab = given[0]
        o = outs[0]
        if x.dim() < 2 or lab.shape[0] == 1 or o.dim() < 2 or o.shape[0] != x.shape[0] or o is x:
            return
        rows = merge(lab, range(1, lab.dim()))
        whose = torch.unique(rows & MODALITY_MASK)
        if int((whose > 0).sum()) > 1 and is_pure(rows):
            self.labels[id(o)] = rows.reshape((-1, *[1] * (o.dim() - 1)))


def _differ(operands: list[Operand]) -> bool:
    """Whether streams of different modalities meet, and not the parts of one."""
    streams = [o for o in operands if o.bits]
    if len(streams) < 2:
        return False
    planes = [plane(o.labels) for o in streams if o.labels is not None]
    first = planes[0]
    if all(p.shape == first.shape and torch.equal(p, first) for p in planes[1:]):
        return False
    return len({o.bits for o in streams}) > 1


def run(
    forward: Callable[[], Any],
    model: nn.Module,
    trace: Trace,
    bits: Callable[[Leaf], Any],
    joins: Mapping[str, Meeting],
) -> None:
    """Run the model once with labels; nothing of the model or of the random state is changed by it.

    Parameters
    ----------
    forward : callable
        Calls the model.
    model : nn.Module
        What it calls.
    trace : Trace
        What to fill in.
    bits : callable
        The label of an argument's tensor.
    joins : mapping
        Name of a torch operation -> the kind of join that it is where streams meet in it.
    """
    stop = sys._getframe(0)
    tracer = Tracer(model, trace, joins, stop)
    for one in trace.leaves:
        tracer.keep[id(one.tensor)] = one.tensor
        if one.modality is not None or one.widths is not None:
            tokens = not one.tensor.is_floating_point()
            tracer.tag(one.tensor, leaf(one.tensor.shape, bits(one), tokens, one.axis).to(one.tensor.device))
    hooks = _hooks(tracer, model)
    try:
        eager = torch.compiler.set_stance("force_eager")  # a model may have been compiled in place
        with untouched(model), torch.no_grad(), eager, tracer:
            trace.output = forward()
    finally:
        for hook in hooks:
            hook.remove()
    for event in trace.events:
        if event.callee is not None:
            event.result = tracer.returned.get(id(event.callee), event.result)
    returned = [x for x in everything_in(trace.output) if x.is_floating_point()]
    trace.output_labels = [tracer.get(x) for x in returned]
    outputs = [tracer.via.get(id(x), 0) for x in returned]
    reached = 0
    for via in outputs:
        reached |= via
    if reached:
        for event in trace.events:
            event.live = bool(reached >> 2 * event.index & 1)
            event.main = bool(outputs[0] >> 2 * event.index & 1)
            event.weighs = event.live and not reached >> 2 * event.index & 2


def _hooks(tracer: Tracer, model: nn.Module) -> list[RemovableHandle]:
    """Tells a tracer what modules are called with and return: in its own thread, since hooks on all modules hear every thread."""
    thread, modules = threading.get_ident(), nn.modules.module

    def before(module: nn.Module, given: Any) -> None:
        if threading.get_ident() == thread:
            tracer.given[id(module)] = tensors_in(given)

    def after(module: nn.Module, given: Any, out: Any) -> None:
        if threading.get_ident() == thread:
            _quietly(tracer.module_done, module, given, {}, out)

    def by_name(module: nn.Module, given: Any, named: Mapping[str, Any]) -> None:
        before(module, [*given, *named.values()])

    # Hooks for all modules are not told keyword arguments.
    own = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    return [
        modules.register_module_forward_pre_hook(before),
        *(m.register_forward_pre_hook(by_name, prepend=True, with_kwargs=True) for m in own),
        modules.register_module_forward_hook(after),
    ]


def _quietly(function: Callable[..., None], *args: Any) -> None:
    with torch._C.DisableTorchFunction():
        function(*args)


def _are_streams(operands: Sequence[Operand]) -> bool:
    """Whether these are sequences or vectors, of at least two modalities that nothing has joined yet."""
    labelled = [o for o in operands if o.bits]
    alone = {o.bits for o in labelled if o.bits & (o.bits - 1) == 0}
    return len(alone) > 1 and all(len(o.shape) in (2, 3) for o in labelled)
