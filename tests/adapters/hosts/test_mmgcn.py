"""MMGCN: what it shares with MM-DFN, and what it leaves to it."""

from __future__ import annotations

from modal_graph_hosts import ModalGraphHostTests

from fusionzoo_adapters.hosts.mm_dfn import MMDFN
from fusionzoo_adapters.hosts.mmgcn import MMGCN


class TestMMGCN(ModalGraphHostTests):
    CLASS = MMGCN

    def test_it_has_neither_memory_nor_speakers_recurrence_unless_asked(self):
        host = self.make()
        assert host.parties is None
        names = {n for n, _ in host.named_parameters()}
        more = {n for n, _ in self.make(dynamic=True, speaker_weights=1.0).named_parameters()} - names
        assert {n.split(".")[0] for n in more} == {"parties", "graph"}
        whole = MMDFN(host.dims, 3, 2, hidden=4, graph_width=5, depth=2)
        assert {n for n in more if n.startswith("parties.")} <= {n for n, _ in whole.named_parameters()}
