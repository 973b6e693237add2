"""The training loop of every recipe: trains, validates after each epoch, checkpoints, and keeps the best weights.

No generator's state is carried from one batch to the next: every draw is seeded with (seed, epoch, batch). So
checkpoints need none, and a run resumed with the same number of threads gives the same bits as one not interrupted.
"""

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from pipeline.evaluation.retrieval import retrieval_metrics
from pipeline.training.network.activations import load_batches
from pipeline.training.network.checkpoints import RunDirectory
from pipeline.training.network.dataset import View
from pipeline.training.network.objectives import Objective, draw_mixture
from pipeline.training.network.samples import Samples, plain_batches
from pipeline.training.network.split_network import Tail
from pipeline.training.recipes import KeepBest, Recipe
from shared.array_types import FloatArray, IntArray
from shared.errors import TrainingFailed
from shared.model.embedder import normalised
from shared.progress import ReportProgress, progress_bar

CHECKPOINT_EVERY_S = 60.0  # within an epoch; there is one after every epoch too

History = list[dict[str, float]]


@dataclass
class Position:
    """Progress of a run between two batches; checkpoints hold it.

    Attributes:
        epoch: the current one, from 0.
        batches: how many of it are done.
        loss, n_right, n_seen, seconds: sums over those batches.
        start: validation figures of the head that the run began with, if it had one.
        best_epoch: from 1; 0 for the start; -1 while there is none.
        best_figure: the validation figure it was chosen by.
        history: one entry for each epoch done.
    """

    epoch: int = 0
    batches: int = 0
    loss: float = 0.0
    n_right: int = 0
    n_seen: int = 0
    seconds: float = 0.0
    start: dict[str, float] = field(default_factory=dict)
    best_epoch: int = -1
    best_figure: float | None = None
    history: History = field(default_factory=list)


