"""MMBT's baseline: BERT's pooled text and the image's features, concatenated. Its packages are replaced as in `mmbt.py`."""

from typing import Any

from repositories.builders.mmbt import call, prepare

REPOSITORY = "facebookresearch/mmbt"
COMMIT = "ad71e9c54b"
SAMPLES = 3
STREAMS = {0: 0, 3: 0}
OLD = True  # asks for CUDA


def build(root: Any) -> Any:
    """As `train.py` does."""
    args = prepare()
    from mmbt.models.concat_bert import MultimodalConcatBertClf

    return MultimodalConcatBertClf(args), call(), {}
