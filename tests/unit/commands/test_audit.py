"""The command `audit`: the page it writes, and what it refuses."""

import numpy as np
import pytest

from krontime import cli


@pytest.mark.slow
def test_a_page_is_written(tmp_path, capsys):
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = np.sin((1 + y[:, None]) * np.arange(30) / 3 + rng.uniform(0, 6, (40, 1))) + 0.1 * rng.standard_normal((40, 30))
    np.savez(tmp_path / "Waves.npz", X=X[:, None], y=y, split=np.arange(40) >= 20)
    page = tmp_path / "audit.md"
    cli.main(["audit", "data=npz", f"data.path={tmp_path / 'Waves.npz'}", f"output={page}", "num_resamples=2"])
    assert page.read_text().startswith("# Audit of Waves\n\n**Verdict: ")
    assert page.read_text() in capsys.readouterr().out
    cli.main(["audit", "data=npz", f"data.path={tmp_path / 'Waves.npz'}", f"output={page}", "num_resamples=2"])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([], "data=...: expected a data set"),
        (["data=synthetic", "num_resamples=1", "num_shuffles=0"], "num_resamples=1"),
        (["data=synthetic", "data.resample=2"], "data.resample=2: expected 0"),
        (["data=synthetic", "data.source.num_test=0"], "expected test series; there is no split to audit"),
    ],
)
def test_what_can_not_be_audited_is_refused(tmp_path, capsys, overrides, says):
    with pytest.raises(SystemExit):
        cli.main(["audit", *overrides, f"output={tmp_path / 'audit.md'}"])
    assert says in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "audit.md").exists()


def test_a_file_that_is_no_page_is_not_written_over(tmp_path, capsys):
    (tmp_path / "mine.npy").write_text("mine")
    with pytest.raises(SystemExit):
        cli.main(["audit", "data=synthetic", "num_shuffles=0", f"output={tmp_path / 'mine.npy'}"])
    said = " ".join(capsys.readouterr().err.split())
    assert "ends in .md" in said
    assert "num_shuffles=0" in said
    assert (tmp_path / "mine.npy").read_text() == "mine"
