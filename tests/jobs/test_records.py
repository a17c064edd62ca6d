from __future__ import annotations

from pathlib import Path

import pytest

from segany.core.errors import OutputError
from segany.jobs import DoneRecords

SETTINGS = {"coco": {"sizes": (1, 2)}, "sa1b": {"sizes": (1, 2)}}


@pytest.mark.parametrize("name", ["photo", "a/b/photo.jpg", "x" * 300, "..", ".hidden", "c:\\photo", "naïve ☃"])
def test_what_is_recorded_is_found(tmp_path: Path, name: str) -> None:
    records = DoneRecords(tmp_path / "new")
    assert records.find(name, "id", SETTINGS) == {}
    records.write(name, "id", SETTINGS, {"coco": ["a.json"]})
    assert records.find(name, "id", SETTINGS) == {"coco": ["a.json"]}
    records.write(name, "id", SETTINGS, {"sa1b": {"mean": 0.5}})
    assert records.find(name, "id", SETTINGS) == {"coco": ["a.json"], "sa1b": {"mean": 0.5}}
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "new"]


def test_another_content_or_other_settings_are_not_found(tmp_path: Path) -> None:
    records = DoneRecords(tmp_path)
    records.write("photo", "id", SETTINGS, {"coco": 1, "sa1b": 2})
    other = {**SETTINGS, "sa1b": {"sizes": (1, 3)}}
    assert records.find("photo", "id", other) == {"coco": 1}
    assert records.find("photo", "other", SETTINGS) == {}
    assert records.find("other", "id", SETTINGS) == {}
    assert records.find_conflict(other) == "photo"
    assert records.find_conflict(SETTINGS) is None
    records.write("photo", "other", SETTINGS, {"coco": 3})  # what was made of the earlier content is forgotten
    assert records.find("photo", "other", SETTINGS) == {"coco": 3}
    records.clear()
    assert records.find("photo", "other", SETTINGS) == {}


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 2}', '{"version": 2, "name": "photo", "parts": 3}'])
def test_a_damaged_record_is_no_record_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    records = DoneRecords(tmp_path)
    records.write("photo", "id", SETTINGS, {"coco": 1})
    (path,) = tmp_path.iterdir()
    path.write_text(damage)
    assert records.find("photo", "id", SETTINGS) == {}
    assert f"{path} is damaged" in caplog.text
    records.write("photo", "id", SETTINGS, {"coco": 2})
    assert records.find("photo", "id", SETTINGS) == {"coco": 2}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    assert DoneRecords(tmp_path / "new").is_writable()
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    records = DoneRecords(tmp_path / "file" / "records")
    assert not records.is_writable()
    with pytest.raises(OutputError):
        records.write("photo", "id", SETTINGS, {"coco": 1})
