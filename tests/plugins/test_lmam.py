"""LMAM: the shared low-rank map, what it attends to, and the published variant row by row."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import fusionzoo
from fusionzoo.errors import OptionError, ReferenceWeightsError
from fusionzoo.testing import check_fusion

LMAM = fusionzoo.get("lmam")
DIMS = {"text": 16, "audio": 16, "visual": 16}


def inputs(steps=6, batch=2, width=16, count=3):
    return [torch.randn(batch, steps, width, generator=torch.Generator().manual_seed(i)) for i in range(count)]


def test_fewer_parameters_than_a_third_of_a_qkv_set():
    dims = dict.fromkeys(("text", "audio", "visual"), 512)
    qkv = 3 * (512**2 + 512)
    assert sum(p.numel() for p in LMAM(dims).parameters()) == 2 * 512 * 64 + 512 == 66_048
    assert sum(p.numel() for p in LMAM(dims, variant="official").parameters()) == 262_656 == qkv // 3
    assert LMAM(dims).rank == 64


def test_default_equals_its_equations_term_by_term():
    torch.manual_seed(0)
    fusion = LMAM(DIMS, rank=3).eval()
    torch.nn.init.normal_(fusion.bias)
    xs = inputs()
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    result = fusion.fuse(xs, mask)
    w = fusion.memory_factor @ fusion.query_factor.T  # maps a query to the memory's space
    for b, length in enumerate([6, 4]):
        memory = torch.cat([x[b, :length] for x in xs])
        for i in range(length):
            z = []
            for x in xs:
                score = torch.tanh(memory @ (w @ x[b, i] + fusion.bias) / 4.0)
                z.append(x[b, i] + F.gelu(score.softmax(0) @ memory))
            torch.testing.assert_close(result.fused[b, i], torch.stack(z).mean(0), rtol=1e-4, atol=1e-5)


def test_attention_over_all_memories_sums_to_one():
    result = LMAM(DIMS).eval().fuse(inputs())
    assert set(result.attention) == {f"{q}->{k}" for q in DIMS for k in DIMS}
    total = sum(result.attention[f"audio->{k}"].sum(-1) for k in DIMS)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_a_missing_modality_is_not_attended_to_and_does_not_count():
    fusion = LMAM(DIMS).eval()
    text, audio, _ = inputs()
    result = fusion.fuse({"text": text, "audio": audio})
    assert result.attention["text->visual"].eq(0).all()
    expected = (result.streams["text"] + result.streams["audio"]) / 2
    torch.testing.assert_close(result.fused, expected)


def test_the_interaction_adds_products_of_the_pairs_of_one_utterance():
    torch.manual_seed(0)
    fusion = LMAM(DIMS, interaction=4).eval()
    xs = inputs()
    h = [torch.tanh(f(x)) for f, x in zip(fusion.factors, xs, strict=True)]
    pairs = sum(h[m] * h[n] for m in range(3) for n in range(m))
    with_pairs = fusion(xs)
    bare = LMAM(DIMS)
    bare.load_state_dict(fusion.state_dict(), strict=False)
    torch.testing.assert_close(with_pairs - bare(xs), fusion.products(pairs))


def test_the_interaction_of_a_missing_modality_is_nothing():
    fusion = LMAM(DIMS, interaction=4).eval()
    with torch.no_grad():
        for factor in fusion.factors:
            factor.bias.fill_(1.0)
    text, audio, visual = inputs()
    present = torch.ones(2, 6, dtype=torch.bool)
    absent = present.clone()
    absent[:, 2] = False
    result = fusion.fuse([text, audio, visual], {"text": present, "audio": absent, "visual": absent})
    mean = torch.stack([result.streams[m] for m in DIMS]).mean(0)
    torch.testing.assert_close(result.fused[:, 2], result.streams["text"][:, 2])
    assert not torch.allclose(result.fused[:, 1], mean[:, 1])


def test_what_two_modalities_show_together_is_read_through_the_interaction_alone():
    """Whether the signs of two modalities agree: no sum of functions of each tells, and the attention hardly does."""
    generator = torch.Generator().manual_seed(0)
    xs = [torch.randn(64, 24, 1, generator=generator).sign() for _ in range(2)]
    agree = (xs[0] * xs[1]).flatten()
    share = {}
    for interaction in (0, 4):
        torch.manual_seed(0)
        fusion = LMAM([4, 4], interaction=interaction)
        with torch.no_grad():
            y = fusion([x.expand(-1, -1, 4) for x in xs]).flatten(0, 1)
        y = torch.cat([y, torch.ones_like(y[:, :1])], 1)  # the best linear reader of what comes out, untrained
        guess = (y @ torch.linalg.lstsq(y, agree.unsqueeze(1)).solution).flatten()
        share[interaction] = 1 - ((guess - agree) ** 2).mean() / agree.var()
    assert share[0] < 0.25
    assert share[4] > 0.9


@pytest.mark.slow
def test_the_interaction_passes_the_conformance_suite():
    check_fusion("lmam", options={"interaction": 4}).raise_if_failed()


@pytest.mark.parametrize("rank", [-1, True, 2.5])
def test_an_interaction_that_is_no_rank_is_refused(rank):
    with pytest.raises(OptionError, match="interaction"):
        LMAM(DIMS, interaction=rank)


def test_official_equals_a_loop_over_rows():
    torch.manual_seed(0)
    fusion = LMAM(DIMS, variant="official").eval()
    torch.nn.init.normal_(fusion.matchatt.transform.weight, std=0.3)
    xs = inputs()
    text = xs[0]
    expected = torch.zeros_like(text)
    for b in range(2):
        for i in range(6):
            context = 0
            for x in xs:
                score = torch.tanh(text[b] @ fusion.matchatt.transform(x[b, i]))
                context = context + score.softmax(0) @ text[b]
            expected[b, i] = F.gelu(context) + text[b, i]
    torch.testing.assert_close(fusion(xs), expected, rtol=1e-4, atol=1e-5)


def test_official_audio_steers_weights_only_while_the_default_carries_its_content():
    """With one utterance every weight is one: the official output then cannot depend on audio at all."""
    xs = inputs(steps=1)
    other = [xs[0], xs[1] + 1, xs[2]]
    official, default = LMAM(DIMS, variant="official").eval(), LMAM(DIMS).eval()
    torch.testing.assert_close(official(xs), official(other))
    assert (default(xs) - default(other)).abs().max() > 0.1


def test_official_drops_a_fourth_modality_and_refuses_two():
    four = dict.fromkeys("abcd", 16)
    fusion = LMAM(four, variant="official").eval()
    xs = inputs(count=4)
    torch.testing.assert_close(fusion(xs), fusion([*xs[:3], xs[3] * 2]))
    with pytest.raises(OptionError, match=r"three modalities, got 2 .*default variant"):
        LMAM({"a": 4, "b": 4}, variant="official")


def test_reference_weights_belong_to_the_official_variant():
    fusion = LMAM(DIMS, variant="official")
    state = {"matchatt.transform.weight": torch.rand(16, 16), "matchatt.transform.bias": torch.rand(16)}
    fusion.load_reference(state)
    assert torch.equal(fusion.matchatt.transform.weight, state["matchatt.transform.weight"])
    with pytest.raises(ReferenceWeightsError, match="transform"):
        fusion.load_reference({"transform.weight": torch.rand(16, 16)})
    with pytest.raises(ReferenceWeightsError, match="variant='official'"):
        LMAM(DIMS).load_reference(state)


def test_rank_is_at_most_the_width():
    with pytest.raises(OptionError, match="exceeds the width 16"):
        LMAM(DIMS, rank=17)


@pytest.mark.parametrize("variant", ["default", "official"])
def test_training_step_moves_the_matching_map(variant):
    torch.manual_seed(0)
    fusion = LMAM(DIMS, variant=variant)
    before = {n: p.detach().clone() for n, p in fusion.named_parameters()}
    optimizer = torch.optim.SGD(fusion.parameters(), lr=1.0)
    fusion(inputs()).pow(2).mean().backward()
    optimizer.step()
    assert all((p - before[n]).abs().max() > 0 for n, p in fusion.named_parameters())
