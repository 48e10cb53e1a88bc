"""Fusions that give one vector for a whole sequence."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

import fusionzoo_plugins.graph_mfn
import fusionzoo_plugins.mfn
import fusionzoo_plugins.mult
from fusionzoo.testing import check_fusion
from fusionzoo_plugins import foal_net, memo_cmt
from fusionzoo_plugins.foal_net import FoalNet
from fusionzoo_plugins.graph_mfn import GraphMFN
from fusionzoo_plugins.memo_cmt import MemoCMT
from fusionzoo_plugins.mfn import MFN
from fusionzoo_plugins.mult import MulT

POOLING = (
    "runs",
    "flat_input",
    "single_step",
    "training_on_one",
    "unaligned_lengths",
    "padding_poison_gradient",
    "padding_length",
    "mask_gap",
    "fully_masked_gradient",
    "batch_independence",
    "missing_any",
    "missing_call_equals_items",
    "missing_learned",
    "gradient_to_parameters",
    "parameter_count",
    "bfloat16",
)


@pytest.mark.parametrize(("module", "cls"), [(memo_cmt, MemoCMT), (foal_net, FoalNet)])
def test_pooling_passes_the_suite(module, cls):
    """Whether a fusion pools is on its card, once for all options: the suite hears here that these options do."""
    found = []
    module.fusionzoo_register(found.append)
    spec = replace(found[0], handles=found[0].handles | {"pools"})
    options = [{"pool": pool} for pool in module.POOLS if pool != "cls"]
    check_fusion(cls, options=options, spec=spec, only=POOLING).raise_if_failed()


SMALL = {"width": 8, "layers": 1, "memory_layers": 1}


@pytest.mark.parametrize(
    ("module", "cls", "options"),
    [
        (fusionzoo_plugins.mult, MulT, {**SMALL, "pool": "last"}),
        (fusionzoo_plugins.mfn, MFN, {"hidden": 4, "pool": "last"}),
        (fusionzoo_plugins.graph_mfn, GraphMFN, {"hidden": 4, "pool": "last"}),
    ],
)
def test_pooling_passes_the_checks_of_methods_that_pool(module, cls, options):
    specs = []
    module.fusionzoo_register(specs.append)
    spec = dataclasses.replace(specs[0], handles=specs[0].handles | {"pools"})
    only = ["runs", "padding_poison", "padding_length", "mask_gap", "fully_masked_row", "missing_call_equals_items"]
    check_fusion(cls, options=options, spec=spec, only=only).raise_if_failed()
