"""Two processes that train one model, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import fusionzoo

CHILD = """
import json, os, sys
from pathlib import Path
from fusionzoo.experiments.single_run import train
result = train(sys.argv[1], sys.argv[2], quiet=True)
Path(sys.argv[2]).with_name(f"rank{os.environ['RANK']}.json").write_text(json.dumps([result.is_main, result.dev["weighted_f1"]]))
"""


@pytest.mark.slow
def test_two_processes_train_one_model_and_count_every_dialogue_once(tmp_path, make_config, corpus):
    config = make_config("training.batch_size=3", epochs=2)
    (tmp_path / "c.yaml").write_text(config.to_yaml())
    (tmp_path / "child.py").write_text(CHILD)
    # What `accelerate launch` starts for several processes; its own launcher wants MPI for them on a CPU.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, str(tmp_path / "child.py"), str(tmp_path / "c.yaml"), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = [json.loads((tmp_path / f"rank{i}.json").read_text()) for i in range(2)]
    assert [is_main for is_main, _ in ranks] == [True, False]
    assert ranks[0][1] == ranks[1][1]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["processes"] == 2
    # 4 and 6 dialogues in batches of 3 do not divide among two processes; a repeat must not be counted twice.
    for split in ("dev", "test"):
        assert result[split]["utterances"] == int((corpus.split == split).sum())
        alone = fusionzoo.evaluate(tmp_path / "run", split=split, device="cpu", batch_size=3)
        assert alone["confusion"] == result[split]["confusion"]
