"""The closed form as a whole: fits of any size, what is left out, what is kept."""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from krontime.models.kernel_ridge import part as part_module
from krontime.models.kernel_ridge.classifier import ClosedForm
from krontime.models.kernel_ridge.competing import CompetingKernels
from krontime.models.kernel_ridge.intervals import IntervalQuantiles
from krontime.models.kernel_ridge.kernels import KernelPoolings
from krontime.models.kernel_ridge.part import LabelledSeries
from krontime.models.kernel_ridge.ranks import Ranks
from krontime.models.kernel_ridge.ridge import Groups, StreamedRidge
from krontime.models.kernel_ridge.spectra import BandEnergies

PARTS = {
    "groups": functools.partial(CompetingKernels, scaling="series", num_features=600),
    "runs": functools.partial(KernelPoolings, scaling="channel", num_features=700, poolings=2, difference=True),
    "quantiles": functools.partial(IntervalQuantiles, scaling="channel", num_features=200),
}

ALONE = Ranks()


def series(num_series: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three classes of noise of different colour, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_series) % 3
    x = torch.randn(num_series, 1, 120, generator=generator)
    smooth = [F.avg_pool1d(row[None], 2 * int(y) + 1, 1, int(y))[0] for row, y in zip(x, labels, strict=True)]
    return torch.stack(smooth), labels


def make(**options) -> ClosedForm:
    return ClosedForm(**{"num_channels": 1, "length": 120, "num_classes": 3, "parts": PARTS, **options})


def fit(
    closed_form: ClosedForm,
    x: Tensor,
    labels: Tensor,
    num_train: int | None = None,
    groups: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> Tensor:
    def read(chunks: Sequence[range]) -> Iterator[tuple[Tensor, None]]:
        return ((batch, None) for chunk in chunks if chunk for batch in x[chunk.start : chunk.stop].split(7))

    num_train = len(x) if num_train is None else num_train
    fit_validation = closed_form.fit_on == "train_and_validation"
    together = None if groups is None else Groups(groups)
    task = LabelledSeries(read, labels, num_train, fit_validation, together, ranks)
    return closed_form.fit((x[:20], None), task)


def test_it_learns_and_its_left_out_probabilities_are_honest():
    x, labels = series(60)
    closed_form = make()
    left_out = fit(closed_form, x, labels, num_train=45)
    new, new_labels = series(90, seed=1)
    probability = closed_form(new).exp()
    torch.testing.assert_close(probability.sum(dim=1), torch.ones(90))
    accuracy = float((probability.argmax(dim=1) == new_labels).float().mean())
    assert accuracy > 0.85
    own = float((left_out.argmax(dim=1) == labels).float().mean())
    assert abs(own - accuracy) < 0.12
    assert float((closed_form(x).argmax(dim=1) == labels).float().mean()) >= own


@pytest.mark.parametrize("exact", [True, False])
def test_validation_series_are_judged_without_them(exact, monkeypatch):
    """Their own labels change nothing in what is said of them, as long as the fit is to the others."""
    monkeypatch.setattr(part_module, "MAX_EXACT", 4096 if exact else 10)
    monkeypatch.setattr(part_module, "_SERIES_AT_ONCE", 20)
    x, labels = series(60)
    closed_form = make(fit_on="train")
    left_out = fit(closed_form, x, labels, num_train=45)
    torch.testing.assert_close(left_out[45:], closed_form(x[45:]).double(), atol=1e-4, rtol=1e-4)


def test_a_stream_comes_near_the_exact_fit(monkeypatch):
    x, labels = series(150)
    new, _ = series(60, seed=1)
    exact, streamed = make(), make()
    fit(exact, x, labels, num_train=110)
    monkeypatch.setattr(part_module, "MAX_EXACT", 10)
    monkeypatch.setattr(part_module, "_SERIES_AT_ONCE", 40)
    left_out = fit(streamed, x, labels, num_train=110)
    assert float((left_out[110:].argmax(dim=1) == labels[110:]).float().mean()) > 0.85
    assert float((streamed(new).argmax(dim=1) == exact(new).argmax(dim=1)).float().mean()) > 0.9
    without = make()
    fit(without, x, labels)  # nothing for validation: a tenth is held out for strength and temperature
    assert float((without(new).argmax(dim=1) == exact(new).argmax(dim=1)).float().mean()) > 0.9


def together(world_size: int, job: Callable[[Ranks], Any]) -> list[Any]:
    """What a job returns in each of some processes, which are threads here."""
    given: dict[int, Any] = {}
    barrier = threading.Barrier(world_size, timeout=60)

    def exchanged(rank: int, mine: Any) -> list[Any]:
        given[rank] = mine
        barrier.wait()
        every = [given[other] for other in range(world_size)]
        barrier.wait()
        return every

    def work(rank: int) -> Any:
        def total(tensor: Tensor) -> Tensor:
            return torch.stack(exchanged(rank, tensor.clone())).sum(dim=0)

        return job(Ranks(rank, world_size, total, lambda mine: exchanged(rank, mine)[0]))

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(work, range(world_size)))


