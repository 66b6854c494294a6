"""Results are what their records say: a change is found, and the committed ones are made again."""

import shutil
from pathlib import Path

import pytest

from krontime.reports.blocks import fill_blocks
from krontime.reports.folder import SOURCES, refresh
from tests.unit.commands.outcomes import PLOTS, TEXTS, run

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "docs" / "results"


def made_again(results: Path) -> Path:
    """A copy of folders of results in which everything generated is made again."""
    made = results.with_name(f"{results.name}-again")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(results, made)
    refresh(made)
    return made


def stale(results: Path, made: Path, texts: tuple[str, ...] = TEXTS) -> list[str]:
    """Files that are generated and not the same in both, byte for byte; of plots, those that are not in both."""
    return sorted(
        path.relative_to(made).as_posix()
        for path in made.rglob("*")
        if (path.suffix in PLOTS and not (results / path.relative_to(made)).is_file())
        or (path.suffix in texts and _bytes(results / path.relative_to(made)) != path.read_bytes())
    ) + sorted(
        path.relative_to(results).as_posix()
        for path in results.rglob("*")
        if path.suffix in (*texts, *PLOTS) and not (made / path.relative_to(results)).is_file()
    )


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@pytest.mark.slow
def test_an_edited_number_is_found(no_plots, runs, tmp_path):
    results = tmp_path / "results"
    run(f"records={runs}", f"output={results / 'first'}", "publish=true")
    (results / "first" / "pareto_time.svg").write_bytes(b"a plot")
    made = made_again(results)
    assert stale(results, made) == ["first/pareto_time.svg"]  # it is not made
    (results / "first" / "pareto_time.svg").unlink()
    assert stale(results, made) == []
    for name, old, new in (
        ("scores.md", "0.900", "0.910"),
        ("scores.tex", "0.800", "0.700"),
        ("scores.csv", ",12.5,", ",2.5,"),
        ("significance.md", "+0.100", "+0.200"),
        ("significance.csv", "0.1,", "0.2,"),
    ):
        path = results / "first" / name
        before = path.read_text()
        path.write_text(before.replace(old, new, 1))
        assert path.read_text() != before
        assert stale(results, made) == [f"first/{name}"]
        path.write_text(before)
    records = results / "first" / "records" / "records.jsonl"
    records.write_text(records.read_text().replace('"train_time_s": 12.5', '"train_time_s": 1.0', 1))
    assert stale(results, made_again(results)) == ["first/scores.csv", "first/scores.md", "first/scores.tex"]
    (made / "first" / "pareto_time.svg").write_bytes(b"a plot")
    assert "first/pareto_time.svg" in stale(results, made)


COMMITTED = sorted({path.parent for name in SOURCES for path in RESULTS.rglob(name)})


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.relative_to(RESULTS).as_posix())
@pytest.mark.slow
def test_committed_tables_are_those_of_what_was_measured(folder, tmp_path):
    """`make results` fixes what this finds; of texts, the pages alone are committed."""
    results = tmp_path / "results"
    copied = results / folder.relative_to(RESULTS)
    shutil.copytree(folder, copied)
    shutil.copy(RESULTS / "published.csv", results)
    assert stale(results, made_again(results), texts=(".md",)) == []


@pytest.mark.parametrize("page", ["README.md", "docs/performance.md", "docs/benchmark.md"])
def test_the_blocks_of_the_pages_are_the_committed_tables(page, tmp_path):
    if not COMMITTED:
        pytest.skip("no results are committed")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("records"))
    shutil.copy(ROOT / "README.md", tmp_path)
    fill_blocks(tmp_path / page)
    assert (tmp_path / page).read_bytes() == (ROOT / page).read_bytes()
