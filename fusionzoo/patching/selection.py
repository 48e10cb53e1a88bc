"""The first site, and the first reading of it, whose promises hold on the caller's batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from fusionzoo.errors import (
    FusionZooError,
    HostChangedError,
    LayoutError,
    LeakError,
    PatchError,
    ShapeError,
    SiteNotReachedError,
)
from fusionzoo.patching.calls import Call
from fusionzoo.patching.experiment import Experiment
from fusionzoo.patching.fuse.contexts import Context
from fusionzoo.patching.layouts import TIMED
from fusionzoo.patching.modalities import ModalitiesLike
from fusionzoo.patching.patched import Patch
from fusionzoo.patching.promises import APART, COMPLETE, FITS, OF_READING, OF_SITE, Promise, Proof
from fusionzoo.patching.prove import judge
from fusionzoo.patching.readings import Reading, found, others
from fusionzoo.patching.sites import AnySite
from fusionzoo.patching.trace.no_trace_left import untouched

#: How many of the sites that were found are tried out.
CANDIDATES = 5


@dataclass
class Selection:
    """What a patch is tried out with, and how one is made and put in.

    Attributes
    ----------
    host : nn.Module
        The model inside its wrappers.
    call : Call
        What it is called with.
    build : callable
        Makes a patch from a site and a context.
    put : callable
        Puts it in.
    named : bool
        Whether the caller chose the site.
    layout : str, optional
        The layout, where the caller said it.
    context : callable, optional
        What tells real steps, where the caller said it.
    modalities : mapping or sequence, optional
        Names of the arguments.
    """

    host: nn.Module
    call: Call
    build: Callable[[AnySite, Context | None], Patch]
    put: Callable[[Patch], None]
    named: bool
    layout: str | None
    context: Context | None
    modalities: ModalitiesLike
    forwards: int = 0
    refusals: list[FusionZooError] = field(default_factory=list)

    def first_proved(self, sites: Sequence[AnySite]) -> Patch:
        """The patch at the first site that keeps its promises, in the model.

        A site that the caller chose may break what is not about axes: that is said. Where none keeps them all, one that leaves
        a stream out is better than none.
        """
        second: Patch | None = None
        for site in sites[:CANDIDATES]:
            patch = self._readable(site)
            if patch is None:
                continue
            broken = patch.proof.broken(OF_SITE)
            if self.named or not broken:
                return patch
            patch.remove()
            if second is None and all(p.words == COMPLETE for p in broken):
                second = patch
            self.refusals.append(LeakError(f"a fusion at {patch.site.where} would not keep that {listed(broken)}"))
        if second is None:
            raise self._refusal()
        self.put(second)
        second.proof = replace(second.proof, forwards=self.forwards)
        return second

    def _refusal(self) -> FusionZooError:
        """The first one; a model's streams that do not fit are no fault of a call of a fusion."""
        first = self.refusals[0]
        if isinstance(first, ShapeError):
            first = PatchError(str(first))
        if len(self.refusals) > 1:
            first.add_note("tried besides: " + "; ".join(str(e).partition(". ")[0] for e in self.refusals[1:]))
        return first

    # -- one site ---------------------------------------------------------------------------------------------------

    def _readable(self, site: AnySite) -> Patch | None:
        """The patch at a site under the first reading that holds, in the model; None where none does."""
        first = found(site, self.context)
        try:
            patch = self.build(first.site, first.context)
        except LayoutError as error:  # another reading may say which rows are one dialogue
            patch, refused = None, error
        except FusionZooError as error:
            self.refusals.append(error)
            return None
        experiment = Experiment(self.host, self.call, site, self.modalities, first.context, self.forwards)
        if experiment.silent:
            raise PatchError(
                f"{type(self.host).__name__} returns no tensor for this call, so that nothing of a fusion in it can be proved or trained; "
                "let forward return what it predicts, or, where it keeps that elsewhere, give prove=False"
            )
        proof = None
        if patch is None:
            self.refusals.append(refused)
        else:
            proof = self._tried(patch, experiment)
            if proof is None and isinstance(self.refusals[-1], (SiteNotReachedError, HostChangedError)):
                return None
            if proof is not None and not proof.broken(OF_READING):
                return patch
            if proof is not None:
                self.refusals.append(LeakError(_leaking(patch, proof)))
        wanted = {APART} if proof is None else {p.words for p in proof.broken(OF_READING)}
        if not experiment.why:
            for reading in others(first, experiment.altered, experiment.padding.contexts, self.layout, self.context):
                patch = self._taken(reading, first, experiment, wanted)
                if patch is not None:
                    return patch
        return None

    def _taken(self, reading: Reading, first: Reading, experiment: Experiment, wanted: set[str]) -> Patch | None:
        """The patch under another reading, if that proves what the first one broke."""
        axes = [getattr(r.site, "feature_axis", -1) for r in (first, reading)]
        try:
            patch = self.build(reading.site, reading.context)
        except FusionZooError:
            return None
        count = len(self.refusals)
        try:
            proof = self._tried(patch, experiment)
        except Exception:  # the streams do not even have such axes
            return None
        finally:
            del self.refusals[count:]
        if proof is None:
            return None
        if not proof.broken(OF_READING) and all(
            proof.holds(w) for w in wanted | ({FITS} if axes[0] != axes[1] else set())
        ):
            return patch
        patch.remove()
        return None

    def _tried(self, patch: Patch, experiment: Experiment) -> Proof | None:
        """The proof of a patch, which is in the model then; None where the model does not run with it."""
        try:
            self.put(patch)
            experiment.forwards += 1
            self.call.of(patch.verify)
            proof = patch.proof = judge(experiment, patch.layer)
        except FusionZooError as error:
            patch.remove()
            self.refusals.append(error)
            return None
        except BaseException as error:
            patch.remove()
            if not isinstance(error, Exception) or not self._runs_without():
                raise
            raised = f"{type(error).__name__}: {error}"
            self.refusals.append(
                PatchError(f"with a fusion at {patch.site.where}, {type(self.host).__name__} raises {raised}")
            )
            return None
        finally:
            self.forwards = experiment.forwards
        if proof.holds(APART) and patch.layer.plan.across and patch.layer.plan.layout in TIMED and not patch.site.sure:
            patch.site = replace(patch.site, sure=True)
        if proof.broken(OF_READING):
            patch.remove()
        return proof

    def _runs_without(self) -> bool:
        """Whether the model takes the call without a fusion, as it is."""
        try:
            with untouched(self.host), torch.no_grad():
                self.call.fresh().of(self.host)
        except Exception:  # of the host's own code
            return False
        return True


def listed(broken: Sequence[Promise]) -> str:
    """Broken promises in words."""
    return "; ".join(f"{p.words} ({p.why})" for p in broken)


def _leaking(patch: Patch, proof: Proof) -> str:
    said = "; ".join(p.why for p in proof.broken(OF_READING))
    other = ", or take a fusion of level 'utterance'" if patch.layer.plan.across else ""
    return (
        f"{type(patch.fusion).__name__} at {patch.site.where}, whose streams were taken for {patch.layer.plan.layout}: {said}. No other "
        "reading holds either. Say how the streams lie (layout='(T, B, d)', ...) and which steps are real (context=lambda model, "
        f"args, kwargs: {{'mask': ...}}, or one for each stream: {{'mask': {{'text': ..., 'audio': ...}}}}){other}; prove=False leaves the "
        "proof out"
    )
