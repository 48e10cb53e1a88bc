"""Every fast kernel of the core and of the plugins beside its plain definition, and the switch between the two."""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import fusionzoo.kernels
import fusionzoo.numerics as numerics
from fusionzoo.errors import OptionError
from fusionzoo.graphs import GCNII
from fusionzoo.kernels import PAIRS, Pair, bands, graph_blocks, grouped_attention, recurrence
from fusionzoo.kernels.dropout import dropout
from fusionzoo.kernels.packing import Packing
from fusionzoo.objective import IGNORE
from fusionzoo.testing.kernels import DTYPES, Make, around, compare, random
from fusionzoo_plugins import _contrastive

#: Lengths of the dialogues of a batch, and how far it is padded.
BATCHES = {
    "several": ([4, 1, 7, 6], 9),
    "none is padded": ([5, 5], 5),
    "some are empty": ([0, 6, 1, 0], 7),
    "one": ([3], 3),
}


def packing(batch: str) -> Packing:
    lengths, steps = BATCHES[batch]
    return Packing(lengths, steps, torch.device("cpu"))


def steps_mask(batch: str) -> Tensor:
    lengths, steps = BATCHES[batch]
    return torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)


def given(make: Any, *args: Any) -> Make:
    """`make` with these arguments after the dtype."""
    return lambda dtype: make(dtype, *args)


def dropout_case(dtype: torch.dtype, p: float, training: bool) -> tuple:
    return random(5, 3, dtype=dtype), p, training


def attend_case(dtype: torch.dtype, masked: bool) -> tuple:
    q, k, v = (random(3, steps, 8, dtype=dtype) for steps in (4, 5, 5))
    # A row without any key, one with a few, one with all.
    mask = torch.tensor([[False] * 5, [True, False, True, False, False], [True] * 5]) if masked else None
    return q, k, v, 2, mask


def scan_case(dtype: torch.dtype) -> tuple:
    xs = [random(2, 5, 3, dtype=dtype), torch.rand(2, 5, 1) > 0.3]
    return "test.leaky", [random(2, 3, dtype=dtype)], xs, [random(3, 3, dtype=dtype)]


@recurrence.recurrent("test.leaky")
def leaky(carry, now, constants):
    (h,), (x, real), (weight,) = carry, now, constants
    return (torch.where(real, (x + h @ weight).tanh(), h),)


def band_case(dtype: torch.dtype, batch: str, modalities: int, across: bool, gaps: bool, itself: bool) -> tuple:
    layout = packing(batch)
    band = bands.Band(layout, 2, 1, itself)
    shape = (modalities, layout.total)
    there = torch.rand(shape) > 0.3 if gaps else None
    return *(random(*shape, 2, 3, dtype=dtype) for _ in range(3)), band, there, across, 0.0, True


def propagate_case(dtype: torch.dtype, batch: str, modalities: int, dynamic: bool, gaps: bool) -> tuple:
    mask = steps_mask(batch)
    gcn = GCNII(5, 4, 2, dynamic=dynamic).to(dtype)
    xs = [random(*mask.shape, 5, dtype=dtype) for _ in range(modalities)]
    present = [mask & (torch.rand(mask.shape) > 0.3) if gaps and m else mask for m in range(modalities)]
    return gcn, xs, present, packing(batch), 0.7, None, mask


def only_present(gcn, xs, present, *rest) -> tuple:
    return gcn, [numerics.zero_padded(x, p) for x, p in zip(xs, present, strict=True)], present, *rest


def tokens_case(dtype: torch.dtype, batch: str, stand_in: bool, gaps: bool) -> tuple:
    tokens = grouped_attention.Tokens(packing(batch), stand_in)
    q, k, v = (random(2, tokens.packing.total, 6, dtype=dtype) for _ in range(3))
    return tokens, q, k, v, 2, torch.rand(2, *steps_mask(batch).shape) > 0.3 if gaps else None, 0.0


def contrast_case(dtype: torch.dtype) -> tuple:
    labels = torch.tensor([0, 1, 0, IGNORE, 2, 1, 0])
    anchors, keys = random(7, 4, dtype=dtype), random(7, 4, dtype=dtype)
    return anchors, keys, labels, random(1, dtype=dtype)[0].exp(), torch.rand(7, dtype=dtype)


def contrasting(**options: Any) -> Pair:
    pair = PAIRS["contrast"]
    return Pair(functools.partial(pair.plain, **options), functools.partial(pair.fast, chunk=2, **options))


