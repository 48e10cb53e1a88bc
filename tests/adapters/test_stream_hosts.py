"""M3NET, COGMEN and CORECT beside plain formulas: loops over dialogues, nodes and edges, one at a time."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fusionzoo
from fusionzoo.batch import Batch
from fusionzoo.errors import OptionError, ReferenceWeightsError, ShapeError
from fusionzoo.kernels.bands import Band, BandAttention, ModalBandConv
from fusionzoo.kernels.grouped_attention import GroupedTransformer, Tokens
from fusionzoo.kernels.packing import Layout
from fusionzoo.testing.comparisons import counts, largest
from fusionzoo_adapters.hosts.cogmen import Cogmen
from fusionzoo_adapters.hosts.corect import Corect
from fusionzoo_adapters.hosts.m3net import M3Net

DIMS = {"text": 14, "audio": 5, "visual": 6}
LENGTHS = [6, 1, 4]

M3 = {"hidden": 8, "graph_width": 12, "hyper_layers": 2, "frequency_layers": 2, "dropout": 0.0, "input_dropout": 0.0}
COG = {"hidden": 8, "window_past": 2, "window_future": 1, "dropout": 0.0, "input_dropout": 0.0}
COR = {**COG, "heads": 2}


def make(cls, dims=DIMS, fusion="concat", seed=0, **options):
    """A host in eval mode with every parameter and running statistic away from where it starts."""
    torch.manual_seed(seed)
    host = cls(dims, 4, 2, fusion=fusion, **options).eval()
    with torch.no_grad():
        for p in host.parameters():
            p.copy_(torch.randn_like(p) * (0.6 / p.shape[-1] ** 0.5 if p.dim() > 1 else 0.3))
        for name, b in host.named_buffers():
            if name.endswith("running_mean"):
                b.normal_(0, 0.3)
            elif name.endswith("running_var"):
                b.uniform_(0.5, 1.5)
    return host


def make_batch(lengths=LENGTHS, steps=None, dims=DIMS, seed=1) -> Batch:
    steps = steps or max(lengths)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(steps) < torch.tensor(lengths).unsqueeze(1)
    features = {m: torch.randn(*mask.shape, d, generator=generator) * mask.unsqueeze(-1) for m, d in dims.items()}
    speakers = torch.randint(2, mask.shape, generator=generator) * mask
    labels = torch.zeros_like(speakers).masked_fill(~mask, -100)
    return Batch(features, mask, speakers, labels, [str(b) for b in range(len(lengths))], None, list(lengths))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


# -- plain formulas ----------------------------------------------------------------------------------------------------


def gathered(weights: Tensor, values: list[Tensor]) -> Tensor:
    return sum((w * v for w, v in zip(weights, values, strict=True)), torch.zeros_like(values[0]))


def graph_attention(layer: BandAttention, x: list[Tensor], neighbours: list[list[int]]) -> list[Tensor]:
    """Nodes one at a time over a list of neighbours each."""
    out = []
    for i, near in enumerate(neighbours):
        heads = []
        for h in range(layer.heads):
            rows = slice(h * layer.out, (h + 1) * layer.out)
            q = layer.lin_query(x[i])[rows]
            keys = [layer.lin_key(x[j])[rows] for j in near]
            values = [layer.lin_value(x[j])[rows] for j in near]
            weights = torch.stack([q @ k / math.sqrt(layer.out) for k in keys]).softmax(0)
            heads.append(gathered(weights, values))
        out.append(layer.lin_skip(x[i]) + torch.cat(heads))
    return out


def transformer(model: GroupedTransformer, g: int, x: Tensor, memory: Tensor | None = None, pre: bool = True) -> Tensor:
    """One transformer of a group over one dialogue `(T, d)` by torch's own attention, layer by layer."""
    x, memory = x * model.scale, None if memory is None else memory * model.scale
    for layer in model.layers:

        def norm(part, y):
            return F.layer_norm(y, y.shape[-1:], part.weight[g, 0], part.bias[g, 0])

        def linear(part, y):
            return y @ part.weight[g] + part.bias[g, 0]

        q = norm(layer.norm1, x) if pre else x
        m = q if memory is None else norm(layer.norm1, memory) if pre else memory
        parts = (linear(layer.query, q), linear(layer.key, m), linear(layer.value, m))
        width = x.shape[-1] // layer.heads
        heads = []
        for h in range(layer.heads):
            a, b, c = (p[:, h * width : (h + 1) * width] for p in parts)
            heads.append((a @ b.t() / math.sqrt(width)).softmax(-1) @ c)
        x = x + linear(layer.mix, torch.cat(heads, -1))
        x = x if pre else norm(layer.norm1, x)
        hidden = linear(layer.reduce, linear(layer.expand, norm(layer.norm2, x) if pre else x).relu())
        x = x + hidden if pre else norm(layer.norm2, x + hidden)
    return x if model.norm is None else F.layer_norm(x, x.shape[-1:], model.norm.weight[g, 0], model.norm.bias[g, 0])


