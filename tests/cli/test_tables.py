"""Tables as people have them: one command trains, and predict takes the raw file."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from tensorgrad.cli import main, tables
from tensorgrad.errors import TensorgradError
from tensorgrad.training import load_checkpoint

pytestmark = pytest.mark.usefixtures("empty_folder")

SHORT = ["train", "--epochs", "2", "--hidden", "8", "--out"]


def people(rows: int = 120) -> str:
    """Numbered rows, names, gaps, categories, dates, decimal commas: who was at sea."""
    rng = np.random.default_rng(0)
    lines = ["PassengerId;Name;Age;Port;Day;Fare;Survived"]
    for i in range(rows):
        age = "" if i % 7 == 0 else f"{rng.integers(1, 80)}"
        port = "" if i % 11 == 0 else "SCQ"[i % 3]
        lines.append(
            f"{i + 1};Person {i};{age};{port};{i % 28 + 1:02}.04.1912;{i % 9},5;{'yn'[i % 3 > 0]}"
        )
    Path("people.csv").write_text("\ufeff" + "\n".join(lines))
    return "people.csv"


def test_a_raw_table_in_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    """What numbers or names the rows is left out, with a word; the rest becomes inputs."""
    assert main([*SHORT, "run", "--data", people()]) == 0
    out, err = capsys.readouterr()
    assert "column PassengerId is left out: it numbers the rows" in err
    assert "column Name is left out: it holds 120 different texts in 120 rows" in err
    # Age and whether it is missing, three ports and none, day and weekday, the fare.
    assert "network 9-8-2" in out
    prepared = json.loads(Path("run/preparation.json").read_text())
    assert [column["name"] for column in prepared] == ["Age", "Port", "Day", "Fare"]
    assert prepared[1]["levels"] == ["C", "Q", "S"]
    assert [one["name"] for one in prepared[0]["inputs"]] == ["Age", "Age missing"]
    assert all({"mean", "std"} < set(one) for column in prepared for one in column["inputs"])
    assert main(["predict", "run", "people.csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 120
    assert {row["class"] for row in rows} <= {"y", "n"}
    assert main(["evaluate", "run", "--data", "people.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 120
    assert main(["evaluate", "run"]) == 0
    assert main(["resume", "run", "--epochs", "3"]) == 0
    assert main(["report", "run"]) == 0


def test_new_rows_of_a_raw_table(capsys: pytest.CaptureFixture[str]) -> None:
    """A level that nobody had is none; a gap where there never was one is refused."""
    assert main([*SHORT, "run", "--data", people()]) == 0
    capsys.readouterr()
    Path("new.csv").write_text("Port;Day;Age;Fare\nX;03.04.1912;;1,5\n")
    assert main(["predict", "run", "new.csv"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert "new.csv: column Port: 1 row of 1 with what was not among those to train on" in err
    assert err.rstrip().endswith(": X")
    Path("new.csv").write_text("Port;Day;Age;Fare\nX;03.04.1912;3;1,5\nS;03.04.1912;4;\n")
    assert main(["predict", "run", "new.csv"]) == 2
    assert "new.csv: line 3, column Fare: the cell is empty" in capsys.readouterr().err
    Path("new.csv").write_text("Port;Day;Age;Fare\nX;tomorrow;3;1,5\n")
    assert main(["predict", "run", "new.csv"]) == 2
    assert "column 'Day' must hold dates" in capsys.readouterr().err


def test_a_table_to_test_with_has_the_same_codes() -> None:
    """Also if its levels are others."""
    people()
    lines = Path("people.csv").read_text().splitlines()
    Path("some.csv").write_text("\n".join([lines[0], *[x for x in lines[1:] if ";S;" in x]]))
    assert main([*SHORT, "run", "--data", "people.csv", "--test", "some.csv"]) == 0
    about = load_checkpoint("run/model.safetensors").config["problem"]
    assert about["columns"][1][4] == ["C", "Q", "S"]
    assert main(["resume", "run", "--epochs", "3"]) == 0


def test_refused_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SHORT, "run", "--data", people(), "--missing", "refuse"]) == 2
    assert "line 2, column Age: the cell is empty" in capsys.readouterr().err
    assert not Path("run").exists()


def test_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    """Few whole numbers are classes, unless it is said."""
    Path("t.csv").write_text("a,t\n" + "".join(f"{i},{i % 3}\n" for i in range(60)))
    assert main([*SHORT, "one", "--data", "t.csv"]) == 0
    assert main([*SHORT, "two", "--data", "t.csv", "--task", "regression"]) == 0
    out = capsys.readouterr().out
    assert "network 1-8-3" in out
    assert "network 1-8-1" in out
    assert main(["predict", "two", "t.csv"]) == 0
    assert capsys.readouterr().out.startswith("example,value\n")
    assert main(["evaluate", "two", "--data", "t.csv"]) == 0
    assert main([*SHORT, "three", "--task", "regression"]) == 2
    assert "--task is for tables" in capsys.readouterr().err


def test_what_a_table_says_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Classes of which one is nearly all; numbers with a unit."""
    Path("t.csv").write_text("a,t\n" + "".join(f"{i},{'yn'[i > 8]}\n" for i in range(120)))
    assert main([*SHORT, "run", "--data", "t.csv"]) == 0
    assert (
        "classes are unbalanced: 9 of y, 111 of n, which alone gives an accuracy of 92.5 %"
        in capsys.readouterr().err
    )
    Path("u.csv").write_text("a,t\n" + "".join(f"{i} km,{'yn'[i % 2]}\n" for i in range(60)))
    assert main([*SHORT, "two", "--data", "u.csv"]) == 2
    assert "column 'a' holds numbers with a sign or unit, as '0 km'" in capsys.readouterr().err


