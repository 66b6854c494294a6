"""Classify long time series with Kronecker-decomposed attention: `load` a trained model, or train with
`KronTimeClassifier`. Nothing heavy is imported before one of them is used.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from krontime.estimator import KronTimeClassifier
    from krontime.runs.trained_model import TrainedModel

__version__ = "0.1.0"
__all__ = ["KronTimeClassifier", "__version__", "load"]


def load(path: "str | Path") -> "TrainedModel":
    """Read the model of a run folder or of a bundle, with `predict`, `predict_proba` and `classes_`.

    Raises:
        ValueError: the folder is neither, or is damaged.
    """
    from krontime.runs.trained_model import TrainedModel

    return TrainedModel.load(path)


def __getattr__(name: str) -> Any:
    if name == "KronTimeClassifier":
        from krontime.estimator import KronTimeClassifier

        return KronTimeClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
