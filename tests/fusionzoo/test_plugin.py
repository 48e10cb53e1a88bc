"""`fusionzoo.plugin`: one call tells a plugin's summary and source; the rest is read off the class."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import types
from abc import ABC, abstractmethod
from typing import Protocol

import pytest
import torch
from torch import nn

import fusionzoo
from fusionzoo._registry import Registry
from fusionzoo.errors import OptionError, PluginError
from fusionzoo.fusion import Fused, Fusion
from fusionzoo.host import Host
from fusionzoo.objective import Objective
from fusionzoo.plugin import kebab_case

CPU = torch.device("cpu")


class LowRankSum(Fusion):
    """Sum of projected modalities."""

    modalities = (2, 3)
    unaligned = True
    variants = ("default", "paper")

    def __init__(self, dims, out_dim=None, *, rank=4, widths=(8, 4), device=CPU, variant="default", missing="zero"):  # fmt: skip
        super().__init__(dims, out_dim, missing=missing)
        self.variant = variant
        self.project = nn.ModuleList(nn.Linear(d, self.out_dim) for d in self.dims.values())
        self.scale = nn.Parameter(torch.ones(rank, 2))

    def combine(self, streams):
        return Fused(torch.stack([p(x) for p, x in zip(self.project, streams.x, strict=True)]).sum(0))


class TwoPlaces(Host):
    """A host in which a fusion may sit in two places."""

    placements = ("early", "late")


class Nothing(Objective):
    """A loss that is zero."""


class Knows:
    """An adapter of no repository."""

    def recognise(self, model):
        return False


def made_up(size: int = 3):
    """A data set."""


def spec_of(hook) -> fusionzoo.Spec:
    found: list[fusionzoo.Spec] = []
    hook(found.append)
    return found[0]


def test_what_the_class_tells_need_not_be_said():
    spec = spec_of(fusionzoo.plugin(LowRankSum, summary="a sum", paper="P", code="C", handles={"attention"}))
    assert (spec.name, spec.kind, spec.target) == ("low-rank-sum", "fusion", f"{__name__}:LowRankSum")
    assert (spec.summary, spec.paper, spec.code, spec.api) == ("a sum", "P", "C", 1)
    assert spec.modalities == (2, 3)
    assert spec.handles == {"masks", "missing", "unaligned", "attention"}
    assert spec.variants == ("default", "paper")
    # Not `device`, which no file can hold, and not what every fusion takes.
    assert spec.defaults == {"rank": 4, "widths": (8, 4)}


@pytest.mark.parametrize(
    ("target", "said", "kind"),
    [(LowRankSum, None, "fusion"), (TwoPlaces, None, "host"), (Nothing, None, "objective"), (Knows, "adapter", "adapter"),
     (made_up, "dataset", "dataset"), (LowRankSum, "fusion", "fusion")],
)  # fmt: skip
def test_the_kind_is_that_of_the_base_class_or_said(target, said, kind):
    assert spec_of(fusionzoo.plugin(target, summary="s", kind=said)).kind == kind


def test_a_host_has_its_placements_and_a_data_set_its_defaults():
    assert spec_of(fusionzoo.plugin(TwoPlaces, summary="s")).placements == ("early", "late")
    assert spec_of(fusionzoo.plugin(made_up, summary="s", kind="dataset")).defaults == {"size": 3}


def test_attributes_of_what_is_no_class_of_ours_are_its_own_business():
    class Mixin:
        kind = "gated"

    class Mixed(LowRankSum, Mixin):
        pass

    class Other(Knows):
        kind, modalities, placements = "parser", "all of them", 7

        def handles(self, model):
            return True

    for cls in (Mixed, Other):
        cls.__qualname__ = cls.__name__
    assert spec_of(fusionzoo.plugin(Mixed, summary="s")).kind == "fusion"
    spec = spec_of(fusionzoo.plugin(Other, summary="s", kind="adapter"))
    assert (spec.kind, spec.modalities, spec.handles, spec.placements) == ("adapter", (2, None), set(), ())


def test_what_is_said_goes_before_what_is_read_off():
    spec = spec_of(
        fusionzoo.plugin(LowRankSum, summary="s", name="other", modalities=(3, None), api=7, level="dialogue")
    )
    assert (spec.name, spec.modalities, spec.api, spec.level) == ("other", (3, None), 7, "dialogue")


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        (Knows, None, "derives from none of Fusion, Host, Objective, Reader and Encoder.*kind='fusion' or"),
        (Knows, "adaptor", "not 'adaptor'"),
        (LowRankSum, "host", "a fusion by its base class, not of kind 'host'"),
        (lambda: None, "dataset", "holds under a name"),
        (LowRankSum([2, 2]), None, "holds under a name"),
    ],
    ids=["no kind", "unknown kind", "another kind", "a lambda", "an instance"],
)
def test_what_cannot_be_a_plugin_is_refused_where_it_is_written(target, kind, message):
    with pytest.raises(PluginError, match=message):
        fusionzoo.plugin(target, summary="s", kind=kind)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"summary": 3}, "summary"), ({"name": "Not Kebab"}, "kebab-case"), ({"modalities": (2, "many")}, "modalities")],
)
def test_wrong_facts_are_named_when_the_plugin_is_loaded(given, message):
    with pytest.raises(PluginError, match=message):
        spec_of(fusionzoo.plugin(LowRankSum, **{"summary": "s", **given}))


def test_an_unknown_fact_is_an_error_in_the_plugin():
    with pytest.raises(TypeError, match="papre"):
        fusionzoo.plugin(LowRankSum, summary="s", papre="P")  # type: ignore[call-arg]


def test_names_of_classes_become_public_names():
    known = {"LMAM": "lmam", "MyFusion": "my-fusion", "MMGCNHost": "mmgcn-host", "Lo_Rank2D": "lo-rank2-d"}
    assert {name: kebab_case(name) for name in known} == known


def test_a_class_of_a_notebook_is_registered_by_the_call_itself():
    registry = Registry()
    assert registry.register(fusionzoo.plugin(LowRankSum, summary="a sum")) == ["low-rank-sum"]
    assert registry.get("low-rank-sum") is LowRankSum
    card = registry.card("low-rank-sum")
    assert (card.summary, card.distribution) == ("a sum", "(local)")
    # Run the cell again.
    assert registry.register(fusionzoo.plugin(LowRankSum, summary="the sum")) == ["low-rank-sum"]
    assert registry.card("low-rank-sum").summary == "the sum"


def test_one_module_may_stand_under_two_names():
    spec = spec_of(fusionzoo.plugin(LowRankSum, summary="s"))
    assert (spec.under("first").name, spec.under("second").name) == ("first", "second")
    named = spec_of(fusionzoo.plugin(LowRankSum, summary="s", name="its-own"))
    assert named.under("first").name == "its-own"


def test_a_module_is_registered_by_its_hook():
    module = types.ModuleType("notebook_module")
    module.fusionzoo_register = fusionzoo.plugin(LowRankSum, summary="s", name="of-a-module")  # type: ignore[attr-defined]
    assert Registry().register(module) == ["of-a-module"]


def test_plugin_stays_the_function_however_it_is_imported():
    code = """
    import sys, fusionzoo
    function = fusionzoo.plugin
    import fusionzoo.plugin
    from fusionzoo.plugin import kebab_case
    from fusionzoo import plugin
    assert fusionzoo.plugin is plugin is function and callable(plugin)
    assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


