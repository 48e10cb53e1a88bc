"""Foal-Net: what label matching reads."""

from __future__ import annotations

import torch
from clip_hosts import ClipHostTests, build, sequences

import fusionzoo
from fusionzoo.testing.comparisons import gradients, reached


class TestFoalNet(ClipHostTests):
    HOST = "foal-net"


def test_label_matching_runs_the_stacks_again_on_frames_with_hard_negatives():
    host, batch = build("foal-net").train(), sequences(labels=[0, 1, 0])
    out = host(batch)
    assert out.sequences["audio.input"][0].shape == (3, 7, 8)
    assert out.streams["visual.input"].shape == (3, 1, 4)
    mem = fusionzoo.get("mem", kind="objective")(3, alignment=10.0, width=5, variant="official")
    mem.bind(host)
    seen = []
    stack = host.fusion.stacks[0]
    stack[0].register_forward_hook(lambda module, args, result: seen.append(tuple(args[0].shape)))
    loss = mem(out, batch)
    assert seen == [(6, 7, 8)]  # matched and mismatched pairs, as sequences
    loss.backward()
    assert all(p.grad is not None for p in mem.parameters())
    assert reached(gradients(stack))["0.attention.query.weight"].any()
    # One emotion alone has no negatives.
    assert torch.isfinite(mem(host(batch), sequences(labels=[1, 1, 1])))
