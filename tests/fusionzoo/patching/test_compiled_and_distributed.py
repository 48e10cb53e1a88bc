"""A patch under torch.compile, DDP and FSDP."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import fusionzoo

HERE = Path(__file__).parent


def first(model, args, kwargs, **options):
    return fusionzoo.find_sites(model, *args, **options, **kwargs)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Cat", "FreeFunction", "FlatNodes"])
def test_compile(build, hosts, shake, name):
    model, args, kwargs = build(getattr(hosts, name))
    expected = model(*args)
    patch = fusionzoo.patch(model, "gated", first(model, args, kwargs))
    compiled = torch.compile(model, backend="eager")
    assert torch.allclose(compiled(*args), expected)
    shake(patch)
    torch.compiler.reset()
    assert torch.allclose(torch.compile(model, backend="eager")(*args), model(*args), atol=1e-5)


def _wrapped_in_two_processes(rank, port, path, wrapper, first):
    import os

    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    sys.path.insert(0, str(HERE))
    import hosts

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2)
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    wrap = DistributedDataParallel if wrapper == "ddp" else lambda m: fully_shard(m, mesh=mesh)
    torch.manual_seed(0)
    model = hosts.FreeFunction().eval()
    args, _ = hosts.FreeFunction.call()
    torch.manual_seed(rank)  # whoever wraps starts all processes from the first one's weights
    if first == "wrap":
        model = wrap(model)
    patch = fusionzoo.patch(model, "lmam", inputs=args, layout="(B, T, d)")
    if first == "patch":
        model = wrap(model)
    opt = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        opt.zero_grad()
        model(*(x + rank for x in args)).square().mean().backward()
        opt.step()
    full = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in patch.parameters()]
    torch.save([p.detach() for p in full], f"{path}/{wrapper}-{first}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp"])
def test_two_processes_agree_whichever_comes_first_the_patch_or_the_wrapper(tmp_path, wrapper):
    import socket

    for first in ("patch", "wrap"):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        code = f"""
        import sys
        sys.path.insert(0, {str(HERE)!r})
        import test_compiled_and_distributed as tests
        tests._wrapped_in_two_processes(int(sys.argv[1]), {port}, {str(tmp_path)!r}, {wrapper!r}, {first!r})
        """
        runs = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(r)]) for r in range(2)]
        assert [r.wait(120) for r in runs] == [0, 0]
    read = {n: torch.load(tmp_path / f"{wrapper}-{n}.pt") for n in ("patch-0", "patch-1", "wrap-0", "wrap-1")}
    for name in ("patch", "wrap"):
        assert all(torch.equal(x, y) for x, y in zip(read[f"{name}-0"], read[f"{name}-1"], strict=True))
    if wrapper == "ddp":  # which starts from the first process's weights; FSDP leaves each its own shards
        assert all(torch.allclose(x, y, atol=1e-6) for x, y in zip(read["patch-0"], read["wrap-0"], strict=True))
    assert any(x.abs().sum() > 0 for x in read["wrap-0"])