class Loop:
    """One training run.

    Args:
        recipe: the hyperparameters.
        tail: the trained stages and the head.
        samples: labels, and which rows are trained and validated on.
        source: gives pixels or cached activations of views.
        front: turns what `source` gives into the tail's input; the identity for cached activations.
        run: directory of the run; if it has a checkpoint, the run continues there.
        device: of tail and front.
        seed: of all random draws.
    """

    def __init__(
        self,
        recipe: Recipe,
        tail: Tail,
        samples: Samples,
        source: Dataset[Tensor],
        front: nn.Module,
        run: RunDirectory,
        *,
        device: torch.device,
        seed: int,
    ) -> None:
        self.recipe, self.tail, self.samples = recipe, tail.requires_grad_(True), samples
        self._averaged = copy.deepcopy(tail).eval().requires_grad_(False)
        self._best: dict[str, Any] | None = None
        self._source, self._front, self._run_directory = source, front, run
        self._device, self._seed = device, seed
        self._optimizer = torch.optim.AdamW(_parameter_groups(recipe, tail))
        self._objective = Objective(recipe, samples, tail.head.out_features, device)
        self.position = Position()
        self._saved_at = time.monotonic()
        state = run.load(device)
        self.resumed = state is not None
        if state is not None:
            self._restore(state)

    def start_head(self, weight: FloatArray, bias: FloatArray) -> None:
        """Start from a fitted head, which is kept if no epoch is better.

        Args:
            weight: (13, dim).
            bias: (n_categories,).
        """
        for tail in (self.tail, self._averaged):
            tail.head.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
        self.position.start = self._validate()
        self._keep_if_best(0, self.position.start)

    def run(self, report_progress: ReportProgress) -> str:
        """Train, from the last checkpoint if there is one; afterwards the tail has the weights of the best epoch.

        Ctrl-C ends the training as if all epochs were done.

        Args:
            report_progress: receives one line for each epoch.

        Returns:
            why it ended, for people.

        Raises:
            TrainingFailed: the loss is no longer a number.
        """
        if self.resumed:
            report_progress(f"resumed in epoch {self.position.epoch + 1}, after {self.position.batches} batches of it")
        try:
            ended = self._train(report_progress)
        except KeyboardInterrupt:
            ended = f"interrupted in epoch {self.position.epoch + 1}"
            report_progress(f"{ended}: the best weights so far are used; --resume goes on from the last checkpoint")
        self.tail.load_state_dict(self._best or self._averaged.state_dict())
        self.tail.eval()
        return ended

    @torch.inference_mode()
    def outputs(self, rows: IntArray, tail: Tail) -> tuple[FloatArray, FloatArray]:
        """Pooled features (n, dim) and scores (n, n_categories) of the plain views of rows, both float32."""
        outputs: list[tuple[Tensor, Tensor]] = []
        for x in self._inputs(plain_batches(rows)):
            with self._autocast():
                pooled = tail(x)
                outputs.append((pooled, tail.head(pooled)))
        pooled, scores = (torch.cat(batches).float().cpu().numpy() for batches in zip(*outputs, strict=True))
        return pooled, scores

    def _train(self, report_progress: ReportProgress) -> str:
        position, n_batches = self.position, self.samples.n_batches(self.recipe)
        done = position.epoch * n_batches + position.batches
        with (
            SummaryWriter(self._run_directory.tensorboard, purge_step=1) as writer,
            progress_bar(total=self.recipe.epochs * n_batches, initial=done, unit="batch") as bar,
        ):
            for figures in position.history:  # a kill may have come between a checkpoint and its events
                _write_events(writer, figures)
            while position.epoch < self.recipe.epochs:
                if position.history and 0 < self.recipe.patience <= position.epoch - position.best_epoch:
                    return f"no better epoch since {position.best_epoch}"
                bar.set_description(f"epoch {position.epoch + 1}/{self.recipe.epochs}", refresh=False)
                self._train_epoch(bar)
                figures = self._end_epoch()
                _write_events(writer, figures)
                bar.clear()
                report_progress(_describe_epoch(figures))
        return "all epochs done"

    def _train_epoch(self, bar: "tqdm[Any]") -> None:
        position = self.position
        batches = self.samples.epoch(position.epoch, self.recipe, self._seed)[position.batches :]
        began = time.monotonic() - position.seconds
        for views, x in zip(batches, self._inputs(batches), strict=True):
            self._step(np.array([row for row, _ in views]), x)
            position.batches += 1
            position.seconds = time.monotonic() - began
            bar.update()
            if time.monotonic() - self._saved_at >= CHECKPOINT_EVERY_S:
                self._save()

    def _step(self, rows: IntArray, x: Tensor) -> None:
        recipe, position = self.recipe, self.position
        rng = np.random.default_rng([self._seed, position.epoch, position.batches])
        mixture = draw_mixture(recipe.mixup, len(rows), rng)
        self.tail.train(recipe.update_statistics)
        with self._autocast():
            pooled = self.tail(mixture.of(x))
            scores = self.tail.head(pooled)
            loss = self._objective(self.tail, pooled, scores, rows, mixture)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingFailed(
                f"the loss is {value} in epoch {position.epoch + 1}, batch {position.batches + 1}; lower the recipe's "
                f"learning rates ({recipe.lr_trunk:g} trunk, {recipe.lr_head:g} head). The last checkpoint stays"
            )
        done = (position.epoch + position.batches / self.samples.n_batches(recipe)) / recipe.epochs
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * _lr_factor(recipe, done)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._average()
        labels = torch.from_numpy(self.samples.labels[rows])
        position.loss += value * len(rows)
        position.n_right += int((scores.detach().argmax(1).cpu() == labels).sum())
        position.n_seen += len(rows)

    @torch.no_grad()
    def _average(self) -> None:
        n_steps = self.position.epoch * self.samples.n_batches(self.recipe) + self.position.batches
        # At first the mean is short, or it would hold the weights of the start for long.
        decay = min(self.recipe.ema_decay, (1 + n_steps) / (10 + n_steps))
        for mean, value in zip(self._averaged.parameters(), self.tail.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)
        for kept, buffer in zip(self._averaged.buffers(), self.tail.buffers(), strict=True):
            kept.copy_(buffer)

    def _end_epoch(self) -> dict[str, float]:
        """Validate, keep the weights if they are the best so far, and save a checkpoint."""
        position = self.position
        figures: dict[str, float] = {
            "epoch": position.epoch + 1,
            "train_loss": position.loss / position.n_seen,
            "train_accuracy": position.n_right / position.n_seen,
            **self._validate(),
            "seconds": position.seconds,
        }
        self._keep_if_best(position.epoch + 1, figures)
        position.history.append(figures)
        position.epoch, position.batches = position.epoch + 1, 0
        position.loss, position.n_right, position.n_seen, position.seconds = 0.0, 0, 0, 0.0
        self._save()
        return figures

    def _validate(self) -> dict[str, float]:
        rows = self.samples.validation
        if not len(rows):
            return {}
        pooled, scores = self.outputs(rows, self._averaged)
        labels = self.samples.labels[rows]
        retrieval = retrieval_metrics(normalised(pooled), labels, self.samples.listings[rows].astype(str))
        return {
            "val_loss": float(functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels))),
            "val_accuracy": float((scores.argmax(1) == labels).mean()),
            **{f"val_{name}": float(value) for name, value in retrieval.items() if not name.startswith("n_")},
        }

    def _keep_if_best(self, epoch: int, figures: dict[str, float]) -> None:
        """Keep the weights if they are the best so far; on a tie the earlier stay, without validation the last win."""
        name, best = self.recipe.keep_best, self.position.best_figure
        figure = figures.get(name)
        gain = math.inf if figure is None or best is None else best - figure if name is KeepBest.LOSS else figure - best
        if gain > 0:
            self._best = copy.deepcopy(self._averaged.state_dict())
            self.position.best_epoch, self.position.best_figure = epoch, figure

    def _inputs(self, batches: list[list[View]]) -> Iterator[Tensor]:
        for batch in load_batches(self._source, batches):
            with torch.no_grad(), self._autocast():
                x = self._front(batch.to(self._device))
            yield x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    def _autocast(self) -> torch.autocast:
        """Mixed precision: bfloat16 on a GPU, whose range needs no loss scaling; float32 on a CPU."""
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda")

    def _save(self) -> None:
        state = {
            "tail": self.tail.state_dict(),
            "averaged": self._averaged.state_dict(),
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "position": asdict(self.position),
        }
        self._run_directory.save(state, self.position.history)
        self._saved_at = time.monotonic()

    def _restore(self, state: dict[str, Any]) -> None:
        self.tail.load_state_dict(state["tail"])
        self._averaged.load_state_dict(state["averaged"])
        self._best = state["best"]
        self._optimizer.load_state_dict(state["optimizer"])
        self.position = Position(**state["position"])