@pytest.mark.parametrize(("world_size", "num_train", "fit_on"), [(2, 110, "train"), (5, None, "train_and_validation")])
def test_processes_end_with_what_one_alone_comes_to(world_size, num_train, fit_on, monkeypatch):
    """Five are more than there are chunks."""
    monkeypatch.setattr(part_module, "MAX_EXACT", 10)
    monkeypatch.setattr(part_module, "_SERIES_AT_ONCE", 40)
    x, labels = series(150)
    alone = make(fit_on=fit_on)
    expected = fit(alone, x, labels, num_train)

    def job(ranks: Ranks) -> tuple[Tensor, ClosedForm]:
        closed_form = make(fit_on=fit_on)
        return fit(closed_form, x, labels, num_train, ranks=ranks), closed_form

    for left_out, closed_form in together(world_size, job):
        torch.testing.assert_close(left_out, expected, atol=1e-6, rtol=0)
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(closed_form.state_dict()[name], tensor, atol=1e-6, rtol=0)


@pytest.mark.parametrize("each", [1, 2])
def test_one_or_two_series_of_a_class_are_enough(each):
    x, labels = series(3 * each)
    closed_form = make()
    left_out = fit(closed_form, x, labels)
    assert left_out.isfinite().all()
    new, new_labels = series(60, seed=1)
    assert float((closed_form(new).argmax(dim=1) == new_labels).float().mean()) > 0.5


def test_a_part_that_does_harm_is_not_asked(monkeypatch):
    x, labels = series(60)
    closed_form = make()
    wrong = closed_form.parts["runs"]
    original = part_module.Part.fit

    def misled(self: part_module.Part, series: LabelledSeries) -> Tensor:
        left_out = original(self, series)
        return (-3 * left_out).log_softmax(dim=1) if self is wrong else left_out

    monkeypatch.setattr(part_module.Part, "fit", misled)
    left_out = fit(closed_form, x, labels)
    kept = dict(zip(closed_form.parts, closed_form.kept.tolist(), strict=True))
    assert kept["groups"]
    assert not kept["runs"]
    expected = torch.stack([closed_form.parts[name](x).exp() for name in kept if kept[name]]).mean(dim=0)
    torch.testing.assert_close(closed_form(x).exp(), expected)
    assert float((left_out.argmax(dim=1) == labels).float().mean()) > 0.8


@pytest.mark.parametrize("by_group", [False, True])
def test_harm_to_one_group_alone_is_no_evidence_where_groups_are_left_out(by_group, monkeypatch):
    x, labels = series(60)
    group = torch.arange(60) // 20
    closed_form = make()
    wrong = closed_form.parts["runs"]
    original = part_module.Part.fit

    def misled(self: part_module.Part, series: LabelledSeries) -> Tensor:
        left_out = original(self, series)
        harmed = (group == 0)[:, None] & (self is wrong)
        return torch.where(harmed, (-3 * left_out).log_softmax(dim=1), left_out)

    monkeypatch.setattr(part_module.Part, "fit", misled)
    fit(closed_form, x, labels, groups=group if by_group else None)
    assert bool(closed_form.kept[list(closed_form.parts).index("runs")]) == by_group


