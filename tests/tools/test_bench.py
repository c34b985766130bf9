"""The benchmark's table: medians and ratios, from whatever was measured."""

from __future__ import annotations

from tools import bench


def test_the_table_shows_medians_and_their_ratios() -> None:
    times = bench.Times(floor=[50.0, 40.0, 60.0], fresh=[100.0, 80.0, 300.0], unchanged=[20.0, 30.0, 25.0])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in bench.table(times).splitlines()[2:]]
    assert [row[1] for row in rows] == ["50.0 s", "100.0 s", "25.0 s"]
    assert [row[3] for row in rows] == ["1", "2.00 x the floor", "0.25 x the fresh host"]
    assert rows[1][2] == "80.0 to 300.0 s"
