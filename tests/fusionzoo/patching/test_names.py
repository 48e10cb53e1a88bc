"""Names of arguments tell their modalities."""

from __future__ import annotations

import pytest
import torch

from fusionzoo.patching.modalities import find_modalities

FEATURES, IDS = torch.randn(3, 4, 5), torch.arange(12).view(3, 4)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"input_values": FEATURES, "vinput_values": FEATURES}, ["audio", "visual"]),  # the letter before it says which
        ({"feat": FEATURES, "afeat": FEATURES, "tfeat": FEATURES}, ["feat", "audio", "text"]),
        ({"a": FEATURES, "va": FEATURES}, ["audio", "va"]),  # too short to be another's name with a letter before it
        ({"text": FEATURES, "context": FEATURES}, ["text", "text"]),  # more than a letter
        ({"img_feat": FEATURES, "ques_ix": IDS}, ["visual", "text"]),
        ({"batch": {"visual": FEATURES, "question": IDS, "question_len": IDS[:, :1]}}, ["visual", "text", None]),
        ({"video": FEATURES, "requests": IDS}, ["visual", None]),
    ],
)
def test_modalities_by_name(arguments, expected):
    assert [x.modality for x in find_modalities(arguments)] == expected
