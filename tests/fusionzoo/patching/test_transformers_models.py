"""Models of an installed package are hosts like others: multimodal ones of `transformers`, one line each."""

from __future__ import annotations

import pytest
import torch
from zoo.of_transformers import MODELS, SCORERS

import fusionzoo
from fusionzoo.errors import LeakError, NoSiteError
from fusionzoo.patching.torch_calls import everything_in

#: Built and patched in about a second.
QUICK = ("lxmert", "vilt", "visual_bert", "blip_caption", "llava", "whisper")
SLOW = pytest.mark.slow
#: Decoders, in which a token must not be told the next one, take a fusion that works step by step.
BY_STEP = ("blip_caption", "blip_question", "idefics", "mllama", "whisper", "vision_encoder_decoder",
           "speech_encoder_decoder", "blip_2", "instructblip", "llava", "vipllava", "kosmos_2", "qwen_2_audio", "voxtral")  # fmt: skip
#: Whose call has no padding: what a sound fills of the tokens would not fit it.
UNPADDED = ("qwen_2_audio",)


def run(model, call):
    """Every output that is a floating-point number; some models draw random numbers in eval mode too."""
    torch.manual_seed(5)
    with torch.no_grad():
        return [x for x in everything_in(model(**call)) if x.is_floating_point()]


def same(xs, ys):
    return len(xs) == len(ys) and all(torch.equal(x, y) for x, y in zip(xs, ys, strict=True))


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=SLOW) for n in MODELS])
def test_one_line_patches_the_model_and_everything_is_proved(name, tmp_path):
    model, call = MODELS[name]()
    before, keys = run(model, call), list(model.state_dict())

    patch = fusionzoo.patch(model, "gated" if name in BY_STEP else "lmam", inputs=call)

    assert same(run(model, call), before)
    states = {p.words: p.state for p in patch.proof.promises}
    assert "broken" not in states.values(), patch.proof
    assert states["samples stay apart"] == states["every stream takes part"] == "proved", patch.proof
    assert states["padding stays unseen"] == ("not tried" if name in UNPADDED else "proved"), patch.proof
    assert len(patch.layer.plan.groups) > 1
    torch.manual_seed(5)
    torch.stack([x.square().mean() for x in everything_in(model(**call)) if x.is_floating_point()]).sum().backward()
    with torch.no_grad():
        for p in patch.parameters():
            if p.grad is not None:
                p -= p.grad.sign()
    model.zero_grad()
    trained = run(model, call)
    assert not same(trained, before)
    patch.save(tmp_path / "fusion.safetensors")
    patch.remove()
    assert same(run(model, call), before)
    assert list(model.state_dict()) == keys
    fusionzoo.load_patch(model, tmp_path / "fusion.safetensors")
    assert same(run(model, call), trained)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=SLOW) for n in MODELS if n in BY_STEP])
def test_a_decoder_with_a_fusion_in_it_sees_no_later_token(name):
    model, call = MODELS[name]()
    ids = next(k for k in ("decoder_input_ids", "labels", "input_ids") if k in call)
    later = {**call, ids: call[ids].clone()}
    later[ids][:, -1] = later[ids][:, -1] % 40 + 5

    def moved():
        with torch.no_grad():
            pairs = zip(everything_in(model(**call)), everything_in(model(**later)), strict=True)
            return [(x - y).abs()[:, :-1].amax() > 0 for x, y in pairs if x.dim() == 3 and x.is_floating_point()]

    bare = moved()
    patch = fusionzoo.patch(model, "gated", inputs=call)
    with torch.no_grad():
        for p in patch.parameters():
            p.normal_(0, 0.3)
    assert moved() == bare


@pytest.mark.parametrize(
    "name", ["blip_caption", *(pytest.param(n, marks=SLOW) for n in ("llava", "whisper", "kosmos_2"))]
)
def test_a_decoder_that_would_see_later_tokens_is_refused(name):
    model, call = MODELS[name]()
    before = run(model, call)
    with pytest.raises(LeakError, match="later tokens"):
        fusionzoo.patch(model, "lmam", inputs=call)
    assert same(run(model, call), before)


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW) if n != "siglip" else n for n in SCORERS])
def test_a_dual_encoder_is_refused_in_words_that_say_so(name):
    model, call = SCORERS[name]()
    with pytest.raises(NoSiteError, match=r"only compares text and \w+: a dual encoder") as refusal:
        fusionzoo.patch(model, "lmam", inputs=call)
    assert "Nothing is joined" in str(refusal.value)
    assert "fusionzoo.get('lmam')" in str(refusal.value)


def test_most_of_the_models_are_in_the_installed_version():
    transformers = pytest.importorskip("transformers")
    known = ("LxmertModel", "ViltModel", "VisualBertModel", "BlipForConditionalGeneration", "GitForCausalLM")
    assert all(hasattr(transformers, name) for name in (*known, "WhisperModel", "BridgeTowerModel", "SiglipModel"))


@pytest.mark.parametrize("form", ["BatchEncoding", "ModelOutput", "pair", "Call"])
def test_what_a_processor_gives_is_an_input_as_it_is(form):
    transformers = pytest.importorskip("transformers")
    model, call = MODELS["visual_bert"]()
    inputs = {
        "BatchEncoding": lambda: transformers.BatchEncoding(call),
        "ModelOutput": lambda: transformers.utils.ModelOutput(call),
        "pair": lambda: ((call["input_ids"],), {k: v for k, v in call.items() if k != "input_ids"}),
        "Call": lambda: fusionzoo.patching.Call(**call),
    }[form]()
    patch = fusionzoo.patch(model, "gated", inputs=inputs)
    assert set(patch.layer.plan.groups) == {"text", "visual"}
