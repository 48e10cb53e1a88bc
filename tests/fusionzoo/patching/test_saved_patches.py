"""Patches in files and pickles."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import fusionzoo
from fusionzoo.errors import (
    CheckpointError,
    HostChangedError,
)

HERE = Path(__file__).parent


def first(model, args, kwargs, **options):
    return fusionzoo.find_sites(model, *args, **options, **kwargs)[0]


@pytest.mark.parametrize(
    "name", ["FlatNodes", *(pytest.param(n, marks=pytest.mark.slow) for n in ("FreeFunction", "Wrapped", "Cat"))]
)
def test_save_load_in_a_fresh_process(build, hosts, shake, tmp_path, name):
    model, args, kwargs = build(getattr(hosts, name))
    patch = fusionzoo.patch(
        model, "lmam", first(model, args, kwargs), layout=None if name == "FlatNodes" else "(B, T, d)"
    )
    shake(patch)
    expected = model(*args, **kwargs)
    expected = expected["logits"] if isinstance(expected, dict) else expected
    patch.save(tmp_path / "p.safetensors")
    torch.save(
        {"host": {k: v for k, v in model.state_dict().items() if "fusionzoo" not in k}, "y": expected},
        tmp_path / "w.pt",
    )
    code = f"""
    import sys, torch, fusionzoo
    sys.path.insert(0, {str(HERE)!r})
    import hosts
    saved = torch.load({str(tmp_path / "w.pt")!r})
    model = hosts.{name}().eval()
    model.load_state_dict(saved["host"])
    state = torch.get_rng_state()
    patch = fusionzoo.load_patch(model, {str(tmp_path / "p.safetensors")!r})
    assert torch.equal(state, torch.get_rng_state())
    args, kwargs = hosts.{name}.call()
    assert torch.equal(model(*args, **kwargs), saved["y"])
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_load_says_what_does_not_fit(build, hosts, tmp_path):
    model, args, kwargs = build(hosts.FreeFunction)
    patch = fusionzoo.patch(model, "gated", first(model, args, kwargs))
    path = patch.save(tmp_path / "p.safetensors")
    with pytest.raises(HostChangedError):
        fusionzoo.load_patch(hosts.Cat(), path)
    with pytest.raises(CheckpointError, match="no saved patch"):
        fusionzoo.load_patch(model, tmp_path / "other")
    (tmp_path / "broken").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="damaged"):
        fusionzoo.load_patch(model, tmp_path / "broken")
    state = patch.state_dict()
    given = dict(state)
    given.pop(next(iter(given)))
    with pytest.raises(CheckpointError, match="1 tensors of the model are not in it"):
        patch.load_state_dict(given)
    assert len(given) == len(state) - 1
    with pytest.raises(CheckpointError, match="not in the model"):
        patch.load_state_dict({**state, "more": torch.zeros(1)})


@pytest.mark.slow
def test_changed_host_code_is_noticed(tmp_path):
    source = """
    import torch
    from torch import nn
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 2)
        def forward(self, text, audio):
            return self.head(torch.cat([text, audio], -1))
    """
    source = textwrap.dedent(source)
    check = """
    import sys, torch, fusionzoo
    sys.path.insert(0, {folder!r})
    from net import Net
    {body}
    """
    save = "m = Net(); x = (torch.randn(2, 4), torch.randn(2, 2)); fusionzoo.patch(m, 'gated', inputs=x).save({path!r})"
    load = "fusionzoo.load_patch(Net(), {path!r}); print('loaded')"
    path = str(tmp_path / "p.safetensors")

    def run(text, body):
        (tmp_path / "net.py").write_text(text)
        code = textwrap.dedent(check).format(folder=str(tmp_path), body=body.format(path=path))
        return subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True)

    assert run(source, save).returncode == 0
    assert "loaded" in run("# a line above\n\n" + source, load).stdout
    changed = run(source.replace("[text, audio]", "[text * 2, audio]"), load)
    assert "HostChangedError" in changed.stderr
    assert "has changed since the patch was saved" in changed.stderr


def test_pickle(build, hosts, shake):
    for cls in (hosts.FreeFunction, hosts.FlatNodes, hosts.Rows, hosts.Child):
        model, args, kwargs = build(cls)
        shake(fusionzoo.patch(model, "gated", first(model, args, kwargs)))
        other = pickle.loads(pickle.dumps(model))
        assert torch.equal(other(*args, **kwargs), model(*args, **kwargs))
