from __future__ import annotations

import json
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools.coco import COCO
from tests.databases_for_tests import database_url, empty_database_url, postgres, shared_postgres_url
from tests.exchange_for_tests import (
    NAMES,
    SIZE_HW,
    add_object,
    add_picture,
    add_pictures,
    content,
    counts_of,
    difficult_masks,
    fill,
    mask,
    masks_only,
    picture,
)
from tests.store_for_tests import content as everything
from tests.store_for_tests import new_id

from segany import DataError
from segany.core.rle import Rle, decode_mask
from segany.data import open_dataset
from segany.jobs.exchange import export_annotations, import_annotations
from segany.store import Change, ItemFilter, Label, Store

__all__ = ["database_url", "empty_database_url", "postgres", "shared_postgres_url"]

FORMATS = ("coco", "yolo-seg", "labelme", "sa-1b", "label-maps")


@pytest.fixture
def new_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    made: list[Store] = []

    def make(database: str | None = None) -> Store:
        made.append(Store.create(tmp_path / f"project {len(made)}", database=database))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def store(new_store: Callable[..., Store]) -> Store:
    made = new_store()
    fill(made)
    return made


@pytest.mark.parametrize("name", FORMATS)
def test_masks_survive_bit_for_bit_with_images(
    store: Store, new_store: Callable[..., Store], tmp_path: Path, name: str
) -> None:
    exported = export_annotations(store, tmp_path / "a.zip", name, images=True)
    assert (exported.items, exported.objects) == (5, 10)
    other = new_store()
    report = import_annotations(other, exported.file, name)
    assert (report.items, report.objects, report.skipped) == (5, 10, ())
    assert masks_only(content(other)) == masks_only(content(store))
    assert sorted(item.name for item in other.items.iterate()) == sorted(NAMES)
    images = {item.name: store.items.file(item.id).read_bytes() for item in store.items.iterate()}
    assert {item.name: other.items.file(item.id).read_bytes() for item in other.items.iterate()} == images
    if name != "sa-1b":
        labels = [[state[:2] for state in states] for states in content(other).values()]
        assert sorted(labels) == sorted([[state[:2] for state in states] for states in content(store).values()])


@pytest.mark.parametrize("name", FORMATS)
def test_annotations_alone_are_matched_with_the_images_of_the_project(
    store: Store, new_store: Callable[..., Store], tmp_path: Path, name: str
) -> None:
    exported = export_annotations(store, tmp_path / "a.zip", name)
    with zipfile.ZipFile(exported.file) as archive:
        assert not [member for member in archive.namelist() if "images/" in member or member.endswith(".jpg")]
    other = new_store()
    add_pictures(other)
    report = import_annotations(other, exported.file, name)
    assert (report.items, report.objects, report.skipped) == (5, 10, ())
    assert masks_only(content(other)) == masks_only(content(store))


def test_both_databases(new_store: Callable[..., Store], tmp_path: Path, database_url: str | None) -> None:
    store = new_store(database_url)
    fill(store)
    _check_twice(store, new_store(database_url), tmp_path, "coco")


@pytest.mark.parametrize("name", FORMATS[1:])
def test_importing_twice_changes_nothing(
    store: Store, new_store: Callable[..., Store], tmp_path: Path, name: str
) -> None:
    _check_twice(store, new_store(), tmp_path, name)


def _check_twice(store: Store, other: Store, tmp_path: Path, name: str) -> None:
    exported = export_annotations(store, tmp_path / "a.zip", name, images=True)
    first = import_annotations(other, exported.file, name)
    held = everything(other)
    assert masks_only(content(other)) == masks_only(content(store))
    assert import_annotations(other, exported.file, name) == first
    assert everything(other) == held
    held = content(store)
    assert import_annotations(store, exported.file, name).objects == 10  # into the project it came from
    assert content(store) == held


