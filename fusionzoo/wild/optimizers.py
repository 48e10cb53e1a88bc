"""The optimizers of a script: which module's parameters they hold, and how a fusion's parameters join one."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fusionzoo.wild.replaced import Replaced

# What schedulers keep for every group of the optimizer, beside what they write into the groups.
_PER_GROUP = ("base_lrs", "lr_lambdas", "min_lrs", "max_lrs", "base_momentums", "max_momentums")


class Optimizers:
    """Every optimizer that is made while the script runs.

    made : how many there were so far.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self.made = 0

    def watch(self, replaced: Replaced) -> None:
        """Notice optimizers as they are made."""
        init = Optimizer.__init__

        def noticed(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            init(optimizer, *args, **kwargs)
            self._known.add(optimizer)
            self.made += 1

        replaced.set(Optimizer, "__init__", noticed)

    def share(self, module: nn.Module) -> float:
        """Of what an optimizer holds, the largest part that belongs to a module: 1 where that is all of it."""
        own = {id(p) for p in module.parameters()}
        return max((_part(o, own) for o in self._known), default=0.0) if own else 0.0

    def trained(self) -> list[str]:
        """Class names of what an optimizer holds something of, the largest part first; layers of torch are not named."""
        shares: dict[str, float] = {}
        for thing in gc.get_objects():
            if issubclass(type(thing), nn.Module) and not type(thing).__module__.startswith("torch."):
                name = type(thing).__name__
                shares[name] = max(shares.get(name, 0.0), self.share(thing))
        return sorted((n for n, s in shares.items() if s > 0), key=lambda n: -shares[n])

    def holder(self, module: nn.Module) -> Optimizer | None:
        """The optimizer that holds most of a module, the newest where several do."""
        own = {id(p): p.numel() for p in module.parameters()}
        best, held = None, 0
        for optimizer in self._known:
            here = sum(own.get(id(p), 0) for p in parameters_of(optimizer))
            if here > held or (here == held and best is not None and _is_newer(optimizer, best)):
                best, held = optimizer, here
        return best


def _is_newer(one: Optimizer, other: Optimizer) -> bool:
    """By whether it has trained yet: a script that makes a second optimizer goes on with that one."""
    return not one.state and bool(other.state)


def parameters_of(optimizer: Optimizer) -> list[torch.Tensor]:
    """All that an optimizer holds."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def _part(optimizer: Optimizer, own: set[int]) -> float:
    held = parameters_of(optimizer)
    whole = sum(p.numel() for p in held)
    return sum(p.numel() for p in held if id(p) in own) / whole if whole else 0.0


def join(optimizer: Optimizer, host: nn.Module, fusion: Iterable[nn.Parameter]) -> dict[str, Any] | None:
    """Give a fusion's parameters to an optimizer, as a group of their own with the host's hyper-parameters.

    The group follows the host's before every step, so that whatever the script does to its groups (a scheduler, a line that
    writes `param_groups[0]["lr"]`) is done to the fusion's; schedulers that exist learn of the group.

    Returns
    -------
    The group that it follows; None where nothing was missing.
    """
    held = {id(p) for p in parameters_of(optimizer)}
    missing = [p for p in fusion if p.requires_grad and id(p) not in held]
    if not missing:
        return None
    own = {id(p) for p in host.parameters()}
    followed = max(
        range(len(optimizer.param_groups)),
        key=lambda i: sum(p.numel() for p in optimizer.param_groups[i]["params"] if id(p) in own),
    )
    like = optimizer.param_groups[followed]
    if isinstance(optimizer, torch.optim.LBFGS):  # takes one group only
        like["params"].extend(missing)
        return like
    group = {k: v for k, v in like.items() if k not in ("params", "param_names")}
    if "param_names" in like:
        group["params"] = [(f"fusionzoo.{i}", p) for i, p in enumerate(missing)]
    else:
        group["params"] = missing
    count = len(optimizer.param_groups)
    optimizer.add_param_group(group)
    _tell_schedulers(optimizer, count, followed)

    def follow(stepping: Optimizer, args: Any, kwargs: Any) -> None:
        leader, follower = stepping.param_groups[followed], stepping.param_groups[count]
        follower.update((k, v) for k, v in leader.items() if k not in ("params", "param_names"))

    optimizer.register_step_pre_hook(follow)
    return like


def _tell_schedulers(optimizer: Optimizer, count: int, followed: int) -> None:
    for scheduler in gc.get_objects():
        if not issubclass(type(scheduler), LRScheduler):
            continue
        # Of a wrapper (Accelerate's), which has the same groups.
        if getattr(getattr(scheduler, "optimizer", None), "param_groups", None) is not optimizer.param_groups:
            continue
        for name in _PER_GROUP:
            values = getattr(scheduler, name, None)
            if isinstance(values, list) and len(values) == count:
                values.append(values[followed])
