"""`krontime data prepare=NAME from=FOLDER` writes what `data=NAME` reads, and says what is not the whole of it."""

import numpy as np

from krontime import cli


def told(capsys, *arguments: str) -> tuple[int, str, str]:
    code = 0
    try:
        cli.main(["data", *arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_data_set_is_made_where_it_is_read(tmp_path, capsys):
    for name in "ZONFS":
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in (1, 2, 71):
            values = np.random.default_rng(number).integers(-99, 99, 4097)
            (tmp_path / "set" / name / f"{name}{number:03d}.txt").write_text("\n".join(map(str, values)))
    given = ("prepare=bonn_eeg", f"from={tmp_path / 'set'}", f"paths.data={tmp_path / 'made'}")
    code, _, errors = told(capsys, *given)
    assert code == 2
    assert "series of each class, train=(2, 2, 2, 2, 2): expected (70, 70, 70, 70, 70)" in errors
    assert "incomplete=true writes what there is" in errors
    code, out, errors = told(capsys, *given, "incomplete=true")
    assert code == 0
    assert "10 series to train on, 5 to test on, 5 classes" in out
    assert "not the whole of bonn_eeg: series of each class, test" in errors
    code, out, _ = told(capsys, "data=bonn_eeg", f"paths.data={tmp_path / 'made'}")
    assert code == 0
    assert "4,097 points" in out
    code, _, errors = told(capsys, *given)
    assert code == 2
    assert "expected a new file name; this one exists" in errors


def test_all_problems_of_the_options_are_named_at_once(tmp_path, capsys):
    code, out, errors = told(capsys, "prepare=bonn_egg", f"from={tmp_path / 'nowhere'}", "plot=x.png", "data=esc10")
    assert (code, out) == (2, "")
    for said in ("did you mean bonn_eeg?", "expected a folder that exists", "plot='x.png'", "data='ESC10_8k'"):
        assert said in errors
    assert "from=None: expected the folder" in told(capsys, "prepare=esc10")[2]
    assert (
        "output='x': expected a file name that ends in .npz"
        in told(capsys, "prepare=esc10", f"from={tmp_path}", "output=x")[2]
    )