def _parameter_groups(recipe: Recipe, tail: Tail) -> list[dict[str, Any]]:
    """Optimizer groups: each stage with its learning rate; no weight decay for biases and BatchNorm parameters."""
    added = (tail.head, tail.topics)
    modules: list[tuple[nn.Module, float]] = [(module, recipe.lr_head) for module in added if module is not None]
    modules += [(stage, recipe.lr_trunk * recipe.lr_decay**depth) for depth, stage in enumerate(reversed(tail.stages))]
    return [
        {"params": parameters, "peak_lr": lr, "lr": lr, "weight_decay": recipe.weight_decay if decays else 0.0}
        for module, lr in modules
        for decays in (True, False)
        if (parameters := [p for p in module.parameters() if (p.ndim > 1) is decays])
    ]


def _lr_factor(recipe: Recipe, done: float) -> float:
    """Factor of the peak learning rate after the share `done` (0..1) of all batches."""
    if done < recipe.warmup:
        return max(done / recipe.warmup, 0.01)
    return 0.5 + 0.5 * math.cos(math.pi * (done - recipe.warmup) / (1 - recipe.warmup)) if recipe.cosine else 1.0


def _write_events(writer: SummaryWriter, figures: dict[str, float]) -> None:
    for name, value in figures.items():
        writer.add_scalar(name, value, int(figures["epoch"]))


def _describe_epoch(figures: dict[str, float]) -> str:
    values = (f"{name} {value:.3f}" for name, value in figures.items() if name not in ("epoch", "seconds"))
    return f"epoch {figures['epoch']:.0f}: {', '.join(values)}, {figures['seconds']:.0f} s"
