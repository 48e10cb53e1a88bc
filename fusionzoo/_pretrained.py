"""`save_pretrained`, `from_pretrained` and `push_to_hub` of fusions and hosts; the work is done in `fusionzoo.hub`.

Thin methods instead of huggingface_hub's mixin as a base class: importing that mixin takes half a second, which everybody
who only wants a layer would pay. `push_to_hub` uses the mixin, so that its options mean what they mean elsewhere.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self, Unpack

if TYPE_CHECKING:
    import torch

    from fusionzoo._types import HubOptions


class Pretrained:
    """Weights to and from folders and the Hugging Face Hub: safetensors and JSON, never pickle."""

    def save_pretrained(self, folder: str | PathLike[str], *, run: str | PathLike[str] | None = None) -> Path:
        """Write `model.safetensors`, `config.json` and a model card `README.md`; returns the folder.

        Parameters
        ----------
        folder : made if need be. A `README.md` that a person has edited (its last line is gone) is kept.
        run : the folder of the `fusionzoo train` run that made these weights; its scores go into the card.

        Raises
        ------
        CheckpointError : the class is no plugin (nobody could load it by name), was built with something that cannot be
            written down, or the run trained another model.
        """
        from fusionzoo import hub

        return hub.save(self, folder, run=run)

    def push_to_hub(
        self, repo_id: str, *, run: str | PathLike[str] | None = None, **options: Unpack[HubOptions]
    ) -> str:
        """Save and upload to a repository of the Hugging Face Hub; returns the address of the commit.

        Parameters
        ----------
        repo_id : `owner/name`; made if need be.
        run : as for `save_pretrained`.
        options : those of `huggingface_hub.ModelHubMixin.push_to_hub`: private, token, branch, create_pr, commit_message.
        """
        from fusionzoo import hub

        return hub.push(self, repo_id, run=run, **options)

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike[str],
        *,
        device: str | torch.device = "cpu",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """A saved fusion or host, in eval mode. `Fusion.from_pretrained` and `Host.from_pretrained` find the class by name.

        Parameters
        ----------
        source : a folder written by `save_pretrained`; for hosts also the folder of a `fusionzoo train` run; or a
            repository `owner/name` of the Hugging Face Hub.
        revision, token, cache_dir, force_download, local_files_only : of the download, as in huggingface_hub.

        Raises
        ------
        CheckpointError : there is nothing there, it is damaged, holds another kind of model, or needs a plugin that is
            not installed; the message names the distribution and version. Nothing is installed, and nothing is imported
            that is not an installed plugin already.
        """
        from fusionzoo import hub

        return hub.load(
            cls,
            source,
            device=device,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
