"""A classifier of aeon as a model: fitted once, without epochs."""

from typing import Any, Literal


class AeonClassifier:
    """A classifier without epochs, which selects nothing on validation.

    Args:
        estimator: the classifier, not fitted.
        classifier: its class path, for messages.
        fit_on: `train`, the same series that a network is trained on, or `train_and_validation`.

    Raises:
        ValueError: the class is no classifier.
    """

    def __init__(
        self,
        *,
        estimator: Any,
        classifier: str,
        fit_on: Literal["train", "train_and_validation"] = "train",
    ) -> None:
        from aeon.classification.base import BaseClassifier

        if not isinstance(estimator, BaseClassifier):
            raise ValueError(f"classifier={classifier!r}: expected a classifier of series, this is none")
        self.estimator: BaseClassifier = estimator
        self.classifier = classifier
        self.fit_on = fit_on
