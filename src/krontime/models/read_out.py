"""A read-out in closed form, beside a network: kernels and spectra pooled over a series, and kernel ridge regression.

A network learns its tokens, which takes many series; fixed kernels with a classifier in closed form are ahead of it
where there are few (Dempster, Schmidt, Webb 2021, arXiv 2012.08791; Tan et al. 2022, arXiv 2102.00457). Both read the
same series, and a log-linear pool of the two with weights fitted to validation uses each where it knows more.

Shape letters: B batch, C channels, L time points, N patches, P features of a series, K classes, n series, M landmarks.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from krontime.errors import Problems, UserError
from krontime.models.layers.kernels import KernelFeatures, PatchFeatures, dilations_within, mean_and_scale
from krontime.models.layers.spectrum import num_frequencies, patch_spectra

_STRENGTH = 30.0
"""How much validation has to speak for the network: with few validation series the read-out is nearly alone."""

_LARGEST = 10.0
"""Standardised features are cut here, so that a single strange one does not decide."""

_SMALLEST = 1e-6
"""Pooled responses are raised to this, since the root of a deviation that is nothing but rounding would be noise."""

_WIDTH = 0.05
"""Decay of the Gaussian kernel with the mean squared difference of standardised features: nearly linear."""

_SPECTRUM = 0.2
"""What the spectra, which are far fewer features, count in that mean."""

_JITTER = 1e-6
"""Added to the similarity of a landmark with itself, so that equal ones do no harm."""


class KernelReadOut(nn.Module):
    """Features of a series in closed form, kernel ridge regression on them, and the weights that mix it with a network.

    Features of patches (`KernelFeatures`, of which the square roots are taken, and `patch_spectra`) are pooled over the
    series in three ways: their mean, their standard deviation, and their maximum over patches that are at least half as
    full as the fullest; these are standardised. One ridge regression with a wide Gaussian kernel gives one number a
    class; its strength minimises the squared error of leave-one-out predictions, from which the scale of the logits is
    taken too. Series are compared with landmarks, which are the training series as long as these are not too many
    (Nystrom's method, Williams and Seeger 2001).

    Args:
        num_channels: C.
        length: longest series, in time points.
        num_classes: K.
        patch_length: points of a patch, which are pooled first.
        num_dilations: dilations 1, 2, 4, ...; None for all that leave a kernel shorter than the longest series.
        num_biases: biases for each kernel and dilation.
        difference: whether the first difference of the series is convolved beside the series.
        spectrum: whether there are the spectra of patches beside the kernels.
        fit_on: whether the weights that classify new series are fitted once more, to `train_and_validation`, after the
            weights of the mixture were found with a fit to `train`; or stay those of the latter.
        max_features: P at most, spectra not counted, where a kernel for each channel leaves that choice: with many
            channels fewer of the 84 kernels are used.
        max_landmarks: M at most; they are drawn from more training series.
        seed: of the sampling of biases and landmarks.

    Raises:
        UserError: with every option that cannot work.
    """

    importance: Tensor
    mean: Tensor
    scale: Tensor
    landmarks: Tensor
    weight: Tensor
    bias: Tensor
    mix: Tensor

    def __init__(
        self,
        *,
        num_channels: int,
        length: int,
        num_classes: int,
        patch_length: int = 64,
        num_dilations: int | None = None,
        num_biases: int = 1,
        difference: bool = True,
        spectrum: bool = True,
        fit_on: Literal["train", "train_and_validation"] = "train_and_validation",
        max_features: int = 40_000,
        max_landmarks: int = 2_000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        problems = Problems()
        if fit_on not in ("train", "train_and_validation"):
            problems.add("read_out.fit_on", fit_on, "train or train_and_validation")
        for name, value in (
            ("patch_length", patch_length),
            ("max_features", max_features),
            ("max_landmarks", max_landmarks),
        ):
            if value < 1:
                problems.add(f"read_out.{name}", value, "at least 1")
        problems.raise_if_any()
        self.fit_on = fit_on
        self.max_landmarks = max_landmarks
        self.seed = seed
        if num_dilations is None:
            num_dilations = dilations_within(length)
        each = num_channels * (2 if difference else 1) * num_dilations * num_biases * 2 * 3
        self.kernels = KernelFeatures(
            patch_length=patch_length,
            stride=patch_length,
            num_dilations=num_dilations,
            num_biases=num_biases,
            difference=difference,
            seed=seed,
            num_kernels=max(1, min(84, max_features // max(1, each))),
            key="read_out",
        )
        self.spectrum = spectrum
        of_kernels = 3 * self.kernels.num_features
        of_spectra = 3 * num_frequencies(patch_length) if spectrum else 0
        share = _SPECTRUM if spectrum else 0.0
        shares = [(1 - share) / of_kernels] * of_kernels + [share / max(1, of_spectra)] * of_spectra
        importance = (torch.tensor(shares) / num_channels).sqrt().repeat(num_channels)
        num_features = len(importance)
        self.register_buffer("importance", importance, persistent=False)
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))
        self.register_buffer("landmarks", torch.zeros(0, num_features))
        self.register_buffer("weight", torch.zeros(num_classes, 0))
        self.register_buffer("bias", torch.zeros(num_classes))
        self.register_buffer("mix", torch.tensor([0.0, 1.0]))

    @property
    def num_fitted(self) -> int:
        """Numbers that `fit` and `fit_mix` set, beside statistics and landmarks."""
        return self.weight.numel() + self.bias.numel() + self.mix.numel()

    def fit_kernels(self, x: Tensor, mask: Tensor | None) -> None:
        """Draw the biases of the kernels from normalised training series `(B, C, L)`."""
        self.kernels.fit(x.flatten(0, 1), None if mask is None else mask.flatten(0, 1))

    def features(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Features `(B, P)` of normalised series `(B, C, L)`; for a channel without any observed point, the least."""
        x_RL, mask_RL = x.flatten(0, 1), None if mask is None else mask.flatten(0, 1)
        found = [_pooled(self.kernels(x_RL, mask_RL)).clamp(min=_SMALLEST).sqrt()]
        if self.spectrum:
            found.append(_pooled(patch_spectra(x_RL, mask_RL, self.kernels.patch_length)))
        return torch.cat(found, dim=1).unflatten(0, x.shape[:2]).flatten(1)

    def fit(self, features: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> None:
        """Choose the landmarks, and fit the ridge regression, on the CPU.

        Args:
            features: `(n, P)` from `features`, of training series.
            labels: `(n,)` their classes.
            class_weights: `(K,)` how much a series of each class counts in the logits, whose scale is found without
                them (logit adjustment, Menon et al. 2021, arXiv 2007.07314); None for alike.

        Raises:
            UserError: a feature is not finite.
        """
        from sklearn.linear_model import RidgeCV

        mean, scale = mean_and_scale(features)
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        rows_nP = self._standard(features)
        if not rows_nP.isfinite().all():
            raise UserError(
                "read_out: features of the training series are not finite, their values are too large; expected "
                "data.scaling=series or channel, or read_out=none"
            )
        generator = torch.Generator().manual_seed(self.seed)
        chosen = torch.randperm(len(rows_nP), generator=generator)[: self.max_landmarks].sort().values
        self.landmarks = rows_nP[chosen]
        # Coordinates in which the scalar product is the kernel, as far as the landmarks tell.
        landmarks = self.landmarks.double()
        similar_MM = 1 + _similarity(landmarks, landmarks)
        factor_MM = torch.linalg.cholesky(similar_MM + _JITTER * torch.eye(len(similar_MM)))
        similar_nM = 1 + torch.cat([_similarity(rows.double(), landmarks) for rows in rows_nP.split(500)])
        design_nM = torch.linalg.solve_triangular(factor_MM, similar_nM.T, upper=False).T
        targets = np.where(labels.numpy()[:, None] == np.arange(len(self.bias)), 1.0, -1.0)
        ridge = RidgeCV(np.logspace(-3, 3, 13), scoring="neg_mean_squared_error", store_cv_results=True)
        ridge.fit(design_nM.numpy(), targets)
        left_out = ridge.cv_results_[..., np.flatnonzero(ridge.alphas == ridge.alpha_)[0]]
        (factor,) = mixing_weights([torch.from_numpy(left_out)], labels, prior=(1.0,), strength=1.0)
        weight_MK = torch.linalg.solve_triangular(factor_MM.T, torch.from_numpy(factor * ridge.coef_.T), upper=True)
        self.weight = weight_MK.T.to(self.weight)
        self.bias.copy_(torch.from_numpy(factor * ridge.intercept_) + self.weight.double().sum(dim=1))
        if class_weights is not None:
            self.bias += class_weights.log()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits `(B, K)` of normalised series `(B, C, L)`, of the ridge regression alone."""
        with torch.autocast(x.device.type, enabled=False):
            return self.logits(self.features(x, mask))

    def logits(self, features: Tensor) -> Tensor:
        """Logits `(B, K)` of the ridge regression alone, from features `(B, P)`."""
        return _similarity(self._standard(features), self.landmarks) @ self.weight.T + self.bias

    def fit_mix(self, network: Tensor, own: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> None:
        """Fit the weights of the mixture to validation series: logits `(n, K)` of the network, those from here."""
        weights = mixing_weights(
            [network, own], labels, prior=(0.0, 1.0), strength=_STRENGTH, class_weights=class_weights
        )
        self.mix.copy_(torch.from_numpy(weights))

    def mixed(self, network: Tensor, own: Tensor) -> Tensor:
        """The mixture of the logits `(B, K)` of the network and those from here."""
        return self.mix[0] * network.to(own.dtype) + self.mix[1] * own

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take as many landmarks as there are in the state."""
        if (landmarks := state_dict.get(f"{prefix}landmarks")) is not None:
            self.landmarks = self.landmarks.new_zeros(len(landmarks), self.landmarks.shape[1])
            self.weight = self.weight.new_zeros(len(self.weight), len(landmarks))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _standard(self, features: Tensor) -> Tensor:
        """Features whose squared differences sum up to the mean that the kernel decays with."""
        return ((features - self.mean) / self.scale).clamp_(-_LARGEST, _LARGEST) * self.importance


def _pooled(found: PatchFeatures) -> Tensor:
    """Mean, deviation and maximum over patches: `(R, N, F)` and the points of each patch to `(R, 3 * F)`."""
    values, count_RN1 = found.values, found.observed[..., None]
    share_RN1 = count_RN1 / count_RN1.sum(dim=1, keepdim=True).clamp(min=1)
    mean = (values * share_RN1).sum(dim=1)
    deviation = ((values - mean[:, None]).square() * share_RN1).sum(dim=1).sqrt()
    is_full = 2 * count_RN1 >= count_RN1.amax(dim=1, keepdim=True)
    maximum = torch.where(is_full, values, -torch.inf).amax(dim=1)
    return torch.cat([mean, deviation, maximum], dim=1)


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """Gaussian kernel of `_standard` features `(B, P)` and `(M, P)`, less 1, which would cost digits: `(B, M)`."""
    squared_BM = x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1) - 2 * (x @ y.T)
    return torch.expm1(-_WIDTH * squared_BM.clamp(min=0))


def mixing_weights(
    logits: Iterable[Tensor],
    labels: Tensor,
    *,
    prior: Sequence[float],
    strength: float,
    class_weights: Tensor | None = None,
) -> np.ndarray:
    """Weights of at least 0 for a sum of logits, which give the labels the largest likelihood.

    Args:
        logits: tensors `(n, K)`.
        labels: `(n,)` classes.
        prior: what each weight is without any series.
        strength: half of it is what a weight at a distance of 1 from there has to gain in log-likelihood.
        class_weights: `(K,)` how much a series of each class counts in the likelihood, relative to the others; None
            for alike.

    Returns:
        float64, a weight for each tensor.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax, softmax

    parts = np.stack([part.detach().cpu().double().numpy() for part in logits])
    targets = np.eye(parts.shape[2])[labels.cpu().numpy()]
    says = np.ones(len(labels))
    if class_weights is not None:
        says = class_weights.cpu().double().numpy()[labels.cpu().numpy()]
        says *= len(says) / says.sum()

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        sums = np.tensordot(weights, parts, axes=1)
        slope = np.tensordot(parts, says[:, None] * (softmax(sums, axis=1) - targets), axes=([1, 2], [0, 1]))
        value = -(says[:, None] * log_softmax(sums, axis=1) * targets).sum()
        away = weights - np.asarray(prior)
        return value + strength * (away**2).sum() / 2, slope + strength * away

    found: np.ndarray = minimize(
        loss, np.ones(len(parts)), jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(parts)
    ).x
    return found
