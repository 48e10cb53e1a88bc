"""A developer's own plugins must not change what our tests see: built-ins only, unless a test says otherwise."""

import os

os.environ["FUSIONZOO_LOAD_PLUGINS"] = ""
