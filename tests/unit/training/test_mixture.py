"""A network beside a closed form: what validation logs is what a loaded checkpoint scores, whatever the callbacks."""

import functools
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from krontime.data.series import SeriesBatch
from krontime.models.kernel_ridge.classifier import ClosedForm
from krontime.models.kernel_ridge.kernels import KernelPoolings
from krontime.models.kernel_ridge.part import LabelledSeries
from krontime.training.mixture import PREFIX
from krontime.training.module import SeriesClassifier, tensors_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '\\w+_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),
    pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`"),
]

LENGTH = 30


class Mean(nn.Module):
    """Tells classes by the series' means, which the closed form does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.head(x.mean(dim=(1, 2))[:, None])


class Same(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x


def batches(num_series: int, first: int, seed: int) -> list[SeriesBatch]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(num_series) % 2
    x = torch.randn(num_series, 1, LENGTH, generator=generator) + 3 * y[:, None, None] - 1.5
    index = torch.arange(num_series) + first
    return [SeriesBatch(*part) for part in zip(x.split(8), [None] * 100, y.split(8), index.split(8), strict=False)]


TRAIN, VALIDATION = batches(32, 0, seed=0), batches(40, 32, seed=1)


def make() -> SeriesClassifier:
    torch.manual_seed(0)
    parts = {"a": functools.partial(KernelPoolings, scaling="series", num_features=84, poolings=1, difference=False)}
    return SeriesClassifier(
        network=Mean(),
        normalizer=Same(),
        closed_form=ClosedForm(num_channels=1, length=LENGTH, num_classes=2, parts=parts),
        num_classes=2,
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.1),
    )


def fitted() -> tuple[SeriesClassifier, list[SeriesBatch]]:
    """The module, and the batches for validation with what a closed form says that was fitted without them."""
    module = make()
    assert module.mixture is not None
    every = [*TRAIN, *VALIDATION]
    labels = torch.cat([batch.y for batch in every])
    read = [(batch.x, None) for batch in every]
    left_out = module.mixture.closed_form.fit(read[0], LabelledSeries(lambda _: read, labels, 32, True, None)).float()
    parts = left_out[32:].split(8)
    return module, [batch._replace(held_out=part) for batch, part in zip(VALIDATION, parts, strict=True)]


def train(tmp_path: Any, *callbacks: pl.Callback) -> tuple[list[SeriesBatch], dict[str, Any]]:
    """The batches for validation, the selected checkpoint, and what was logged in the same epoch."""
    module, validation = fitted()
    best = ModelCheckpoint(tmp_path, filename="best", monitor="val/loss", mode="min", save_top_k=1)
    logged: dict[str, dict[str, Tensor]] = {}

    class Keep(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            logged[str(trainer.current_epoch)] = dict(trainer.callback_metrics)

    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=4,
        logger=False,
        callbacks=[*callbacks, best, Keep()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(tmp_path),
    )

    def loader(given: list[SeriesBatch]) -> DataLoader[SeriesBatch]:
        return DataLoader(given, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    trainer.fit(module, loader(TRAIN), loader(validation))
    checkpoint = torch.load(best.best_model_path, weights_only=True)
    return validation, {"checkpoint": checkpoint, **logged[str(checkpoint["epoch"])]}


@pytest.mark.parametrize(
    "callbacks",
    [
        [],
        [functools.partial(EMAWeightAveraging, decay=0.9)],
        [functools.partial(EMAWeightAveraging, decay=0.9, use_buffers=False)],
        [functools.partial(EMAWeightAveraging, decay=0.9), functools.partial(EarlyStopping, "val/loss", patience=1)],
    ],
    ids=["plain", "ema", "ema_without_buffers", "ema_and_early_stopping"],
)
def test_a_loaded_checkpoint_scores_what_was_logged(tmp_path, callbacks):
    validation, logged = train(tmp_path, *(make_callback() for make_callback in callbacks))
    loaded = make().eval()
    loaded.load_tensors(tensors_of(logged["checkpoint"]))
    assert loaded.mixture is not None
    assert loaded.mixture.mixing.weight == pytest.approx(float(logged["val/network_weight"]))
    probability = torch.cat([loaded.predict_step(batch, 0)[1] for batch in validation])
    labels = torch.cat([batch.y for batch in VALIDATION])
    nll = -probability[torch.arange(40), labels].log().mean()
    torch.testing.assert_close(nll, logged["val/nll"], atol=1e-5, rtol=1e-5)


def test_the_network_is_mixed_in_once_validation_speaks_for_it(tmp_path):
    validation, logged = train(tmp_path)
    assert logged["val/network_weight"] > 0.5
    assert logged["val/accuracy"] > 0.9
    own = torch.cat([batch.held_out for batch in validation])
    labels = torch.cat([batch.y for batch in VALIDATION])
    assert float((own.argmax(dim=1) == labels).float().mean()) < 0.8


def test_nothing_of_the_closed_form_is_averaged_trained_or_sent():
    module, _ = fitted()
    assert not any(PREFIX in name or "mixture" in name for name, _ in module.named_buffers())
    assert not any(PREFIX in name or "mixture" in name for name, _ in module.named_parameters())


def test_averaging_leaves_the_closed_form_as_it_was_fitted(tmp_path):
    _, logged = train(tmp_path, EMAWeightAveraging(decay=0.9))
    kept, expected = tensors_of(logged["checkpoint"]), fitted()[0].tensors()
    for name in expected:
        if name.startswith(PREFIX) and not name.endswith("share"):
            assert torch.equal(kept[name], expected[name]), name


def test_tensors_of_another_size_are_refused():
    module = make()
    tensors = fitted()[0].tensors()
    name = next(name for name in tensors if name.endswith("parts.a.weight"))
    with pytest.raises(RuntimeError, match="size mismatch"):
        module.load_tensors({**tensors, name: tensors[name][:5]})
    with pytest.raises(RuntimeError, match="share"):
        module.load_tensors({key: value for key, value in tensors.items() if not key.endswith("share")})
