"""Names of the scores that every run is given."""

from typing import Literal, get_args

MetricName = Literal["accuracy", "balanced_accuracy", "macro_f1", "auroc", "nll", "ece"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)
