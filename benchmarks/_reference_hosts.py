"""The authors' own models for `hosts.py`, built from repositories that lie in a folder beside this project.

Nothing of theirs is in this file. It says which class of which file is the model, how the published training script
builds it, what it reads, and what has to be changed for it to run with today's libraries: numpy arrays of positions as
an index, `.cuda()` on a machine without one, modules that are imported and not used, an argument that torch-geometric
dropped. Modules are loaded under private names, so that the many `model.py` do not meet. `REFERENCES` names the
repositories; a folder is expected to carry its repository's name.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import types
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionzoo.batch import Batch

CLASSES, SPEAKERS = 6, 2
# Utterances of each class in IEMOCAP's training split, for losses with class weights.
CLASS_COUNTS = [504.0, 839.0, 1324.0, 933.0, 742.0, 1468.0]
# Old code indexes with an array whose rows are the axes; numpy and torch now want a tuple there.
_ARRAY_INDEX = re.compile(r"\b(adj|mask|mask_copy)\[(idx|edge_ind_)\]")


@dataclass
class Inputs:
    """A batch as this field's repositories take it: time first, speakers one-hot, masks as numbers."""

    features: dict[str, Tensor]
    speakers: Tensor
    mask: Tensor
    lengths: list[int]
    labels: Tensor

    @classmethod
    def of(cls, batch: Batch) -> Inputs:
        """From a batch of ours."""
        features = {m: x.transpose(0, 1).contiguous() for m, x in batch.features.items() if x is not None}
        one_hot = F.one_hot(batch.speakers, SPEAKERS) * batch.mask.unsqueeze(-1)
        lengths = [int(n) for n in batch.mask.sum(1)]
        return cls(features, one_hot.transpose(0, 1).float(), batch.mask.float(), lengths, batch.labels)

    def copy(self) -> dict[str, Tensor]:
        """Features that a model may write into."""
        return {m: x.clone() for m, x in self.features.items()}


