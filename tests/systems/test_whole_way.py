"""The published systems from raw files to scores, by their recipes, with tiny random models and a planted signal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("av")

from fusionzoo.cli import main
from fusionzoo.data.raw import read_raw
from fusionzoo.errors import DataError, OptionError
from fusionzoo.experiments.dialogue import predict_dialogue
from fusionzoo.experiments.saved_runs import evaluate, predict
from fusionzoo.runs.recipes import load_recipe
from fusionzoo.training import RunConfig, train


def run(recipe: str, data: Path, out: Path, *sets: str, protocol: str = "honest", variant: str | None = None) -> Any:
    """One run of a recipe, without its cross-validation."""
    sections = load_recipe(recipe).resolve(protocol, variant)
    config = RunConfig.from_sources(recipe=sections, data=str(data), sets=sets, device="cpu")
    return train(config, out, quiet=True).result


def memocmt(models) -> list[str]:
    text, audio = models["text"], models["audio"]
    return [
        f"host.encoders.text.model={text}",
        f"host.encoders.audio.model={audio}",
        "data.media.audio.rate=8000",
        "data.keep=true",
        "training.lr=0.003",
        "training.batch_size=8",
        "fusion.heads=2",
    ]


def test_memocmt_on_iemocap_from_the_command_line(iemocap, models, tmp_path, capsys):
    out = tmp_path / "run"
    line = ["train", "memocmt-iemocap", "--data", str(iemocap), "--protocol", "published", "--out", str(out), "--quiet"]
    sets = [*memocmt(models), "training.epochs=6"]
    with pytest.raises(SystemExit) as end:
        main([*line, *(word for s in sets for word in ("--set", s))])
    assert end.value.code == 0
    result = json.loads((out / "result.json").read_text())
    # 80 utterances: 8 are test, 7 dev; four classes.
    assert result["test"]["utterances"] == 8
    assert result["test"]["wa"] >= 0.7
    assert result["dev"]["wa"] >= 0.7
    assert (out / "report.html").exists()
    # A checkpoint holds what was trained; the model of the run is whole, and scores the same again.
    newest = sorted((out / "checkpoints").glob("epoch-*/model.safetensors"))[-1]
    assert newest.stat().st_size < 0.5 * (out / "model.safetensors").stat().st_size
    again = evaluate(out, split="test", device="cpu")
    assert again["wa"] == result["test"]["wa"]
    assert "81.85" in capsys.readouterr().out


def test_memocmt_on_esd(esd, models, tmp_path):
    result = run("memocmt-esd", esd, tmp_path / "run", *memocmt(models), "training.epochs=8", protocol="published")
    assert result["test"]["utterances"] == 28
    assert result["test"]["ua"] > 0.6


def foal(models, *more: str) -> list[str]:
    return [
        f"host.encoders.audio.model={models['wavlm']}",
        "data.media.audio.rate=8000",
        "data.keep=true",
        "training.lr=0.002",
        "training.epochs=10",
        "training.batch_size=8",
        "fusion.heads=2",
        *more,
    ]


@pytest.mark.slow
def test_foal_net_on_iemocap_with_both_losses(iemocap, models, tmp_path):
    sets = foal(models, f"host.encoders.visual.model={models['video']}", "data.media.visual.size=32")
    result = run("foal-net-iemocap", iemocap, tmp_path / "run", *sets, "data.dev=session")
    # Session 5 is held out: 16 utterances of four classes; session 4 chooses the epoch.
    assert result["test"]["utterances"] == 16
    assert result["test"]["ua"] > 0.6
    assert result["selection"] == "dev"


@pytest.mark.parametrize("variant", ["baseline", "avel", "mem", "ready"])
def test_foal_net_from_its_lists_and_ready_features(scp, models, tmp_path, variant):
    sections = load_recipe("foal-net-iemocap").resolve("published", variant)
    ready = load_recipe("foal-net-iemocap").resolve("published", "ready")
    sections["data"], sections["host"] = ready["data"], ready["host"]
    sets = foal(models, "training.epochs=4" if variant != "ready" else "training.epochs=8")
    config = RunConfig.from_sources(recipe=sections, data=str(scp), sets=sets, device="cpu")
    result = train(config, tmp_path / "run", quiet=True).result
    assert result["test"]["utterances"] == 16
    assert result["selection"] == "test"
    if variant == "ready":
        assert result["test"]["ua"] > 0.6


TRUNKS = "host.encoders={visual: {layers: [1, 1, 1, 1], groups: 4}, audio: {frames: 44, widths: [8, 8]}}"
SMALL = (
    "data.media.visual.frames=4",
    "data.media.visual.size=32",
    "data.media.audio.start=0.0",
    "data.media.audio.seconds=0.5",
)


@pytest.mark.slow
def test_cfn_sr_on_ravdess(ravdess, tmp_path):
    sets = [TRUNKS, *SMALL, "training.epochs=6", "training.batch_size=8", "fusion.heads=2", "fusion.layers=1"]
    result = run("cfn-sr-ravdess", ravdess, tmp_path / "run", *sets, "data.k_fold=6", "data.fold=5")
    # One actor is held out, 16 clips of eight classes; another chooses the epoch.
    assert result["test"]["utterances"] == 16
    assert result["test"]["wa"] > 0.4


@pytest.mark.parametrize("row", ["late-average", "late-product", "multiplicative", "concat-fc", "mcb", "mmtm", "msaf"])
def test_the_rows_of_cfn_srs_table(ravdess, tmp_path, row):
    sets = [TRUNKS, *SMALL, "training.epochs=1", "training.batch_size=16", "data.media.visual.augment=none"]
    if row == "mcb":
        sets.append("fusion.sketch=64")
    result = run(f"ravdess-{row}", ravdess, tmp_path / "run", *sets, "data.groups.k=3", protocol="published")
    assert result["test"]["utterances"] > 0
    assert result["selection"] == "test"


@pytest.mark.slow
def test_leaving_groups_of_actors_out_from_the_command_line(ravdess, tmp_path, capsys):
    out = tmp_path / "folds"
    sets = [TRUNKS, *SMALL, "training.epochs=1", "training.batch_size=16", "fusion.heads=2", "fusion.layers=1"]
    sets += ["data.groups={k: 4, published: true}", "data.media.visual.augment=none"]
    line = ["train", "cfn-sr-ravdess", "--data", str(ravdess), "--protocol", "published", "--out", str(out), "--quiet"]
    with pytest.raises(SystemExit) as end:
        main([*line, *(word for s in sets for word in ("--set", s))])
    assert end.value.code == 0
    summary = json.loads((out / "summary.json").read_text())
    # Six actors in four groups of int(6 / 4): actors 5 and 6 are never tested, as the published code leaves some out.
    assert [r["fold"] for r in summary["rows"]] == ["group1", "group2", "group3", "group4"]
    assert [r["utterances"] for r in summary["rows"]] == [16] * 4
    assert summary["mean"]["wa"]["mean"] is not None
    printed = capsys.readouterr().out
    assert "75.76" in printed
    assert "SELECTED ON THE TEST" in printed.upper()


@pytest.mark.slow
def test_a_run_that_was_interrupted_goes_on_to_the_same_numbers(ravdess, tmp_path):
    sets = [TRUNKS, *SMALL, "training.batch_size=16", "fusion.heads=2", "fusion.layers=1", "training.sampler=balanced"]
    sections = load_recipe("cfn-sr-ravdess").resolve("published")

    def config(epochs: int) -> RunConfig:
        more = [*sets, f"training.epochs={epochs}"]
        return RunConfig.from_sources(recipe=sections, data=str(ravdess), sets=more, device="cpu")

    whole = train(config(3), tmp_path / "whole", quiet=True)
    train(config(1), tmp_path / "part", quiet=True)
    part = train(config(3), tmp_path / "part", quiet=True, resume=True)
    for name in ("predictions.csv", "model.safetensors"):
        assert (whole.folder / name).read_bytes() == (part.folder / name).read_bytes(), name


def test_another_host_is_told_that_it_takes_features(iemocap, models, tmp_path):
    sections = load_recipe("memocmt-iemocap").resolve("published")
    config = RunConfig.from_sources(recipe=sections, data=str(iemocap), host="bc-lstm", fusion="concat", device="cpu")
    with pytest.raises(OptionError, match="takes features"):
        train(config, tmp_path / "run", quiet=True)


@pytest.mark.slow
def test_a_dialogue_of_ones_own_through_a_host_that_hears_itself(iemocap, models, tmp_path):
    run("memocmt-iemocap", iemocap, tmp_path / "run", *memocmt(models), "training.epochs=1", protocol="published")
    rows = [
        {"id": u.id, "dialogue": u.dialogue_id, "speaker": u.speaker, "text": u.text, "audio": str(u.audio)}
        for u in read_raw(iemocap, classes="4-memocmt").utterances[:5]
    ]
    table = tmp_path / "mine.json"
    table.write_text(json.dumps(rows))
    told = predict_dialogue(tmp_path / "run", table, device="cpu")
    assert [u.utterance for u in told.lines] == [row["id"] for row in rows]
    written = predict(tmp_path / "run", out=tmp_path / "p.csv", device="cpu").read_text().splitlines()[1:]
    expected = {cells[2]: [float(p) for p in cells[5:]] for cells in (line.split(",") for line in written)}
    for u in told.lines:
        np.testing.assert_allclose(expected[u.utterance], list(u.probabilities.values()), atol=1e-4)
    table.write_text(json.dumps([{k: v for k, v in row.items() if k != "audio"} for row in rows]))
    with pytest.raises(DataError, match="audio"):
        predict_dialogue(tmp_path / "run", table, device="cpu")