@pytest.mark.parametrize("name", ["coco", "labelme"])
def test_crowds_ids_and_attributes_survive(new_store: Callable[..., Store], tmp_path: Path, name: str) -> None:
    store = new_store()
    store.labels.replace(1, [Label(1, "cell")], "ada")
    (item, *_) = add_pictures(store)
    facts = {"iscrowd": 1, "annotation_id": 4711, "text": "<b>ä</b>", "number": 1.5}
    add_object(store, item, difficult_masks()["ring"], 1, attributes=facts)
    add_object(store, item, difficult_masks()["parts"], 1, attributes={"annotation_id": 12})
    exported = export_annotations(store, tmp_path / "a.zip", name)
    assert exported.lost == ()
    other = new_store()
    add_pictures(other)
    import_annotations(other, exported.file, name)
    assert content(other) == content(store)


def test_what_formats_cannot_hold_is_told(store: Store, tmp_path: Path) -> None:
    item = store.items.page().items[0].id
    add_object(store, item, mask((slice(0, 5), slice(0, 5))), attributes={"iscrowd": 1}, z=9)
    lost = {name: set(export_annotations(store, tmp_path / f"{name}.zip", name).lost) for name in FORMATS}
    none = "Objects without a label, which have the label 'object' in the files: 1."
    assert lost["coco"] == {none}
    assert lost["labelme"] == {none}
    assert lost["sa-1b"] == {
        "Labels of objects: 10.",
        "Marks of objects as crowd regions: 1.",
        "Attributes of objects: 12.",
    }
    assert lost["yolo-seg"] == {
        "Crowd regions, which are left out: 1.",
        "Masks with holes or several parts, joined to one outline by bridges of zero width, which some programs draw: "
        "6.",
        "Attributes of objects: 12.",
    }
    assert lost["label-maps"] == {
        "Objects of which smaller ones over them hide a part: 1.",
        "Marks of objects as crowd regions: 1.",
        "Attributes of objects: 12.",
    }


def test_objects_without_a_label(new_store: Callable[..., Store], tmp_path: Path) -> None:
    store = new_store()
    (item, *_) = add_pictures(store)
    add_object(store, item, difficult_masks()["ring"])
    for name, label in (("coco", "object"), ("label-maps", None), ("sa-1b", None), ("yolo-seg", "object")):
        exported = export_annotations(store, tmp_path / f"{name}.zip", name)
        other = new_store()
        add_pictures(other)
        import_annotations(other, exported.file, name)
        assert [state[1] for state in content(other)["a.png"]] == [label]
        import_annotations(store, exported.file, name)
        assert len(content(store)["a.png"]) == 1


def test_pycocotools_reads_coco(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported = export_annotations(store, tmp_path / "a.zip", "coco", images=True)
    with zipfile.ZipFile(exported.file) as archive:
        archive.extractall(tmp_path / "coco")
    coco = COCO(str(tmp_path / "coco/annotations/instances.json"))
    assert sorted(category["name"] for category in coco.cats.values()) == ["cell", "never used", "été \u56f3"]
    by_name = {image["file_name"]: number for number, image in coco.imgs.items()}
    for item in store.items.iterate():
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=by_name[item.name]))
        masks = [coco.annToMask(annotation).astype(bool) for annotation in annotations]
        states = store.annotations.objects(item.id)
        wanted = [decode_mask(Rle(size=list(item.size_hw), counts=state.counts)) for state in states]
        assert np.array_equal(masks, wanted)
        assert [annotation["area"] for annotation in annotations] == [state.area for state in states]
    assert len(set(coco.anns)) == 10
    assert "error" not in capsys.readouterr().out.lower()


