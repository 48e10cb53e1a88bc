"""Broken fusions: gradients, modes, dtypes, persistence, torch's tools."""

from __future__ import annotations

import copy
import random

import numpy as np
import torch
from sound_fusions import Sound, breaks
from torch import nn


class Extended(Sound):
    """Builds something more, `extend`, and changes the result, `change`."""

    more = 0

    def __init__(self, dims, out_dim=None, *, width=6, missing="zero"):
        super().__init__(dims, out_dim, width=width, missing=missing)
        self.extend()

    def extend(self):
        pass

    def change(self, fused):
        return fused

    def combine(self, streams):
        result = super().combine(streams)
        result.fused = self.change(result.fused)
        return result


# -- gradients ---------------------------------------------------------------------------------------------------


@breaks("registered_parameters", "state_dict_round_trip", "functional_call", "missing_learned_idle")
class FactorsInAList(Extended):
    def extend(self):
        self.factors = [nn.Parameter(torch.randn(self.width)) for _ in range(2)]

    def change(self, fused):
        return fused * sum(f.to(fused) for f in self.factors)


@breaks("registered_buffers")
class ConstantAttribute(Extended):
    def extend(self):
        self.scales = {"one": torch.full((self.width,), 0.5)}

    def change(self, fused):
        return fused * self.scales["one"].to(fused)


@breaks("gradient_to_parameters")
class DeadParameter(Extended):
    more = 6

    def extend(self):
        self.unused = nn.Parameter(torch.ones(6))


@breaks("gradient_finite", "padding_poison_gradient", "zero_input", "fully_masked_gradient")
class RootOfPadding(Extended):
    def combine(self, streams):
        result = super().combine(streams)
        x = torch.cat(streams.x, -1) @ self.squash(streams.x)
        result.fused = result.fused + x.square().sum(-1, keepdim=True).sqrt()
        return result

    def squash(self, x):
        return torch.cat([p.weight for p in self.project], 1).t()


@breaks("modalities_used", "missing_noticed", "gradient_to_parameters", "gradient_to_modalities", "missing_learned")
class IgnoresAudio(Sound):
    def combine(self, streams):
        streams.x[1] = torch.zeros_like(streams.x[1])
        streams.present[1] = streams.mask
        return super().combine(streams)


@breaks("gradient_to_modalities", "gradcheck", "missing_learned")
class DetachesAudio(Sound):
    def combine(self, streams):
        streams.x[1] = streams.x[1].detach()
        return super().combine(streams)


@breaks("gradcheck")
class HalvesGradient(Extended):
    def change(self, fused):
        return 0.5 * fused + 0.5 * fused.detach()


@breaks("zero_input")
class DividesByNorm(Sound):
    def combine(self, streams):
        result = super().combine(streams)
        norm = torch.cat(streams.x, -1).norm(dim=-1, keepdim=True)
        if streams.mask is not None:
            norm = torch.where(streams.mask.unsqueeze(-1), norm, 1.0)
        result.fused = result.fused / norm
        return result


@breaks("large_input")
class PlainExponential(Sound):
    def weigh(self, scores, mask):
        exponential = scores.exp() if mask is None else torch.where(mask.unsqueeze(1), scores.exp(), 0.0)
        return exponential / exponential.sum(-1, keepdim=True).clamp(min=1e-4)


# -- modes -------------------------------------------------------------------------------------------------------


@breaks("eval_deterministic")
class CountsCalls(Extended):
    def extend(self):
        self.calls = 0

    def change(self, fused):
        self.calls += 1
        return fused + 0.01 * self.calls


@breaks("eval_leaves_rng")
class DrawsAlways(Extended):
    def change(self, fused):
        torch.rand(1)
        return fused


@breaks("calls_independent")
class RemembersLongest(Extended):
    def extend(self):
        self.longest = 0

    def change(self, fused):
        self.longest = max(self.longest, fused.shape[1])
        return fused + 0.01 * self.longest


@breaks("eval_keeps_state")
class CountsInABuffer(Extended):
    def extend(self):
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def change(self, fused):
        self.calls += 1
        return fused


