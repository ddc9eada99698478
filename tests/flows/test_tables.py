"""What `consilium` prints fits 80 columns, and no figure is cut."""

import json

import pytest

from flows.describe import comparison
from flows.tables import show, table


@pytest.fixture
def printed(capsys, monkeypatch):
    """What is printed of a table on a terminal of so many columns."""

    def of(columns, *parts):
        monkeypatch.setenv("COLUMNS", str(columns))
        show(parts)
        return capsys.readouterr().out

    return of


def test_a_name_that_is_too_long_goes_on_in_the_next_line_and_figures_stay_whole(printed):
    name = "fedprox:mu=0.1" + "+variant" * 8
    figures = ["0.855 ± 0.012", "123456.7", "no guarantee"]
    out = printed(
        60, table(["strategy", "AUC", "MB up", "epsilon of\na record"], [[name, *figures]])
    )
    assert max(map(len, out.splitlines())) <= 60
    assert all(figure in out for figure in figures)
    first, second = (line.split()[0] for line in out.splitlines()[3:5])
    assert name.startswith(first + second)


@pytest.mark.parametrize("columns", [20, 40])
def test_where_the_terminal_is_narrower_than_the_figures_they_are_whole_all_the_same(
    printed, columns
):
    out = printed(columns, table(["site", *"abcdef"], [["site-00", *["12345678"] * 6]]))
    assert out.count("12345678") == 6
    assert "…" not in out


@pytest.fixture
def compared(tmp_path):
    """A comparison of two labels, as it is kept in its folder."""

    def row(label, difference):
        return {
            "label": label,
            "baseline": "fedavg",
            "auc": {"mean": 0.8551, "sd": 0.0123},
            "worst_site": 0.7,
            "megabytes_up": 1234.5,
            "epsilon": None,
            "rounds_to_most": 11.5,
            "difference": difference,
            "p": difference,
        }

    rows = [row("fedavg", None), row("fedprox:mu=0.1+tl", 0.031)]
    document = {"note": "A note.", "task": "classification", "rows": rows, "sites": []}
    (tmp_path / "runs.json").write_text(json.dumps(document))
    return tmp_path, document


def tabular(lines, folder):
    """The lines of tables; sentences are wrapped on a terminal, and paths stay whole."""
    return [line for line in lines if folder.name not in line and not line.endswith(".")]


def test_a_comparison_fits_a_terminal(printed, compared):
    folder, _ = compared
    lines = printed(80, *comparison(folder, "tiny")).splitlines()
    assert max(map(len, tabular(lines, folder))) <= 80
    assert any(line.startswith("Worst site: in each run the lowest AUC") for line in lines)
    (own,) = (line for line in lines if line.startswith("fedprox"))
    assert own.split()[1:] == [
        *("0.855", "±", "0.012", "0.700", "1234.5", "11.5", "+0.031", "0.031")
    ]
    assert "A note." in lines
    assert f"  {folder}/auc.png   the figure" in lines


def test_privacy_and_each_site_of_a_segmentation_are_shown(printed, compared):
    folder, document = compared
    rows = [row | {"dice": row["auc"], "epsilon": 7.99} for row in document["rows"]]
    sites = [
        {"label": label, "site": f"site-{site}", "dice": 0.5, "hd95": 2.0, "assd": None}
        for label in ("fedavg", "fedprox:mu=0.1+tl")
        for site in range(7)
    ]
    document |= {"task": "segmentation", "rows": rows, "sites": sites}
    (folder / "runs.json").write_text(json.dumps(document))
    lines = printed(80, *comparison(folder, "tiny")).splitlines()
    assert max(map(len, tabular(lines, folder))) <= 80
    assert any(line.split() == ["fedavg", "site-6", "0.500", "2.000", "-"] for line in lines)
    assert sum("7.99" in line for line in lines) == 2
