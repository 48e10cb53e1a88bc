"""Every error that a user of fusionzoo can cause, and every warning that fusionzoo gives.

Each message says what was wrong, what was expected and what to do next. The command line prints the message alone and
exits with status 2; `--debug` shows the traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FusionZooError(Exception):
    """Base class of all errors that fusionzoo raises on purpose."""


class FusionZooWarning(UserWarning):
    """Base class of all warnings that fusionzoo gives, and the category of most of them."""


class MovedWarning(FusionZooWarning, DeprecationWarning):
    """A name of an earlier version was used that goes on working; the message says the one of today."""


class UnknownNameError(FusionZooError, LookupError):
    """A plugin name (or `distribution:name`) that nothing installed answers to."""


class AmbiguousNameError(FusionZooError, LookupError):
    """Several distributions offer the same name and none of them is fusionzoo itself."""


class PluginError(FusionZooError):
    """A plugin broke a rule of the registry: a malformed spec, a name registered twice, a wrong API version."""


class PluginLoadError(PluginError):
    """A plugin's module or target could not be imported; the other plugins are unaffected."""


class PluginDisabledError(PluginError):
    """The plugin is installed but switched off by an environment variable."""


class MissingDependency(PluginError, ImportError):
    """A plugin or a command needs a package that is not installed.

    Parameters
    ----------
    package : the distribution that is missing, as pip spells it.
    extra : the extra of fusionzoo that brings it, if there is one.
    """

    def __init__(self, package: str, extra: str | None = None, purpose: str | None = None):
        self.package, self.extra = package, extra
        install = f'pip install "fusionzoo[{extra}]"' if extra else f"pip install {package}"
        what = f"{purpose} needs the package {package!r}" if purpose else f"the package {package!r} is needed"
        super().__init__(f"{what}, which is not installed; run: {install}")


class OptionError(FusionZooError, ValueError):
    """An option of a fusion, host or objective that does not exist or has an impossible value."""


class ShapeError(FusionZooError, ValueError):
    """Tensors whose shapes, widths, names, dtypes or devices do not fit together."""


class ReferenceWeightsError(FusionZooError, ValueError):
    """A state dict that is not the official implementation's, or a layer that has no official implementation."""


class DataError(FusionZooError, ValueError):
    """A data file that is broken, incomplete or contradicts itself."""


class DataWarning(FusionZooWarning):
    """Something about data that can be used and may not be what was meant: an unused column, rows in two splits."""


class UnsafePickleError(DataError):
    """A pickle that names something other than arrays and plain containers; nothing of it was executed."""


class MediaError(DataError):
    """A sound or a video that cannot be read, or that holds nothing."""


class ModelError(FusionZooError):
    """A pretrained model that cannot be had, is incomplete, or is not of the kind that was asked for."""


class ConfigError(FusionZooError, ValueError):
    """An unknown or ill-typed key of a configuration."""


class CheckpointError(FusionZooError):
    """A checkpoint that is damaged, incomplete, or belongs to another model."""


class OutputError(FusionZooError, OSError):
    """A file or folder that cannot be written: a folder where a file should be, no permission, no room."""


class TrainingError(FusionZooError):
    """Training cannot go on: the loss is not finite, a split is empty, the device is not there."""


class PatchError(FusionZooError):
    """A model cannot be patched as asked; base class of what `find_sites`, `patch` and `load_patch` refuse."""


class PatchOptionError(PatchError, OptionError):
    """An argument of `find_sites`, `patch`, `load_patch` or `InputSite` that has an impossible value."""


class NoSiteError(PatchError, LookupError):
    """The model has no place where streams of different modalities meet, or none was named."""


class ModalityError(PatchError, ValueError):
    """It is not clear which arguments are modalities, or `modalities=` names what is not there."""


class LayoutError(PatchError, ValueError):
    """A fusion cannot take the layout that streams have at a site."""


class SiteNotReachedError(PatchError):
    """A forward pass did not come by the patched site."""


class LeakError(PatchError):
    """With the fusion in it, one sample of a batch, or padding, reaches outputs that the bare model keeps from it.

    Also where a fusion would not be felt at any site, could not learn, or fits no batch of another size.
    """


class HostChangedError(PatchError):
    """The host's code is not the one that a site or a saved patch was made for."""


class MaskWarning(FusionZooWarning):
    """A mask that seems to mean padding by True; see `fusionzoo._masks.MaskWatch` for when."""


def close_matches_hint(name: str, options: Iterable[str]) -> str:
    """`"; did you mean 'lmam'?"` when something similar exists, else an empty string."""
    matches = difflib.get_close_matches(name, list(options), n=3, cutoff=0.5)
    return "; did you mean " + " or ".join(repr(m) for m in matches) + "?" if matches else ""