def dialogues(batch: Batch):
    """Of every dialogue its number, its length and its speakers."""
    for b, n in enumerate(batch.lengths_list()):
        yield b, n, batch.speakers[b]


# -- COGMEN ------------------------------------------------------------------------------------------------------------


def plain_cogmen(host: Cogmen, batch: Batch) -> Tensor:
    """Early fusion by concatenation; the window officially mirrored, padding officially attended to."""
    official = host.variant == "official"
    past, future = host.window
    (encoder,) = host.encoders
    out = torch.zeros(*batch.mask.shape, 4)
    for b, n, speakers in dialogues(batch):
        x = torch.cat([f[b] for f in batch.features.values()], -1)
        x = x if official else x[:n]
        g = encoder.onto(transformer(encoder.encoder, 0, encoder.into(x), pre=not official))[:n]
        if host.speakers is not None:
            g = g + host.speakers(speakers[:n])
        windows = [
            [j for j in range(n) if (-past <= i - j <= future if official else -past <= j - i <= future)]
            for i in range(n)
        ]
        conv, h = host.convolution, []
        for i in range(n):
            y = g[i] @ conv.root + conv.bias
            relations = [int(speakers[j] * 2 + speakers[i]) * 2 + (j >= i) for j in windows[i]]
            for r in set(relations):
                same = [g[j] @ conv.weight[r] for j, k in zip(windows[i], relations, strict=True) if k == r]
                y = y + sum(same) / len(same)
            h.append(y)
        z = torch.stack(graph_attention(host.attention, h, windows))
        z = F.leaky_relu(host.norm(z))
        z = torch.cat([g, z], -1) if host.joined else z
        z = z if host.highway is None else host.highway(z)
        out[b, :n] = host.head.out(host.head.hidden(z).relu())
    return out


@pytest.mark.parametrize("variant", ["default", "official"])
@pytest.mark.parametrize(
    "options",
    [{}, {"window_past": 0, "window_future": 3, "joined": False}, {"window_past": None, "highway": True, "heads": 3}],
)
def test_cogmen_is_its_formula(variant, options):
    if options.get("window_past", 0) is None:
        options = {**options, "window_past": 50}
    host = make(Cogmen, placement="early", variant=variant, **{**COG, **options})
    batch = make_batch()
    close(host(batch).logits, plain_cogmen(host, batch))


# -- CORECT ------------------------------------------------------------------------------------------------------------


