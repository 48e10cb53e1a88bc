"""Nearly a hundred and fifty hosts written without a look at the patcher, in as many hands as possible; nothing is known to an adapter.

`# SITE Name` marks the line that `find_sites` has to name first for host `Name`; the decorator says kinds and layouts that are
right there, and the modalities (None: several answers are).
"""

from zoo import (  # noqa: F401  (each adds its hosts to ALL)
    attentions,
    cats_and_control_flow,
    cats_and_helpers,
    cats_as_published,
    outers,
    stacks_and_rows,
    sums_and_products,
)
from zoo.base import ALL as ALL

HOSTS = {cls.__name__: cls for cls in ALL}
