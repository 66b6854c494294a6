"""Generated series whose class is only shown by a short-range and a long-range pattern together."""

from typing import Any

import numpy as np

from krontime.data.series import SeriesData
from krontime.errors import Problems

MIN_LENGTH = 512
NUM_BURSTS = 6
BURST_WIDTH = 48
"""Time points of one burst, whatever the length of the series."""

LOWEST_FREQUENCY, HIGHEST_FREQUENCY = 0.12, 0.4
"""Carriers of the bursts lie between these, in cycles per time point."""


class SyntheticSource:
    """Multi-scale series with a class that neither range shows alone.

    Each series is white noise plus two patterns, for K classes:

    - **Short range**, `m` in 0..K-1: six bursts, `w(t) cos(2 pi f_m t + phase)` under a Hann window `w` of 48 points,
      at random places and with random phases. Only the carrier `f_m` (0.12 to 0.4 cycles a point, evenly spaced)
      shows `m`; averaging over a few dozen points removes it.
    - **Long range**, `a` in 0..K-1: two equal slow bumps, Hann windows of L/16 points, whose centres lie `d_a` apart
      (L/4 to 3L/4, evenly spaced). The first bump's place is drawn from the same range whatever `a` is. A window
      shorter than L/8 sees at most one bump, and the same bumps for every `a`.

    The class is `y = (m + a) mod K`. The pairs `(m, a)` are balanced, so that `P(y | m) = P(y | a) = 1 / K`: with one
    range alone the best classifier is at chance; with both the answer is exact.

    Args:
        num_train: training series.
        num_test: test series.
        length: L, time points of each series, at least 512.
        num_classes: K, at least 2.
        noise: standard deviation of the white noise; bursts and bumps have amplitude 1.
        seed: of the generator; train and test draw from separate streams.

    Raises:
        ValueError: names every argument that cannot work.
    """

    def __init__(
        self,
        num_train: int = 480,
        num_test: int = 240,
        length: int = 2048,
        num_classes: int = 4,
        noise: float = 0.2,
        seed: int = 0,
    ) -> None:
        problems = Problems()
        minimum_train = max(num_classes, 2) ** 2
        for key, value, minimum in (
            ("num_train", num_train, minimum_train),
            ("num_test", num_test, 0),
            ("length", length, MIN_LENGTH),
            ("num_classes", num_classes, 2),
            ("seed", seed, 0),
        ):
            if not isinstance(value, int) or value < minimum:
                problems.add(key, value, f"a whole number of at least {minimum}")
        if not 0 <= noise < np.inf:
            problems.add("noise", noise, "a standard deviation of at least 0")
        problems.raise_value_error()
        self.num_train = num_train
        self.num_test = num_test
        self.length = length
        self.num_classes = num_classes
        self.noise = noise
        self.seed = seed

    def describe(self) -> dict[str, Any]:
        """All arguments: they determine the series."""
        return {"name": "synthetic", "kind": "synthetic", **self.__dict__}

    def load(self) -> SeriesData:
        """Generate the series."""
        parts = [self._generate(self.num_train, stream=0), self._generate(self.num_test, stream=1)]
        num_series = self.num_train + self.num_test
        return SeriesData(
            values=np.concatenate([values.ravel() for values, _ in parts]),
            offsets=np.arange(num_series + 1, dtype=np.int64) * self.length,
            labels=np.concatenate([labels for _, labels in parts]),
            is_test=np.arange(num_series) >= self.num_train,
            class_names=tuple(str(k) for k in range(self.num_classes)),
            num_channels=1,
            has_missing=False,
        )

    def patterns(self) -> tuple[np.ndarray, np.ndarray]:
        """The short-range pattern m and the long-range pattern a of each series, int64 `(n,)`, in `load`'s order."""
        parts = [self._pairs(self.num_train, self._stream(0)), self._pairs(self.num_test, self._stream(1))]
        short, long = (np.concatenate(values) for values in zip(*parts, strict=True))
        return short, long

    def _stream(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, stream])

    def _pairs(self, num_series: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        pair = rng.permutation(np.arange(num_series) % self.num_classes**2)
        short, long = np.divmod(pair, self.num_classes)
        return short, long

    def _generate(self, num_series: int, *, stream: int) -> tuple[np.ndarray, np.ndarray]:
        """Values `(n, L)` float32 and labels `(n,)` int64."""
        rng = self._stream(stream)
        short, long = self._pairs(num_series, rng)
        values = self.noise * rng.standard_normal((num_series, self.length))
        frequencies = np.linspace(LOWEST_FREQUENCY, HIGHEST_FREQUENCY, self.num_classes)
        distances = np.linspace(self.length // 4, 3 * self.length // 4, self.num_classes).astype(int)
        bump = np.hanning(self.length // 16)
        window = np.hanning(BURST_WIDTH)
        time = np.arange(BURST_WIDTH)
        for x, m, a in zip(values, short, long, strict=True):
            for start in rng.integers(self.length - BURST_WIDTH, size=NUM_BURSTS):
                phase = rng.uniform(0, 2 * np.pi)
                x[start : start + BURST_WIDTH] += window * np.cos(2 * np.pi * frequencies[m] * time + phase)
            first = rng.integers(self.length // 4 - len(bump))
            for start in (first, first + distances[a]):
                x[start : start + len(bump)] += bump
        return values.astype(np.float32), ((short + long) % self.num_classes).astype(np.int64)