def written(name: str, *lines: str) -> str:
    """A file of these lines."""
    Path(name).write_text("\n".join(lines) + "\n")
    return name


def test_the_decimal_sign_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    """That of the whole table trained on counts for files to predict from and to evaluate."""
    lines = [f"{i % 9 + 1}.{i:03};{2 * i},5" for i in range(60)]
    assert main([*SHORT, "run", "--data", written("t.csv", "income;y", *lines)]) == 0
    err = capsys.readouterr().err
    assert "with a decimal comma, as 0,5 in column y shows: 1.000 in column income is 1000" in err
    answers = []
    for cell in ("1.234", "1234", "1.234,0"):
        assert main(["predict", "run", written("p.csv", "income;y", f"{cell};0")]) == 0
        answers.append(capsys.readouterr().out)
    assert len(set(answers)) == 1
    assert main(["evaluate", "run", "--data", written("e.csv", "income;y", "1.234;7", "5;6")]) == 0
    capsys.readouterr()
    for row in ("income;y", "1234.00;0"), ("income,y", "1234.00,0"):
        assert main(["predict", "run", written("p.csv", *row)]) == 2
        err = capsys.readouterr().err
        assert "line 2, column income: '1234.00' has a decimal point" in err
    assert main(["evaluate", "run"]) == 0


def read(text: str, **settings: str) -> tables.Table:
    """A table to train on of this text."""
    Path("t.csv").write_text(text)
    given = {"target": None, "missing": "impute", "task": None, **settings}
    return tables.read(Path("t.csv"), given, None, None, ())


@pytest.mark.parametrize("other", ["1", "u"])
def test_numbers_that_float32_cannot_hold(other: str) -> None:
    """Are refused whether other columns hold texts or not."""
    for a, said in ("1000000000.{i}", "cannot tell its numbers apart"), ("{i}e300", "can hold"):
        rows = [f"{a.format(i=i)},{other},{i}.5" for i in range(10)]
        with pytest.raises(TensorgradError, match=f"column 'a'.*{said}"):
            read("\n".join(["a,c,y", *rows]))


def test_a_gap_is_no_number_that_float32_cannot_hold() -> None:
    found = read("a,c,y\n1,u,0.5\n,v,1.5\n3,u,2.5\n")
    np.testing.assert_array_equal(found.inputs[:, 0], [1, np.nan, 3])


def test_what_is_noted() -> None:
    """Dates that are categories, data taken as names, numbers taken as classes."""
    dates = [f"0{i % 9 + 1}/12/2020,{i}.5" for i in range(20)]
    assert "write them as 2026-11-30" in " ".join(read("\n".join(["d,y", *dates])).notes)
    days = [f"2020-01-{i + 10},{'uv'[i % 2]}" for i in range(20)]
    assert "looks like data: 2020-01-10, u" in " ".join(read("\n".join(days)).notes)
    assert not read("\n".join(["d,y", *days])).notes
    many = "a,y\n" + "".join(f"{i}.5,{i % 12}\n" for i in range(120))
    assert "column y holds 12 different whole numbers" in " ".join(read(many).notes)
    assert not read(many, task="classification").notes


def test_commas_between_thousands_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """In the table to train on, and in one to predict from."""
    rows = [f'"{i % 60 + 1},{i + 100}",{i % 5},{i}.5' for i in range(60)]
    assert "numbers with a comma, as 1,100" in " ".join(read("\n".join(["a,b,y", *rows])).notes)
    with pytest.raises(TensorgradError, match="'a' holds numbers with a comma, as '1,100'"):
        read("\n".join(["a,b,y", *rows[:20]]))
    Path("t.csv").write_text("a,y\n" + "".join(f"{i},{i}.5\n" for i in range(60)))
    assert main([*SHORT, "run", "--data", "t.csv"]) == 0
    Path("p.csv").write_text('a,y\n"1,234",0\n')
    assert main(["predict", "run", "p.csv"]) == 2
    assert "column a must hold numbers, not '1,234', which has a comma" in capsys.readouterr().err


def test_evaluate_says_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    """A level nobody had, and the line of a gap where there was none; one epoch is one."""
    lines = [f"{'uv'[i % 2]},{i},{i}.5" for i in range(60)]
    one = ["train", "--epochs", "1", "--hidden", "8", "--out", "run"]
    assert main([*one, "--data", written("t.csv", "c,n,y", *lines)]) == 0
    assert "weights of 1 epoch on" in capsys.readouterr().out
    new = written("e.csv", "c,n,y", "w,1,2", "u,3,4", ",5,6")
    assert main(["evaluate", "run", "--data", new]) == 0
    err = capsys.readouterr().err
    assert "column c: 1 row of 3 with what was not among those to train on" in err
    assert "column c: 1 row of 3 with nothing" in err
    assert main(["evaluate", "run", "--data", written("e.csv", "c,n,y", "u,1,2", "u,,4")]) == 2
    assert "e.csv: line 3, column n: the cell is empty" in capsys.readouterr().err
