"""What goes on in a script: optimizers are made, a model is called in training, it gets a fusion, states are loaded.

Torch's hooks before a forward come too late for a model whose own forward is rewritten (the call goes on with the old one), so
`nn.Module.__call__` itself is another one while the script runs.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

import fusionzoo
from fusionzoo.errors import (
    FusionZooError,
    ModalityError,
    NoSiteError,
    PatchError,
    SiteNotReachedError,
    close_matches_hint,
)
from fusionzoo.patching import InputSite, Patch, Site
from fusionzoo.patching.fuse.layer import FusionLayer
from fusionzoo.patching.repositories import adapter_for
from fusionzoo.patching.wrappers import host_of
from fusionzoo.wild.copies import others_like, snapshots_of, take_along, watch_averages
from fusionzoo.wild.growth import Growth
from fusionzoo.wild.methods import trained_through, turn_into_calls
from fusionzoo.wild.optimizers import Optimizers, join
from fusionzoo.wild.replaced import Replaced
from fusionzoo.wild.wish import Wish


class Watch:
    """Patches the model that a script trains.

    patch : the latest; one is made for every model that is built.
    patched : how many there were.
    growth : of the latest.
    error : why it cannot be done; also raised where it was noticed.
    """

    def __init__(self, wish: Wish, say: Callable[[str], None]):
        self.wish, self.say = wish, say
        self.optimizers, self.growth = Optimizers(), Growth()
        self.patch: Patch | None = None
        self.patched, self.steps = 0, 0
        self.error: FusionZooError | None = None
        self.candidates: dict[str, float] = {}
        self.waiting: str | None = None  # a method that will be called again
        self.model_name = wish.model
        self._settled: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._modernised: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._made = 0
        self._busy = self._looked = False

    # -- the hooks ------------------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notice what the script does while the block runs."""
        with Replaced() as replaced:
            self.optimizers.watch(replaced)
            self._watch_calls(replaced)
            self._watch_states(replaced)
            watch_averages(replaced)
            handle = register_optimizer_step_pre_hook(self._before_step)
            try:
                yield
            finally:
                handle.remove()

    def _watch_calls(self, replaced: Replaced) -> None:
        original = nn.Module.__call__

        def call(module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling():
                return original(module, *args, **kwargs)
            if type(module) is FusionLayer and not self._busy:
                return self.growth.call(module, original, args, kwargs)
            if not self._busy and (module not in self._settled or self._made != self.optimizers.made):
                self._guarded(self._before_call, module, args, kwargs)
            return original(module, *args, **kwargs)

        replaced.set(nn.Module, "__call__", call)

    def _watch_states(self, replaced: Replaced) -> None:
        original = nn.Module.load_state_dict

        def load_state_dict(module: nn.Module, /, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._busy and isinstance(state_dict, Mapping):
                state_dict = self._guarded(self._fitting, module, state_dict)
            return original(module, state_dict, *args, **kwargs)

        replaced.set(nn.Module, "load_state_dict", load_state_dict)

    def _guarded(self, function: Callable[..., Any], *args: Any) -> Any:
        """Our own calls of modules are not the script's; an error is kept, because a script may swallow it."""
        self._busy = True
        try:
            return function(*args)
        except FusionZooError as error:
            self.error = error
            raise
        finally:
            self._busy = False

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.steps += 1
        if self.wish.fusion is None or self.patch is not None or self.model_name is not None or not self.candidates:
            return
        if len(self.candidates) == 1:  # beside loose parameters of the script's; from its next call on
            self.model_name = next(iter(self.candidates))
            self._settled.clear()
            return
        shares = ", ".join(f"{n} ({s:.0%})" for n, s in self.candidates.items())
        self.error = PatchError(
            f"{type(optimizer).__name__} holds parameters of several modules that the script calls one by one: {shares}. Say "
            f"which of them is the model: --model {max(self.candidates, key=lambda n: self.candidates[n])}"
        )
        raise self.error

    # -- finding the model ----------------------------------------------------------------------------------------------

    def _before_call(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._made != self.optimizers.made:
            self._made = self.optimizers.made
            self._settled.clear()
        host = host_of(module)
        if _layers(host):
            self._join(host)
            self._settle(module)
            return
        if not self._is_model(module, host) or self._is_part(module, host):
            return
        self._modernise(host)
        if self.wish.fusion is None:
            found = trained_through(module, self.optimizers.share, self.optimizers.share(module))
            if found is not None and adapter_for(found[0]) is not None:
                self._found_whole(module, self.optimizers.share(module))
            self._settle(module)
        elif module.training and torch.is_grad_enabled():
            self._refuse_another(host)
            if self._put(module, host, args, kwargs):
                self._settle(module)

    def _is_model(self, module: nn.Module, host: nn.Module) -> bool:
        """Whether the optimizer's parameters are this module's, or some of them; those of which none are is settled."""
        share = self.optimizers.share(module)
        if self.model_name is not None and type(host).__name__ != self.model_name:
            if share > 0 and module.training and torch.is_grad_enabled():
                self._look_for_named()
            share = 0.0
        if share == 0:
            self._settled.add(module)
        return share > 0

    def _look_for_named(self) -> None:
        """With the first call in training, see that there is what `--model` names; it may be trained later, or in this call."""
        name = self.wish.model
        if name is None or self._looked:
            return
        self._looked = True
        trained = self.optimizers.trained()
        if name in trained:
            return
        if name not in _class_names(nn.Module):
            raise PatchError(
                f"no module of the class {name!r}: no class of that name is defined{close_matches_hint(name, trained)}. "
                f"Optimizers hold {', '.join(trained)}: --model {trained[0]}, for instance"
            )
        self.say(f"no optimizer holds a {name} yet; {', '.join(trained)} go on without a fusion until one does")

    def _is_part(self, module: nn.Module, host: nn.Module) -> bool:
        """Whether this is only a part: of a model that is trained through a method of its own, or beside other parts."""
        share = self.optimizers.share(module)
        if self.model_name is not None or not (module.training and torch.is_grad_enabled()):
            return False
        alone = next(host.children(), None) is None  # a layer, such as a loss with weights, is no model
        if share > 0.5 and not alone:
            return False
        if not self._found_whole(module, share):
            if not alone:
                self.candidates[type(host).__name__] = share
            self._settle(module)
        return True

    def _found_whole(self, module: nn.Module, share: float) -> bool:
        """Whether a module around this one is being trained through one of its methods; it is called from then on."""
        found = trained_through(module, self.optimizers.share, share)
        if found is None:
            return False
        whole, name = found
        self.say(f"{type(whole).__name__} is trained through {name}(), not called: the next one is taken for a call")
        turn_into_calls(whole, name)
        for part in whole.modules():
            if part is not whole:
                self._settled.add(part)
        self._settled.discard(whole)
        self.waiting = f"{type(whole).__name__}.{name}"
        return True

    def _settle(self, module: nn.Module) -> None:
        for part in module.modules():
            self._settled.add(part)

    def _modernise(self, host: nn.Module) -> None:
        if host in self._modernised:
            return
        self._modernised.add(host)
        try:
            changes = fusionzoo.modernise(host)
        except NoSiteError:  # no adapter knows it
            return
        self.say(f"{type(host).__name__} is the model of a repository that an adapter knows")
        for change in changes:
            self.say(f"modernised: {change}")

    def _refuse_another(self, host: nn.Module) -> None:
        """Models of one class are folds or repeats of each other; of another class, they are a question."""
        if self.patch is None or self.model_name is not None:
            return
        first = type(self.patch.host).__name__
        if type(host).__name__ != first:
            raise PatchError(
                f"the script trains several models: {first}, which got the fusion, and {type(host).__name__}. Say which of them "
                f"is meant: --model {first}, or --model {type(host).__name__}"
            )

    # -- patching -------------------------------------------------------------------------------------------------------

    def _put(self, module: nn.Module, host: nn.Module, args: Any, kwargs: Any) -> bool:
        """Patch it; False where it turns out to be a part of the model."""
        try:
            patch = self._patch(module, host, args, kwargs)
        except FusionZooError as error:
            if self.model_name is not None:
                raise
            # Streams may meet in the method of a module around this one.
            if isinstance(error, (NoSiteError, ModalityError)) and self._found_whole(
                module, self.optimizers.share(module)
            ):
                return False
            error.add_note(
                f"{type(host).__name__} was taken for the model, because it holds what an optimizer trains; --model NAME "
                "says another, --site and --modalities what to do in it"
            )
            raise
        self._welcome(patch, host)
        return True

    def _patch(self, module: nn.Module, host: nn.Module, args: Any, kwargs: Any) -> Patch:
        wish = self.wish
        common: dict[str, Any] = {"mode": wish.mode, "layout": wish.layout, "prove": wish.prove, **wish.options}
        if wish.split is not None:
            site = self._split_site(module, args, kwargs)
            return fusionzoo.patch(module, wish.fusion, site, inputs=(args, kwargs), **common)
        if wish.site is None and wish.modalities is None:
            patch = self._known(module, args, kwargs, common)
            if patch is not None:
                return patch
        return fusionzoo.patch(
            module, wish.fusion, wish.site, inputs=(args, kwargs), modalities=wish.modalities, **common
        )

    def _known(self, module: nn.Module, args: Any, kwargs: Any, common: dict[str, Any]) -> Patch | None:
        """The patch where an adapter has it; None without one, or where the script's call does not come by there."""
        try:
            known = fusionzoo.patch(module, self.wish.fusion, dry_run=True, **common)
        except NoSiteError:
            return None
        try:  # with the script's call, so that it is tried out like any other
            context = known.layer.context
            return fusionzoo.patch(
                module, self.wish.fusion, known.site, inputs=(args, kwargs), context=context, **common
            )
        except SiteNotReachedError as error:
            self.say(f"not at the adapter's site, but at the best one of this call: {error}")
            return None

    def _split_site(self, module: nn.Module, args: Any, kwargs: Any) -> Site | InputSite:
        """The argument as the trace sees it, which may prove its layout; else as the user says it."""
        assert self.wish.split is not None
        argument, widths = self.wish.split
        try:
            sites = fusionzoo.find_sites(module, *args, modalities={argument: widths}, **kwargs)
        except NoSiteError:
            sites = []
        found = [s for s in sites if isinstance(s, InputSite)]
        return found[0] if found else InputSite(argument, widths, self.wish.layout)

    def _welcome(self, patch: Patch, host: nn.Module) -> None:
        """A model has got its fusion; what it needs beside that, and the news."""
        self.patch, self.growth = patch, Growth()
        self.patched += 1
        if self.patched == 1:
            self.say(str(patch))
        else:
            self.say(f"{type(host).__name__} was built anew, and got a fusion of its own (number {self.patched})")
        self._join(host)
        self._take_along(patch, host)

    def _take_along(self, patch: Patch, host: nn.Module) -> None:
        """What the script has copied of the model by now, such as an average of its weights: with the fusion too, or said."""
        name = type(host).__name__
        gc.collect()  # models of earlier folds are not meant
        for other, equal in others_like(host):
            if equal:
                self._modernise(other)
                take_along(patch, other)
                self.say(
                    f"a copy of {name} that was there before (an average of weights, say) got a copy of the fusion"
                )
            elif self.optimizers.holder(other) is None:
                self.say(
                    f"there is another {name}, with other weights, which no optimizer trains and which got no fusion: if the "
                    "script averages weights into it, it pairs the wrong ones or none of the fusion's"
                )
        for what in snapshots_of(host):
            self.say(
                f"the script holds the weights of {name} from before the fusion ({what}). If it averages weights there, the "
                "fusion's are not in it: they stay as they were trained last where the script puts the average into the "
                "model, and a look-up by their name or number fails"
            )

    def _join(self, host: nn.Module) -> None:
        """See that an optimizer trains the fusion."""
        optimizer = self.optimizers.holder(host)
        if optimizer is None:
            return
        own = [p for layer in _layers(host) for p in layer.parameters()]
        group = join(optimizer, host, own)
        if group is not None:
            shown = ", ".join(
                f"{k}={group[k]:g}" for k in ("lr", "momentum", "weight_decay") if _is_number(group.get(k))
            )
            self.say(
                f"{sum(p.numel() for p in own):,} parameters of the fusion joined {type(optimizer).__name__} as a group of "
                f"their own, which follows the model's ({shown})"
            )

    # -- states ---------------------------------------------------------------------------------------------------------

    def _fitting(self, module: nn.Module, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """A state as the module takes it: one without a fusion leaves the fusion as it is, one with needs one.

        Early stopping loads states of both kinds; a test loads the best state into a model that was never trained.
        """
        names = [n for n, m in module.named_modules() if isinstance(m, FusionLayer)]
        if names:
            own = {k: v for k, v in module.state_dict().items() if k.startswith(tuple(f"{n}." for n in names))}
            if not any(k in own for k in state):
                return {**state, **own}
        elif self.patch is not None and any(f"{self.patch.name}." in k for k in state):
            self._put_again(module)
        return state

    def _put_again(self, module: nn.Module) -> None:
        latest = self.patch
        assert latest is not None
        host = host_of(module)
        if type(host) is not type(latest.host):
            return
        self._modernise(host)
        patch = fusionzoo.patch(
            module, self.wish.fusion, latest.site, mode=latest.mode, context=latest.layer.context, **self.wish.options
        )
        self.say(f"a state with the fusion was loaded into a {type(host).__name__} without: it got one")
        self.patch, self.patched = patch, self.patched + 1

    # -- in the end -----------------------------------------------------------------------------------------------------

    def conclude(self) -> None:
        """Raise the error that the script swallowed, or say that what should have come never came."""
        if self.error is not None:
            raise self.error
        if self.wish.fusion is None or self.patch is not None:
            return
        if self.optimizers.made == 0:
            raise PatchError(
                "the script ended without making an optimizer of torch.optim: it trained no model to put a fusion in"
            )
        if self.waiting is not None:
            raise PatchError(
                f"the script trained its model through {self.waiting}, once only: with the second call it would have got the fusion"
            )
        if self.model_name is not None:
            trained = self.optimizers.trained()
            raise PatchError(
                f"no module of the class {self.model_name!r} that an optimizer trains was called in training mode; give --model "
                f"the name of the class, as the script writes it{': ' if trained else ''}{', '.join(trained)}"
            )
        raise PatchError(
            f"the script ended before a model was called in training: {self.optimizers.made} optimizers were made and stepped "
            f"{self.steps} times. A model is noticed when the script calls it in train() mode, with gradients"
        )


def _layers(module: nn.Module) -> list[FusionLayer]:
    return [m for m in module.modules() if isinstance(m, FusionLayer)]


def _class_names(cls: type) -> set[str]:
    """Of a class and all that inherit from it, so far."""
    return {cls.__name__}.union(*(_class_names(c) for c in cls.__subclasses__()))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
