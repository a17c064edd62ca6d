"""What people write for `segany track`, as prompts on frames."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segany.cli.track_prompts import parse_track_prompts
from segany.core.errors import PromptError
from segany.core.instance import Category
from segany.data.frame_prompts import FRAME_PROMPTS_EXAMPLE, FramePrompts
from segany.imaging.frames import open_frames
from segany.imaging.image import DEFAULT_MAX_PIXELS

SIZE_HW = 40, 60


def plan(*, point=(), box=(), mask=(), file=None) -> FramePrompts:
    return parse_track_prompts(point, box, mask, file)


def read(made: FramePrompts, frames: int = 20) -> list:
    with open_frames([np.zeros((*SIZE_HW, 3), np.uint8)] * frames) as source:
        return made.read(source, DEFAULT_MAX_PIXELS)


def save_mask(path: Path, size_hw: tuple[int, int] = SIZE_HW) -> Path:
    pixels = np.zeros(size_hw, np.uint8)
    pixels[5:10, 5:10] = 200
    Image.fromarray(pixels).save(path)
    return path


def write(path: Path, content) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_point() -> None:
    ((frame, object_id, prompt, category),) = read(plan(point=["3:10,20.5"]))
    assert (frame, object_id, category) == (3, 1, None)
    assert prompt.points_xy.tolist() == [[10, 20.5]]
    assert prompt.labels.tolist() == [1]
    assert prompt.box_xyxy is None


def test_points_and_a_box_of_one_object_on_one_frame_are_one_prompt() -> None:
    made = plan(point=["3:10,20@2", "3:11,21,0@2", "3:1,2"], box=["3:5,6,30,31@2", "0:1,2,3,4@2"])
    assert made.object_ids == [1, 2]
    assert made.first_frame == 0
    assert made.prompted == {1: 1, 2: 2}
    first, second, third = read(made)
    assert [(item.frame, item.object_id) for item in (first, second, third)] == [(0, 2), (3, 1), (3, 2)]
    assert first.prompt.box_xyxy.tolist() == [1, 2, 3, 4]
    assert second.prompt.points_xy.tolist() == [[1, 2]]
    assert third.prompt.points_xy.tolist() == [[10, 20], [11, 21]]
    assert third.prompt.labels.tolist() == [1, 0]
    assert third.prompt.box_xyxy.tolist() == [5, 6, 30, 31]


def test_masks(tmp_path: Path) -> None:
    odd = save_mask(tmp_path / "a: b@2x.png")
    made = plan(mask=[f"0:{odd}", f"7:{odd}@12"])
    assert made.mask_files == [odd, odd]
    first, second = read(made)
    assert (first.frame, first.object_id, second.frame, second.object_id) == (0, 1, 7, 12)
    assert first.prompt.dtype == np.bool_
    assert first.prompt.shape == SIZE_HW
    assert first.prompt.sum() == 25


def test_a_prompts_file(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    save_mask(tmp_path / "deeper/m.png")
    content = [
        {"frame": 4, "object": 2, "mask": "m.png"},
        {"frame": 0, "points_xy": [[1, 2], [3, 4]], "labels": [1, 0]},
        {"frame": 0, "object": 1, "points_xy": [[5, 6]]},
    ]
    first, second = read(plan(file=write(tmp_path / "deeper/p.json", content)))
    assert (first.frame, first.object_id, second.frame, second.object_id) == (0, 1, 4, 2)
    assert first.prompt.points_xy.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert first.prompt.labels.tolist() == [1, 0, 1]
    assert second.prompt.sum() == 25


def test_categories_of_a_prompts_file(tmp_path: Path) -> None:
    content = [
        {"frame": 4, "object": 2, "points_xy": [[1, 2]]},
        {"frame": 0, "object": 2, "points_xy": [[1, 2]], "category": "dog"},
        {"frame": 0, "object": 5, "points_xy": [[3, 4]], "category": "cat"},
        {"frame": 1, "object": 5, "points_xy": [[3, 4]], "category": "cat"},
        {"frame": 0, "object": 9, "points_xy": [[5, 6]]},
    ]
    cat, dog = Category(1, "cat"), Category(2, "dog")
    prompts = read(plan(file=write(tmp_path / "p.json", content)))
    assert [(item.frame, item.object_id, item.category) for item in prompts] == [
        (0, 2, dog), (0, 5, cat), (0, 9, None), (1, 5, cat), (4, 2, dog),
    ]  # fmt: skip
    content[2]["category"] = "dog"
    with pytest.raises(PromptError, match=r"Object 5 is 'dog' and 'cat'\. It has one category"):
        plan(file=write(tmp_path / "p.json", content))


def test_the_example_is_right(tmp_path: Path) -> None:
    made = plan(file=write(tmp_path / "p.json", FRAME_PROMPTS_EXAMPLE))
    assert made.prompted == {1: 1, 2: 1}


@pytest.mark.parametrize(
    ("option", "text", "parts"),
    [
        ("point", "10,20", ["--point 10,20: it must begin with the number of a frame", "frame:x,y[,label][@id]"]),
        ("point", "a:10,20", ["--point a:10,20: it must begin with the number of a frame"]),
        ("point", "-1:10,20", ["--point -1:10,20: it must begin with the number of a frame"]),
        ("point", "0:10", ["--point 0:10: it must be frame:x,y[,label][@id], as in 0:500,375"]),
        ("point", "0:10,x", ["--point 0:10,x: it must be frame:x,y"]),
        ("point", "0:", ["--point 0:: there is nothing after the frame"]),
        ("point", "0:@1", ["--point 0:@1: there is nothing after the frame"]),
        ("point", "0:10,20,2", ["--point 0:10,20,2: the label must be 1"]),
        ("point", "0:10,nan", ["--point 0:10,nan: ", "finite"]),
        ("point", "0:10,20@x", ["--point 0:10,20@x: what comes after @ must be the number of an object"]),
        ("box", "0:1,2,3", ["--box 0:1,2,3: it must be frame:x0,y0,x1,y1[@id]"]),
        ("box", "0:5,5,1,1", ["--box 0:5,5,1,1: ", "has no area"]),
        ("mask", "m.png", ["--mask m.png: it must begin with the number of a frame", "frame:file[@id]"]),
        ("mask", "0:@2", ["--mask 0:@2: there is nothing after the frame"]),
    ],
)
def test_faulty_options_are_named(option: str, text: str, parts: list[str]) -> None:
    with pytest.raises(PromptError) as raised:
        plan(**{option: [text]})
    for part in parts:
        assert part in str(raised.value)


def test_contradictions(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="There is nothing to track"):
        plan()
    with pytest.raises(PromptError, match=r"two boxes for object 1 on frame 2.*@2 at the end"):
        plan(box=["2:1,2,3,4", "2:5,6,7,8"])
    with pytest.raises(PromptError, match="two masks for object 3 on frame 0"):
        plan(mask=["0:a.png@3", "0:b.png@3"])
    with pytest.raises(PromptError, match="Object 1 has a mask and points or a box on frame 0"):
        plan(mask=["0:a.png"], point=["0:1,2"])
    with pytest.raises(PromptError, match="--prompts cannot be combined"):
        plan(point=["0:1,2"], file=tmp_path / "p.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "the list is empty"),
        ('{"a.jpg": []}', r"must be a list of objects on frames. A prompts file looks like .*\"frame\": 0"),
        ([{"points_xy": [[1, 2]]}], "object 1, frame: field required"),
        ([{"frame": -1, "points_xy": [[1, 2]]}], "object 1, frame: .*greater than or equal to 0"),
        ([{"frame": "0", "points_xy": [[1, 2]]}], "object 1, frame: .*valid integer"),
        ([{"frame": 0, "object": "cat", "points_xy": [[1, 2]]}], "object 1, object: .*valid integer"),
        ([{"frame": 0, "points": [[1, 2]]}], "object 1, points: extra inputs"),
        ([{"frame": 0}], "object 1: The prompt is empty"),
        ([{"frame": 0, "mask": "m.png", "box_xyxy": [1, 2, 3, 4]}], "Object 1 has a mask and points or a box"),
    ],
)
def test_faulty_files(tmp_path: Path, content, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        plan(file=write(tmp_path / "p.json", content))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"There is no prompts file .*p\.json"):
        plan(file=tmp_path / "p.json")


def test_what_does_not_fit_the_video(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"Frame 20, object 1: there is no such frame: .* has 20 frames"):
        read(plan(point=["20:1,2"]))
    with pytest.raises(PromptError, match=r"Frame 0, object 2: Point \(61, 2\) lies outside"):
        read(plan(point=["0:61,2@2"]))
    small = save_mask(tmp_path / "small.png", (20, 30))
    with pytest.raises(PromptError, match=r"Frame 1, object 1: The mask .*small\.png is 30 wide and 20 high"):
        read(plan(mask=[f"1:{small}"]))
    np.save(tmp_path / "logits.npy", np.zeros((256, 256), np.float32))
    with pytest.raises(PromptError, match=r"holds logits\. Give an image"):
        read(plan(mask=[f"1:{tmp_path / 'logits.npy'}"]))


def save_labels(path: Path) -> Path:
    labels = np.zeros(SIZE_HW, np.uint16)
    labels[5:10, 5:10], labels[20:30, 20:40] = 3, 700
    Image.fromarray(labels).save(path)
    return path


def test_each_label_of_a_mask_is_an_object(tmp_path: Path) -> None:
    path = save_labels(tmp_path / "labels.png")
    made = plan(mask=[f"2:{path}", f"4:{save_mask(tmp_path / 'one.png')}@8"]).by_label(DEFAULT_MAX_PIXELS)
    assert made.object_ids == [3, 8, 700]
    first, second, third = read(made)
    assert [(item.frame, item.object_id, item.prompt.sum()) for item in (first, second, third)] == [
        (2, 3, 25),
        (2, 700, 200),
        (4, 8, 25),
    ]
    with pytest.raises(PromptError, match=r"Frame 2, object 9: .*labels\.png holds 2 labels: 3, 700"):
        plan(mask=[f"2:{path}@9"]).by_label(DEFAULT_MAX_PIXELS)
    with pytest.raises(PromptError, match=r"labels\.png holds 2 labels: 3, 700"):
        read(plan(mask=[f"2:{path}"]))
    with pytest.raises(PromptError, match="a mask and points or a box"):
        plan(mask=[f"2:{path}"], point=["2:1,1@3"]).by_label(DEFAULT_MAX_PIXELS)


def test_a_label_of_a_mask_in_a_prompts_file(tmp_path: Path) -> None:
    save_labels(tmp_path / "labels.png")
    items = [
        {"frame": 0, "mask": "labels.png", "label": 700},
        {"frame": 0, "mask": "labels.png", "label": 3},
        {"frame": 1, "mask": "labels.png", "label": 700, "object": 5},
    ]
    made = plan(file=write(tmp_path / "p.json", items)).by_label(DEFAULT_MAX_PIXELS)
    assert [(item.frame, item.object_id, item.prompt.sum()) for item in read(made)] == [
        (0, 3, 25),
        (0, 700, 200),
        (1, 5, 200),
    ]
    wrong = write(tmp_path / "p.json", [{"frame": 0, "mask": "labels.png", "label": 4}])
    with pytest.raises(PromptError, match=r"Frame 0, object 4: .*has no label 4\. Its labels: 3, 700"):
        read(plan(file=wrong))
