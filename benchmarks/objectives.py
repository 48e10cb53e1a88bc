"""The contrastive objectives against a loop over the samples, and their memory by `chunk=`.

    python benchmarks/objectives.py [--samples 3000] [--width 256] [--classes 6] [--chunk 128] [--repeats 5]

Times are of forward and backward together, medians of the repeats but for the loop, which runs once. Everything runs in
this process, on the same features. Memory is the largest amount held beyond the inputs: what the device's allocator
says on CUDA, and on the CPU what the operators allocated and had not freed, as torch's profiler records it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionzoo._machine import conditions
from fusionzoo.batch import Batch
from fusionzoo.host import HostOutput
from fusionzoo_plugins.swfc import SWFC


def one_by_one(objective: SWFC, features: Tensor, labels: Tensor) -> Tensor:
    """SWFC as its definition reads: for each sample the others, those with its label, their focal mean."""
    z = F.normalize(features, dim=-1)
    total = features.new_zeros(())
    for i in range(len(z)):
        others = torch.cat([z[:i], z[i + 1 :]])
        other_labels = torch.cat([labels[:i], labels[i + 1 :]])
        p = ((others * z[i]).sum(-1) / objective.temperature).softmax(0)[other_labels == labels[i]]
        if len(p):
            total = total - objective.weight[labels[i]] * (p.log() * (1 - p) ** objective.focus).mean()
    return total / len(z)


def run(loss: Callable[[Tensor], Tensor], features: Tensor) -> tuple[float, float, Tensor]:
    """Seconds of forward and backward, the loss, and the gradient."""
    x = features.clone().requires_grad_()
    wait(x)
    start = time.perf_counter()
    value = loss(x)
    value.backward()
    wait(x)
    assert x.grad is not None
    return time.perf_counter() - start, value.item(), x.grad


def wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


def peak(loss: Callable[[Tensor], Tensor], features: Tensor) -> float:
    """MiB held at most, beyond what was held before."""
    if features.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(loss, features)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    activity = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activity, profile_memory=True) as profile:
        run(loss, features)
    held = most = 0
    events: Any = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in events:
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 2**20


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"samples": 3000, "width": 256, "classes": 6, "chunk": 128, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    device = torch.device(args.device)

    def data(samples: int) -> tuple[Tensor, Tensor]:
        features = torch.randn(samples, args.width, device=device)
        return features, torch.randint(args.classes, (samples,), device=device)

    def objective(chunk: int | None) -> SWFC:
        options = {"temperature": 0.8, "focus": 2.4, "weighting": 1.1, "chunk": chunk}
        return SWFC(args.classes, torch.arange(1.0, args.classes + 1), **options).to(device)

    def at_once(chunk: int | None, labels: Tensor) -> Callable[[Tensor], Tensor]:
        part = objective(chunk)
        mask = torch.ones(1, len(labels), dtype=torch.bool, device=device)
        batch = Batch({}, mask, mask.long(), labels.unsqueeze(0), ["0"])

        def loss(x: Tensor) -> Tensor:
            return part(HostOutput(x.new_zeros(1, len(x), args.classes), {"fused": x.unsqueeze(0)}), batch)

        return loss

    features, labels = data(args.samples)
    chunks = {"default": None, f"chunk={args.chunk}": args.chunk}
    print(f"{args.samples} samples, width {args.width}, {args.classes} classes, {conditions(device)}")
    times, values, gradients = {}, {}, {}
    for name, chunk in chunks.items():
        loss = at_once(chunk, labels)
        runs = [run(loss, features) for _ in range(args.repeats + 1)][1:]
        times[name], (_, values[name], gradients[name]) = statistics.median(r[0] for r in runs), runs[-1]
    few = objective(None)
    name = "loop over samples"
    times[name], values[name], gradients[name] = run(lambda x: one_by_one(few, x, labels), features)
    scale = gradients[name].abs().max()
    print(f"{'':<20} {'seconds':>10} {'speed-up':>9} {'loss':>12} {'gradient off by':>16}")
    for key, seconds in times.items():
        off = float((gradients[key] - gradients[name]).abs().max() / scale)
        print(f"{key:<20} {seconds:10.4f} {times[name] / seconds:8.1f}x {values[key]:12.8f} {off:16.1e}")

    print(f"\n{'peak memory, MiB':<20}" + "".join(f"{name:>14}" for name in (*chunks, "all at once")))
    for samples in (args.samples // 2, args.samples, 2 * args.samples):
        features, labels = data(samples)
        held = [peak(at_once(chunk, labels), features) for chunk in (*chunks.values(), samples)]
        print(f"{samples:>11} samples " + "".join(f"{x:14.1f}" for x in held))


if __name__ == "__main__":
    main()