def plain_corect(host: Corect, batch: Batch) -> Tensor:
    official = host.official
    past, future = host.window
    modalities, hidden = len(host.names), host.hidden
    steps = batch.mask.shape[1]
    numbers: dict[tuple, int] = {}
    for time in ("past", "future", "present"):
        for m in range(modalities):
            numbers[time, m, m] = len(numbers)
    for m in range(modalities):
        for k in range(modalities):
            if m != k:
                numbers["across", m, k] = len(numbers)
    pairs = [(m, k) for m in range(modalities) for k in range(modalities) if m != k]
    out = torch.zeros(*batch.mask.shape, 4)
    for b, n, speakers in dialogues(batch):
        real = steps if official else n
        x = []
        for i, (encoder, f) in enumerate(zip(host.encoders, batch.features.values(), strict=True)):
            y = f[b, :real]
            if i == 0:
                y = encoder.onto(transformer(encoder.encoder, 0, encoder.into(y), pre=not official))
            else:
                y = encoder.encoder(y)
            x.append(y + host.speakers(speakers[:real]))
        nodes = [(m, i) for m in range(modalities) for i in range(n)]
        conv, h, near = host.convolution, [], []
        for m, i in nodes:
            edges: dict[int, list[tuple[int, int]]] = {}
            for j in range(n):
                if (-past <= i - j < future) if official else (-past <= j - i <= future):
                    time = "past" if j < i else "future" if j > i else "present"
                    edges.setdefault(numbers[time, m, m], []).append((m, j))
            for k in range(modalities):
                if k != m:
                    edges[numbers["across", k, m]] = [(k, i)]
            y = x[m][i] @ conv.root + conv.bias
            for r, sources in edges.items():
                y = y + sum(x[k][j] @ conv.weight[r] for k, j in sources) / len(sources)
            h.append(y)
            near.append([nodes.index(s) for sources in edges.values() for s in sources])
        z = F.leaky_relu(host.norm(torch.stack(graph_attention(host.attention, h, near))))
        read = []
        for m in range(modalities):
            cross = [transformer(host.cross, pairs.index((m, k)), x[m], x[k]) for k in range(modalities) if k != m]
            c = transformer(host.memory, m, torch.cat(cross, -1))[:n]
            read += [z[m * n : (m + 1) * n], c]
        assert read[1].shape[-1] == hidden * (modalities - 1)
        out[b, :n] = host.head.out(host.head.hidden(torch.cat(read, -1)).relu())
    return out


@pytest.mark.parametrize("variant", ["default", "official"])
@pytest.mark.parametrize("dims", [DIMS, {"text": 14, "audio": 5}, {**DIMS, "touch": 3}], ids=["3", "2", "4"])
@pytest.mark.parametrize("window", [(2, 1), (0, 3), (4, 0)])
def test_corect_is_its_formula(variant, dims, window):
    if variant == "official" and window[1] == 0 and len(dims) == 2:
        window = (4, 2)
    past, future = window
    host = make(Corect, dims, variant=variant, **{**COR, "window_past": past, "window_future": future})
    batch = make_batch(dims=dims)
    close(host(batch).logits, plain_corect(host, batch))


# -- M3NET -------------------------------------------------------------------------------------------------------------


