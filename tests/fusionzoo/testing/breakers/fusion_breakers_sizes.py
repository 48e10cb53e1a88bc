"""Broken fusions: right at the size that a program was made from, and at no other."""

from __future__ import annotations

import torch
from fusion_breakers_gradients import Extended
from sound_fusions import breaks


@breaks("export_any_length", "onnx_any_length")
class HashesLengths(Extended):
    def combine(self, streams):
        if torch.compiler.is_exporting():
            assert len({x.shape[1] for x in streams.x}) == 1
        return super().combine(streams)


@breaks("compile_any_length")
class LoopsOverTime(Extended):
    def change(self, fused):
        if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
            return torch.stack([fused[:, t] for t in range(fused.shape[1])], 1)
        return fused


@breaks("jit_trace_any_length")
class CountsItems(Extended):
    def change(self, fused):
        return fused + fused.new_zeros(len(fused), 1, 1) if torch.jit.is_tracing() else fused


@breaks("onnx_any_length")
class OtherInOnnx(Extended):
    def change(self, fused):
        return fused * 1.01 if torch.onnx.is_in_onnx_export() else fused
