"""All hosts of clips: what a batch must hold, and encoders in the graph."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from clip_hosts import DIMS, build, make, sequences

import fusionzoo
from fusionzoo.batch import Batch, Clip
from fusionzoo.errors import ModelError, OptionError, ShapeError
from fusionzoo.objective import stream_widths


def test_what_a_batch_must_hold():
    host = build("foal-net")
    with pytest.raises(ShapeError, match="'text'"):
        host(make({"text": Clip(torch.zeros(2, 3, 8))}))
    with pytest.raises(ShapeError, match="need an encoder"):
        host(make({"audio": Clip(["a", "b"])}))
    with pytest.raises(ShapeError, match=r"\(B \* T, S, 8\)"):
        host(make({"audio": Clip(torch.zeros(2, 3, 7))}))
    dialogues = fusionzoo.get("bc-lstm", kind="host")(DIMS, 3, 2)
    with pytest.raises(ShapeError, match="takes features"):
        dialogues(sequences())


# ---------------------------------------------------------------------- encoders


@pytest.fixture(scope="module")
def tiny():
    pytest.importorskip("transformers")
    path = Path(__file__).parents[2] / "fusionzoo/encoders/models.py"
    spec = importlib.util.spec_from_file_location("tiny_models_of_hosts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {
        "text": str(tiny.text_model(root / "text")),
        "audio": str(tiny.audio_model(root / "audio")),
        "visual": str(tiny.vision_model(root / "video")),
    }


def recordings(rows=(0, 1, 2), pad=0) -> Batch:
    texts = ["i know", "oh my god what", "no"]
    waves = [torch.randn(n, generator=torch.Generator().manual_seed(n)) * 0.1 for n in (900, 700, 400)]
    frames = [
        torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
        for n in (2, 3, 1)
    ]

    def padded(items):
        n = max(len(i) for i in items) + pad
        values = torch.stack([torch.cat([i, i.new_full((n - len(i), *i.shape[1:]), 9)]) for i in items])
        return Clip(values, torch.arange(n) < torch.tensor([[len(i)] for i in items]))

    clips = {"audio": padded([waves[r] for r in rows]), "visual": padded([frames[r] for r in rows])}
    return make({"text": Clip([texts[r] for r in rows]), **clips})


def test_encoders_in_the_graph(models):
    encoders = {
        "text": {"model": models["text"], "trainable": True},
        "audio": {"model": models["audio"], "trainable": "transformer"},
        "visual": models["visual"],
    }
    host = build("memo-cmt", dims={"text": 1, "audio": 1, "visual": 3}, encoders=encoders)
    assert host.widths == {"text": 16, "audio": 16, "visual": 12}
    out = host(recordings()).logits
    assert torch.allclose(host(recordings(pad=300)).logits, out, atol=1e-4)
    for row in range(3):
        assert torch.allclose(host(recordings(rows=(row,))).logits[0], out[row], atol=1e-4)
    out.square().sum().backward()
    learns = {n: p.grad is not None for n, p in host.named_parameters()}
    assert learns["encoders.text.model.encoder.layer.0.output.dense.weight"]
    assert not any(g for n, g in learns.items() if n.startswith("encoders.visual."))
    assert not any(g for n, g in learns.items() if "feature_extractor" in n)
    assert {"fused", "text", "audio", "visual"} <= set(stream_widths(host))
    with pytest.raises(ShapeError, match="takes clips"):
        host(Batch({"text": torch.zeros(1, 1, 1)}, *[torch.ones(1, 1, dtype=t) for t in (bool, int, int)], ["0"]))


@pytest.mark.parametrize("name", ["memo-cmt", "foal-net", "msaf"])
def test_encoders_under_autocast(models, name):
    dims = {"audio": 1, "visual": 3}
    host = build(name, dims=dims, encoders={"audio": models["audio"], "visual": models["visual"]})
    batch = recordings()
    del batch.clips["text"]
    exact = host(batch).logits
    with torch.autocast("cpu", torch.bfloat16):
        out = host(batch)
        if name == "foal-net":
            mem = fusionzoo.get("mem", kind="objective")(3, alignment=10.0, width=5, variant="official")
            mem.bind(host)
            batch.labels = torch.tensor([[0], [1], [0]])
            mem(out, batch).backward()
    assert out.logits.isfinite().all()
    assert (out.logits.float() - exact).norm() < 0.2 * exact.norm() + 0.05


def test_encoders_that_cannot_be_had_or_do_not_fit(models, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    dims = {"text": 1, "audio": 1}
    with pytest.raises(ModelError, match="Name a local folder"):
        build("memo-cmt", dims=dims, encoders={"text": "bert-base-uncased-of-nobody"})
    with pytest.raises(OptionError, match="lacks 'model'"):
        build("memo-cmt", dims=dims, encoders={"text": {"trainable": True}})
    with pytest.raises(OptionError, match="did you mean 'trainable'"):
        build("memo-cmt", dims=dims, encoders={"text": {"model": models["text"], "trainble": True}})
    with pytest.raises(OptionError, match="did you mean 'text'"):
        build("memo-cmt", dims=dims, encoders={"txt": models["text"]})
    from fusionzoo.data.clips.media import Wave

    host = build("memo-cmt", dims=dims, encoders={"text": models["text"], "audio": models["audio"]})
    with pytest.raises(OptionError, match=r"data\.media\.audio\.rate=8000"):
        host.check_media({"audio": Wave(rate=16000)})