def plain_m3net(host: M3Net, batch: Batch) -> Tensor:
    """With one linear map of every modality as encoder; weights by running number officially, learnt ones by default."""
    official = host.variant == "official"
    modalities = len(host.names)
    out = torch.zeros(*batch.mask.shape, 4)
    first_node = first_edge = 0
    encoded = host._encode(list(batch.features.values()), _dialogues(host, batch))
    for b, n, _ in dialogues(batch):
        nodes = [(m, i) for m in range(modalities) for i in range(n)]
        edges = [[k for k in nodes if k[0] == m] for m in range(modalities)]
        edges += [[k for k in nodes if k[1] == i] for i in range(n)]
        x = {(m, i): encoded[m][b, i] for m, i in nodes}
        base = {k: host.node_map(v) for k, v in x.items()}
        hyper = dict(base)
        for conv in host.hyper:
            gathered_edges = []
            for e, members in enumerate(edges):
                if official:
                    weight = sum(host.tables.EW_weight[first_node + nodes.index(k)] for k in members)
                    gathered_edges.append(sum(hyper[k] for k in members) / weight)
                else:
                    scores = torch.stack([host.score(base[k])[0 if e < modalities else 1] for k in members])
                    gathered_edges.append(gathered(scores.softmax(0), [hyper[k] for k in members]))
            new = {}
            for m, i in nodes:
                context, cross = gathered_edges[m], gathered_edges[modalities + i]
                if official:
                    weights = host.tables.hyperedge_weight[[first_edge + m, first_edge + modalities + i]]
                    y = (context + cross) / weights.sum()
                else:
                    share = host.share[m].sigmoid()
                    y = share * context + (1 - share) * cross
                new[m, i] = F.leaky_relu(y + conv.bias, 0.01)
            hyper = new
        frequency = dict(base)
        near = {(m, i): [k for k in nodes if k != (m, i) and (k[0] == m or k[1] == i)] for m, i in nodes}
        for conv in host.frequency:
            new = {}
            for k in nodes:
                y = frequency[k]
                for j in near[k]:
                    gate = torch.tanh(conv.gate(torch.cat([frequency[k], frequency[j]])))
                    y = y + gate * frequency[j] / math.sqrt(len(near[k]) * len(near[j]))
                new[k] = y
            frequency = new
        for i in range(n):
            parts = []
            for m in range(modalities):
                parts += [*([x[m, i]] if host.residue else []), hyper[m, i], frequency[m, i]]
            out[b, i] = host.out(torch.cat(parts).relu())
        first_node += modalities * n
        first_edge += modalities + n
    return out


def _dialogues(host: M3Net, batch: Batch):
    from fusionzoo_adapters.parts.streams import Dialogues

    return Dialogues(Layout.of(batch), batch.mask, batch.speakers, [batch.mask] * len(host.names), True, False)


@pytest.mark.parametrize("variant", ["default", "official"])
@pytest.mark.parametrize("dims", [DIMS, {"text": 14, "audio": 5}], ids=["3", "2"])
@pytest.mark.parametrize("residue", [False, True])
def test_m3net_is_its_formula(variant, dims, residue):
    host = make(M3Net, dims, variant=variant, residue=residue, **M3)
    if host.tables is not None:
        for table in host.tables.parameters():
            table.data.uniform_(0.5, 1.5)
    batch = make_batch(dims=dims)
    close(host(batch).logits, plain_m3net(host, batch))


@pytest.mark.parametrize("base", ["gru", "lstm", "transformer"])
def test_m3net_official_encoders_read_padding_and_the_default_ones_do_not(base):
    short, long = make_batch([3, 2], 3), make_batch([3, 2], 7)
    for m in DIMS:
        long.features[m] = F.pad(short.features[m], (0, 0, 0, 4))
    long.speakers = F.pad(short.speakers, (0, 4))
    for variant in ("default", "official"):
        host = make(M3Net, base=base, variant=variant, **M3)
        alike = torch.allclose(host(short).logits, host(long).logits[:, :3], atol=1e-5)
        assert alike is (variant == "default")


@pytest.mark.parametrize("norm", ["layer", "batch", "dialogue", "none"])
def test_m3net_averages_normalised_views(norm):
    dims = {**DIMS, "text": 4 * 6}
    host = make(M3Net, dims, text_views=4, views_norm=norm, variant="official", **M3)
    batch = make_batch([4, 4], dims=dims)
    views = batch.features["text"].unflatten(-1, (4, 6)).unbind(-2)
    if norm == "dialogue":
        views = [F.layer_norm(v, v.shape[1:]) for v in views]
    elif norm == "layer":
        views = [n(v) for n, v in zip(host.views.norms, views, strict=True)]
    elif norm == "batch":
        views = [n(v.flatten(0, 1)).view_as(v) for n, v in zip(host.views.norms, views, strict=True)]
    close(host._view(batch.features["text"], batch.mask), sum(views) / 4)