def test_groups_are_left_out_whole():
    """Each group a series and its double: leaving out one at a time would find the other."""
    x, labels = series(20)
    labels = labels[torch.randperm(20, generator=torch.Generator().manual_seed(0))]  # nothing to be learned
    doubled, both = x.repeat_interleave(2, dim=0), labels.repeat_interleave(2)
    alone = fit(make(), doubled, both)
    grouped = fit(make(), doubled, both, groups=torch.arange(20).repeat_interleave(2))
    assert float((alone.argmax(dim=1) == both).float().mean()) > 0.9
    assert float((grouped.argmax(dim=1) == both).float().mean()) < 0.7


def test_a_copy_from_its_tensors_gives_the_same_answers():
    x, labels = series(40)
    closed_form = make()
    fit(closed_form, x, labels)
    other = make(seed=9)
    other.load_state_dict(closed_form.state_dict())
    assert torch.equal(other(x), closed_form(x))
    assert not list(closed_form.parameters())
    # Weights of the features, whatever the number of series.
    size = sum(value.numel() for value in closed_form.state_dict().values())
    assert size < 10 * sum(part.features.num_features for part in closed_form.parts.values())


def test_a_part_without_features_of_so_short_series_is_left_out():
    x, labels = series(12)
    spectra = functools.partial(BandEnergies, scaling="channel", num_features=200, windows=[16])
    parts = {"quantiles": PARTS["quantiles"], "spectra": functools.partial(spectra, min_length=121)}
    short = make(parts=parts)
    fit(short, x, labels)
    assert list(short.parts) == ["quantiles"]
    assert short(x).shape == (12, 3)
    assert list(make(parts=parts, length=121).parts) == ["quantiles", "spectra"]
    with pytest.raises(ValueError, match=r"^parts=\['spectra'\]: none has features of series of 120 points$"):
        make(parts={"spectra": parts["spectra"]})


@pytest.mark.parametrize(
    ("options", "message"), [({"fit_on": "test"}, "fit_on='test'"), ({"parts": {}}, r"parts=\[\]: expected 1 to 16")]
)
def test_options_that_cannot_work_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_progress_names_the_part(caplog):
    x, labels = series(12)
    with caplog.at_level("INFO", logger="krontime"):
        fit(make(), x, labels)
    assert [line.partition(":")[2].strip() for line in caplog.messages] == [
        "part 1/3, groups",
        "part 2/3, quantiles",
        "part 3/3, runs",
        "",
    ]
    assert caplog.messages[-1] == "The closed form answers with groups, quantiles, runs"


def test_the_order_of_the_keys_changes_nothing():
    x, _ = series(12)
    one, other = (
        ClosedForm(num_channels=x.shape[1], length=x.shape[2], num_classes=3, parts=parts)
        for parts in (PARTS, dict(sorted(PARTS.items())))
    )
    for classifier in (one, other):
        for part in classifier.parts.values():
            part.features.fit(x, None)
    assert list(one.parts) == list(other.parts) == sorted(PARTS)
    assert torch.equal(one(x), other(x))


@pytest.mark.parametrize("num_series", [None, 10, 11])
def test_families_for_many_series_have_no_more_features_than_are_kept(num_series, monkeypatch):
    monkeypatch.setattr(part_module, "MAX_EXACT", 10)
    monkeypatch.setattr(StreamedRidge, "MAX_COLUMNS", 480)
    sizes = [part.features.num_features for part in make(num_series=num_series).kept_parts()]
    assert all(size <= 480 for size in sizes) == (num_series == 11)
    assert min(sizes) > 240
