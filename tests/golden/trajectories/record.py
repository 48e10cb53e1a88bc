"""Trains the authors' own modules for thirty steps and records where that leads: `python record.py CLONES`.

CLONES is a folder with their repositories, each under its own name (`conv-emotion`, `MMGCN`, `MM-DFN`, `SDT`,
`MultiEMO-ACL2023`). A module starts from the weights of a golden case, whose outputs it must give first, and is trained in
float64, in eval mode (no dropout), on three random batches in turn. Nothing of the repositories is kept but numbers.
"""

from __future__ import annotations

import ast
import inspect
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import training  # noqa: E402
from test_golden import read  # noqa: E402

#: Golden case -> folder below CLONES, file, class.
WHERE = {
    "convemo_dialoguernn_general_listener": ("conv-emotion/DialogueRNN", "model.py", "BiModel"),
    "dialoguegcn_full_lstm_pyg2": ("conv-emotion/DialogueGCN", "model.py", "DialogueGCNModel"),
    "mmgcn_full": ("MMGCN", "model.py", "DialogueGCNModel"),
    "mmdfn_full": ("MM-DFN/code", "model.py", "DialogueGNNModel"),
    "sdt_full": ("SDT", "model.py", "Transformer_Based_Model"),
    "multiemo_full_iemocap": ("MultiEMO-ACL2023/Model", "MultiEMO_Model.py", "MultiEMO"),
    "multiemo_swfc": (
        "MultiEMO-ACL2023/Loss",
        "SampleWeightedFocalContrastiveLoss.py",
        "SampleWeightedFocalContrastiveLoss",
    ),
    "multiemo_softhgr": ("MultiEMO-ACL2023/Loss", "SoftHGRLoss.py", "SoftHGRLoss"),
}
#: Their argument -> the recorded input, where the names differ.
ARGUMENTS = {"seq_lengths": "lengths", "dia_len": "lengths", "textf": "text", "visuf": "visual", "acouf": "audio"}
#: Tensors that are indexed by an array of two or three rows, which today's numpy means as one index.
PAIRS = {("mask", "edge_ind_"), ("mask_copy", "edge_ind_"), ("adj", "idx")}


class Today(ast.NodeTransformer):
    """Hard-coded widths replaced, and what today's libraries take otherwise."""

    def __init__(self, constants: dict[int, int]):
        self.constants = constants

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        value = node.value
        if type(value) is not int or value not in self.constants:
            return node
        return ast.copy_location(ast.Constant(self.constants[value]), node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.slice, ast.Name) and (getattr(node.value, "id", ""), node.slice.id) in PAIRS:
            call = ast.Call(ast.Name("tuple", ast.Load()), [node.slice], [])
            node = ast.copy_location(ast.Subscript(node.value, call, node.ctx), node)
        return ast.fix_missing_locations(node)

    def visit_Call(self, node: ast.Call) -> ast.Call:
        # RGCNConv has taken no weights of edges since torch-geometric 1.6.
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "conv1":
            node.args = [a for a in node.args if not (isinstance(a, ast.Name) and a.id == "edge_norm")]
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        # MM-DFN adds in place to what autograd needs.
        self.generic_visit(node)
        if isinstance(node.target, ast.Name) and node.target.id == "layer_inner":
            value = ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, node.value)
            return ast.fix_missing_locations(ast.copy_location(ast.Assign([node.target], value), node))
        return node


def official(clones: Path, name: str, config: dict[str, Any]) -> Callable[..., nn.Module]:
    """Their class, from a copy of their code."""
    folder, file, cls = WHERE[name]
    copy = Path(tempfile.mkdtemp())
    constants = {int(k): v for k, v in config.get("consts", {}).items()}
    for path in (clones / folder).glob("*.py"):
        tree = Today(constants).visit(ast.parse(path.read_text()))
        (copy / path.name).write_text(ast.unparse(tree))
    sys.path.insert(0, str(copy))
    try:
        found = getattr(__import__(Path(file).stem), cls)
    finally:
        sys.path.remove(str(copy))
        shutil.rmtree(copy)
        for module in [m for m in sys.modules if (clones / folder / f"{m}.py").exists()]:
            del sys.modules[module]
    return found