def test_the_dialogue_norm_leaves_padding_out_by_default():
    dims = {**DIMS, "text": 4 * 6}
    host = make(M3Net, dims, text_views=4, views_norm="dialogue", **M3)
    batch = make_batch([3], 6, dims=dims)
    views = batch.features["text"][:, :3].unflatten(-1, (4, 6)).unbind(-2)
    close(host._view(batch.features["text"], batch.mask)[:, :3], sum(F.layer_norm(v, v.shape[1:]) for v in views) / 4)


def test_m3net_official_tables_are_limited_and_say_so():
    host = make(M3Net, variant="official", max_edges=12, **M3)
    with pytest.raises(ShapeError, match="max_edges"):
        host(make_batch([5, 5]))
    host = make(M3Net, variant="official", max_nodes=12, **M3)
    with pytest.raises(ShapeError, match="max_nodes"):
        host(make_batch([5]))


# -- the parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [(0, 0), (3, 0), (0, 2), (5, 4), (None, None), (None, 1)])
@pytest.mark.parametrize("itself", [True, False])
def test_a_band_holds_every_pair_of_the_window_once(window, itself):
    past, future = window
    layout = Layout([7, 1, 23, 4], 25, torch.device("cpu"))
    band = Band(layout, past, future, itself)
    pairs = band.dense(band.mask.unsqueeze(-1).float())[:, 0]
    for b, n in enumerate(layout.lengths):
        for i in range(25):
            for j in range(25):
                near = (past is None or j >= i - past) and (future is None or j <= i + future) and (itself or i != j)
                assert pairs[b, i, j] == (i < n and j < n and near)
    x = torch.randn(2, 35, 3)
    close(band.join(band.cut(x)), x)


def test_a_band_costs_in_proportion_to_the_utterances():
    sizes = [Band(Layout([n] * 3, n, torch.device("cpu")), 11, 5).mask.numel() for n in (100, 400, 1600)]
    assert sizes[2] / sizes[0] == pytest.approx(16, rel=0.1)


def test_band_attention_and_convolution_leave_out_what_is_missing():
    torch.manual_seed(0)
    layout = Layout([6, 3], 6, torch.device("cpu"))
    band, x = Band(layout, 2, 1), torch.randn(3, 9, 4)
    there = torch.ones(3, 9, dtype=torch.bool)
    there[1] = False
    attention, conv = BandAttention(4, 5, 2), ModalBandConv(4, 5, 3)
    x = torch.where(there.unsqueeze(-1), x, 0.0)
    for layer in (attention, conv):
        full = layer(x, band, there)
        other = x.clone()
        other[1] = 7.0 if layer is attention else 0.0
        changed = layer(other, band, there)
        full, changed = (y[0] if isinstance(y, tuple) else y for y in (full, changed))
        close(full[[0, 2]], changed[[0, 2]])


def test_stand_ins_equal_attention_over_every_padded_step():
    torch.manual_seed(0)
    model = make_transformer(groups=2, norm="post")
    layout = Layout([5, 2, 7], 7, torch.device("cpu"))
    pad = torch.randn(2, 3, 1, 6)
    real = (torch.arange(7) < torch.tensor(layout.lengths).unsqueeze(1)).view(1, 3, 7, 1)
    x = torch.where(real, torch.randn(2, 3, 7, 6), pad)
    whole = Tokens(Layout([7, 7, 7], 7, torch.device("cpu")))
    expected = model(torch.stack([whole.pack(y) for y in x]), whole).unflatten(1, (3, 7))
    tokens = Tokens(layout, stand_in=True)
    packed = model(torch.stack([tokens.pack(y) for y in x]), tokens)
    assert packed.shape[1] == 14 + 2
    close(tokens.utterances(packed), torch.stack([layout.pack(y) for y in expected]))


