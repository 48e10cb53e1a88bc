"""CFN-SR's networks, through `MFCCNet` and the host cfn-sr."""

from __future__ import annotations

from typing import Any

from golden_cases import Arrays, case, inputs, ready
from torch import Tensor, nn

from fusionzoo.encoders import MFCCNet
from fusionzoo_adapters.hosts.cfn_sr import CFNSR


@case("cfnsr_mfccnet", "cfnsr_mfccnet_features")
def cfnsr_mfccnet(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    x = inputs(arrays)["x"]
    shapes = {name: tuple(arrays[f"state.{name}.weight"].shape) for name in ("conv1", "conv3", "fc1")}
    # The official network has its head either way, and leaves it out where only the features are asked for.
    classes = 0 if meta["config"].get("features_only", False) else shapes["fc1"][0]
    net = MFCCNet(shapes["conv1"][1], classes, frames=x.shape[-1], widths=(shapes["conv1"][0], shapes["conv3"][0]))
    return {"out": ready(net, arrays)(x)}


class _Maps(nn.Module):
    """A video trunk that is given its maps."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def maps(self, x: Tensor) -> Tensor:
        return x


@case("cfnsr_network")
def cfnsr_network(meta: dict[str, Any], arrays: Arrays) -> dict[str, Tensor]:
    config, x = meta["config"], inputs(arrays)
    trunks = {
        "visual": _Maps(config["video_channels"]),
        "audio": MFCCNet(config["mfcc"], frames=x["audio"].shape[-1], widths=(config["c1"], config["c2"])),
    }
    host = CFNSR(
        {"visual": 3, "audio": config["mfcc"]},
        config["n_classes"],
        1,
        ("cfn-sr", {"heads": config["heads"], "layers": config["layers"]}),
        encoders=trunks,
        variant="official",
    )
    return {"logits": host.head(ready(host, arrays).fuse_maps([x["video"], x["audio"]]).fused)}
