"""The training loop.

`Trainer` is one run: what it is made of, an epoch, a checkpoint. The loop is written for a GPU: the features lie on the
device (clips are read as they are asked for), nothing inside a step waits for it (losses and the confusion matrix are
summed there and read once an epoch), and each process of `accelerate launch` takes its share of the dialogues. On a CPU
it is the same loop. What makes a run of it, with its folder and its report, is `fusionzoo.experiments.single_run.train`.

What makes a resumed run give the same numbers: the random stream of an epoch is seeded from (seed, epoch, process), the
order of its batches from (seed, epoch), and learning rate and stopping are functions of the step and the history. So a
checkpoint holds weights, optimizer and history, and no hidden state is left.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fusionzoo._file_schemas import RecipeFacts, ResultFile
from fusionzoo._lazy import attach
from fusionzoo._weights import load_weights
from fusionzoo.data.loading import feature_statistics, split_of
from fusionzoo.errors import CheckpointError, TrainingError
from fusionzoo.runs import folder as runfolder
from fusionzoo.runs.checkpoint import (
    Checkpoint,
    checkpoint_folder,
    latest_checkpoint,
    read_checkpoint,
    remove_old_checkpoints,
    write_checkpoint,
)
from fusionzoo.runs.config import RunConfig
from fusionzoo.runs.data_section import corpus_sha256
from fusionzoo.runs.flops import flops_per_utterance
from fusionzoo.runs.models import (
    WeightedObjective,
    build_host,
    check_fusion_built,
    class_counts,
    count_parameters,
    describe_model,
    resolve,
    save_model,
    trained_state,
    whole_state,
)
from fusionzoo.scoring.inference import split_probabilities
from fusionzoo.scoring.metrics import LOG_LOSS, MAIN, METRICS, evaluate_predictions, scores_from_confusion
from fusionzoo.scoring.regression import regression_of
from fusionzoo.training.progress import Progress
from fusionzoo.training.schedule import best_epoch, lr_factor, out_of_patience
from fusionzoo.training.setup import (
    make_optimizer,
    restore_optimizer,
    seed_everything,
    start_tracker,
    update_average,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fusionzoo._types import Scores
    from fusionzoo.data.clips.loading import ClipBatches, ClipSplit
    from fusionzoo.data.corpus import Corpus
    from fusionzoo.data.resident import Batches, ResidentSplit

#: An epoch as a row of `metrics.csv`.
Epoch = dict[str, Any]

# In version 0.1 they stood here.
__getattr__, _, _ = attach(
    __name__, {"train": "fusionzoo.experiments.single_run", "RunResult": "fusionzoo.experiments.single_run"}
)


def _finite(value: float) -> float | None:
    """None for what JSON cannot hold; half precision lets a norm overflow."""
    return value if np.isfinite(value) else None


class Trainer:
    """One training run: what it is made of, an epoch, a checkpoint.

    Parameters
    ----------
    config : its configuration.
    folder : where its checkpoints and its model are written.
    corpus : what it is trained on.
    accelerator : device, precision and processes.
    recipe : what its result says about the recipe that the configuration came from.

    Raises
    ------
    TrainingError : a split that is needed has no labels.
    ConfigError : the fusion that is named would not be built.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        corpus: Corpus,
        accelerator: Accelerator,
        recipe: RecipeFacts | None = None,
    ):
        self.config, self.settings, self.folder = config, config.training, folder
        self.corpus, self.accelerator, self.recipe = corpus, accelerator, recipe
        self.device = accelerator.device
        self.watching_dev = self.settings.scheduler == "plateau" and self.settings.plateau_on == "dev_loss"
        self.selecting = _check_splits(corpus, self.settings.selection, self.watching_dev)
        self.data_sha256 = corpus_sha256(corpus)
        self.meta = describe_model(config, corpus, self.data_sha256)

        seed_everything(self.settings.seed, 0, 0)
        self.host = build_host(self.meta)
        check_fusion_built(self.host, config)
        if corpus.features:
            self.host.fit_features(feature_statistics(corpus, "train"))
        else:
            self.host.check_media(getattr(corpus, "media", {}))
        names = corpus.label_names
        objective = WeightedObjective(config, corpus.num_classes, class_counts(corpus), self.host, names)
        self.objective = objective.to(self.device)
        self.config = resolve(config, self.host, self.objective)
        self.meta = describe_model(self.config, corpus, self.data_sha256)
        self.host.to(self.device)
        self.average = copy.deepcopy(self.host).requires_grad_(False) if self.settings.ema else None
        self.parameters = [p for m in (self.host, self.objective) for p in m.parameters() if p.requires_grad]
        optimizer = make_optimizer(config, self.parameters, self.device)
        # A host's forward and an objective's may leave parameters unused (a missing modality): see make_accelerator.
        self.model, self.optimizer = accelerator.prepare(self.host, optimizer)
        self.loss: nn.Module = self.objective
        if any(p.requires_grad for p in self.objective.parameters()):
            self.loss = accelerator.prepare(self.objective)

        self.splits: dict[str, ResidentSplit | ClipSplit] = {}
        self.history: list[Epoch] = []
        self.seconds = 0.0
        self.steps = len(self.batches(epoch=1))

    # -- data -----------------------------------------------------------------------------------------------------

    def resident(self, split: str) -> ResidentSplit | ClipSplit:
        """A split on the device; moved there when first asked for."""
        if split not in self.splits:
            self.splits[split] = split_of(self.corpus, split, self.device)
        return self.splits[split]

    def batches(self, epoch: int) -> Batches | ClipBatches:
        """Batches of an epoch for this process."""
        return self.resident("train").batches(
            self.settings.batch_size,
            shuffle=True,
            balanced=self.settings.sampler == "balanced",
            seed=self.settings.seed,
            epoch=epoch,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
        )

    # -- the loop -------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> list[str]:
        """What the loop and the report need of every epoch."""
        judged = [self.selecting, *(["dev"] if self.watching_dev and self.selecting != "dev" else [])]
        scores = [f"{s}_{k}" for s in judged for k in (*METRICS, LOG_LOSS)]
        return ["epoch", "lr", "train_loss", f"train_{MAIN}", "seconds", *scores]

    @property
    def scores(self) -> list[float]:
        """What the epochs are chosen by; higher is better."""
        metric = METRICS[self.settings.metric]
        return [metric.gain(row[f"{self.selecting}_{self.settings.metric}"]) for row in self.history]

    @property
    def watched(self) -> list[float]:
        """What the learning rate of a plateau schedule is lowered by; higher is better."""
        if self.settings.plateau_on == "score":
            return self.scores
        column = "train_loss" if self.settings.plateau_on == "train_loss" else f"dev_{LOG_LOSS}"
        return [-row[column] for row in self.history]

    def fit(self, progress: Progress) -> None:
        """Train until the last epoch or until patience runs out."""
        tracking = start_tracker(self.accelerator, self.config)
        while len(self.history) < self.settings.epochs and not out_of_patience(self.scores, self.settings.patience):
            started = time.perf_counter()
            epoch = len(self.history) + 1
            row = {"epoch": epoch, **self.train_epoch(epoch, progress), **self.judge(self.selecting)}
            if self.watching_dev and self.selecting != "dev":
                row |= self.judge("dev")
            self.seconds += time.perf_counter() - started
            self.history.append(row | {"seconds": self.seconds})
            self.save()
            progress.epoch(self.history[-1], self.selecting, self.scores)
            if tracking:
                self.accelerator.log({k: v for k, v in row.items() if k != "epoch" and v is not None}, step=epoch)
        if tracking:
            for tracker in self.accelerator.trackers:
                tracker.finish()

    def train_epoch(self, epoch: int, progress: Progress) -> dict[str, float | None]:
        """One pass over the training split; nothing here waits for the device before the last lines."""
        settings, accelerator, classes = self.settings, self.accelerator, self.corpus.num_classes
        seed_everything(settings.seed, epoch, accelerator.process_index)
        self.model.train()
        # [sum of losses, utterances, sum of gradient norms] and the confusion matrix, one bin more for padding.
        totals = torch.zeros(3, dtype=torch.float64 if self.device.type != "mps" else torch.float32, device=self.device)
        confusion = torch.zeros(classes * classes + 1, dtype=torch.long, device=self.device)
        step = first = (epoch - 1) * self.steps
        total_steps = settings.epochs * self.steps
        lr, decay = settings.lr, (self.watched, settings.decay, settings.decay_epochs)
        for batch in self.batches(epoch):
            lr = settings.lr * lr_factor(settings.scheduler, step, total_steps, settings.warmup, *decay)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            with accelerator.autocast():
                out = self.model(batch)
                loss = self.loss(out, batch)
            accelerator.backward(loss)
            if settings.clip:
                totals[2] += accelerator.clip_grad_norm_(self.parameters, settings.clip)  # type: ignore[operator]
            self.optimizer.step()
            self.optimizer.zero_grad()
            step += 1
            if self.average is not None:
                update_average(self.average, self.host, min(settings.ema, (1 + step) / (10 + step)))
            with torch.no_grad():
                count = batch.num_utterances
                totals[0] += loss.detach() * count
                totals[1] += count
                cells = torch.where(
                    batch.labels >= 0, batch.labels * classes + out.logits.argmax(-1), classes * classes
                )
                confusion.scatter_add_(0, cells.flatten(), torch.ones_like(cells).flatten())
            progress.step(epoch - 1 + (step - first) / self.steps)
        totals, confusion = cast(list[Tensor], [accelerator.reduce(totals), accelerator.reduce(confusion)])
        loss_sum, utterances, norms = totals.tolist()  # the epoch's one wait for the device
        if not np.isfinite(loss_sum):
            raise TrainingError(
                f"the training loss of epoch {epoch} is not finite (precision={accelerator.mixed_precision}, lr={lr:.3g}): "
                "lower training.lr, set training.clip, or set training.precision=no"
            )
        scores = scores_from_confusion(confusion[:-1].reshape(classes, classes).cpu().numpy())
        return {
            "lr": lr,
            "train_loss": loss_sum / utterances,
            f"train_{MAIN}": float(scores[MAIN]),
            "grad_norm": _finite(norms / (self.steps * accelerator.num_processes)),
        }

    def judge(self, split: str) -> dict[str, float]:
        """Scores of the evaluated weights on a split, as columns of the history."""
        scores = cast("dict[str, float]", self.predict(split)[0])  # _check_splits made sure of labels
        return {f"{split}_{k}": scores[k] for k in (*METRICS, LOG_LOSS)}

    def predict(self, split: str) -> tuple[Scores | None, np.ndarray, np.ndarray]:
        """Scores (None without labels), rows of the corpus, and probabilities of a split."""
        rows, probabilities = split_probabilities(
            self.average or self.host,
            self.corpus,
            self.resident(split),
            split,
            self.settings.batch_size,
            self.accelerator,
        )
        labels = self.corpus.label[rows]
        scores = evaluate_predictions(labels, probabilities, self.corpus.label_names) if (labels >= 0).any() else None
        if scores is not None and (regression := regression_of(self.corpus, rows, probabilities)) is not None:
            scores["regression"] = regression
        return scores, rows, probabilities

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint when one is due; the best epoch's always is."""
        epoch, best, settings = len(self.history), best_epoch(self.scores), self.settings
        last = epoch == settings.epochs or out_of_patience(self.scores, settings.patience)
        if self.accelerator.is_main_process:
            if epoch == best or last or epoch % settings.checkpoint_every == 0:
                write_checkpoint(self.folder, self.checkpoint())
                remove_old_checkpoints(self.folder, max(settings.keep, 1), best)
            if epoch == best:
                save_model(self.folder, (self.average or self.host).state_dict(), self.meta)
            runfolder.write_history(self.folder, self.history)
        self.accelerator.wait_for_everyone()

    def checkpoint(self) -> Checkpoint:
        """Everything that training goes on from, as it is now."""
        best, scaler = best_epoch(self.scores), self.accelerator.scaler
        optimizer = {
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        state = {
            "epoch": len(self.history),
            "best": {"epoch": best, "score": METRICS[self.settings.metric].gain(self.scores[best - 1])},
            "history": self.history,
            "seconds": self.seconds,
            "data_sha256": self.data_sha256,
            "steps": self.steps,
        }
        average = None if self.average is None else trained_state(self.average)
        return Checkpoint(trained_state(self.host), average, optimizer, state)

    def restore(self) -> None:
        """Continue from the newest whole checkpoint, if there is one."""
        checkpoint = latest_checkpoint(self.folder)
        if checkpoint is None:
            return
        state = checkpoint.state
        runfolder.check_data(self.folder, state["data_sha256"], self.data_sha256, self.corpus.name)
        if state["steps"] != self.steps:
            raise CheckpointError(
                f"the run in {str(self.folder)!r} took {state['steps']} steps per epoch and would now take {self.steps}: "
                "resume with the same number of processes"
            )
        source = f"{str(checkpoint_folder(self.folder, checkpoint.epoch))!r}"
        load_weights(self.host, whole_state(self.host, checkpoint.model), source)
        if self.average is not None and checkpoint.average is not None:
            load_weights(self.average, whole_state(self.host, checkpoint.average), source)
        load_weights(self.objective, checkpoint.optimizer["objective"], source)
        try:
            restore_optimizer(self.optimizer, checkpoint.optimizer["optimizer"])
            if self.accelerator.scaler is not None and checkpoint.optimizer["scaler"]:
                self.accelerator.scaler.load_state_dict(checkpoint.optimizer["scaler"])
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"the optimizer's state in {source} does not fit this run: {error}") from error
        self.history, self.seconds = state["history"], state["seconds"]
        for row in self.history:
            absent = [k for k in self.columns if not isinstance(row.get(k), (int, float))]
            if absent:
                raise CheckpointError(f"the history in {source} lacks {', '.join(absent)} of an epoch")

    # -- the end --------------------------------------------------------------------------------------------------

    def finish(self) -> tuple[ResultFile, dict[str, tuple[np.ndarray, np.ndarray]]]:
        """Take the best epoch's weights and score them on every split that was set aside.

        Returns
        -------
        The contents of `result.json`; and split -> rows of the corpus, and probabilities for them.
        """
        best = best_epoch(self.scores)
        chosen = read_checkpoint(checkpoint_folder(self.folder, best))
        state = whole_state(self.host, chosen.model if chosen.average is None else chosen.average)
        load_weights(self.average or self.host, state, f"the checkpoint of epoch {best}")
        if self.accelerator.is_main_process:
            save_model(self.folder, state, self.meta)
        outcome = {s: self.predict(s) for s in ("dev", "test") if (self.corpus.split == s).any()}
        scores = {s: o[0] for s, o in outcome.items()}
        return self._result(best, scores), {s: o[1:] for s, o in outcome.items()}

    def _result(self, best: int, scores: dict[str, Scores | None]) -> ResultFile:
        result: dict[str, Any] = {
            "format": 1,
            "host": self.config.host.name,
            "fusion": self.config.fusion.name,
            "placement": self.meta["placement"],
            "seed": self.settings.seed,
            "selection": self.settings.selection,
            "metric": self.settings.metric,
            "epoch": best,
            "epochs": len(self.history),
            "parameters": count_parameters(self.host),
            "flops_per_utterance": flops_per_utterance(self.meta, self.corpus, self.selecting),
            "seconds": self.seconds,
            "device": str(self.device),
            "precision": self.accelerator.mixed_precision,
            "processes": self.accelerator.num_processes,
            "fingerprint": self.config.fingerprint(),
            "data": {"name": self.corpus.name, "sha256": self.data_sha256, "info": self.corpus.info},
            "dev": scores.get("dev"),
            "test": scores.get("test"),
        }
        if self.recipe is not None:
            result["recipe"] = dict(self.recipe)
        return cast(ResultFile, result)


# -- pieces ---------------------------------------------------------------------------------------------------------


def _check_splits(corpus: Corpus, selection: str, watching_dev: bool = False) -> str:
    """The split that chooses the epoch, after checking that it and the others that are needed have labels."""
    for split in ("train", selection, *(("dev",) if watching_dev else ())):
        if not ((corpus.split == split) & (corpus.label >= 0)).any():
            advice = {
                "train": "name another file, or a split file with data.split",
                "dev": "set data.dev_fraction to take some training dialogues for it, or name a split file with data.split",
                "test": "use training.selection=dev",
            }[split]
            raise TrainingError(f"{corpus.name!r} has no labelled utterance in its {split} split; {advice}")
    return selection
