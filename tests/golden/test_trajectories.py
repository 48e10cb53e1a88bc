"""Our hosts trained beside the authors': from the same weights, on the same batches, thirty steps of Adam lead to the same place.

`trajectories/record.py` trained the authors' own code; what it came to is recorded under their names. Ours starts from the
same golden case, and what it comes to is compared with the recorded weights read by `load_reference`: every parameter.
Both run in float64, where rounding does not decide about the direction of Adam's steps, and without dropout.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fusionzoo.batch import Batch
from fusionzoo.host import HostOutput
from fusionzoo_plugins.soft_hgr import SoftHGR
from fusionzoo_plugins.swfc import SWFC

HERE = Path(__file__).parent


def _load(name: str, path: Path) -> Any:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


golden = _load("golden_test", HERE / "test_golden.py")
training = _load("golden_training", HERE / "trajectories" / "training.py")
FILES = sorted((HERE / "trajectories").glob("*.npz"))
HOSTS = [f for f in FILES if f.stem not in training.LOSSES]
#: They are recorded in float32. Thirty steps of 1e-3 move a parameter by up to 3e-2.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def host_with(case: str, meta: dict[str, Any], arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The host that the case builds, with the weights in `arrays`; the case computes with it from now on."""
    kept: list[nn.Module] = []
    monkeypatch.setattr(golden.cases, "kept", kept)
    golden.CASES[case](meta, arrays)
    return kept[0]


def test_every_trajectory_is_there():
    names = {f.stem for f in FILES}
    assert len(HOSTS) >= 6
    assert set(training.LOSSES) <= names


@pytest.mark.parametrize("path", HOSTS, ids=[f.stem for f in HOSTS])
def test_host_goes_where_the_authors_goes(path: Path, monkeypatch: pytest.MonkeyPatch):
    case = path.stem
    meta, arrays = golden.read(HERE / path.name)
    _, recorded = golden.read(path)
    batches = training.batches(case, meta, arrays)
    host = host_with(case, meta, arrays, monkeypatch)
    start = {name: p.detach().clone() for name, p in host.named_parameters()}

    def step(i: int) -> Tensor:
        x, labels = batches[i % len(batches)]
        given = {f"in.{k}": v.numpy() for k, v in x.items()}
        return training.loss(golden.CASES[case](meta, {**arrays, **given}), x, labels)

    training.train(host.parameters(), step)
    trained = {name: p.detach().clone() for name, p in host.named_parameters()}
    theirs = host_with(case, meta, {**arrays, **_as_state(recorded)}, monkeypatch)
    moved = 0
    for name, p in theirs.named_parameters():
        difference = (p - trained[name]).abs().max().item() if p.numel() else 0.0
        assert difference <= TOLERANCE, f"{name} is {difference:.2e} away from theirs"
        moved += bool((start[name] - trained[name]).abs().max() > 5e-3) if p.numel() else 0
    assert moved > len(start) / 2


def _as_state(recorded: dict[str, Any]) -> dict[str, Any]:
    return {f"state.{k.removeprefix('final.')}": v for k, v in recorded.items() if k.startswith("final.")}


@pytest.mark.parametrize("case", training.LOSSES)
def test_loss_leads_where_the_authors_leads(case: str):
    meta, arrays = golden.read(HERE / f"{case}.npz")
    _, recorded = golden.read(HERE / "trajectories" / f"{case}.npz")
    config, features = meta["config"], training.free_features(arrays)
    labels = torch.from_numpy(arrays.get("in.labels", np.zeros(len(next(iter(features.values()))), np.int64)))
    if case == "multiemo_swfc":
        objective: Any = SWFC(
            len(arrays["in.class_counts"]),
            torch.from_numpy(arrays["in.class_counts"]),
            temperature=config["temp_param"],
            focus=config["focus_param"],
            weighting=config["sample_weight_param"],
        )
        names = {"features": "fused"}
    else:
        objective, names = SoftHGR(2, mode="official"), {k: k for k in features}

    def step(_: int) -> Tensor:
        mask = torch.ones(1, len(labels), dtype=torch.bool)
        streams = {names[k]: x.unsqueeze(0) for k, x in features.items()}
        batch = Batch({k: x.detach() for k, x in streams.items()}, mask, mask.long(), labels[None], ["0"])
        return objective(HostOutput(torch.zeros(1, len(labels), 2), streams), batch)

    start = {k: x.detach().clone() for k, x in features.items()}
    training.train(features.values(), step)
    for name, x in features.items():
        expected = torch.from_numpy(recorded[f"final.{name}"])
        assert (x.detach() - expected).abs().max() <= TOLERANCE
        assert (x.detach() - start[name]).abs().max() > 5e-3