# -- cards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fusion", "objective", "host", "dataset", "adapter", "recipe"])
def test_cards_of_built_in_plugins_are_ready_for_json_and_show_what_they_hold(kind):
    for name in fusionzoo.names(kind):
        card = fusionzoo.card(name, kind)
        plain = json.loads(json.dumps(card.to_dict()))
        assert (plain["name"], plain["kind"], plain["handles"]) == (name, kind, sorted(card.handles))
        assert card.spec == fusionzoo.Spec(**{k: v for k, v in vars(card).items() if k in vars(card.spec)})
        text = str(card)
        assert text.startswith(f"{name} ({kind}) - {card.summary}")
        assert all(part in text for part in (card.paper, card.code, *card.variants, *card.placements))


def test_a_card_tells_options_and_their_defaults():
    card = fusionzoo.card("lmam")
    assert {"rank": None, "width": None, "residual": True}.items() <= card.defaults.items()
    assert card.variants == ("default", "official")
    assert not {"dims", "out_dim", "missing", "variant"} & set(card.defaults)


# -- reprs ---------------------------------------------------------------------------------------------------------


def first_lines(module: nn.Module) -> list[str]:
    return [line.strip() for line in repr(module).splitlines()[:3]]


def test_a_repr_shows_options_and_own_weights():
    lines = first_lines(fusionzoo.get("lmam")({"text": 8, "audio": 4}, rank=3, residual=False))
    assert lines[0] == "LMAM("
    assert lines[1] == "{'text': 8, 'audio': 4} -> 8, rank=3, width=8, residual=False"
    assert lines[2] == "query_factor: (8, 3), memory_factor: (8, 3), bias: (8,)"