@pytest.mark.parametrize("name", ["coco", "yolo-seg", "sa-1b", "label-maps"])
def test_datasets_read_what_is_exported(store: Store, tmp_path: Path, name: str) -> None:
    exported = export_annotations(store, tmp_path / "a.zip", name, images=True)
    with zipfile.ZipFile(exported.file) as archive:
        archive.extractall(tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    read = [dataset.read(index) for index in range(len(dataset))]
    masks = sorted(sorted(annotated.instances.rle_counts) for annotated in read)
    assert masks == sorted(masks_only(content(store)).values())


def test_names_in_either_form_of_unicode_match(new_store: Callable[..., Store], store: Store, tmp_path: Path) -> None:
    other = new_store()
    decomposed = unicodedata.normalize("NFD", NAMES[3])
    assert decomposed != NAMES[3]
    add_picture(other, decomposed, picture(9))
    for name in FORMATS:
        import_annotations(other, export_annotations(store, tmp_path / "a.zip", name).file, name)
        assert masks_only(content(other))[decomposed] == masks_only(content(store))[NAMES[3]]


def test_image_is_found_by_its_name_without_folders(new_store: Callable[..., Store], tmp_path: Path) -> None:
    record = _coco(["train/a.png", "train/0001.png", "x/b.png", "y/b.png", "unknown.png"])
    store = new_store()
    add_pictures(store)
    add_picture(store, "b.png", picture(77))
    report = import_annotations(store, _written(tmp_path, record), "coco")
    assert [(len(states)) for states in content(store).values()] == [1, 0, 0, 0, 0, 0]
    assert (report.items, report.objects) == (1, 1)
    told = {one.name: one.message for one in report.skipped}
    assert set(told) == {"train/0001.png", "x/b.png", "y/b.png", "unknown.png"}
    assert "2 images could be meant: 'left/0001.png', 'right/0001.png'" in told["train/0001.png"]
    assert "so could another" in told["x/b.png"]


def test_annotations_for_another_size_are_told(new_store: Callable[..., Store], tmp_path: Path) -> None:
    store = new_store()
    add_pictures(store)
    record = _coco(["turned.jpg"])
    record["images"][0].update(width=24, height=32)  # as the file of the camera is stored
    report = import_annotations(store, _written(tmp_path, record), "coco")
    assert report.objects == 0
    assert "24 wide and 32 high, but it is 32 wide and 24 high, shown upright" in report.skipped[0].message


def test_labels_are_matched_made_and_taken_back_into_use(new_store: Callable[..., Store], tmp_path: Path) -> None:
    store = new_store()
    add_pictures(store)
    labels = [Label(4, "cat", hotkey="1", archived=True), Label(5, "dog", hotkey="1")]
    store.labels.replace(1, labels, "ada")
    record = _coco(["a.png"] * 3)
    record["images"] = record["images"][:1]
    for annotation, (number, name) in zip(record["annotations"], enumerate(["cat", "dog", "bird"]), strict=True):
        annotation.update(image_id=1, category_id=number + 70, bbox=[0, 0, 1, 1])
        record["categories"].append({"id": number + 70, "name": name})
    report = import_annotations(store, _written(tmp_path, record), "coco")
    assert [state[1] for state in content(store)["a.png"]] == ["cat", "dog", "bird"]
    known = {label.name: label for label in store.labels.current().labels}
    assert (known["cat"].id, known["cat"].archived, known["cat"].hotkey) == (4, False, None)
    assert known["dog"] == labels[1]
    assert known["bird"].color == "#27ae60"
    assert [(one.name, one.message) for one in report.skipped] == [
        ("cat", "The label was archived, and is in use again.")
    ]


def test_changed_and_deleted_objects_stay_as_they_are(new_store: Callable[..., Store], tmp_path: Path) -> None:
    store = new_store()
    add_pictures(store)
    file = _written(tmp_path, _coco(["a.png", "left/0001.png"]))
    import_annotations(store, file, "coco")
    changed, deleted = store.items.page().items[:2]
    for item in (changed, deleted):
        (state,) = store.annotations.objects(item.id)
        change = Change(
            state.id, new_id(), state.revision_id, counts_of(difficult_masks()["ring"]), deleted=item is deleted
        )
        store.annotations.save(item.id, new_id(), [change], "ada")
    held = content(store)
    report = import_annotations(store, file, "coco")
    assert content(store) == held
    assert report.objects == 0
    assert all("stay as they are: 1." in one.message for one in report.skipped)
    assert len(report.skipped) == 2


def test_only_items_of_a_state_are_exported(store: Store, tmp_path: Path) -> None:
    for name in FORMATS:
        report = export_annotations(store, tmp_path / "a.zip", name, item_filter=ItemFilter(state="done"))
        assert (report.items, report.objects) == (1, 1)


def test_same_project_gives_the_same_bytes(store: Store, tmp_path: Path) -> None:
    for name in FORMATS:
        one, other = (export_annotations(store, tmp_path / f"{n}.zip", name, images=True).file for n in "ab")
        assert one.read_bytes() == other.read_bytes()


def test_archive_of_a_project_restores_into_an_empty_one(
    store: Store, new_store: Callable[..., Store], tmp_path: Path, empty_database_url: str
) -> None:
    exported = export_annotations(store, tmp_path / "a.zip", "project")
    assert (exported.items, exported.objects, exported.lost) == (5, 10, ())
    other = new_store(empty_database_url if empty_database_url.startswith("postgresql") else None)
    first = import_annotations(other, exported.file, "project")
    assert (first.items, first.objects, first.skipped) == (5, 10, ())
    assert everything(other) == everything(store)
    again = import_annotations(other, exported.file, "project")
    assert (again.items, again.objects) == (5, 10)
    assert everything(other) == everything(store)
    third = new_store()
    add_picture(third, "mine.png", picture(1))
    with pytest.raises(DataError, match="Make a new project"):
        import_annotations(third, exported.file, "project")
    assert [item.name for item in third.items.iterate()] == ["mine.png"]


@st.composite
def _masks(draw: st.DrawFn) -> list[np.ndarray]:
    size_hw = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    return [np.zeros(size_hw, dtype=np.bool_), *draw(st.lists(arrays(np.bool_, size_hw), max_size=4))]


@pytest.fixture(scope="module")
def two_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Store]]:
    folder = tmp_path_factory.mktemp("random")
    with Store.create(folder / "one") as one, Store.create(folder / "other") as other:
        yield one, other


