"""`run`: a script, as it is, with a fusion in the model that it trains."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

from fusionzoo._text import visible
from fusionzoo.errors import OptionError
from fusionzoo.fusion import Fusion
from fusionzoo.host import FusionLike
from fusionzoo.patching import Patch
from fusionzoo.patching.modalities import ModalitiesLike
from fusionzoo.wild.devices import on, read_device
from fusionzoo.wild.growth import Growth, projection
from fusionzoo.wild.removed import put_back
from fusionzoo.wild.replaced import Replaced
from fusionzoo.wild.report import write_report
from fusionzoo.wild.script import Script, Tee
from fusionzoo.wild.seeds import shifted
from fusionzoo.wild.stand_ins import Finder
from fusionzoo.wild.watch import Watch
from fusionzoo.wild.wish import Wish


@dataclass
class Result:
    """What a script did.

    output : what it printed to standard output.
    namespace : the names of its module, as they were in the end; a script may hold anything under them.
    patch : the fusion in the model that it trained last; None with `fusion=None`.
    patched : how many models got one, each with parameters of its own.
    growth : how the fusion's share of the joined tensor grew.
    status : what it gave to `sys.exit`; 0 where it ran to its end.
    stand_ins : packages that were not there.
    messages : what was said meanwhile.
    """

    output: str
    namespace: dict[str, object]
    patch: Patch | None
    patched: int
    growth: Growth
    status: int | str
    stand_ins: list[str]
    messages: list[str]


def run(
    script: str | PathLike[str],
    args: Sequence[str] = (),
    *,
    fusion: FusionLike | None,
    site: int | str | None = None,
    modalities: ModalitiesLike = None,
    input: str | None = None,
    widths: Mapping[str, int] | None = None,
    layout: str | None = None,
    mode: str = "residual",
    model: str | None = None,
    prove: bool = True,
    device: str | None = None,
    seed: int | None = None,
    save: str | PathLike[str] | None = None,
    report: str | PathLike[str] | None = None,
    say: Callable[[str], None] | None = None,
    **options: object,
) -> Result:
    """Run somebody else's training script, unmodified, with a fusion in the model that it trains.

    The model is the module whose parameters an optimizer of the script holds. It is patched when the script first calls it in
    training, with that call's inputs, and the call goes on patched; the fusion's parameters join the optimizer. The script sees
    its own arguments, folder and `__main__`; nothing of it, and no library, is changed on disk.

    Parameters
    ----------
    script : its file.
    args : its arguments.
    fusion : a name, or a name with options (`{"name": "lmam", "rank": 4}`); None or `"none"` runs the script as it is, under the same conditions.
    site : an index into the sites of the first call, or `"file.py:47"`; None for what an adapter knows, else the best.
    modalities : what the model's arguments are, as for `fusionzoo.find_sites`.
    input : argument of the model in which the script has joined the modalities.
    widths : with `input`, modality -> width of its share, in order.
    layout : of the streams at the site, where the trace cannot prove it.
    mode : `"residual"` or `"replace"`, as for `fusionzoo.patch`.
    model : class name of the model, where the script trains several.
    prove : try out with the first call that samples stay apart, padding stays unseen, and more, as `fusionzoo.patch` does; False
        saves a dozen forwards, for a script whose site was proved before.
    device : where what the script puts on CUDA goes instead: `"cpu"`, `"cuda:1"`.
    seed : of all generators; what the script seeds itself is shifted by it, so that 0 is the script's own.
    save : file for the fusion's weights in the end, for `fusionzoo.load_patch`.
    report : folder for `report.json`, `report.txt` and `output.txt`.
    say : takes each message; by default they go to standard error.
    options : of the fusion.

    Raises
    ------
    PatchError : no model or several were found, or it cannot be patched; other errors are the script's own.
    UnknownNameError, OptionError : before the script starts, of the fusion's name and those of its options.

    >>> done = run("train.py", ["1e-3", "gpu"], fusion="lmam", device="cpu")            # doctest: +SKIP
    >>> print(done.growth)                                                                # doctest: +SKIP
    """
    if (input is None) != (widths is None):
        raise OptionError("input= (an argument of the model) and widths= (how it splits) go together")
    wish = Wish(
        fusion=None if fusion == "none" else fusion,
        site=site,
        modalities=modalities,
        split=None if input is None or widths is None else (input, dict(widths)),
        layout=layout,
        mode=mode,
        model=model,
        prove=prove,
        options=options,
    )
    wish.check()
    asked = {
        "script": str(script),
        "args": list(args),
        "fusion": type(fusion).__name__ if isinstance(fusion, Fusion) else fusion,
        "options": options,
        "site": site,
        "modalities": modalities,
        "input": input,
        "widths": widths,
        "mode": mode,
        "model": model,
        "prove": prove,
        "device": device,
        "seed": seed,
    }
    session = _Session(Script(script, args), wish, say or to_stderr)
    return session.run(device, seed, save, report, asked)


def to_stderr(message: str) -> None:
    """A message beside what the script prints."""
    sys.stdout.flush()
    print(f"fusionzoo: {visible(message, lines=True)}", file=sys.stderr, flush=True)


class _Session:
    def __init__(self, script: Script, wish: Wish, say: Callable[[str], None]):
        self.script, self._say = script, say
        self.messages: list[str] = []
        self.watch = Watch(wish, self.say)
        self.finder = Finder(self.say)

    def say(self, message: str) -> None:
        self.messages.append(message)
        self._say(message)

    def run(self, device: str | None, seed: int | None, save: Any, report: Any, asked: dict[str, Any]) -> Result:
        target = None if device is None else read_device(device)
        tee = Tee(sys.stdout)
        status: int | str = 1
        try:
            with ExitStack() as stack:
                stack.enter_context(self.finder)
                stack.enter_context(put_back(target))
                stack.enter_context(shifted(seed))
                stack.enter_context(on(target))
                stack.enter_context(self.watch.watching())
                stack.enter_context(Replaced()).set(sys, "stdout", cast(Any, tee))
                status = self._execute()
            if status == 0:
                self.watch.conclude()
        finally:
            done = self._finish(tee, status, save)
            if report is not None:
                write_report(Path(report), done, asked)
        return done

    def _execute(self) -> int | str:
        """Run the script; an error of ours comes out as it is, whatever the script has made of it."""
        try:
            self.script.execute()
        except SystemExit as end:
            code = 0 if end.code is None else end.code
            if self.watch.error is not None:
                raise self.watch.error from None
            if code != 0 and self.watch.patch is None and self.watch.wish.fusion is not None:
                self.say(f"the script ended itself (status {code}) before a model was called in training")
            return code
        except Exception as error:
            if self.watch.error is not None and self.watch.error is not error:
                raise self.watch.error from error
            raise
        return 0

    def _finish(self, tee: Tee, status: int | str, save: Any) -> Result:
        watch = self.watch
        if watch.patch is not None:
            self.say(
                f"{watch.growth}; the norm of its output projection is {projection(watch.patch.layer):.3g} in the end"
            )
            if save is not None:
                self.say(f"the fusion was saved to {watch.patch.save(save)}")
        return Result(
            output=tee.kept.getvalue(),
            namespace=self.script.namespace,
            patch=watch.patch,
            patched=watch.patched,
            growth=watch.growth,
            status=status,
            stand_ins=self.finder.names,
            messages=self.messages,
        )