@breaks("mode_propagates")
class KeepsModeToItself(Sound):
    def train(self, mode=True):
        self.training = mode
        return self


@breaks("training_follows_seed")
class NumpyNoise(Extended):
    def change(self, fused):
        return fused + float(np.random.rand()) if self.training else fused


@breaks("inference_mode")
class BranchesOnGrad(Extended):
    def change(self, fused):
        return fused if torch.is_grad_enabled() else fused * 1.01


@breaks("construction_follows_seed")
class SystemEntropy(Extended):
    def extend(self):
        with torch.no_grad():
            self.query.bias.fill_(random.SystemRandom().random())


SHARED = torch.full((6,), 0.5)


@breaks("instances_share_nothing")
class SharesATensor(Extended):
    def extend(self):
        self.register_buffer("gain", SHARED)

    def change(self, fused):
        return fused * self.gain


# -- dtypes and devices ------------------------------------------------------------------------------------------


@breaks("float64", "gradcheck")
class RefusesDouble(Extended):
    def change(self, fused):
        if fused.dtype == torch.float64:
            raise TypeError("float64 is not supported")
        return fused


@breaks("bfloat16", "float16")
class Float32Constant(Extended):
    def change(self, fused):
        return fused + torch.ones(self.width, device=fused.device)


@breaks("float16")
class BigFill(Sound):
    def weigh(self, scores, mask):
        return scores.softmax(-1) if mask is None else scores.masked_fill(~mask.unsqueeze(1), -1e9).softmax(-1)


@breaks("autocast")
class CopiesByIndex(Extended):
    def combine(self, streams):
        result = super().combine(streams)
        mixed = self.query(result.fused)
        rows = torch.arange(mixed.shape[1], device=mixed.device)
        result.fused = torch.zeros_like(streams.x[0][..., :1]).expand_as(mixed).clone().index_copy_(1, rows, mixed)
        return result


@breaks("device_agnostic")
class ReadsAValue(Extended):
    def change(self, fused):
        return fused * 2 if float(fused.detach().sum()) > 1e30 else fused


# -- persistence -------------------------------------------------------------------------------------------------


@breaks("state_dict_round_trip", "functional_call", "missing_learned_idle")
class ForgetsABuffer(Extended):
    def extend(self):
        self.register_buffer("mix", torch.randn(self.width), persistent=False)

    def change(self, fused):
        return fused * self.mix


@breaks("state_dict_stable")
class GrowingTable(Extended):
    def extend(self):
        self.register_buffer("table", torch.zeros(5))

    def change(self, fused):
        if fused.shape[1] > len(self.table):
            self.table = torch.zeros(fused.shape[1], device=fused.device)
        return fused


@breaks("state_dict_tensors")
class ExtraState(Sound):
    def get_extra_state(self):
        return {"width": self.width}

    def set_extra_state(self, state):
        pass


@breaks("deepcopy_equal")
class CopiesAfresh(Sound):
    def __deepcopy__(self, memo):
        return type(self)(self.dims, self.out_dim)


@breaks("deepcopy_independent")
class CopiesShallowly(Sound):
    def __deepcopy__(self, memo):
        return copy.copy(self)


@breaks("pickle_round_trip")
class KeepsALambda(Extended):
    def extend(self):
        self.identity = lambda x: x


@breaks("reference_refuses_other_weights")
class LoadsAnything(Sound):
    def load_reference(self, state_dict):
        pass


# -- torch's tools -----------------------------------------------------------------------------------------------


@breaks("hooks_run")
class SkipsHooks(Sound):
    def __call__(self, streams, mask=None):
        return self.forward(streams, mask)


@breaks("functional_call")
class KeepsAReference(Extended):
    def extend(self):
        self.cache = [self.query.weight]

    def change(self, fused):
        return fused @ self.cache[0]


@breaks("compiles", "compile_any_length")
class RefusesCompilation(Extended):
    def change(self, fused):
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            return fused * 1.01
        return fused


@breaks("exports", "export_any_length", "onnx_any_length")
class RefusesExport(Extended):
    def change(self, fused):
        return fused * 1.01 if torch.compiler.is_exporting() else fused
