"""What `fusionzoo bench` reports: rows in order, the baseline at one, operations and parameters that can be checked."""

from __future__ import annotations

import json

import pytest

import fusionzoo
from fusionzoo.cli import main
from fusionzoo.errors import OptionError
from fusionzoo.experiments.cost import bench_fusions, bench_hosts
from fusionzoo.runs.config import RunConfig

DIMS = {"text": 12, "audio": 8}
SMALL = {"batch_size": 2, "steps": 5, "repeats": 2}


def test_fusions_beside_the_first():
    seen = []
    rows = bench_fusions(["concat", "lmam"], DIMS, 6, options={"lmam": {"rank": 2}}, report=seen.append, **SMALL)
    assert rows == seen
    assert [r.name for r in rows] == ["concat", "lmam"]
    assert rows[0].ratio == 1.0
    assert all(r.milliseconds > 0 and r.ratio > 0 and r.peak_mib is None for r in rows)
    assert rows[0].parameters == (12 + 8) * 6 + 6
    # Two operations a weight, at every step, padded ones too: lengths 1 and 5 in a batch of 2 x 5.
    assert rows[0].mflops == pytest.approx(2 * (12 + 8) * 6 * 10 / 6 / 1e6)
    assert rows[1].parameters == fusionzoo.get("lmam").parameter_count(DIMS, 6, rank=2)


def test_hosts_with_their_objective():
    corpus = fusionzoo.data.load("demo", dialogues=[6, 3, 3], length=[3, 6])
    configs = [
        RunConfig.from_dict({"host": {"name": "bc-lstm", "hidden": 4, "head_width": 4}, "fusion": {"name": name}})
        for name in ("concat", "gated")
    ]
    rows = bench_hosts(configs, corpus, repeats=1)
    assert [r.name for r in rows] == ["bc-lstm + concat", "bc-lstm + gated"]
    assert rows[1].parameters > rows[0].parameters


def test_command(capfd, tmp_path):
    arguments = [
        "bench",
        "--fusions",
        "sum,gated",
        "--dims",
        "a=4,b=3",
        "--batch",
        "2",
        "--steps",
        "3",
        "--repeats",
        "1",
    ]
    arguments += ["--device", "cpu", "--set", "fusion.width=5"]
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--json", "--out", str(tmp_path / "sub" / "costs.json")])
    assert not exit_.value.code
    rows = json.loads(capfd.readouterr().out)
    assert rows == json.loads((tmp_path / "sub" / "costs.json").read_text())
    assert [r["name"] for r in rows] == ["sum", "gated"]
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert "ratio" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dims", "3"], "text=1024,audio=1582"),
        (["--dims", "text=0,audio=3"], "width of 'text'"),
        (["--hosts", "bc-lstm", "--dims", "a=4,b=3"], "--dims is for fusions alone"),
        (["--fusions", "lmamm"], "did you mean 'lmam'"),
        (["--fusions", "sum", "--set", "fusion.rank=2"], "fusion.rank"),
        (["--fusions", "sum", "--device", "quantum"], "no device 'quantum'"),
    ],
)
def test_refusals(capfd, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        main(["bench", *arguments])
    assert exit_.value.code in (1, 2)
    err = capfd.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_nothing_to_measure():
    with pytest.raises(OptionError, match="no fusion"):
        bench_fusions([], DIMS)
    with pytest.raises(OptionError, match="repeats"):
        bench_fusions(["sum"], DIMS, repeats=0)
