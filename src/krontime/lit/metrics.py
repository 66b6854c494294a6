"""The one metric collection, for every model and split."""

import torch
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassF1Score,
)


class NegativeLogLikelihood(MeanMetric):
    """Mean of `-log p` of the true class, from probabilities `(B, K)`."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of probabilities `(B, K)` and labels `(B,)`."""
        chosen = preds.gather(1, target[:, None])
        super().update(-chosen.clamp(min=torch.finfo(preds.dtype).tiny).log())


class MacroAUROC(MulticlassAUROC):
    """One-against-rest area under the ROC curve, averaged over the classes that have both positives and negatives.

    torchmetrics counts a class without positives as 0 in its average, which would depend on the split.
    """

    def compute(self) -> Tensor:
        """The mean over the classes where the area is defined; NaN where there is none."""
        preds = torch.cat(self.preds) if isinstance(self.preds, list) else self.preds
        target = torch.cat(self.target) if isinstance(self.target, list) else self.target
        counts = torch.bincount(target, minlength=self.num_classes)
        defined = (counts > 0) & (counts < len(target))
        areas = [_binary_auroc(preds[:, k], target == k) for k in range(self.num_classes) if defined[k]]
        return torch.stack(areas).mean() if areas else preds.new_tensor(float("nan"))


def _binary_auroc(score: Tensor, positive: Tensor) -> Tensor:
    from torchmetrics.functional.classification import binary_auroc

    return binary_auroc(score, positive.long())


def metric_collection(num_classes: int) -> MetricCollection:
    """Accuracy, balanced accuracy, macro F1, AUROC, negative log likelihood and expected calibration error.

    Updated with probabilities `(B, num_classes)` and labels `(B,)`; computed once an epoch from what it holds. Not
    synchronised over ranks: each of them sees every series.
    """
    alone = {"sync_on_compute": False, "validate_args": False}
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_classes, average="micro", **alone),
            "balanced_accuracy": MulticlassAccuracy(num_classes, average="macro", **alone),
            "macro_f1": MulticlassF1Score(num_classes, average="macro", **alone),
            "auroc": MacroAUROC(num_classes, **alone),
            "nll": NegativeLogLikelihood(sync_on_compute=False),
            "ece": MulticlassCalibrationError(num_classes, n_bins=15, **alone),
        }
    )
