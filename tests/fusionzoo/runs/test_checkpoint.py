from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile

import pytest
import torch

from fusionzoo.errors import CheckpointError
from fusionzoo.runs.checkpoint import (
    Checkpoint,
    checkpoint_folder,
    latest_checkpoint,
    list_checkpoints,
    read_checkpoint,
    remove_old_checkpoints,
    write_checkpoint,
)


def write(run, epoch: int, best: int | None = None) -> None:
    torch.manual_seed(epoch)
    weights = {"w": torch.randn(3, 2), "n": torch.tensor(epoch)}
    optimizer = {"optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}}
    state = {
        "epoch": epoch,
        "best": {"epoch": best or epoch, "score": 0.5},
        "history": [{"epoch": i + 1, "loss": 0.1 + epoch} for i in range(epoch)],
        "seconds": 1.5,
        "data_sha256": "0" * 64,
        "steps": 7,
    }
    write_checkpoint(run, Checkpoint(weights, {"w": weights["w"] / 2}, optimizer, state))


def test_round_trip_is_exact(tmp_path):
    write(tmp_path, 3)
    back = read_checkpoint(checkpoint_folder(tmp_path, 3))
    torch.manual_seed(3)
    w = torch.randn(3, 2)
    assert torch.equal(back.model["w"], w)
    assert back.average is not None
    assert torch.equal(back.average["w"], w / 2)
    assert back.optimizer["optimizer"]["param_groups"] == [{"lr": 0.1, "params": [0]}]
    assert back.state["history"] == [{"epoch": i, "loss": 3.1} for i in (1, 2, 3)]
    assert back.epoch == 3


def flip_a_byte(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)


def truncate(folder, name):
    os.truncate(folder / name, (folder / name).stat().st_size // 2)


def remove(folder, name):
    (folder / name).unlink()


@pytest.mark.parametrize("damage", [flip_a_byte, truncate, remove])
@pytest.mark.parametrize(
    "name", ["model.safetensors", "average.safetensors", "optimizer.pt", "state.json", "manifest.json"]
)
def test_a_damaged_checkpoint_is_passed_over_loudly(tmp_path, damage, name):
    write(tmp_path, 1)
    write(tmp_path, 2)
    damage(checkpoint_folder(tmp_path, 2), name)
    with pytest.raises(CheckpointError):
        read_checkpoint(checkpoint_folder(tmp_path, 2))
    with pytest.warns(UserWarning, match="epoch-00002"):
        found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.epoch == 1


def test_a_checkpoint_whose_best_epoch_is_lost_is_not_used(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2)
    write(tmp_path, 3, best=2)
    truncate(checkpoint_folder(tmp_path, 2), "model.safetensors")
    with pytest.warns(UserWarning, match="epoch-0000[23]"):
        found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.epoch == 1


def test_what_is_half_written_does_not_count_and_is_cleared_away(tmp_path):
    write(tmp_path, 1)
    partial = tmp_path / "checkpoints" / ".epoch-00002.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    assert [e for e, _ in list_checkpoints(tmp_path)] == [1]
    write(tmp_path, 2)
    remove_old_checkpoints(tmp_path, keep=2, best=1)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["epoch-00001", "epoch-00002"]


def test_the_newest_and_the_best_are_kept(tmp_path):
    for epoch in range(1, 7):
        write(tmp_path, epoch)
    remove_old_checkpoints(tmp_path, keep=2, best=3)
    assert [e for e, _ in list_checkpoints(tmp_path)] == [3, 5, 6]


def test_none_at_all(tmp_path):
    assert latest_checkpoint(tmp_path) is None


def test_a_pickle_in_the_optimizer_file_is_not_executed(tmp_path):
    write(tmp_path, 1)
    folder = checkpoint_folder(tmp_path, 1)
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    torch.save(Evil(), folder / "optimizer.pt")
    seal(folder, "optimizer.pt")
    with pytest.raises(CheckpointError):
        read_checkpoint(folder)
    assert not marker.exists()


def seal(folder, name):
    """Make a manifest agree with a file that was changed, as somebody who wants it to be read would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / name).read_bytes()
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": "2"}, "epoch: expected a whole number"),
        ({"epoch": 3}, "contradicts itself"),
        ({"best": {"epoch": 5, "score": 1}}, "contradicts itself"),
        ({"best": [1]}, "best: expected a mapping"),
        ({"history": [1, 2]}, "history.0: expected a mapping"),
        ({"history": [{"loss": "x"}, {}]}, "history.0.loss: expected a number or null"),
        ({"steps": 10**30}, "is not valid JSON: it holds a whole number of 31 digits"),
        ({"seconds": float("nan")}, "NaN, which is no number"),
        ({"data_sha256": None}, "data_sha256: expected a text"),
    ],
)
def test_odd_states_under_a_sound_manifest_are_refused_in_words(tmp_path, change, message):
    write(tmp_path, 2)
    folder = checkpoint_folder(tmp_path, 2)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | change))
    seal(folder, "state.json")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(folder)


def test_an_optimizer_file_that_unpacks_to_more_than_it_is_is_refused_unread(tmp_path):
    write(tmp_path, 1)
    folder = checkpoint_folder(tmp_path, 1)
    buffer = io.BytesIO()
    torch.save({"optimizer": {"x": torch.zeros(1 << 20)}}, buffer)
    with (
        zipfile.ZipFile(buffer) as stored,
        zipfile.ZipFile(folder / "optimizer.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in stored.namelist():
            packed.writestr(member, stored.read(member))
    seal(folder, "optimizer.pt")
    with pytest.raises(CheckpointError, match="promises more data than it holds"):
        read_checkpoint(folder)


@pytest.mark.parametrize("content", [[1], {"optimizer": 3}, "text", {"objective": [torch.zeros(1)]}])
def test_an_optimizer_file_of_another_shape_is_refused(tmp_path, content):
    write(tmp_path, 1)
    folder = checkpoint_folder(tmp_path, 1)
    torch.save(content, folder / "optimizer.pt")
    seal(folder, "optimizer.pt")
    with pytest.raises(CheckpointError, match="does not hold the states of optimizer"):
        read_checkpoint(folder)


def test_a_manifest_names_no_file_elsewhere(tmp_path):
    write(tmp_path, 1)
    folder = checkpoint_folder(tmp_path, 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../secret"] = {"bytes": 1, "sha256": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"'\.\./\.\./secret'"):
        read_checkpoint(folder)
