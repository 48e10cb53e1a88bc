"""Small models with the names and the one expression that an adapter looks for; no code of a repository is here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

LENGTHS = (5, 3, 4)
Call = tuple[nn.Module, tuple[Any, ...], dict[str, Any]]


def padded(*widths: int, first: str = "T") -> list[Tensor]:
    """A stream of each width, `(T, B, d)` or `(B, T, d)`."""
    shape = (max(LENGTHS), len(LENGTHS)) if first == "T" else (len(LENGTHS), max(LENGTHS))
    return [torch.randn(*shape, w) for w in widths]


def real() -> Tensor:
    """Mask `(B, T)`."""
    return (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)).float()


def rows(x: Tensor, lengths: Sequence[int]) -> Tensor:
    """Real steps of `(T, B, d)`, one dialogue after the other."""
    return torch.cat([x[:n, j] for j, n in enumerate(lengths)])


class _Context(nn.Module):
    input_size = 1380

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(self.input_size, 4)

    def forward(self, text_len_tensor: Tensor, text_tensor: Tensor) -> Tensor:
        del text_len_tensor
        return torch.tanh(self.fc(text_tensor))


class COGMEN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.gcn, self.clf = _Context(), nn.Identity(), nn.Linear(4, 3)

    def forward(self, data: dict[str, Any]) -> Tensor:
        return self.clf(self.gcn(self.rnn(data["text_len_tensor"], data["input_tensor"])))

    @classmethod
    def small(cls) -> Call:
        data = {"text_len_tensor": torch.tensor(LENGTHS), "input_tensor": padded(1380, first="B")[0]}
        return cls(), (data,), {}


def multi_concat(nodes: Tensor, lengths: Tensor, n_modals: int) -> Tensor:
    total = int(lengths.sum())
    feature = [nodes[j * total : (j + 1) * total] for j in range(n_modals)]
    return torch.cat(feature, dim=-1)


class _Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gnn = nn.ModuleDict({"bn": nn.BatchNorm1d(4)})
        self.gnn.bn = self.gnn["bn"]

    def forward(self, xs: list[Tensor], lengths: Tensor) -> Tensor:
        out = torch.cat([rows(x.transpose(0, 1), lengths.tolist()) for x in xs])
        return multi_concat(self.gnn["bn"](out), lengths, len(xs))


class CORECT(nn.Module):
    n_modals = 3

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(nn.Linear(w, 4) for w in (5, 3, 2))
        self.graph_model, self.clf = _Graph(), nn.Linear(12, 3)

    def forward(self, data: dict[str, Any]) -> Tensor:
        xs = [f(data[f"{m}_tensor"]) for f, m in zip(self.encoder, ("text", "audio", "visual"), strict=True)]
        return self.clf(self.graph_model(xs, data["text_len_tensor"]))

    @classmethod
    def small(cls) -> Call:
        text, audio, visual = padded(5, 3, 2, first="B")
        lengths = torch.tensor(LENGTHS)
        return (
            cls(),
            ({"text_len_tensor": lengths, "text_tensor": text, "audio_tensor": audio, "visual_tensor": visual},),
            {},
        )


class GraphModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2560, 3)
        self.graph_net_temporal = self.graph_net_speaker = nn.Linear(3, 3)
        self.linear_rec = nn.Linear(3, 4)

    def forward(self, inputfeats: list[Tensor], qmask: Tensor, umask: Tensor, seq_lengths: Sequence[int]) -> Tensor:
        out, _ = self.lstm(inputfeats[0])
        return self.linear_rec(self.graph_net_temporal(out))

    @classmethod
    def small(cls) -> Call:
        return cls(), (padded(2560), real(), real(), list(LENGTHS)), {}


def Matching(matchatt: nn.Module, emotions: Tensor, modals: list[Tensor], umask: Tensor) -> Tensor:
    att_emotions = torch.cat([matchatt(modal) for modal in modals])
    n = emotions.size(0)
    return att_emotions[:n] + att_emotions[n : 2 * n] + att_emotions[2 * n : 3 * n]


class LSTMModel(nn.Module):
    attention = "LMAM"

    def __init__(self) -> None:
        super().__init__()
        self.lstm2 = nn.LSTM(5, 4)
        self.fc1, self.fc2, self.matchatt, self.smax_fc = (nn.Linear(w, 4) for w in (3, 2, 4, 4))

    def forward(self, textf: list[Tensor], acouf: Tensor, visuf: Tensor, qmask: Tensor, umask: Tensor) -> Tensor:
        text, _ = self.lstm2(sum(textf) / 4)
        return self.smax_fc(Matching(self.matchatt, text, [text, self.fc1(acouf), self.fc2(visuf)], umask))

    @classmethod
    def small(cls) -> Call:
        *text, audio, visual = padded(5, 5, 5, 5, 3, 2)
        return cls(), (text, audio, visual, real().T.unsqueeze(-1).expand(-1, -1, 2), real()), {}


class LMF(nn.Module):
    audio_in, video_in, text_in = 3, 2, 5

    def __init__(self) -> None:
        super().__init__()
        self.audio_subnet, self.video_subnet, self.text_subnet = (nn.Linear(w, 4) for w in (3, 2, 5))
        self.audio_factor, self.video_factor, self.text_factor = (nn.Parameter(torch.randn(2, 4, 6)) for _ in range(3))

    def forward(self, audio_x: Tensor, video_x: Tensor, text_x: Tensor) -> Tensor:
        audio = torch.matmul(self.audio_subnet(audio_x), self.audio_factor)
        video = torch.matmul(self.video_subnet(video_x), self.video_factor)
        text = torch.matmul(self.text_subnet(text_x)[:, -1], self.text_factor)
        return (audio * video * text).sum(0)

    @classmethod
    def small(cls) -> Call:
        return cls(), (torch.randn(4, 3), torch.randn(4, 2), torch.randn(4, 6, 5)), {}


class TFN(nn.Module):
    audio_in, video_in, text_in = 3, 2, 5
    output_range = 6

    def __init__(self) -> None:
        super().__init__()
        self.audio_subnet, self.video_subnet, self.text_subnet = nn.Linear(3, 2), nn.Linear(2, 3), nn.Linear(5, 4)
        self.post_fusion_layer_1 = nn.Linear(24, 2)

    def forward(self, audio_x: Tensor, video_x: Tensor, text_x: Tensor) -> Tensor:
        pair = torch.bmm(self.audio_subnet(audio_x).unsqueeze(2), self.video_subnet(video_x).unsqueeze(1)).view(
            -1, 6, 1
        )
        joined = torch.bmm(pair, self.text_subnet(text_x)[:, -1].unsqueeze(1)).view(len(audio_x), -1)
        return self.post_fusion_layer_1(joined)

    @classmethod
    def small(cls) -> Call:
        return cls(), (torch.randn(4, 3), torch.randn(4, 2), torch.randn(4, 6, 5)), {}


class HyperGCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, a: Tensor, v: Tensor, l: Tensor, dia_len: Sequence[int]) -> Tensor:  # noqa: E741
        return self.reverse_features(self.fc(l), self.fc(a), self.fc(v))

    def reverse_features(self, tmpl: Tensor, tmpa: Tensor, tmpv: Tensor) -> Tensor:
        return torch.cat([tmpl, tmpa, tmpv], dim=-1)


class Model(nn.Module):
    modals = "avl"

    def __init__(self) -> None:
        super().__init__()
        self.linear_l, self.linear_a, self.linear_v = (nn.Linear(w, 4) for w in (5, 3, 2))
        self.graph_model, self.smax_fc = HyperGCN(), nn.Linear(12, 3)

    def forward(
        self, U: list[Tensor], qmask: Tensor, umask: Tensor, seq_lengths: Sequence[int], U_a: Tensor, U_v: Tensor
    ) -> Tensor:
        xs = [rows(x, seq_lengths) for x in (self.linear_a(U_a), self.linear_v(U_v), self.linear_l(sum(U) / 4))]
        return self.smax_fc(self.graph_model(*xs, seq_lengths))

    @classmethod
    def small(cls) -> Call:
        *text, audio, visual = padded(5, 5, 5, 5, 3, 2)
        return cls(), (text, real(), real(), list(LENGTHS), audio, visual), {}


class MISA(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=4)
        self.private_t, self.private_v, self.private_a = (nn.Linear(w, 4) for w in (5, 2, 3))
        self.shared_in = nn.ModuleList(nn.Linear(w, 4) for w in (5, 2, 3))
        self.shared, self.transformer_encoder, self.fusion = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(24, 2)

    def alignment(self, text: Tensor, visual: Tensor, audio: Tensor) -> Tensor:
        xs = (text, visual, audio)
        private = [f(x) for f, x in zip((self.private_t, self.private_v, self.private_a), xs, strict=True)]
        shared = [self.shared(f(x)) for f, x in zip(self.shared_in, xs, strict=True)]
        h = self.transformer_encoder(torch.stack(private + shared))
        return self.fusion(torch.cat((h[0], h[1], h[2], h[3], h[4], h[5]), 1))

    def forward(self, sentences: Tensor, video: Tensor, acoustic: Tensor) -> Tensor:
        return self.alignment(sentences, video, acoustic)

    @classmethod
    def small(cls) -> Call:
        return cls(), (torch.randn(4, 5), torch.randn(4, 2), torch.randn(4, 3)), {}


class MM_GCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, a: Tensor, v: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        features = self.fc(torch.cat([a, v, l], dim=0))
        all_length = l.shape[0]
        return torch.cat(
            [features[:all_length], features[all_length : all_length * 2], features[all_length * 2 : all_length * 3]],
            dim=-1,
        )


class _Nodes(nn.Module):
    modals = ("a", "v", "l")
    att_type = "concat_subsequently"

    def __init__(self) -> None:
        super().__init__()
        self.linear_l, self.linear_a, self.linear_v = (nn.Linear(w, 4) for w in (5, 3, 2))
        self.graph_model, self.smax_fc = MM_GCN(), nn.Linear(12, 3)

    def forward(
        self, U: Tensor, qmask: Tensor, umask: Tensor, seq_lengths: Sequence[int], U_a: Tensor, U_v: Tensor
    ) -> Tensor:
        xs = [rows(x, seq_lengths) for x in (self.linear_a(U_a), self.linear_v(U_v), self.linear_l(U))]
        return self.smax_fc(self.graph_model(*xs))

    @classmethod
    def small(cls) -> Call:
        text, audio, visual = padded(5, 3, 2)
        return cls(), (text, real(), real(), list(LENGTHS), audio, visual), {}


class DialogueGNNModel(_Nodes):
    pass


class DialogueGCNModel(_Nodes):
    gatedatt = None


class LSTMEncoder(nn.LSTM):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[0][:, -1]


class TextCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embd = nn.Sequential(nn.Linear(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.embd(x).amax(1)


class FcClassifier(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class UttFusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.netA, self.netL, self.netV = (
            LSTMEncoder(3, 4, batch_first=True),
            TextCNN(),
            LSTMEncoder(2, 4, batch_first=True),
        )
        self.netC = FcClassifier(12, 3)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        final = [self.netA(batch["A_feat"]), self.netL(batch["L_feat"]), self.netV(batch["V_feat"])]
        return self.netC(torch.cat(final, dim=-1))

    @classmethod
    def small(cls) -> Call:
        streams = (("A_feat", 3), ("L_feat", 5), ("V_feat", 2))
        return cls(), ({name: torch.randn(4, 5, width) for name, width in streams},), {}


class MSAFLSTMNet(nn.Module):
    visual_id, audio_id, text_id = 0, 1, 2

    def __init__(self) -> None:
        super().__init__()
        nets = (nn.ModuleList([nn.LSTM(w, 4, batch_first=True)]) for w in (2, 3, 5))
        self.visual_model, self.audio_model, self.text_model = nets
        self.multimodal_classifier = nn.Linear(12, 1)

    def forward(self, x: list[Tensor]) -> Tensor:
        nets = (self.visual_model[0], self.audio_model[0], self.text_model[0])
        x = [net(item)[0][:, -1] for net, item in zip(nets, x, strict=True)]
        last = torch.cat(x, -1)
        return self.multimodal_classifier(last)

    @classmethod
    def small(cls) -> Call:
        return cls(), ([torch.randn(4, 6, 2), torch.randn(4, 6, 3), torch.randn(4, 6, 5)],), {}


class MemoCMT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text_attention, self.audio_attention = (nn.MultiheadAttention(4, 2, batch_first=True) for _ in range(2))
        self.text_linear, self.audio_linear, self.classifer = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, input_text: Tensor, input_audio: Tensor) -> Tensor:
        text_norm = self.text_linear(self.text_attention(input_audio, input_text, input_text)[0])
        audio_norm = self.audio_linear(self.audio_attention(input_text, input_audio, input_audio)[0])
        tokens = torch.cat((text_norm, audio_norm), 1)
        return self.classifer(tokens.mean(1))

    @classmethod
    def small(cls) -> Call:
        return cls(), (torch.randn(3, 5, 4), torch.randn(3, 7, 4)), {}


class MULTModel(nn.Module):
    partial_mode, d_l, d_a, d_v = 3, 2, 2, 2

    def __init__(self) -> None:
        super().__init__()
        self.trans_l_mem, self.trans_a_mem, self.trans_v_mem = (nn.Linear(w, 4) for w in (5, 3, 2))
        self.proj1 = nn.Linear(12, 3)

    def forward(self, x_l: Tensor, x_a: Tensor, x_v: Tensor) -> Tensor:
        last_h_l, last_h_a = self.trans_l_mem(x_l)[:, -1], self.trans_a_mem(x_a)[:, -1]
        last_h_v = self.trans_v_mem(x_v)[:, -1]
        return self.proj1(torch.cat([last_h_l, last_h_a, last_h_v], dim=1))

    @classmethod
    def small(cls) -> Call:
        return cls(), (torch.randn(3, 6, 5), torch.randn(3, 7, 3), torch.randn(3, 5, 2)), {}


class MultiEMO(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text_fc, self.audio_dialoguernn, self.visual_dialoguernn = (nn.Linear(w, 4) for w in (5, 3, 2))
        self.multiattn, self.fc, self.mlp = nn.Identity(), nn.Linear(12, 4), nn.Linear(4, 3)

    def forward(
        self,
        texts: Tensor,
        audios: Tensor,
        visuals: Tensor,
        speaker_masks: Tensor,
        utterance_masks: Tensor,
        labels: Tensor,
    ) -> Tensor:
        fused_text_features = self.text_fc(texts).transpose(0, 1).reshape(-1, 4)[labels != -1]
        fused_audio_features = self.audio_dialoguernn(audios).transpose(0, 1).reshape(-1, 4)[labels != -1]
        fused_visual_features = self.visual_dialoguernn(visuals).transpose(0, 1).reshape(-1, 4)[labels != -1]
        fused = torch.cat((fused_text_features, fused_audio_features, fused_visual_features), dim=-1)
        return self.mlp(self.fc(fused))

    @classmethod
    def small(cls) -> Call:
        labels = torch.where(real() == 1, 2, -1).flatten()
        return cls(), (*padded(5, 3, 2), real().T, real(), labels), {}


class _Gate(nn.Module):
    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        xs = torch.stack([a, b, c], -2)
        return (torch.softmax(xs, -2) * xs).sum(-2)


class Transformer_Based_Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.textf_input, self.acouf_input, self.visuf_input = (nn.Linear(w, 4) for w in (5, 3, 2))
        self.features_reduce_t, self.last_gate, self.all_output_layer = nn.Linear(4, 4), _Gate(), nn.Linear(4, 3)

    def forward(
        self, textf: Tensor, visuf: Tensor, acouf: Tensor, u_mask: Tensor, qmask: Tensor, dia_len: Sequence[int]
    ) -> Tensor:
        t, a = self.features_reduce_t(self.textf_input(textf)), self.acouf_input(acouf)
        gated = self.last_gate(t.transpose(0, 1), a.transpose(0, 1), self.visuf_input(visuf).transpose(0, 1))
        return self.all_output_layer(gated)

    @classmethod
    def small(cls) -> Call:
        text, visual, audio = padded(5, 2, 3)
        return cls(), (text, visual, audio, real(), real(), list(LENGTHS)), {}


class ASF(nn.Module):
    VISUAL_DIM, ACOUSTIC_DIM = 2, 3

    def __init__(self) -> None:
        super().__init__()
        self.multihead_attn, self.AV_LayerNorm = nn.Linear(5, 5), nn.LayerNorm(5)
        self.W_hav, self.W_av = nn.Linear(9, 4), nn.Linear(5, 4)

    def forward(self, text_embedding: Tensor, visual: Tensor, acoustic: Tensor) -> Tensor:
        both = self.AV_LayerNorm(self.multihead_attn(torch.cat((visual, acoustic), dim=-1)))
        weight = torch.relu(self.W_hav(torch.cat((both, text_embedding), dim=-1)))
        return weight * self.W_av(both) + text_embedding

    @classmethod
    def small(cls) -> Call:
        return cls(), (torch.randn(5, 4), torch.randn(5, 2), torch.randn(5, 3)), {}


class _Recurrence(nn.GRU):
    @property
    def dialogue_cell(self) -> Any:
        return SimpleNamespace(D_m=self.input_size)


class BiModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dialog_rnn_f, self.dialog_rnn_r = _Recurrence(900, 3), _Recurrence(900, 3)
        self.matchatt, self.smax_fc = nn.Identity(), nn.Linear(6, 4)

    def forward(self, U: Tensor, qmask: Tensor, umask: Tensor) -> Tensor:
        both = [self.dialog_rnn_f(U)[0], self.dialog_rnn_r(U.flip(0))[0].flip(0)]
        return self.smax_fc(self.matchatt(torch.cat(both, dim=-1)))

    @classmethod
    def small(cls) -> Call:
        return cls(), (*padded(900), real().T.unsqueeze(-1), real()), {}


class LF_DNN(nn.Module):
    audio_hidden, video_hidden, text_out = 3, 2, 4

    def __init__(self) -> None:
        super().__init__()
        self.text_subnet, self.audio_subnet, self.video_subnet = nn.Linear(5, 4), nn.Linear(3, 3), nn.Linear(2, 2)
        self.post_fusion_layer_1 = nn.Linear(9, 2)

    def forward(self, text_x: Tensor, audio_x: Tensor, video_x: Tensor) -> Tensor:
        audio_h, video_h, text_h = self.audio_subnet(audio_x), self.video_subnet(video_x), self.text_subnet(text_x)
        return self.post_fusion_layer_1(torch.cat([audio_h, video_h, text_h], dim=-1))

    @classmethod
    def small(cls) -> Call:
        return cls(), (torch.randn(4, 5), torch.randn(4, 3), torch.randn(4, 2)), {}


#: Adapter -> a small model of its kind and a call for it, `(model, args, kwargs)`.
EXAMPLES: dict[str, Callable[[], Call]] = {
    "cogmen": COGMEN.small,
    "conv-emotion": BiModel.small,
    "corect": CORECT.small,
    "gcnet": GraphModel.small,
    "lmam": LSTMModel.small,
    "lmf": LMF.small,
    "m3net": Model.small,
    "memocmt": MemoCMT.small,
    "misa": MISA.small,
    "mm-dfn": DialogueGNNModel.small,
    "mmgcn": DialogueGCNModel.small,
    "mmin": UttFusion.small,
    "mmsa": LF_DNN.small,
    "msaf": MSAFLSTMNet.small,
    "mult": MULTModel.small,
    "multiemo": MultiEMO.small,
    "sdt": Transformer_Based_Model.small,
    "telme": ASF.small,
    "tfn": TFN.small,
}