@dataclass
class Reference:
    """An official model.

    repository : where it comes from; the last part is the folder's name. build : from that folder and a device.
    scores : log-probabilities or scores `(..., C)` of a batch, or the loss itself.
    """

    repository: str
    build: Callable[[Path, torch.device], nn.Module]
    scores: Callable[[nn.Module, Inputs], Tensor]

    def loss(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """What is minimised; where there are scores, their share of it costs nothing beside the model."""
        out = self.scores(model, inputs)
        return -out[..., 0].mean() if out.dim() else out

    def folder(self, root: Path) -> Path:
        """Where the repository should lie."""
        return root / self.repository.rsplit("/", 1)[1]


@contextlib.contextmanager
def borrowed(names: Sequence[str]) -> Iterator[None]:
    """Leave `sys.modules` as it was for these names and what lies below them."""

    def taken() -> dict[str, types.ModuleType]:
        return {n: m for n, m in sys.modules.items() if n.split(".")[0] in names}

    before = taken()
    for name in before:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in taken():
            del sys.modules[name]
        sys.modules.update(before)


def _scatter_add(src: Tensor, index: Tensor, dim: int = 0, dim_size: int | None = None) -> Tensor:
    assert dim == 0
    assert dim_size is not None
    return src.new_zeros(dim_size, *src.shape[1:]).index_add(0, index, src)


def stub(name: str) -> types.ModuleType:
    """A module that is imported by the references and not installed here."""
    module = types.ModuleType(name)
    if name == "torch_scatter":
        module.scatter_add = _scatter_add  # type: ignore[attr-defined]
    return module


def load(folder: Path, names: Sequence[str], device: torch.device, repair: dict[str, str] | None = None) -> list:
    """The modules of a folder, in the order in which they import each other, with repairs `{pattern: replacement}`."""
    stubs = ("ipdb", "torch_scatter", "comet_ml")
    loaded = []
    with borrowed([*names, *stubs]), contextlib.redirect_stdout(io.StringIO()):
        for missing in stubs:
            try:
                importlib.import_module(missing)
            except ImportError:
                sys.modules[missing] = stub(missing)
        for name in names:
            path = folder / f"{name}.py"
            source = _ARRAY_INDEX.sub(r"\1[tuple(\2)]", path.read_text(encoding="utf-8"))
            if device.type == "cpu":
                source = source.replace(".cuda()", "")
            for pattern, replacement in (repair or {}).items():
                source = re.sub(pattern, replacement, source)
            # PyG finds the source of message-passing classes by these two.
            module = types.ModuleType(f"_reference_{folder.name}_{name}")
            module.__file__ = str(path)
            sys.modules[name] = sys.modules[module.__name__] = module
            exec(compile(source, str(path), "exec"), module.__dict__)
            loaded.append(module)
    return loaded


def _package(folder: Path, name: str, module: str) -> types.ModuleType:
    """A module of a package whose `__init__` needs more than the model does."""
    with borrowed([name]), contextlib.redirect_stdout(io.StringIO()):
        package = types.ModuleType(name)
        package.__path__ = [str(folder / name)]
        silent = Namespace(**dict.fromkeys(("debug", "info", "warning", "error"), lambda *_: None))
        package.utils = Namespace(get_logger=lambda *_: silent)  # type: ignore[attr-defined]
        sys.modules[name] = package
        return importlib.import_module(f"{name}.{module}")


def _quiet(build: Callable[..., nn.Module], *args, **options) -> nn.Module:
    with contextlib.redirect_stdout(io.StringIO()):
        return build(*args, **options)


# -- declare-lab/conv-emotion ------------------------------------------------------------------------------------------


def _dialogue_rnn(folder: Path, device: torch.device) -> nn.Module:
    (module,) = load(folder / "DialogueRNN", ["model"], device)
    options = {"n_classes": CLASSES, "context_attention": "general", "dropout_rec": 0.1, "dropout": 0.1}
    return module.BiModel(100, 500, 500, 300, 300, **options)


def _bc_lstm(folder: Path, device: torch.device) -> nn.Module:
    (module,) = load(folder / "bc-LSTM-pytorch", ["model"], device)
    return module.LSTMModel(100, 100, 100, n_classes=CLASSES, dropout=0.5, attention=True)


def _dialogue_gcn(folder: Path, device: torch.device) -> nn.Module:
    repair = {r"(self\.conv1\(x, edge_index, edge_type), edge_norm\)": r"\1)"}
    (module,) = load(folder / "DialogueGCN", ["model"], device, repair)
    return module.DialogueGCNModel(
        "LSTM", 100, 150, 150, 100, 100, 100, 100, n_speakers=SPEAKERS, max_seq_len=110, window_past=10,
        window_future=10, n_classes=CLASSES, context_attention="general", dropout=0.5, nodal_attention=True,
        no_cuda=device.type == "cpu",
    )  # fmt: skip


# -- the graphs over modalities ----------------------------------------------------------------------------------------


def _graph_options(device: torch.device) -> dict:
    return {
        "D_g": 150, "D_p": 150, "D_e": 100, "D_h": 100, "D_a": 100, "n_speakers": SPEAKERS, "max_seq_len": 200,
        "window_past": 10, "window_future": 10, "n_classes": CLASSES, "context_attention": "general",
        "no_cuda": device.type == "cpu", "D_m_v": 342, "D_m_a": 1582, "modals": "avl", "dataset": "IEMOCAP",
    }  # fmt: skip


def _mmgcn(depth: int) -> Callable[[Path, torch.device], nn.Module]:
    def build(folder: Path, device: torch.device) -> nn.Module:
        # The published call of the graph has its depth in the source.
        repair = {r"nlayers=64": f"nlayers={depth}"}
        root = folder / "MMGCN" if (folder / "MMGCN").is_dir() else folder
        module = load(root, ["model_GCN", "model_mm", "model"], device, repair)[-1]
        options = {"D_m": 100, "graph_hidden_size": 100, "graph_type": "MMGCN", "dropout": 0.4, "use_residue": True}
        options |= {"att_type": "concat_subsequently", "use_speaker": True, "base_model": "LSTM"}
        return _quiet(module.DialogueGCNModel, **_graph_options(device), **options)

    return build


def _mm_dfn(folder: Path, device: torch.device) -> nn.Module:
    # An addition in place into what the backward pass still needs.
    repair = {r"(\w+) \+= q\b": r"\1 = \1 + q"}
    root = folder / "code" if (folder / "code").is_dir() else folder
    module = load(root, ["model_GCN", "model_fusion", "model_mm", "model"], device, repair)[-1]
    options = {"D_m": 100, "graph_hidden_size": 100, "graph_type": "GDF", "dropout": 0.4, "use_residue": True}
    options |= {"att_type": "concat_subsequently", "base_model": "LSTM", "alpha": 0.2, "lamda": 0.5}
    options |= {"Deep_GCN_nlayers": 16, "use_crn_speaker": True, "speaker_weights": "3-0-1", "reason_flag": True}
    return _quiet(module.DialogueGNNModel, **_graph_options(device), **options)


def _m3net(folder: Path, device: torch.device) -> nn.Module:
    names = ["HypergraphConv", "high_fre_conv", "model_GCN", "model_hyper", "model"]
    # Messages are turned round while running, which PyG no longer takes: turn the incidence instead.
    repair = {r"from torch_geometric\.nn\.pool\.topk_pool import .*": "", r"\bself\.flow = .*": "pass"}
    # Weights for 1000 hyperedges and 5200 incidences, which 16 long dialogues exceed.
    repair |= {r"torch\.ones\((1000|5200)\)": "torch.ones(30000)"}
    repair |= {r"(self\.propagate\(hyperedge_index)(, x=out\b)": r"\1.flip(0)\2"}
    modules = load(folder, names, device, repair)
    options = {"D_m": 1024, "graph_hidden_size": 512, "graph_type": "hyper", "dropout": 0.5, "use_residue": False}
    options |= {"att_type": "concat_DHT", "base_model": "GRU", "norm": "BN", "num_L": 3, "num_K": 4}
    return _quiet(modules[-1].Model, **_graph_options(device) | {"D_g": 512}, **options)


def _graph_scores(model: nn.Module, x: Inputs) -> Tensor:
    features = x.copy()
    return model(features["text"], x.speakers, x.mask, x.lengths, features["audio"], features["visual"])[0]


def _m3net_scores(model: nn.Module, x: Inputs) -> Tensor:
    features = x.copy()
    views = list(features["text"].chunk(4, -1))
    return model(views, x.speakers, x.mask, x.lengths, features["audio"], features["visual"], 0)[0]


# -- COGMEN and CORECT -------------------------------------------------------------------------------------------------


def _cogmen(folder: Path, device: torch.device) -> nn.Module:
    args = Namespace(
        rnn="transformer", hidden_size=100, dataset="iemocap", emotion=None, concat_gin_gout=False, wp=5, wf=5,
        device=str(device), drop_rate=0.1, dataset_embedding_dims={"iemocap": {"atv": 1380}}, modalities="atv",
        log_in_comet=False, tuning=False, seqcontext_nlayer=2, gnn_nheads=1, use_highway=False, class_weight=False,
    )  # fmt: skip
    return _quiet(_package(folder, "cogmen", "model.COGMEN").COGMEN, args)


def _cogmen_scores(model: nn.Module, x: Inputs) -> Tensor:
    joined = torch.cat([x.features[m] for m in ("audio", "text", "visual")], -1).transpose(0, 1)
    data = {"text_len_tensor": torch.tensor(x.lengths), "input_tensor": joined, "speaker_tensor": _ids(x)}
    graph, _ = model.get_rep(data)  # type: ignore[operator]
    return model.clf.get_prob(graph, data["text_len_tensor"])  # type: ignore[operator, union-attr]


def _corect(folder: Path, device: torch.device) -> nn.Module:
    args = Namespace(
        hidden_size=100, rnn="transformer", encoder_nlayers=2, wp=11, wf=5, edge_type="temp_multi", gcn_conv="rgcn",
        use_graph_transformer=True, graph_transformer_nheads=7, use_crossmodal=True, num_crossmodal=2, num_self_att=3,
        crossmodal_nheads=2, self_att_nheads=2, use_speaker=True, no_gnn=False, use_highway=False, drop_rate=0.5,
        emotion=None, class_weight=False, device=str(device), modalities="atv", dataset="iemocap",
        dataset_embedding_dims={"iemocap": {"a": 100, "t": 768, "v": 512}},
    )  # fmt: skip
    return _quiet(_package(folder, "corect", "model.CORECT").CORECT, args)


def _corect_scores(model: nn.Module, x: Inputs) -> Tensor:
    data = {f"{m}_tensor": f.transpose(0, 1) for m, f in x.features.items()}
    data |= {"text_len_tensor": torch.tensor(x.lengths), "speaker_tensor": _ids(x)}
    return model.clf.get_prob(model.represent(data), data["text_len_tensor"])  # type: ignore[operator, union-attr]


def _ids(x: Inputs) -> Tensor:
    return x.speakers.argmax(-1).t().contiguous()


# -- SDT and MultiEMO --------------------------------------------------------------------------------------------------


def _sdt(folder: Path, device: torch.device) -> nn.Module:
    (module,) = load(folder, ["model"], device)
    return module.Transformer_Based_Model("IEMOCAP", 1, 1024, 342, 1582, 8, CLASSES, 1024, SPEAKERS, 0.5)


def _sdt_scores(model: nn.Module, x: Inputs) -> Tensor:
    f, q = x.features, x.speakers.transpose(0, 1)
    text, audio, visual, joint = model(f["text"], f["visual"], f["audio"], x.mask, q, x.lengths)[:4]
    # All four are trained.
    return text + audio + visual + joint


def _multiemo(folder: Path, device: torch.device) -> nn.Module:
    module = load(folder / "Model", ["DialogueRNN", "MultiAttn", "MLP", "MultiEMO_Model"], device)[-1]
    return module.MultiEMO(
        "IEMOCAP", True, 768, 1024, 0.0, 6, 256, 4, 512, 1000, 256, 256, 256, 256, CLASSES, SPEAKERS, False, "simple",
        256, 0.0, device,
    )  # fmt: skip


def _multiemo_scores(model: nn.Module, x: Inputs) -> Tensor:
    f, labels = x.features, torch.where(x.labels < 0, -1, x.labels).flatten()
    return model(f["text"], f["audio"], f["visual"], x.speakers, x.mask, labels)[-1]


def _multiemo_loss(folder: Path, device: torch.device) -> nn.Module:
    model = _multiemo(folder, device)
    contrast, correlation = load(folder / "Loss", ["SampleWeightedFocalContrastiveLoss", "SoftHGRLoss"], device)
    counts = torch.tensor(CLASS_COUNTS, device=device)
    # The defaults of its training script.
    model.contrast = contrast.SampleWeightedFocalContrastiveLoss(0.8, 2.0, 0.8, "IEMOCAP", counts, device)
    model.correlation = correlation.SoftHGRLoss()
    return model


def _multiemo_losses(model: nn.Module, x: Inputs) -> Tensor:
    f, labels = x.features, torch.where(x.labels < 0, -1, x.labels).flatten()
    *fused, joint, scores = model(f["text"], f["audio"], f["visual"], x.speakers, x.mask, labels)
    labels = labels[labels != -1]
    losses = 0.3 * model.correlation(*fused) + 0.4 * model.contrast(joint, labels)  # type: ignore[operator]
    return losses + 0.3 * F.cross_entropy(scores, labels)


def _text_scores(model: nn.Module, x: Inputs) -> Tensor:
    return model(x.features["text"], x.speakers, x.mask)[0]


def _text_graph_scores(model: nn.Module, x: Inputs) -> Tensor:
    return model(x.features["text"], x.speakers, x.mask, x.lengths)[0]


# By the rows of `hosts.py`.
REFERENCES: dict[str, Reference] = {
    "bc-lstm": Reference("declare-lab/conv-emotion", _bc_lstm, _text_scores),
    "cogmen": Reference("Exploration-Lab/COGMEN", _cogmen, _cogmen_scores),
    "corect": Reference("leson502/CORECT_EMNLP2023", _corect, _corect_scores),
    "dialogue-gcn": Reference("declare-lab/conv-emotion", _dialogue_gcn, _text_graph_scores),
    "dialogue-rnn": Reference("declare-lab/conv-emotion", _dialogue_rnn, _text_scores),
    "m3net": Reference("feiyuchen7/M3NET", _m3net, _m3net_scores),
    "mm-dfn": Reference("zerohd4869/MM-DFN", _mm_dfn, _graph_scores),
    "mmgcn, 4 layers": Reference("hujingwen6666/MMGCN", _mmgcn(4), _graph_scores),
    "mmgcn, 64 layers": Reference("hujingwen6666/MMGCN", _mmgcn(64), _graph_scores),
    "multiemo": Reference("TaoShi1998/MultiEMO-ACL2023", _multiemo, _multiemo_scores),
    "multiemo, loss": Reference("TaoShi1998/MultiEMO-ACL2023", _multiemo_loss, _multiemo_losses),
    "sdt": Reference("butterfliesss/SDT", _sdt, _sdt_scores),
}
