"""What a type checker and an editor see of fusionzoo: the types of constructors, of `get`, and of what comes out.

pyright reads this very file (the slow test below): every `assert_type` has to hold, and in every line marked with
`pyright: ignore` it has to find that fault, or it complains about the mark. The quick tests run the same lines.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=error, reportUnknownVariableType=error, reportUnknownMemberType=error
# pyright: reportUnknownArgumentType=error

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import assert_type

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fusionzoo
from fusionzoo.errors import ModalityError, OptionError
from fusionzoo.fusion import Fused, Fusion, Streams
from fusionzoo.host import Host, HostOutput
from fusionzoo.objective import Objective
from fusionzoo.testing import parametrize_checks
from fusionzoo_adapters.hosts.bc_lstm import BcLSTM
from fusionzoo_plugins.focal import Focal
from fusionzoo_plugins.late_product import LateProduct
from fusionzoo_plugins.lmam import LMAM
from fusionzoo_plugins.orthogonality import Orthogonality

DIMS = {"text": 8, "audio": 4}


def test_a_constructor_has_its_options_and_its_class():
    fusion = LMAM(DIMS, out_dim=6, rank=3)
    assert_type(fusion, LMAM)
    assert_type(fusion.rank, int)
    assert_type(BcLSTM(DIMS, 6, 2, fusion="lmam"), BcLSTM)
    assert_type(Focal(6, gamma=3.0), Focal)


def test_an_unknown_option_is_an_error_to_the_checker_as_well():
    with pytest.raises(OptionError, match="rank"):
        LMAM(DIMS, rnk=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(OptionError):
        LateProduct(DIMS, rank=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(OptionError):
        BcLSTM(DIMS, 6, 2, hiden=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(OptionError):
        Focal(6, gama=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(OptionError):
        Orthogonality(6, weight=3)  # pyright: ignore[reportCallIssue]


def test_a_value_of_another_type_is_an_error_to_the_checker_as_well():
    with pytest.raises(OptionError):
        LMAM(DIMS, rank="three")  # pyright: ignore[reportArgumentType]
    with pytest.raises(OptionError):
        LMAM(DIMS, missing=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(OptionError):
        BcLSTM(DIMS)  # pyright: ignore[reportCallIssue]


def test_get_gives_a_class_of_the_kind_that_is_asked_for():
    found = fusionzoo.get("lmam")
    assert_type(found, type[Fusion])
    assert_type(fusionzoo.get("lmam", kind="fusion"), type[Fusion])
    assert_type(fusionzoo.get("bc-lstm", "host"), type[Host])
    assert_type(fusionzoo.get("focal", kind="objective"), type[Objective])
    # Which options a class found by name takes nobody knows before it is there: any may be given.
    fusion = found(DIMS, out_dim=6, rank=3)
    assert_type(fusion, Fusion)
    assert_type(fusion.out_dim, int)
    with pytest.raises(OptionError):
        found()  # pyright: ignore[reportCallIssue]
    with pytest.raises(OptionError):
        found(DIMS, "six")  # pyright: ignore[reportArgumentType]


def test_what_a_fusion_gives_has_types():
    fusion = fusionzoo.get("lmam")(DIMS)
    streams = {m: torch.rand(2, 3, d) for m, d in DIMS.items()}
    out = fusion.fuse(streams, torch.ones(2, 3, dtype=torch.bool))
    assert_type(out, Fused)
    assert_type(out.fused, Tensor)
    assert_type(out.attention["text->audio"], Tensor)
    assert_type(LMAM.parameter_count(DIMS, 6, rank=3), int)


def test_what_a_host_gives_has_types():
    host = fusionzoo.get("bc-lstm", kind="host")(DIMS, 6, 2, fusion=("lmam", {"rank": 3}))
    zeros = torch.zeros(2, 3, dtype=torch.long)
    features = {m: torch.rand(2, 3, d) for m, d in DIMS.items()}
    out = host.encode({**features}, zeros == 0, fusionzoo.Batch(features, zeros == 0, zeros, zeros, ["a", "b"]))
    assert_type(out, HostOutput)
    assert_type(out.logits, Tensor)
    assert_type(out.losses, dict[str, Tensor])
    assert_type(host.built_fusion, Fusion | None)


def test_cards_and_corpora_have_types():
    card = fusionzoo.card("lmam")
    assert_type(card, fusionzoo.Card)
    assert_type(card.modalities, tuple[int, int | None])
    assert_type(fusionzoo.names(), list[str])
    corpus = fusionzoo.get("demo", kind="dataset")(dialogues=(4, 2, 2))
    assert_type(corpus, fusionzoo.Corpus)
    assert_type(corpus.summary()["splits"]["train"]["utterances"], int)
    assert isinstance(corpus.label, np.ndarray)


def test_modules_of_the_package_are_modules_to_the_checker_as_well():
    assert_type(fusionzoo.numerics.masked_mean(torch.ones(1, 2, 3), None), Tensor)
    assert_type(fusionzoo.errors.close_matches_hint("lman", ["lmam"]), str)


class Family(Fusion, ABC):
    """A checker knows abstract families too."""

    @abstractmethod
    def mix(self, streams: list[Tensor]) -> Tensor:
        """The fused tensor."""

    def combine(self, streams: Streams) -> Fused:
        return Fused(self.mix(streams.x))


class Mean(Family):
    def __init__(self, dims: fusionzoo.fusion.Dims, *, scale: float = 1.0):
        super().__init__(dims)
        self.scale = scale
        self.layers = nn.ModuleList()

    def mix(self, streams: list[Tensor]) -> Tensor:
        return torch.stack(streams).mean(0) * self.scale


def test_families_may_be_abstract_and_their_members_have_their_own_options():
    assert_type(Mean([2, 2], scale=2.0), Mean)
    assert_type(Mean([2, 2]).scale, float)
    with pytest.raises(TypeError, match="abstract"):
        Family([2, 2])  # pyright: ignore[reportAbstractUsage]
    with pytest.raises(OptionError):
        Mean([2, 2], scal=2.0)  # pyright: ignore[reportCallIssue]
    hook = fusionzoo.plugin(Mean, summary="a mean")
    assert callable(hook)
    with pytest.raises(TypeError):
        fusionzoo.plugin(Mean)  # pyright: ignore[reportCallIssue]


class Joined(nn.Module):
    """A model to patch."""

    def forward(self, text: Tensor, audio: Tensor, mask: Tensor) -> Tensor:
        """Both, side by side."""
        return torch.cat([text, audio], -1)


def test_what_patch_takes_is_known_by_its_parts():
    call = torch.randn(2, 5, 8), torch.randn(2, 5, 4), torch.ones(2, 5)
    named: dict[str, str] = {"text": "text", "audio": "audio"}
    assert fusionzoo.find_sites(Joined(), *call, modalities=named)
    with pytest.raises(ModalityError):
        fusionzoo.find_sites(Joined(), *call, modalities={"text": 3})  # pyright: ignore[reportArgumentType]

    def context(model: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"mask": args[2].bool()}

    fusionzoo.patch(Joined(), "lmam", inputs=call, context=context).remove()


def test_the_suite_keeps_the_type_of_the_test_that_it_decorates():
    def conformance(check: Callable[[], None]) -> str:
        check()
        return "ran"

    decorated = parametrize_checks("concat", LMAM, only=["padding_poison"])(conformance)
    assert_type(decorated(lambda: None), str)
    assert decorated(lambda: None) == "ran"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("pyright") is None, reason="needs pyright: pip install pyright")
def test_a_type_checker_agrees(tmp_path: Path):
    pyright = [sys.executable, "-m", "pyright"]
    if subprocess.run([*pyright, "--version"], capture_output=True).returncode:
        pytest.skip("pyright is installed and does not start; it needs node")
    # In a folder of its own, where the checker finds fusionzoo as it finds any installed package.
    copy = tmp_path / "usage.py"
    copy.write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    command = [*pyright, "--pythonpath", sys.executable, "--outputjson", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    report = json.loads(done.stdout)
    said = [f"{d['range']['start']['line'] + 1}: {d['message']}" for d in report["generalDiagnostics"]]
    assert report["summary"]["filesAnalyzed"] == 1
    assert not said, "\n".join(said)
