"""The metric collection against scikit-learn and a small calibration reference."""

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from krontime.metrics import METRICS
from krontime.training.metrics import metric_collection


def draw(num_classes: int, num_series: int = 203, absent: tuple[int, ...] = (), seed: int = 0):
    """Probabilities `(n, K)` float32 that lean to the true class, and labels `(n,)` that miss some classes."""
    rng = np.random.default_rng(seed)
    present = [label for label in range(num_classes) if label not in absent]
    labels = rng.choice(present, num_series, p=np.linspace(1, 3, len(present)) / np.linspace(1, 3, len(present)).sum())
    logits = rng.standard_normal((num_series, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    return torch.tensor(logits, dtype=torch.float32).softmax(dim=-1), torch.from_numpy(labels)


def alike(num_classes: int) -> torch.Tensor:
    return torch.full((num_classes,), 1 / num_classes)


def compute(
    probability: torch.Tensor, labels: torch.Tensor, batch_size: int = 32, prior: torch.Tensor | None = None
) -> dict[str, float]:
    num_classes = probability.shape[1]
    collection = metric_collection(num_classes, alike(num_classes) if prior is None else prior)
    for start in range(0, len(labels), batch_size):
        collection.update(probability[start : start + batch_size], labels[start : start + batch_size])
    return {name: value.item() for name, value in collection.compute().items()}


def calibration_error(probability: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """Guo et al. 2017: bins of equal width over the top probability, gaps weighted by the share of series."""
    top, correct = probability.max(axis=1), probability.argmax(axis=1) == labels
    error = 0.0
    for low in np.arange(num_bins) / num_bins:
        inside = (top > low) & (top <= low + 1 / num_bins)
        if inside.any():
            error += inside.mean() * abs(top[inside].mean() - correct[inside].mean())
    return error


def test_the_collection_has_the_records_metrics():
    assert set(compute(*draw(3))) == set(METRICS)


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("batch_size", [1, 32, 1000])
def test_metrics_equal_scikit_learns(num_classes, batch_size):
    probability, labels = draw(num_classes)
    values = compute(probability, labels, batch_size)
    p, y = probability.double().numpy(), labels.numpy()
    guess = p.argmax(axis=1)
    p = p / p.sum(axis=1, keepdims=True)
    score = p[:, 1] if num_classes == 2 else p
    assert values == pytest.approx(
        {
            "accuracy": reference.accuracy_score(y, guess),
            "balanced_accuracy": reference.balanced_accuracy_score(y, guess),
            "macro_f1": reference.f1_score(y, guess, average="macro"),
            "auroc": reference.roc_auc_score(y, score, multi_class="ovr", average="macro"),
            "nll": reference.log_loss(y, p, labels=range(num_classes)),
            "ece": calibration_error(probability.numpy(), y),
        },
        abs=1e-5,
    )


@pytest.mark.parametrize("absent", [(0,), (4,), (1, 3)])
def test_a_class_that_the_split_lacks_counts_for_nothing(absent):
    probability, labels = draw(5, absent=absent)
    values = compute(probability, labels)
    p, y = probability.numpy(), labels.numpy()
    present = [label for label in range(5) if label not in absent]
    areas = [reference.roc_auc_score(y == label, p[:, label]) for label in present]
    assert values["auroc"] == pytest.approx(np.mean(areas), abs=1e-5)
    recalls = [(p[y == label].argmax(axis=1) == label).mean() for label in present]
    assert values["balanced_accuracy"] == pytest.approx(np.mean(recalls), abs=1e-5)
    f1 = reference.f1_score(y, p.argmax(axis=1), average="macro")  # over what occurs in labels or guesses
    assert values["macro_f1"] == pytest.approx(f1, abs=1e-5)


def test_auroc_of_a_single_class_is_undefined():
    probability, labels = draw(3, absent=(0, 2))
    values = compute(probability, labels)
    assert np.isnan(values["auroc"])
    assert np.isfinite([values[name] for name in METRICS if name != "auroc"]).all()


def test_auroc_counts_ties_half():
    probability = torch.tensor([[0.5, 0.5]] * 6)
    assert compute(probability, torch.tensor([0, 1, 0, 1, 1, 1]))["auroc"] == pytest.approx(0.5)


def test_nll_of_a_zero_probability_is_finite():
    values = compute(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1, 1]))
    assert values["nll"] == pytest.approx(-np.log(np.finfo(np.float32).tiny) / 2, rel=1e-5)


def test_a_perfect_classifier():
    labels = torch.tensor([0, 1, 2, 1])
    values = compute(torch.eye(3)[labels], labels)
    assert values == pytest.approx(
        {"accuracy": 1, "balanced_accuracy": 1, "macro_f1": 1, "auroc": 1, "nll": 0, "ece": 0}, abs=1e-6
    )


def test_classes_are_decided_by_what_exceeds_the_prior():
    probability, labels = draw(3)
    prior = torch.tensor([0.1, 0.2, 0.7])
    values = compute(probability, labels, prior=prior)
    guess = (probability / prior).argmax(dim=1).numpy()
    assert values["accuracy"] == pytest.approx(reference.accuracy_score(labels, guess))
    assert values["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, guess))
    assert values["macro_f1"] == pytest.approx(reference.f1_score(labels, guess, average="macro"))
    plain = compute(probability, labels)
    assert {name: values[name] for name in ("auroc", "nll", "ece")} == {
        name: plain[name] for name in ("auroc", "nll", "ece")
    }
    assert values["accuracy"] != plain["accuracy"]


def test_a_reset_collection_forgets():
    probability, labels = draw(3)
    collection = metric_collection(3, alike(3))
    collection.update(*draw(3, seed=1))
    collection.reset()
    collection.update(probability, labels)
    assert {name: value.item() for name, value in collection.compute().items()} == pytest.approx(
        compute(probability, labels)
    )
