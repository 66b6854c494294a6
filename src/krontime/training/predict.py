"""Computes class probabilities and scores of chosen series, the same way for validation, test and new files."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch

from krontime.console import progress
from krontime.data.datamodule import SeriesDataModule, SeriesDataset
from krontime.data.series import HeldOut, SeriesData
from krontime.errors import UserError
from krontime.metrics import MetricName
from krontime.training.metrics import metric_collection
from krontime.training.module import SeriesClassifier
from krontime.training.progress import PredictionProgress
from krontime.training.quiet import quiet_lightning


@dataclass(frozen=True)
class Scorer:
    """Where and in which batches probabilities are computed.

    Attributes:
        batch_size: series in a batch.
        accelerator: Lightning's name of the device type.
        precision: Lightning's name of the number format.
        index: number of the device among those of its type; None for the first.
    """

    batch_size: int
    accelerator: str
    precision: str
    index: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any], accelerator: str | None = None, index: int | None = None) -> "Scorer":
        """Make a scorer as a run's config says.

        Args:
            config: of the run, in plain types.
            accelerator: to take instead of that of the config.
            index: see the class.
        """
        return cls(
            batch_size=config["data"]["eval_batch_size"],
            accelerator=accelerator or config["trainer"]["accelerator"],
            precision=config["trainer"]["precision"],
            index=index,
        )

    def probabilities(
        self, module: SeriesClassifier, data: SeriesData, indices: np.ndarray, *, masked: bool | None = None
    ) -> torch.Tensor:
        """Compute the class probabilities `(len(indices), num_classes)`, float32, of series, in their order.

        Args:
            module: trained.
            data: the series.
            indices: their positions.
            masked: see `SeriesDataset`.

        Raises:
            UserError: the accelerator is not there.
        """
        return self.timed(module, data, indices, masked=masked)[0]

    def timed(
        self,
        module: SeriesClassifier,
        data: SeriesData,
        indices: np.ndarray,
        *,
        masked: bool | None = None,
        held_out: HeldOut | None = None,
    ) -> tuple[torch.Tensor, float]:
        """Compute what `probabilities` does, and the seconds from the first batch to the last, reading included.

        Args:
            module, data, indices, masked: see `probabilities`.
            held_out: see `SeriesDataset`.

        Raises:
            UserError: the accelerator is not there.
        """
        from lightning.fabric.utilities.exceptions import MisconfigurationException
        from lightning.pytorch import Trainer

        quiet_lightning()
        stopwatch, reported = _stopwatch(), PredictionProgress()
        try:
            trainer = Trainer(
                accelerator=self.accelerator,
                devices=1 if self.index is None else [self.index],
                precision=self.precision,  # type: ignore[arg-type]
                callbacks=[stopwatch, reported],
                logger=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
            )
        except (MisconfigurationException, ValueError) as error:
            raise UserError(f"accelerator={self.accelerator!r}: {error}") from error
        batches = SeriesDataModule(data=data, batch_size=self.batch_size, masked=masked, held_out=held_out)
        with progress("predicting", len(indices)) as reported.step:
            outputs: Any = trainer.predict(module, batches.eval_dataloader(indices))
        assert np.array_equal(torch.cat([index for index, _ in outputs]).numpy(), indices)
        return torch.cat([probability for _, probability in outputs]), stopwatch.seconds

    def one_by_one(self, module: SeriesClassifier) -> Callable[[SeriesData], torch.Tensor]:
        """Make a function from data of one series to its class probabilities `(1, num_classes)`, set up beforehand.

        Its numbers are those of `probabilities` with batches of one series.

        Raises:
            UserError: the accelerator is not there.
        """
        from lightning.fabric import Fabric
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        devices = 1 if self.index is None else [self.index]
        try:
            fabric = Fabric(accelerator=self.accelerator, devices=devices, precision=self.precision)  # type: ignore[arg-type]
        except (MisconfigurationException, ValueError) as error:
            raise UserError(f"accelerator={self.accelerator!r}: {error}") from error
        module = module.eval().to(fabric.device)

        def probability(data: SeriesData) -> torch.Tensor:
            batch = SeriesDataset(data).__getitems__([0])
            mask = None if batch.mask is None else batch.mask.to(fabric.device)
            with torch.inference_mode(), fabric.autocast():
                answer: torch.Tensor = module(batch.x.to(fabric.device), mask)
            return answer.float().softmax(dim=-1).cpu()

        return probability


def _stopwatch() -> Any:
    """Make a callback that measures the seconds of a prediction, once all is set up."""
    from lightning.pytorch import Callback

    class Stopwatch(Callback):
        seconds = 0.0

        def on_predict_start(self, *_: Any) -> None:
            self.seconds = -time.perf_counter()

        def on_predict_end(self, *_: Any) -> None:
            self.seconds += time.perf_counter()

    return Stopwatch()


def scores(probability: torch.Tensor, labels: np.ndarray, prior: torch.Tensor) -> dict[MetricName, float | None]:
    """Compute every metric, from probabilities `(n, K)` and labels `(n,)`; see `decide` for the prior `(K,)`."""
    metrics = metric_collection(probability.shape[1], prior)
    metrics.update(probability, torch.from_numpy(np.ascontiguousarray(labels)))
    computed = metrics.compute()
    return {name: round(float(computed[name]), 7) for name in get_args(MetricName)}  # the digits that float32 holds
