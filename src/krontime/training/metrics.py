"""Defines the metrics, in the one collection that every model and split is scored by."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassF1Score
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities.data import dim_zero_cat

from krontime.metrics import decide


class NegativeLogLikelihood(Metric):
    """Mean of `-log p` of the true class, from probabilities `(B, K)` and labels `(B,)`."""

    full_state_update = False
    higher_is_better = False
    sums: list[Tensor]
    count: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("sums", [], dist_reduce_fx="cat")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch."""
        chosen = preds.gather(1, target[:, None]).clamp(min=torch.finfo(preds.dtype).tiny)
        self.sums.append(-chosen.log().sum())
        self.count += len(target)

    def compute(self) -> Tensor:
        """Return the mean over the series of all batches."""
        total = torch.zeros((), dtype=torch.float64)  # on the host: not every device has float64
        for batch in dim_zero_cat(self.sums).cpu():
            total += batch
        return (total / self.count.cpu()).float().to(self.count.device)


class MacroAUROC(Metric):
    """One-against-rest area under the ROC curve, averaged over the classes that have both positives and negatives.

    torchmetrics' own macro average counts a class without positives as 0, which would depend on the split.
    """

    full_state_update = False
    higher_is_better = True
    preds: list[Tensor]
    target: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("preds", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of probabilities `(B, K)` and labels `(B,)`."""
        self.preds.append(preds)
        self.target.append(target)

    def compute(self) -> Tensor:
        """Return the mean over the classes where the area is defined; NaN where there is none."""
        preds, target = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        areas = []
        for label in range(preds.shape[1]):
            positive = target == label
            if positive.any() and not positive.all():
                areas.append(binary_auroc(preds[:, label], positive.long()))
        return torch.stack(areas).mean() if areas else preds.new_tensor(float("nan"))


class BalancedAccuracy(Metric):
    """Recall averaged over the classes that have series, as scikit-learn's, from decided classes `(B,)`.

    torchmetrics' own macro average counts a class that is only ever guessed as 0, which would depend on the split.
    """

    full_state_update = False
    higher_is_better = True
    hits: Tensor
    count: Tensor

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.num_classes = num_classes
        for name in ("hits", "count"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of decided classes `(B,)` and labels `(B,)`."""
        classes = F.one_hot(target, self.num_classes)
        self.count += classes.sum(dim=0)
        self.hits += classes[preds == target].sum(dim=0)

    def compute(self) -> Tensor:
        """Return the mean recall over the classes that have series."""
        seen = self.count > 0
        return (self.hits[seen] / self.count[seen]).mean()


class MetricOfDecisions(Metric):
    """Wraps a metric of decided classes, so that it is updated with probabilities.

    Args:
        metric: updated with classes `(B,)` and labels `(B,)`.
        prior: see `decide`.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, metric: Metric, prior: Tensor, **options: Any) -> None:
        super().__init__(**options)
        self.metric = metric
        self.register_buffer("prior", prior.clone(), persistent=False)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of probabilities `(B, K)` and labels `(B,)`."""
        self.metric.update(decide(preds, self.prior), target)

    def compute(self) -> Any:
        """Compute the wrapped metric."""
        return self.metric.compute()

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self.metric.reset()


def metric_collection(num_classes: int, prior: Tensor) -> MetricCollection:
    """Collect accuracy, balanced accuracy, macro F1, AUROC, negative log likelihood and expected calibration error.

    Updated with probabilities `(B, num_classes)` and labels `(B,)`; computed once an epoch from what it holds. Not
    synchronised over ranks: each of them sees every series.

    Args:
        num_classes: K.
        prior: `(K,)`, by which classes are decided; see `decide`.
    """
    no_sync: dict[str, Any] = {"sync_on_compute": False}

    def decided(metric: Metric) -> Metric:
        return MetricOfDecisions(metric, prior, **no_sync)

    return MetricCollection(
        {
            "accuracy": decided(MulticlassAccuracy(num_classes, average="micro", validate_args=False, **no_sync)),
            "balanced_accuracy": decided(BalancedAccuracy(num_classes, **no_sync)),
            "macro_f1": decided(MulticlassF1Score(num_classes, average="macro", validate_args=False, **no_sync)),
            "auroc": MacroAUROC(**no_sync),
            "nll": NegativeLogLikelihood(**no_sync),
            "ece": MulticlassCalibrationError(num_classes, n_bins=15, validate_args=False, **no_sync),
        }
    )
