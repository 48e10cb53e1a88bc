"""The patcher: any fusion into somebody else's unmodified model.

`find_sites` traces one forward pass and says where streams of different modalities meet; `patch` puts a fusion there, for
one instance, by rewriting the expression at its place in the source; `Patch` takes it out again. Adapters recognise public
repositories.
"""

from fusionzoo.patching.calls import Call as Call
from fusionzoo.patching.find.search import find_sites as find_sites
from fusionzoo.patching.loading import load_patch as load_patch
from fusionzoo.patching.patched import Patch as Patch
from fusionzoo.patching.patcher import patch as patch
from fusionzoo.patching.repairs import Repair as Repair
from fusionzoo.patching.repositories import declare as declare
from fusionzoo.patching.repositories import modernise as modernise
from fusionzoo.patching.sites import InputSite as InputSite
from fusionzoo.patching.sites import Site as Site
from fusionzoo.patching.sites import SiteList as SiteList