def make_transformer(groups: int, norm: str) -> GroupedTransformer:
    model = GroupedTransformer(groups, 6, 2, heads=2, norm=norm)
    for p in model.parameters():
        p.data = torch.randn_like(p) * 0.4
    return model


@pytest.mark.parametrize("pre", [True, False])
def test_grouped_transformers_are_as_many_transformers(pre):
    torch.manual_seed(0)
    model = make_transformer(3, "pre" if pre else "post")
    layout = Layout([4, 1], 4, torch.device("cpu"))
    tokens, x, memory = Tokens(layout), torch.randn(3, 5, 6), torch.randn(3, 5, 6)
    for m in (None, memory):
        out = model(x, tokens, m)
        for g in range(3):
            for part in (slice(0, 4), slice(4, 5)):
                expected = transformer(model, g, x[g, part], None if m is None else m[g, part], pre)
                close(out[g, part], expected)


def test_a_row_without_keys_attends_to_nothing():
    model = make_transformer(2, "pre").eval()
    layout = Layout([3, 2], 3, torch.device("cpu"))
    tokens, x, memory = Tokens(layout), torch.randn(2, 5, 6), torch.randn(2, 5, 6, requires_grad=True)
    mask = torch.ones(2, 2, 3, dtype=torch.bool)
    mask[0, 1] = False
    out = model(x, tokens, memory, mask)
    grad = torch.autograd.grad(out.sum(), memory)[0]
    assert torch.isfinite(out).all()
    assert torch.isfinite(grad).all()
    assert (grad[0, 3:] == 0).all()
    assert counts(grad[1], largest(grad)).any()


# -- as hosts ----------------------------------------------------------------------------------------------------------

HOSTS = {"m3net": (M3Net, M3), "cogmen": (Cogmen, COG), "corect": (Corect, COR)}


@pytest.mark.parametrize("name", HOSTS)
def test_no_forward_pass_waits_for_a_device(name):
    # On the meta device there are no values: whatever asks for one (item, nonzero, a boolean index) raises.
    cls, options = HOSTS[name]
    for placement in cls.placements:
        for variant in ("default", "official"):
            host = cls(DIMS, 4, 2, placement=placement, variant=variant, **options).to("meta")
            batch = make_batch().to("meta")
            assert host(batch).logits.shape == (3, 6, 4)
            batch.present = {"audio": batch.mask}
            assert host(batch).logits.shape == (3, 6, 4)


@pytest.mark.parametrize("name", HOSTS)
def test_attention_maps_are_distributions(name):
    cls, options = HOSTS[name]
    host = make(cls, **options)
    host.keep_attention = True
    batch = make_batch()
    maps = host(batch).attention
    if name == "m3net":
        close(maps["context"].sum(-1), torch.ones(3, 3))
        close(maps["cross"].sum(1)[batch.mask], torch.ones(11))
        return
    sums = maps["graph"].sum(-1)
    assert maps["graph"].shape == ((3, 1, 6, 6) if name == "cogmen" else (3, 3, 2, 6, 6))
    assert (sums <= 1 + 1e-5).all()
    assert (sums.movedim(-1, 1)[~batch.mask] == 0).all()
    if name == "cogmen":
        close(sums[:, 0][batch.mask], torch.ones(11))
    apart = (torch.arange(6).unsqueeze(1) - torch.arange(6)) > 2
    assert (maps["graph"][..., apart] == 0).all()


@pytest.mark.parametrize("name", HOSTS)
def test_streams_have_the_names_of_the_modalities(name):
    cls, options = HOSTS[name]
    streams = make(cls, **options)(make_batch()).streams
    assert {"fused", "context"} <= streams.keys()
    if name != "cogmen":
        assert set(DIMS) <= make(cls, placement="pre-graph", **options)(make_batch()).streams.keys()


