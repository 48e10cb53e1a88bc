"""The axes of a comparison: what they make, what they refuse, and how a file says them."""

from __future__ import annotations

import pytest

from fusionzoo.errors import ConfigError, FusionZooError, OptionError
from fusionzoo.experiments.axes import Axes, entrants, in_file
from fusionzoo.experiments.grid import KEYS
from fusionzoo.experiments.runner import seed_list
from fusionzoo.runs.config import RunConfig


def test_the_grid_is_checked_before_anything_runs(make_config):
    config = make_config()
    with pytest.raises(ConfigError, match=r"'concat' is in the comparison twice; give each a different label"):
        entrants(config, Axes(fusions=["concat", "concat"]))
    with pytest.raises(ConfigError, match=r"unknown configuration key 'fusion\.rnak'"):
        entrants(config, Axes(fusions=[{"name": "lmam", "rnak": 3}]))
    with pytest.raises(ConfigError, match="seeds must be"):
        seed_list(0)
    with pytest.raises(ConfigError, match="becomes part of a folder's name"):
        entrants(config, Axes(fusions=[{"name": "lmam", "label": "../x"}]))


def test_options_of_the_configuration_count_for_whoever_takes_them(make_config):
    config = make_config("fusion.rank=4", fusion="lmam", placement="early")
    cells = entrants(config, Axes(hosts=["bc-lstm", "dialogue-gcn"], fusions=["concat", "lmam"]))
    assert [(c.who.host, c.who.fusion) for c in cells][:2] == [("bc-lstm", "concat"), ("bc-lstm", "lmam")]
    assert {c.who.axes for c in cells} == {()}
    assert cells[1].name() == "bc-lstm__lmam"
    assert [c.config.fusion.options for c in cells] == [{}, {"rank": 4}, {}, {"rank": 4}]
    assert [c.config.host.options.get("hidden") for c in cells] == [8, 8, 8, 8]
    assert {c.config.host.placement for c in cells} == {"early"}
    with pytest.raises(ConfigError, match=r"'fusion.rnak'; did you mean 'rank'.*None of concat, lmam takes it"):
        entrants(RunConfig.from_sources(sets=["fusion.rnak=4"], check=False), Axes(fusions=["concat", "lmam"]))
    with pytest.raises(ConfigError, match=r"'host.window_past'.*'bc-lstm' takes"):
        entrants(RunConfig.from_sources(sets=["host.window_past=4"], check=False), Axes())


def test_further_axes_are_in_labels_and_folders_where_they_vary(make_config):
    config = make_config("training.lr=0.01")
    data = [
        "demo",
        {"source": "demo", "dialogues": [6, 3, 3], "label": "small", "set": {"training": {"batch_size": 2}}},
    ]
    axes = Axes(
        data=data,
        protocols=["split", 3, {"by": "dialogue", "k": 4, "label": "four", "set": {"data": {"dev_fraction": 0.3}}}],
        objectives=["cross-entropy", {"name": "focal", "gamma": 1.0}],
        fusions=["concat", {"name": "sum", "set": {"training": {"lr": 0.002}}}],
    )
    found = entrants(config, axes)
    assert len(found) == 2 * 3 * 2 * 2
    one = found[-1]
    assert one.who.axes == (("data", "small"), ("protocol", "four"), ("objective", "focal"))
    assert one.name("fold2") == "bc-lstm__sum__focal__small__four__fold2"
    assert one.split_name("fold2") == "small__four__fold2"
    assert found[0].name() == "bc-lstm__concat__cross-entropy__demo"
    assert (one.plan.k, one.config.data.dev_fraction) == (4, 0.3)
    assert one.config.data.options["dialogues"] == [6, 3, 3]
    assert one.config.data.options["length"] == [3, 8]  # of the base, whose source it shares
    assert (one.config.training.batch_size, one.config.training.lr) == (2, 0.002)
    assert (found[0].config.training.batch_size, found[0].config.training.lr) == (4, 0.01)
    assert one.config.objective.options == {"gamma": 1.0}  # cross-entropy's label smoothing means nothing to it
    assert found[0].config.objective.options == {"label_smoothing": 0.1}
    assert len({e.data for e in found}) == 4  # the protocol `four` draws another dev split
    alone = entrants(config, Axes(protocols=["speaker:2"]))
    assert (alone[0].who.axes, alone[0].name("fold1")) == ((), "bc-lstm__concat__speaker-2__fold1")


def test_what_makes_no_sense_is_refused(make_config):
    for axes, words in (
        (Axes(fusions=[{"name": "sum", "set": {"data": {"dev_fraction": 0.2}}}]), "data belong to the axis 'data'"),
        (Axes(fusions=[{"name": "sum", "set": {"trainign": {}}}]), "did you mean 'training'"),
        (Axes(hosts=[{"name": "bc-lstm", "set": 3}]), "holds sections"),
        (Axes(protocols=["split", "none"]), "'split' is in the comparison twice"),
        (Axes(protocols=[{"by": "speaker", "kk": 2}]), r"'folds\.kk'; did you mean 'k'"),
        (Axes(data=["a/x.npz", "b/x.npz"]), r"data 'x' is in the comparison twice.*source: \.\.\., label"),
        (Axes(data=[{"source": 3}]), "must be a source"),
        (Axes(objectives=["focla"]), "focal"),
    ):
        with pytest.raises(FusionZooError, match=words):
            entrants(make_config(), axes)
    with pytest.raises(OptionError, match="exclude each other"):
        entrants(RunConfig.from_sources(split="x.json"), Axes(protocols=[5]))


def test_a_file_holds_axes_beside_sections(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("data: [demo]\nfusions: [sum, {name: lmam, rank: 2}]\nseeds: 2\nhost: {hidden: 8}\n")
    found, sections = in_file(path, KEYS)
    assert found == {"data": ["demo"], "fusions": ["sum", {"name": "lmam", "rank": 2}], "seeds": 2}
    assert sections == {"host": {"hidden": 8}}
    assert in_file({"data": {"source": "demo"}}, KEYS) == ({}, {"data": {"source": "demo"}})
    with pytest.raises(ConfigError, match=r"'fusions' of a comparison is a list"):
        in_file({"fusions": "sum"}, KEYS)
