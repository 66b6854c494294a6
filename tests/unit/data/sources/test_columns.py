"""Columns that are no points are never read as points: each kind is refused with the option that says what it is."""

import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from krontime.data.sources.table import TableSource, UcrTextSource
from krontime.errors import UserError

RNG = np.random.default_rng(0)
N = 24


def frame(points: int = 12) -> pd.DataFrame:
    table = pd.DataFrame(RNG.normal(size=(N, points)).round(4), columns=[f"t{i}" for i in range(points)])
    table["label"] = np.repeat(["a", "b"], N // 2)
    return table


def source(folder: Path, table: pd.DataFrame | str, test: pd.DataFrame | str | None = None, **options) -> TableSource:
    files = []
    for name, content in (("train.csv", table), ("test.csv", test)):
        if content is None:
            files.append(None)
            continue
        files.append(str(folder / name))
        if isinstance(content, str):
            (folder / name).write_text(content)
        else:
            content.to_csv(folder / name, index=False)
    return TableSource(*files, **options)


EXTRA = {
    "pandas' index, without a name": ("", np.arange(N), "unnamed"),
    "pandas' index, read and written again": ("Unnamed: 0", np.arange(N), "unnamed"),
    "a counter by another name": ("zaehler", np.arange(1, N + 1), "zaehler"),
    "a shuffled index by another name": ("k", RNG.permutation(N) + 100, "k"),
    "an identifier of a patient": ("patientId", RNG.permutation(10**6)[:N], "patientId"),
    "an identifier with gaps": ("Q7", np.sort(RNG.permutation(10**6)[:N]), "Q7"),
    "an identifier of few": ("subject_id", np.repeat(np.arange(4), 6), "subject_id"),
    "names of files": ("clip", [f"rec_{i}.wav" for i in range(N)], "clip"),
    "a time": ("recorded_time", RNG.normal(size=N), "recorded_time"),
    "a date": ("start", ["2024-05-01"] * N, "start"),
    "a split": ("fold", np.arange(N) % 5, "fold"),
    "a measure of the whole series": ("weight", RNG.normal(70, 5, size=N), "weight"),
    "an age": ("Age", RNG.integers(20, 80, size=N) / 2, "Age"),
    "a summary": ("mean", RNG.normal(size=N), "mean"),
    "a second label": ("target", np.repeat([0, 1], N // 2), "target"),
}


@pytest.mark.parametrize("place", [0, 12])
@pytest.mark.parametrize(("name", "values", "typed"), EXTRA.values(), ids=EXTRA)
def test_a_column_that_is_no_point_is_refused_and_can_be_left_out(tmp_path, name, values, typed, place):
    table = frame()
    plain = source(tmp_path, table).load()
    table.insert(place, name, values)
    with pytest.raises(UserError, match=rf"\[{typed}\]") as caught:
        source(tmp_path, table).load()
    assert "ignore=" in str(caught.value)
    data = source(tmp_path, table, ignore=[typed]).load()
    np.testing.assert_array_equal(data.values, plain.values)
    assert f"left out: {typed}" in data.notes


def test_a_separator_at_the_end_of_each_row_is_no_column(tmp_path):
    table = frame()
    plain = source(tmp_path, table).load()
    text = "".join(f"{line},\n" for line in table.to_csv(index=False).splitlines())
    np.testing.assert_array_equal(source(tmp_path, text).load().values, plain.values)


def test_groups_are_in_both_files_or_in_none(tmp_path):
    table = frame()
    table.insert(0, "subject", np.repeat([7, 9, 11], 8))
    with pytest.raises(UserError, match=r"test\.csv: it has no column of groups, unlike .*train\.csv"):
        source(tmp_path, table, table.drop(columns="subject"), group="subject").load()
    assert set(source(tmp_path, table, ignore="subject").load().lengths.tolist()) == {12}


def test_names_of_columns_are_the_same_in_either_form(tmp_path):
    table = frame().rename(columns={"t3": "température 0"})
    other = table[[*table.columns[::-1]]].rename(
        columns={"température 0": unicodedata.normalize("NFD", "température 0")}
    )
    data = source(tmp_path, table, other).load()
    np.testing.assert_array_equal(data.values[: N * 12], data.values[N * 12 :])


def test_a_group_that_is_missing_is_refused(tmp_path):
    table = frame().assign(subject=[f"s{i % 6}" for i in range(N)])
    table.loc[[3, 7], "subject"] = None
    with pytest.raises(UserError, match=r"test\.csv: column 'subject': the group of series 3, 7 is missing; expected"):
        source(tmp_path, frame().assign(subject="s9"), table, group="subject").load()


def test_a_group_is_the_same_however_it_is_written(tmp_path):
    numbers, names = np.arange(N) % 6, [f"Zo\u00eb {i % 6}" for i in range(N)]
    other = [unicodedata.normalize("NFD", name) for name in names]
    for here, there in ((numbers, numbers.astype(float)), (names, other), (["1", "1.0"] * 12, ["1.0", "2.5"] * 12)):
        data = source(tmp_path, frame().assign(who=here), frame().assign(who=there), group="who").load()
        assert set(data.groups[data.is_test].tolist()) & set(data.groups[~data.is_test].tolist())
        assert len(set(data.groups.tolist())) == (2 if "2.5" in there else 6)


def test_a_column_may_be_kept_or_name_groups(tmp_path):
    table = frame()
    table.insert(0, "subject", np.repeat([7, 9, 11], 8))
    kept = source(tmp_path, table, keep=["subject"]).load()
    assert set(kept.lengths.tolist()) == {13}
    grouped = source(tmp_path, table, table.iloc[:8], group="subject").load()
    assert set(grouped.lengths.tolist()) == {12}
    assert len(set(grouped.groups.tolist())) == 3
    assert (grouped.groups[:8] == grouped.groups[24:]).all()
    with pytest.raises(UserError, match=r"data\.source\.group='who': expected a column of the table: subject, t0"):
        source(tmp_path, table, group="who").load()


@pytest.mark.parametrize("names", [range(12), [f"{i / 10:.1f}" for i in range(12)], [f"ch_{i + 1}" for i in range(12)]])
def test_numbered_columns_are_points_even_where_one_counts(tmp_path, names):
    table = frame()
    table["t0"] = np.arange(N)
    table.columns = [*map(str, names), "label"]
    assert set(source(tmp_path, table).load().lengths.tolist()) == {12}


@pytest.mark.parametrize("numbered", [0, 4, 7])
def test_columns_named_by_words_are_points_among_their_like(tmp_path, numbered):
    table = frame()
    words = ["onset", "rise", "peak", "fall", "dip", "rest", "slow", "quick", "high", "low", "mid", "last"]
    table.columns = [*(f"t{i}" for i in range(numbered)), *words[numbered:], "label"]
    assert set(source(tmp_path, table).load().lengths.tolist()) == {12}


def test_a_column_of_text_is_told_once(tmp_path):
    table = frame().rename(columns={"label": "Target"})
    with pytest.raises(UserError) as caught:
        source(tmp_path, table).load()
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("label", ["species", "diagnosis code", "2024"])
def test_labels_may_have_any_name(tmp_path, label):
    table = frame().rename(columns={"label": label})
    data = source(tmp_path, table, label=label).load()
    assert data.class_names == ("a", "b")
    assert data.notes == (f"label column {label!r}",)
    with pytest.raises(UserError, match=r"data\.source\.label="):
        source(tmp_path, table).load()


ORDERS = {"reversed": slice(None, None, -1), "rotated": np.r_[5:12, 0:5], "swapped": np.r_[1, 0, 2:12]}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_columns_of_the_test_file_are_matched_by_name(tmp_path, order):
    table = frame()
    points = np.array(table.columns[:12])
    other = table[["label", *points[order]]]
    plain, data = source(tmp_path, table, table).load(), source(tmp_path, table, other).load()
    np.testing.assert_array_equal(data.values, plain.values)
    assert "columns of test.csv put in the order of training, by their names" in data.notes


def test_columns_that_are_missing_or_more_are_named(tmp_path):
    table = frame()
    cases = {
        "missing are 't3'": table.drop(columns="t3"),
        "missing are 't11'": table.drop(columns="t11"),
        "not trained on are 'volt'": table.assign(volt=RNG.normal(size=N)),
        "missing are 't5'; not trained on are 'T-5'": table.rename(columns={"t5": "T-5"}),
    }
    for said, other in cases.items():
        with pytest.raises(UserError, match=said):
            source(tmp_path, table, other).load()
    with pytest.raises(UserError, match="header=false"):
        source(tmp_path, table, table.to_csv(index=False, header=False)).load()


@pytest.mark.parametrize(
    "first", [range(12), np.linspace(0.5, 6, 12), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]]
)
def test_a_first_row_of_numbers_that_rise_is_not_taken_for_a_series(tmp_path, first):
    from krontime.data.new_series import Reading, read_new

    rows = frame().drop(columns="label").to_csv(index=False, header=False)
    (tmp_path / "new.csv").write_text(",".join(map(str, first)) + "\n" + rows)
    with pytest.raises(UserError, match=r"header=true .* or .*header=false"):
        read_new(tmp_path / "new.csv", Reading(), ("a", "b"))
    (tmp_path / "new.csv").write_text(rows)
    assert len(read_new(tmp_path / "new.csv", Reading(), ("a", "b"))) == N


def test_a_table_without_a_header_is_read_by_numbers(tmp_path):
    table = frame()
    text = table[["label", *table.columns[:12]]].to_csv(index=False, header=False)
    with pytest.raises(UserError, match=r"data\.source\.header=false data\.source\.label=0"):
        source(tmp_path, text).load()
    data = source(tmp_path, text, text, header=False, label=0).load()
    assert data.class_names == ("a", "b")
    last = table.to_csv(index=False, header=False)
    np.testing.assert_array_equal(source(tmp_path, last, header=False, label="-1").load().values, data.values[: N * 12])


def test_columns_counted_from_the_end_are_those_of_each_row(tmp_path):
    rows = [[*range(i % 3, 9 + i % 5), f"s{i % 4}", i % 2] for i in range(12)]
    text = "".join(f"{','.join(map(str, row))}\n" for row in rows)
    data = source(tmp_path, text, header=False, label=-1, group=-2).load()
    assert data.labels.tolist() == [i % 2 for i in range(12)]
    assert data.groups.tolist() == [i % 4 for i in range(12)]
    assert [data.series(i)[0].tolist() for i in range(12)] == [row[:-2] for row in rows]
    with pytest.raises(UserError, match=r"series 12: data\.source\.group='-2': expected a column of the table: 0"):
        source(tmp_path, f"{text}5\n", header=False, label=-1, group=-2).load()


LONG = {
    "a sensor": {"timestamp": pd.date_range("2024-01-01", periods=600, freq="s"), "id": np.arange(600) // 100},
    "machines": {"machine": np.arange(600) // 60, "t": np.tile(np.arange(60), 10)},
    "nameless": {"a": np.repeat(range(6), 100), "b": RNG.normal(size=600)},
}


@pytest.mark.parametrize("columns", LONG.values(), ids=LONG)
def test_a_long_table_is_refused(tmp_path, columns):
    table = pd.DataFrame({**columns, "value": RNG.normal(size=600), "label": np.repeat(["x", "y"], 300)})
    with pytest.raises(UserError, match=r"600 rows of 4 columns .* look like a long table"):
        source(tmp_path, table).load()


def test_short_series_are_read_where_they_are_said_to_be(tmp_path):
    table = pd.DataFrame(RNG.normal(size=(300, 4)), columns=["w", "x1", "x2", "x3"]).assign(label=np.arange(300) % 2)
    with pytest.raises(UserError, match=r"data\.source\.wide=true"):
        source(tmp_path, table).load()
    assert set(source(tmp_path, table, wide=True).load().lengths.tolist()) == {4}


NUMBERS = {
    "fractions": RNG.normal(size=N).round(3),
    "prices": np.linspace(10, 99.5, N),
    "ages": np.r_[np.arange(23) + 18, 18],
}


@pytest.mark.parametrize("labels", NUMBERS.values(), ids=NUMBERS)
def test_labels_that_are_numbers_to_predict_are_refused(tmp_path, labels):
    with pytest.raises(UserError, match=r"different numbers for 24 series.*regression"):
        source(tmp_path, frame().assign(label=labels)).load()
    with pytest.raises(UserError, match="stands once"):
        source(tmp_path, frame().assign(label=[f"clip {i}" for i in range(N)])).load()


@pytest.mark.parametrize("spelled", ["{:.1f}", "{:.7e}", "{:.0f}."])
def test_whole_numbers_are_one_class_however_a_file_spells_them(tmp_path, spelled):
    train = frame().assign(label=np.arange(N) % 2)
    test = train.assign(label=[spelled.format(label) for label in train["label"]])
    data = source(tmp_path, train, test).load()
    assert data.class_names == ("0", "1")
    assert data.labels.tolist() == [0, 1] * N


EUROPEAN = {
    "semicolons": ({"sep": ";"}, r"separator=';'$", {"separator": ";"}),
    "semicolons and commas": (
        {"sep": ";", "decimal": ","},
        r"separator=';' .*decimal=','",
        {"separator": ";", "decimal": ","},
    ),
    "tabs": ({"sep": "\t"}, "separator=tab", {"separator": "tab"}),
    "bars": ({"sep": "|"}, r"separator='\|'", {"separator": "|"}),
}


@pytest.mark.parametrize(("written", "said", "options"), EUROPEAN.values(), ids=EUROPEAN)
def test_other_separators_and_decimals_are_said_and_read(tmp_path, written, said, options):
    table = frame()
    plain = source(tmp_path, table).load()
    text = "\ufeff" + table.to_csv(index=False, **written)
    with pytest.raises(UserError, match=said):
        source(tmp_path, text).load()
    np.testing.assert_array_equal(source(tmp_path, text, **options).load().values, plain.values)


DECIMALS = {
    "commas between fields": ("label,a,b\nx,1,2\ny,3,4\n", {}, "expected data.source.separator=MARK beside it"),
    "a point between thousands": (
        "label;a;b\nx;1,5;1.234\ny;3;4\n",
        {"separator": ";"},
        r"series 0: value 1 is '1.234': expected a decimal comma and no point",
    ),
}


@pytest.mark.parametrize(("text", "options", "said"), DECIMALS.values(), ids=DECIMALS)
def test_what_a_decimal_comma_makes_ambiguous_is_refused(tmp_path, text, options, said):
    with pytest.raises(UserError, match=said):
        source(tmp_path, text, decimal=",", **options).load()


def test_labels_too_large_for_a_fraction_stay_as_they_are_written(tmp_path):
    rows = [f"{2**53 + i % 2}.0,1,2\n" for i in range(4)]
    with pytest.raises(UserError, match=r"labels '9007199254740992.0' and '9007199254740993.0' are the same number"):
        source(tmp_path, "label,a,b\n" + "".join(rows)).load()


def test_row_names_without_a_name_are_told(tmp_path):
    text = frame().to_csv(index=True).split(",", 1)[1]  # as R's write.table does
    with pytest.raises(UserError, match="row names have no name themselves"):
        source(tmp_path, text).load()


UCR = {
    "tabs": ("tsv", "\t", "{:d}"),
    "white space": ("txt", "  ", "{:.7e}"),
    "commas": ("txt", ",", "{:d}"),
}


@pytest.mark.parametrize(("suffix", "separator", "label"), UCR.values(), ids=UCR)
def test_the_text_files_of_the_ucr_archive_are_read(tmp_path, suffix, separator, label):
    values = RNG.normal(size=(6, 9)).round(5)
    labels = [1, -1, 2, 1, -1, 2]
    rows = [separator.join([label.format(y), *map(str, x)]) for x, y in zip(values, labels, strict=True)]
    rows[2] = separator.join([label.format(2), *map(str, values[2, :5]), *["NaN"] * 4])
    for name in ("Set_TRAIN", "Set_TEST"):
        (tmp_path / f"{name}.{suffix}").write_text("\n".join(rows) + "\n")
    data = UcrTextSource(str(tmp_path / f"Set_TRAIN.{suffix}"), str(tmp_path / f"Set_TEST.{suffix}")).load()
    assert data.class_names == ("-1", "1", "2")
    assert data.lengths.tolist() == [9, 9, 5, 9, 9, 9] * 2
    np.testing.assert_allclose(data.series(1)[0], values[1], rtol=1e-6)
    assert data.is_test.tolist() == [False] * 6 + [True] * 6


NUMBERED = {"the last column, by number": (12, -1), "the last column, by its number": (12, 12), "the first": (0, 0)}


@pytest.mark.parametrize(("place", "typed"), NUMBERED.values(), ids=NUMBERED)
def test_a_header_of_numbers_is_no_series_where_the_label_is_a_number(tmp_path, place, typed):
    table = frame()
    labels = table.pop("label").map({"a": 0, "b": 1})
    table.insert(place, "label", labels)
    text = ",".join(map(str, range(13))) + "\n" + table.to_csv(index=False, header=False)
    with pytest.raises(UserError, match=r"first row \(0, 1, 2, 3, ...\) rises evenly"):
        source(tmp_path, text, label=typed).load()
    assert len(source(tmp_path, text, header=True, label=str(place)).load()) == N


def test_a_header_of_numbers_over_an_index_is_no_series(tmp_path):
    numbered = frame().drop(columns="label").set_axis(range(12), axis=1).to_csv()
    with pytest.raises(UserError, match="rises evenly"):
        source(tmp_path, numbered).load()


def test_a_header_of_numbers_above_the_archives_text_is_refused(tmp_path):
    table = frame()
    table.insert(0, "y", table.pop("label").map({"a": 0, "b": 1}))
    text = "\t".join(map(str, range(13))) + "\n" + table.to_csv(index=False, header=False, sep="\t")
    (tmp_path / "a_TRAIN.tsv").write_text(text)
    with pytest.raises(UserError, match=r"rises evenly.*data=csv data\.source\.header=true"):
        UcrTextSource(str(tmp_path / "a_TRAIN.tsv")).load()


def test_a_header_of_numbers_and_one_word_is_told(tmp_path):
    text = (
        ",".join([*map(str, range(12)), "outcome"])
        + "\n"
        + frame().replace({"a": 0, "b": 1}).to_csv(index=False, header=False)
    )
    with pytest.raises(UserError, match=r"(?s)'outcome': expected a number.*header=true"):
        source(tmp_path, text).load()


TWINS = {
    "the class as a number": np.repeat([0, 1], N // 2),
    "the class as another number": np.repeat([7.5, -2.0], N // 2),
    "kinds within a class": np.repeat([1, 2, 3, 4], N // 4),
}


@pytest.mark.parametrize("place", [0, 5, 12])
@pytest.mark.parametrize("values", TWINS.values(), ids=TWINS)
def test_a_label_in_other_words_is_no_point(tmp_path, values, place):
    table = frame()
    table.insert(place, "code", values)
    with pytest.raises(UserError, match="column 'code' has values of its own for each class"):
        source(tmp_path, table).load()
    assert source(tmp_path, table, keep="code").load().lengths.tolist() == [13] * N
    assert source(tmp_path, table, ignore="code").load().lengths.tolist() == [12] * N


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e308, -1e308])
def test_values_without_bounds_are_told_as_such(tmp_path, value):
    table = frame()
    table.loc[5:8, "t3"] = value
    with pytest.raises(UserError, match="series 5, 6, 7, 8 holds infinite values"):
        source(tmp_path, table).load()


def test_series_of_few_values_are_no_labels_in_other_words(tmp_path):
    table = frame()
    for name in table.columns[:-1]:
        table[name] = np.repeat([0, 1], N // 2)
    assert source(tmp_path, table).load().lengths.tolist() == [12] * N