@pytest.mark.parametrize("name", HOSTS)
def test_official_weights_are_refused_where_they_do_not_fit(name):
    cls, options = HOSTS[name]
    with pytest.raises(ReferenceWeightsError, match="official"):
        make(cls, **options).load_reference({})
    placement = "early" if name == "cogmen" else "late"
    host = make(cls, placement=placement, variant="official", **options)
    before = copy.deepcopy(host.state_dict())
    with pytest.raises(ReferenceWeightsError, match=r"no-such|missing"):
        host.load_reference({"no-such.weight": torch.zeros(2)})
    assert all(torch.equal(v, before[k]) for k, v in host.state_dict().items())
    if name != "cogmen":
        with pytest.raises(ReferenceWeightsError, match="order"):
            make(cls, dict(reversed(DIMS.items())), variant="official", **options).load_reference({})
        with pytest.raises(ReferenceWeightsError, match="concat"):
            make(cls, placement="pre-graph", variant="official", **options).load_reference({})


def test_official_cogmen_weights_go_where_they_belong():
    host = make(Cogmen, {"text": 14}, variant="official", **COG)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(14, 7, batch_first=True), 2, enable_nested_tensor=False)
    state = {f"rnn.transformer_encoder.{k}": torch.randn_like(v) * 0.2 for k, v in encoder.state_dict().items()}
    own = {"gcn.conv1.": host.convolution, "gcn.conv2.": host.attention, "gcn.bn.": host.norm}
    own |= {"clf.lin1.": host.head.hidden, "clf.lin2.": host.head.out, "rnn.transformer_out.": host.encoders[0].onto}
    for prefix, module in own.items():
        state |= {prefix + k: v.clone() for k, v in module.state_dict().items()}
    host.load_reference(state)
    encoder.load_state_dict(
        {k.removeprefix("rnn.transformer_encoder."): v for k, v in state.items() if ".layers." in k}
    )
    batch = make_batch([6, 2], dims={"text": 14})
    mine = host.encoders[0](batch.features["text"], Layout.of(batch), batch.mask, Tokens(Layout.of(batch), True))
    expected = host.encoders[0].onto(encoder.eval()(batch.features["text"]))
    close(mine[batch.mask], expected[batch.mask])


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (M3Net, {"base": "rnn"}, "base"),
        (M3Net, {"hidden": 7}, "even"),
        (M3Net, {"hidden": 8, "anchor_map": False}, "anchor_map"),
        (M3Net, {"hyper_layers": -1}, "hyper_layers"),
        (M3Net, {"views_norm": "group"}, "views_norm"),
        (M3Net, {"text_views": 4}, "text_views"),
        (Cogmen, {"window_past": -2}, "window_past"),
        (Cogmen, {"base": "lstm", "hidden": 7}, "even"),
        (Cogmen, {"base": "cnn"}, "base"),
        (Corect, {"window_future": 1.5}, "window_future"),
        (Corect, {"hidden": 7}, "crossmodal_heads"),
        (Corect, {"variant": "paper"}, "variant"),
    ],
)
def test_impossible_options_are_named(cls, options, message):
    with pytest.raises(OptionError, match=message):
        cls({"text": 14, "audio": 5, "visual": 6}, 4, 2, **options)


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("fusion", ["gated", ("gated", {"missing": "learned"})])
def test_takes_a_fusion_at_every_place(name, fusion):
    cls, options = HOSTS[name]
    batch = make_batch()
    batch.present = {"audio": torch.arange(6).expand(3, 6) % 2 == 0}
    for placement in cls.placements:
        logits = make(cls, fusion=fusion, placement=placement, **options)(batch).logits
        assert torch.isfinite(logits).all()


def test_an_instance_may_name_its_modalities_differently():
    fusion = fusionzoo.get("gated")([32, 32, 32], out_dim=7)
    host = make(Corect, fusion=fusion, **{**COR, "heads": 2})
    assert host.fusion is fusion
    assert host(make_batch()).logits.shape == (3, 6, 4)
