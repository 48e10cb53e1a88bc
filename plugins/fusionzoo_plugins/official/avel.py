"""AVEL as ASolitaryMan/Foal-Net@781849fdf6 has it, `model.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from fusionzoo.errors import ReferenceWeightsError
from fusionzoo_plugins.avel import AVEL
from fusionzoo_plugins.official.foal_net import unused_except


class OfficialAVEL(AVEL):
    r"""What the published code computes.

    The sum over :math:`P_i` instead of the mean, so that a frequent emotion weighs more the more often it occurs in the
    batch; and the cosines *divided* by the learnt number, a temperature of 2.66 at first that nothing keeps above zero.
    That code gathers the utterances of the other processes of a distributed run, without their gradient; here each
    process contrasts its own. Of the published weights, which have two streams, audio first, it takes the projections and
    the temperature.
    """

    variant = "official"
    mean_of_positives = False

    def scale(self) -> Tensor:
        return 1 / self.temp

    def reference_names(self) -> Mapping[str, str]:
        if len(self.names) != 2:
            raise ReferenceWeightsError(
                "the official weights are those of AVEL(variant='official') with two streams, audio first; "
                "build it with dims={'audio': ..., 'visual': ...}"
            )
        return {"audio_project.": "projections.0", "video_project.": "projections.1", "temp": "temp"}

    def reference_unused(self) -> Sequence[str]:
        return unused_except("audio_project.", "video_project.", "temp")

    def reference_state(self, state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {k: v.reshape(()) if k == "temp" and v.numel() == 1 else v for k, v in state_dict.items()}
