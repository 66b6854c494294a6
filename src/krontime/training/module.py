"""Defines the one LightningModule, through which every network is trained, selected and used."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from krontime.data.series import SeriesBatch
from krontime.metrics import decide
from krontime.models.kernel_ridge.calibration import score_loss
from krontime.models.kernel_ridge.classifier import ClosedForm
from krontime.models.network import SeriesNetwork
from krontime.training.augment import Augment
from krontime.training.metrics import metric_collection
from krontime.training.mixture import PREFIX, Mixture
from krontime.training.schedule import WarmupCosine

FORMAT_VERSION = 5
"""Version of what is added to a Lightning checkpoint under `krontime`; up to 4, the closed form was another."""

_MIXTURE = "krontime_closed_form"
"""Key under which a Lightning checkpoint has the closed form's tensors, which are no weights to be averaged."""


class SeriesClassifier(pl.LightningModule):
    """A network with its normaliser, loss, optimiser and metrics.

    Args:
        network: maps scaled series `(B, C, L)` and a mask to logits `(B, num_classes)`. None for a closed form alone.
        normalizer: maps raw series and a mask to scaled series.
        closed_form: fitted beside the network; it answers alone until validation, after each epoch, shows that the
            network's probabilities improve on its own. None for the network alone.
        num_classes: number of classes.
        seed: of the run; every training step is seeded from it and the step's number.
        augment: changes to training batches, or None.
        optimizer: makes an optimiser from parameter groups.
        warmup_fraction: fraction of the steps over which the learning rate rises.
        min_lr_ratio: learning rate at the last step over the peak.
        label_smoothing: fraction of the target spread over all classes.
        class_weights: `(num_classes,)` how much more than its training series each class counts, or None. Probabilities
            keep the frequencies of the training classes all the same: the logarithms of the weights are taken from the
            logits.
        has_weighted_loss: whether the loss has these weights; false where batches hold the classes so often instead.
        prior: `(num_classes,)` frequencies of the training classes, by which classes are decided; see `decide`. None
            for accuracy as the score, for which all are equal.
        about: plain description (config, sizes, protocol) that travels in the checkpoint.
    """

    class_weights: Tensor | None
    prior: Tensor

    def __init__(
        self,
        *,
        network: SeriesNetwork | None,
        normalizer: nn.Module,
        num_classes: int,
        closed_form: ClosedForm | None = None,
        seed: int = 0,
        augment: Augment | None = None,
        optimizer: Callable[[Iterable[dict[str, Any]]], torch.optim.Optimizer] | None = None,
        warmup_fraction: float = 0.1,
        min_lr_ratio: float = 0.01,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        has_weighted_loss: bool = True,
        prior: Tensor | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.normalizer = normalizer
        self.mixture = None if closed_form is None else Mixture(closed_form)
        self.num_classes = num_classes
        self.seed = seed
        self.augment = augment
        self.optimizer = optimizer
        self.warmup_fraction = warmup_fraction
        self.min_lr_ratio = min_lr_ratio
        self.label_smoothing = label_smoothing
        self.has_weighted_loss = has_weighted_loss
        self.register_buffer("class_weights", class_weights)
        self.register_buffer("prior", torch.full((num_classes,), 1 / num_classes) if prior is None else prior)
        self.about = about or {}
        self.val_metrics = metric_collection(num_classes, self.prior)
        self.train_loss = MeanMetric(nan_strategy="disable")  # of the epoch; a loss that is not finite has to show
        self._batch_ended_s = 0.0
        self._validated: list[tuple[Tensor, Tensor, Tensor]] = []
        self._periods: list[Tensor] = []

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits `(B, num_classes)` of raw series `(B, C, L)` and their mask, closed form included."""
        return self._answer(x, mask, held_out=None)

    def network_logits(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits `(B, num_classes)` of the network alone; their softmax keeps the training frequencies."""
        assert self.network is not None
        return unweighted_logits(self.network, self.normalizer, self.class_weights, x, mask)

    def _answer(self, x: Tensor, mask: Tensor | None, held_out: Tensor | None) -> Tensor:
        """Return what `forward` does, with `held_out` in place of the closed form's log-probabilities where given."""
        if self.mixture is None:
            return self.network_logits(x, mask)
        uses_network = self.network is not None and self.mixture.mixing.weight > 0
        log_probability = self.mixture.closed_form_log_probability(x, mask, held_out)
        return self.mixture.mixed(self.network_logits(x, mask) if uses_network else None, log_probability)

    def setup(self, stage: str) -> None:
        """Send all ranks the closed form, which the first alone has fitted, and what it says of held-out series."""
        if stage != "fit" or self.mixture is None or self.trainer.world_size == 1:
            return
        dataset = self.trainer.datamodule.dataset  # type: ignore[attr-defined]
        fitted: Any = (self.mixture.tensors(), dataset.held_out) if self.global_rank == 0 else None
        tensors, dataset.held_out = self.trainer.strategy.broadcast(fitted)
        self.mixture.load_tensors(tensors)

    def on_train_start(self) -> None:
        """Begin to measure the speed; within an epoch that is resumed, no other hook does."""
        self._batch_ended_s = time.perf_counter()

    def on_train_epoch_start(self) -> None:
        """Begin to measure the speed anew, so that validation is left out of it."""
        self._batch_ended_s = time.perf_counter()

    def on_train_batch_start(self, batch: SeriesBatch, batch_idx: int) -> None:
        """Seed the batch from the run's seed and its own number, so that a resumed run draws the same numbers."""
        number = self.trainer.fit_loop.epoch_loop.total_batch_idx  # unlike the number of the step, no other batch's
        num_ranks = max(64, self.trainer.world_size)
        torch.manual_seed((self.seed * 1_000_003 + number) * num_ranks + self.global_rank)

    def training_step(self, batch: SeriesBatch, batch_idx: int) -> Tensor:
        """Return and log the cross-entropy of one batch."""
        assert self.network is not None
        x, mask = self.normalizer(batch.x, batch.mask), batch.mask
        targets = F.one_hot(batch.y, self.num_classes).to(x.dtype)
        if self.augment is not None:
            x, mask, targets = self.augment(x, mask, targets)
        logits = self.network(x, mask)
        weights = self.class_weights if self.has_weighted_loss else None
        loss = F.cross_entropy(logits, targets, weight=weights, label_smoothing=self.label_smoothing)
        # Logged under the names that Lightning would give, whose own mean over an epoch is in no checkpoint. Repeated
        # for each series, since a metric that does not check for NaN ignores weights.
        self.train_loss.update(loss.detach().expand(len(batch.y)))
        self.log("train/loss_step", loss, prog_bar=True)  # the first rank's: steps wait for no sum over the ranks
        self.log("train/loss_epoch", self.train_loss, on_step=False, on_epoch=True)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, logger=False)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: SeriesBatch, batch_idx: int) -> None:
        """Log the speed of all ranks, from the end of one batch to that of the next: loading is included."""
        ended_s = time.perf_counter()
        speed = len(batch.y) * self.trainer.world_size / (ended_s - self._batch_ended_s)
        self._batch_ended_s = ended_s
        self.log("series_per_s", speed, prog_bar=True, batch_size=len(batch.y))

    def validation_step(self, batch: SeriesBatch, batch_idx: int) -> None:
        """Keep what the validation metrics are computed from, once the network's weight is known."""
        logits = unmixed = self.network_logits(batch.x, batch.mask)
        if self.mixture is not None:
            unmixed = self.mixture.closed_form_log_probability(batch.x, batch.mask, batch.held_out)
        self._validated.append((logits, unmixed, batch.y))
        if batch.period is not None:
            self._periods.append(batch.period)

    def on_validation_epoch_end(self) -> None:
        """Fit the network's weight, and compute the validation metrics, once an epoch.

        `val/loss` is what selection and early stopping watch: the loss of the stated score, and where there is a
        closed form, of the mixture with it on series that the network's weight was not fitted to, whether or not the
        evidence is enough to mix the network in.
        """
        # `unmixed`: log-probabilities of the closed form, or the logits again where there is none.
        logits, unmixed, y = (torch.cat(batches) for batches in zip(*self._validated, strict=True))
        self._validated.clear()
        period = torch.cat(self._periods) if self._periods else None
        self._periods.clear()
        answer = logits
        loss = score_loss(unmixed.float().log_softmax(dim=-1), y, self.prior).mean()
        if self.mixture is not None:
            self.mixture.fit(logits, unmixed, y, self.prior, period)
            answer = self.mixture.mixed(logits, unmixed)
            loss = loss - self.mixture.mixing.gain
            self.log("val/network_weight", self.mixture.mixing.weight, sync_dist=True)  # the same on every rank
            self._log_part("network", self.mixture.mixing.factor * logits, y)
            self._log_part("closed_form", unmixed, y)
        self.val_metrics.update(answer.float().softmax(dim=-1), y)
        scores = {**self.val_metrics.compute(), "loss": loss}
        self.val_metrics.reset()
        for name, score in scores.items():  # the same on every rank, which Lightning can't know
            self.log(f"val/{name}", score, prog_bar=name == "accuracy", sync_dist=True)

    def _log_part(self, part: str, logits: Tensor, y: Tensor) -> None:
        """Log accuracy and log loss of one part of the mixture, as `val/PART_accuracy` and `val/PART_nll`."""
        probability = logits.float().softmax(dim=-1)
        right = (decide(probability, self.prior) == y).float().mean()
        self.log(f"val/{part}_accuracy", right, sync_dist=True)
        self.log(f"val/{part}_nll", F.cross_entropy(logits.float(), y), sync_dist=True)

    def predict_step(self, batch: SeriesBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return the positions `(B,)` of the series of a batch, and their class probabilities `(B, num_classes)`."""
        answer = self._answer(batch.x, batch.mask, batch.held_out)
        return batch.index.cpu(), answer.float().softmax(dim=-1).cpu()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimiser, without weight decay where a parameter refuses it, and the learning rate schedule."""
        assert self.optimizer is not None
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": []}, {"params": [], "weight_decay": 0.0}]
        for parameter in trainable:
            groups[parameter.ndim < 2 or getattr(parameter, "no_weight_decay", False)]["params"].append(parameter)
        optimizer = self.optimizer([group for group in groups if group["params"]])
        schedule = WarmupCosine(
            optimizer,
            total_steps=int(self.trainer.estimated_stepping_batches),
            warmup_fraction=self.warmup_fraction,
            min_lr_ratio=self.min_lr_ratio,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add to the checkpoint what it is, in plain containers, and the closed form."""
        world_size = 1 if self._trainer is None else self.trainer.world_size
        checkpoint["krontime"] = {"format_version": FORMAT_VERSION, "world_size": world_size, **self.about}
        if self.mixture is not None:
            checkpoint[_MIXTURE] = self.mixture.tensors()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the closed form and the network's weight, which are not in the state of this module."""
        if self.class_weights is not None:  # which earlier checkpoints don't have
            checkpoint["state_dict"].setdefault("class_weights", self.class_weights)
        if self.mixture is not None:
            self.mixture.load_tensors(checkpoint[_MIXTURE])

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors that a copy needs to give the same answers, by name."""
        return {**self.state_dict(), **({} if self.mixture is None else self.mixture.tensors())}

    def load_tensors(self, tensors: Mapping[str, Tensor], *, assign: bool = False) -> None:
        """Load what `tensors` returned; see `Mixture.load_tensors`."""
        self.load_state_dict(
            {name: value for name, value in tensors.items() if not name.startswith(PREFIX)}, assign=assign
        )
        if self.mixture is not None:
            self.mixture.load_tensors(tensors, assign=assign)

    def loss_totals(self) -> list[float]:
        """Return the sum of the loss over the series of the epoch up to now, of all ranks, and their number."""
        reduce = self.trainer.strategy.reduce
        return [float(reduce(total.clone(), reduce_op="sum")) for total in self._loss_totals()]

    def set_loss_totals(self, totals: Sequence[float]) -> None:
        """Resume from `loss_totals`; the first rank takes those of all ranks."""
        for total, value in zip(self._loss_totals(), totals, strict=True):
            total.fill_(value if self.global_rank == 0 else 0.0)

    def _loss_totals(self) -> tuple[Tensor, Tensor]:
        assert isinstance(self.train_loss.mean_value, Tensor)
        assert isinstance(self.train_loss.weight, Tensor)
        return self.train_loss.mean_value, self.train_loss.weight


def unweighted_logits(
    network: nn.Module, normalizer: nn.Module, class_weights: Tensor | None, x: Tensor, mask: Tensor | None
) -> Tensor:
    """Return a network's logits `(B, K)` of raw series, less what the weights of its loss `(K,)` have added to them."""
    logits: Tensor = network(normalizer(x, mask), mask)
    return logits if class_weights is None else logits - class_weights.log()


def tensors_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a Lightning checkpoint that answers need, named as in `SeriesClassifier.tensors`."""
    return {**checkpoint["state_dict"], **checkpoint.get(_MIXTURE, {})}