def built(cls: Callable[..., nn.Module], config: dict[str, Any], **more: Any) -> nn.Module:
    """From the arguments that the case's configuration names."""
    given = {**dict.fromkeys(("dropout", "dropout_rec"), 0.0), **config, **more}
    return cls(**{k: given[k] for k in inspect.signature(cls).parameters if k in given})


def call(model: nn.Module, config: dict[str, Any], x: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their outputs, by the names of the case."""
    names = inspect.signature(model.forward).parameters
    given = {n: x[ARGUMENTS.get(n, n)] for n in names if ARGUMENTS.get(n, n) in x}
    if "seq_lengths" in given or "dia_len" in given:
        given |= {k: given[k].tolist() for k in ("seq_lengths", "dia_len") if k in given}
    if "att2" in names:
        given["att2"] = config["att2"]
    out = model(**given)
    out = out if isinstance(out, tuple) else (out,)
    keys = {
        "SDT": ("t_log_prob", "a_log_prob", "v_log_prob", "all_log_prob", "all_prob"),
        "MultiEMO": ("fused_text", "fused_audio", "fused_visual", "fc", "logits"),
    }
    name = {"Transformer_Based_Model": "SDT"}.get(type(model).__name__, type(model).__name__)
    return dict(zip(keys.get(name, ("log_prob",)), out, strict=False))


def record(clones: Path, name: str) -> None:
    meta, arrays = read(HERE.parent / f"{name}.npz")
    config = meta["config"]
    batches = training.batches(name, meta, arrays)
    cls = official(clones, name, config)
    if name in training.LOSSES:
        counts = {"class_counts": torch.from_numpy(arrays["in.class_counts"])} if "in.class_counts" in arrays else {}
        loss = built(cls, config, device="cpu", **counts)
        start = training.free_features(arrays)
        labels = [torch.from_numpy(arrays["in.labels"])] if "in.labels" in arrays else []
        training.train(list(start.values()), lambda _: loss(*start.values(), *labels))
        final = start
    else:
        model = built(cls, config, device="cpu").double().eval()
        weights = {k[6:]: torch.from_numpy(np.array(v)) for k, v in arrays.items() if k.startswith("state.")}
        missing, unknown = model.load_state_dict(weights, strict=False)
        assert not unknown, unknown
        assert all(k.rpartition(".")[2] == "pe" for k in missing), missing
        given = {k[3:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("in.")}
        for key, value in call(model, config, double(given)).items():
            np.testing.assert_allclose(value.detach(), arrays[f"out.{key}"], atol=1e-5, err_msg=key)
        trainable = [p for p in model.parameters() if p.requires_grad]
        training.train(
            trainable,
            lambda i: training.loss(
                call(model, config, double(batches[i % len(batches)][0])), *batches[i % len(batches)]
            ),
        )
        final = {k: v for k, v in model.state_dict().items() if k in weights}
    values: dict[str, Any] = {
        f"final.{k}": v.detach().float().numpy() if v.is_floating_point() else v.numpy() for k, v in final.items()
    }
    about = {"case": name, "reference": meta["reference"], "steps": training.STEPS, "torch": torch.__version__}
    np.savez_compressed(HERE / f"{name}.npz", meta=json.dumps(about), **values)
    print(name, sum(v.size for v in values.values()), (HERE / f"{name}.npz").stat().st_size)


def double(x: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.double() if v.is_floating_point() else v for k, v in x.items()}


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    sys.modules["ipdb"] = ModuleType("ipdb")
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    for case in sys.argv[2:] or WHERE:
        record(Path(sys.argv[1]).resolve(), case)