def test_a_repr_leaves_out_defaults_and_what_cannot_be_written_down():
    lines = first_lines(LowRankSum([3, 2], 5, device=torch.device("meta")))
    assert lines[1] == "{'m0': 3, 'm1': 2} -> 5"
    assert lines[2] == "scale: (4, 2)"


def test_hosts_and_objectives_have_such_reprs_too():
    host = fusionzoo.get("bc-lstm", kind="host")({"text": 8, "audio": 4}, 6, 2, fusion="sum", placement="late")
    assert "{'text': 8, 'audio': 4} -> 6 classes, 2 speakers, fusion='sum', placement='late'" in repr(host)
    alone = fusionzoo.get("bc-lstm", kind="host")({"text": 8}, 6, 2)
    assert "no fusion: text alone" in repr(alone)
    assert repr(fusionzoo.get("focal", kind="objective")(6, gamma=3.0)) == "Focal(6 classes, gamma=3.0)"


def test_a_repr_survives_a_copy_a_wrapper_and_what_a_subclass_says():
    class Talks(LowRankSum):
        def extra_repr(self):
            return "as I please"

    assert "as I please" in repr(Talks([2, 2]))
    assert "-> 5" in repr(nn.Sequential(LowRankSum([3, 2], 5)))
    bare = LowRankSum.__new__(LowRankSum)  # what unpickling begins with
    nn.Module.__init__(bare)
    bare.dims, bare.out_dim = {"a": 1}, 2
    assert "{'a': 1} -> 2" in repr(bare)


def test_what_is_under_construction_can_be_shown():
    class Shows(LowRankSum):
        def __init__(self, dims):
            nn.Module.__init__(self)
            self.seen = repr(self)
            super().__init__(dims)

    assert "Shows(under construction" in Shows([2, 2]).seen


# -- classes -------------------------------------------------------------------------------------------------------


class Abstract(Fusion, ABC):
    """A family of fusions that have one method to fill in."""

    def combine(self, streams):
        return Fused(self.mix(streams.x))

    @abstractmethod
    def mix(self, xs):
        """The fused tensor."""


class Mean(Abstract):
    def mix(self, xs):
        return torch.stack(xs).mean(0)


class Named(Protocol):
    """What has a label."""

    label: str


class Labelled(Fusion, Named):
    label = "mine"


class AbstractHost(Host, ABC):
    @abstractmethod
    def encode(self, features, mask, batch): ...


class AbstractObjective(Objective, ABC):
    @abstractmethod
    def forward(self, out, batch): ...


def test_families_may_be_abstract():
    assert Mean([2, 2])([torch.ones(3, 2), torch.zeros(3, 2)]).tolist() == [[0.5, 0.5]] * 3
    for make in (lambda: Abstract([2, 2]), lambda: AbstractHost([2, 2], 3, 2), lambda: AbstractObjective(3)):
        with pytest.raises(TypeError, match="abstract"):
            make()
    with pytest.raises(OptionError, match="has no option 'rnk'"):
        Mean([2, 2], rnk=3)  # type: ignore[call-arg]


def test_a_fusion_may_have_a_protocol_for_a_base():
    assert Labelled([2, 2]).label == "mine"
    with pytest.raises(OptionError, match="has no option 'rnk'"):
        Labelled([2, 2], rnk=3)  # type: ignore[call-arg]


def test_instances_are_told_apart_as_those_of_any_class():
    mean = Mean([2, 2])
    assert isinstance(mean, Fusion)
    assert isinstance(mean, Abstract)
    assert not isinstance(mean, (Host, Labelled, LowRankSum))
    assert not isinstance(nn.Linear(1, 1), Fusion)
    assert issubclass(Labelled, Fusion)
    assert not issubclass(Labelled, Abstract)
