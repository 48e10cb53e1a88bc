"""What objectives of several streams share: which utterances count, what is refused, meeting a host."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from objective_cases import COUNTS, LABELS, TWO, C, case

from fusionzoo.errors import OptionError, ShapeError
from fusionzoo.objective import IGNORE, stream_widths
from fusionzoo_adapters.hosts.bc_lstm import BcLSTM
from fusionzoo_plugins.avel import AVEL
from fusionzoo_plugins.cmd import CMD
from fusionzoo_plugins.cross_entropy import CrossEntropy
from fusionzoo_plugins.deep_cca import DeepCCA
from fusionzoo_plugins.multiplicative_loss import Multiplicative
from fusionzoo_plugins.orthogonality import Orthogonality
from fusionzoo_plugins.reconstruction import Reconstruction
from fusionzoo_plugins.self_distillation import SelfDistillation
from fusionzoo_plugins.soft_hgr import SoftHGR


def test_a_pair_counts_where_both_modalities_were_recorded():
    present = {"audio": torch.tensor([[True, False, True, True, True], [True] * 5])}
    out, batch = case(*TWO, present=present)
    labels = torch.where(present["audio"], LABELS, IGNORE)
    only, fewer = case(*TWO, labels=labels)
    for objective in (SoftHGR(C), DeepCCA(C), AVEL(C, dims=dict.fromkeys(TWO, 4), width=5).eval()):
        torch.testing.assert_close(objective(out, batch), objective(only, fewer))


def test_streams_of_other_widths_or_names_are_refused_with_what_to_do():
    out, batch = case(*TWO)
    out.streams["audio"] = out.streams["audio"][..., :3]
    with pytest.raises(ShapeError, match="streams of one width, not"):
        SoftHGR(C)(out, batch)
    out, batch = case("fused")
    with pytest.raises(ShapeError, match=r"reads the stream 'txet'.*; it reports fused"):
        SoftHGR(C, streams=["txet", "fused"])(out, batch)
    with pytest.raises(OptionError, match="2 or more different names"):
        SoftHGR(C, streams=["text"])
    out, batch = case(*TWO)
    for objective in (CMD(C), Orthogonality(C), Reconstruction(C)):
        with pytest.raises(ShapeError, match="the fusion misa reports it"):
            objective(out, batch)
    with pytest.raises(ShapeError, match="late-average, late-product and multiplicative"):
        Multiplicative(C)(out, batch)


def test_a_batch_that_lacks_a_modality_gives_zero():
    out, batch = case("text")
    for objective in (SoftHGR(C), DeepCCA(C)):
        loss = objective(out, batch)
        loss.backward()
        assert loss == 0


def host_of(fusion="lmam", **options):
    return BcLSTM({"text": 6, "audio": 5}, C, 2, fusion=fusion, hidden=4, head_width=8, **options)


def test_stream_widths_leave_the_host_as_it_was():
    host = host_of().train()
    host.fusion.eval()
    state = torch.get_rng_state()
    assert stream_widths(host) == {"fused": 16, "text": 8, "audio": 8, "context": 16}
    assert host.training
    assert not host.fusion.training
    assert torch.get_rng_state().equal(state)


def test_bound_objectives_have_weights_for_the_hosts_streams():
    host = host_of()
    for objective in (AVEL(C, width=6), SelfDistillation(C)):
        with pytest.raises(OptionError, match=r"bind\(host\)"):
            objective(*case(*TWO))
        objective.bind(host)
        before = list(objective.parameters())
        objective.bind(host)
        assert [id(p) for p in before] == [id(p) for p in objective.parameters()]
        assert objective.names == TWO
        objective(*case(*TWO, width=8)).backward()
    with pytest.raises(OptionError, match="foal-net or lmam"):
        AVEL(C).bind(host_of("concat"))
    with pytest.raises(OptionError, match="does not report the stream 'txet'"):
        AVEL(C, streams=["txet", "audio"]).bind(host)


def test_the_trainers_objective_binds_its_parts():
    from fusionzoo.runs.models import WeightedObjective

    config = SimpleNamespace(objective=SimpleNamespace(terms=lambda: [("cross-entropy", 1.0, {})], auxiliary=1.0))
    met = []

    class Meets(CrossEntropy):
        def bind(self, host):
            met.append(host)

    host = host_of()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusionzoo.get", lambda name, kind: Meets)
        WeightedObjective(config, C, COUNTS, host)  # type: ignore[arg-type]
    assert met == [host]