#: Kernel -> what it is tried with: a pair, the plain and the fast form of it, and arguments.
CASES: dict[str, list[tuple[Pair, Make]]] = {
    "dropout": [(PAIRS["dropout"], given(dropout_case, p, t)) for p, t in ((0.0, True), (0.5, False), (1.0, True))],
    "attend": [(PAIRS["attend"], given(attend_case, masked)) for masked in (False, True)],
    "scan": [(PAIRS["scan"], given(scan_case)), (Pair(recurrence.plain_scan, recurrence.operator), given(scan_case))],
    "band_attention": [
        (PAIRS["band_attention"], given(band_case, batch, modalities, across, gaps, itself))
        for batch in BATCHES
        for modalities, across, gaps, itself in ((1, True, False, True), (3, True, True, False), (2, False, True, True))
    ],
    "propagate": [
        (around(PAIRS["propagate"], only_present), given(propagate_case, batch, modalities, dynamic, gaps))
        for batch in BATCHES
        for modalities, dynamic, gaps in ((1, False, False), (3, True, True))
    ],
    "attend_tokens": [
        (PAIRS["attend_tokens"], given(tokens_case, batch, stand_in, gaps))
        for batch in BATCHES
        for stand_in, gaps in ((False, False), (True, False), (False, True))
    ],
    "contrast": [
        (contrasting(focus=focus, itself=itself, mean=mean), given(contrast_case))
        for focus in (0.0, 0.5, 2.0)
        for itself, mean in ((False, True), (True, False))
    ],
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kernel", CASES)
def test_a_fast_form_equals_its_plain_one(kernel, dtype):
    for pair, make in CASES[kernel]:
        compare(pair, make, dtype)


def test_every_pair_is_tried():
    for module in pkgutil.iter_modules(fusionzoo.kernels.__path__):
        importlib.import_module(f"fusionzoo.kernels.{module.name}")
    mine = {name for name, pair in PAIRS.items() if not pair.plain.__module__.startswith("fusionzoo_adapters")}
    assert mine == set(CASES)
    assert {_contrastive, bands, graph_blocks}  # plugins are imported above


def test_dropout_on_the_cpu_drops_the_share_that_it_is_told():
    torch.manual_seed(0)
    x = torch.rand(400, 500, dtype=torch.float64, requires_grad=True)
    out = dropout(x, 0.3, True)
    (grad,) = torch.autograd.grad(out.sum(), x)
    kept = out != 0
    torch.testing.assert_close(out[kept], x[kept] / 0.7, rtol=1e-4, atol=0.0)
    torch.testing.assert_close(grad, kept.double() / 0.7, rtol=1e-4, atol=0.0)
    assert abs(float(kept.double().mean()) - 0.7) < 0.005
    assert not torch.equal(kept, dropout(x, 0.3, True) != 0)


def test_the_switch():
    calls: list[str] = []

    def plain(x: int) -> int:
        calls.append("plain")
        return x

    @fusionzoo.kernels.fast_form(plain)
    def switched(x: int) -> int:
        """Says which."""
        calls.append("fast")
        return x

    try:
        assert switched.__doc__ == "Says which."
        with fusionzoo.kernels.use("fast"):
            switched(1)
            with fusionzoo.kernels.use("plain"):
                switched(1)
                with fusionzoo.kernels.use("plain", "dropout"):
                    switched(1)
                with fusionzoo.kernels.use("plain", "dropout", "switched"):
                    switched(1)
                switched(1)
            switched(1)
        assert calls == ["fast", "plain", "fast", "plain", "plain", "fast"]
    finally:
        del PAIRS["switched"]


def test_unknown_forms_and_kernels_are_named():
    with pytest.raises(OptionError, match="did you mean 'plain'"):
        fusionzoo.kernels.use("plan")
    with pytest.raises(OptionError, match=r"no kernel is called 'drop'.*dropout"):
        fusionzoo.kernels.use("plain", "drop")
    with fusionzoo.kernels.use("fast"):
        assert not fusionzoo.kernels.runs_plain("dropout")


def imported(form: str, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FUSIONZOO_KERNELS": form}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_the_environment_variable_is_read_at_import_without_torch():
    code = "import sys, fusionzoo.kernels as k; print(k.runs_plain('any'), 'torch' in sys.modules)"
    assert [imported(form, code).stdout.split() for form in ("plain", "")] == [["True", "False"], ["False", "False"]]
    refused = imported("slow", code)
    assert refused.returncode
    assert (
        "OptionError: the environment variable FUSIONZOO_KERNELS: kernels run fast or plain, not 'slow'"
        in refused.stderr
    )