@pytest.mark.parametrize("name", FORMATS)
@given(masks=_masks())
@settings(max_examples=15, deadline=None)
def test_random_masks_survive(two_stores: tuple[Store, Store], name: str, masks: list[np.ndarray]) -> None:
    store, other = two_stores
    size_hw = masks[0].shape
    free = np.ones(size_hw, dtype=np.bool_)
    image = f"{new_id()}.png"
    item = add_picture(store, image, picture(0, size_hw=size_hw), size_hw)
    for place, one in enumerate(masks[1:]):
        kept = one & free if name == "label-maps" else one
        free &= ~one
        if kept.any():
            add_object(store, item, kept, z=float(place))
    only = ItemFilter(text=image)
    file = export_annotations(store, store.folder / "cache/a.zip", name, images=True, item_filter=only).file
    copy = add_picture(other, image, picture(0, size_hw=size_hw), size_hw)
    for _ in range(2):
        assert import_annotations(other, file, name).skipped == ()
        assert sorted(one.counts for one in other.annotations.objects(copy)) == sorted(
            one.counts for one in store.annotations.objects(item)
        )


@given(masks=_masks())
@settings(max_examples=4, deadline=None)
def test_random_masks_survive_in_an_archive(tmp_path_factory: pytest.TempPathFactory, masks: list[np.ndarray]) -> None:
    size_hw, folder = masks[0].shape, tmp_path_factory.mktemp("archive")
    with Store.create(folder / "one") as store, Store.create(folder / "other") as other:
        item = add_picture(store, "a.png", picture(0, size_hw=size_hw), size_hw)
        for one in masks:
            add_object(store, item, one)
        import_annotations(other, export_annotations(store, folder / "a.zip", "project").file, "project")
        assert everything(other) == everything(store)


def _coco(names: list[str]) -> dict[str, Any]:
    """A file with one polygon for each image."""
    height, width = SIZE_HW
    return {
        "images": [
            {"id": number, "file_name": name, "width": width, "height": height}
            for number, name in enumerate(names, start=1)
        ],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 1, "segmentation": [[2, 2, 9, 2, 9, 8 + number, 2, 8]]}
            for number in range(1, len(names) + 1)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }


def _written(folder: Path, record: Any) -> Path:
    path = folder / "instances.json"
    path.write_text(json.dumps(record))
    return path


def test_ids_are_numbered_on_from_those_that_are_kept(store: Store, tmp_path: Path) -> None:
    item = store.items.page().items[3].id
    add_object(store, item, difficult_masks()["pixel"], 1, attributes={"annotation_id": 3})
    add_object(store, item, difficult_masks()["plain"], 1, attributes={"annotation_id": 3})
    exported = export_annotations(store, tmp_path / "a.zip", "coco")
    with zipfile.ZipFile(exported.file) as archive:
        record = json.loads(archive.read("annotations/instances.json"))
    ids = [annotation["id"] for annotation in record["annotations"]]
    assert len(set(ids)) == len(ids) == 12
    assert ids.count(3) == 1
