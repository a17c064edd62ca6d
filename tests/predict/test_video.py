from __future__ import annotations

import contextlib
import gc
import resource
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models_for_tests import loaded, small_sam, small_sam2

from segany import (
    CanceledError,
    ConfigError,
    FileVideoSession,
    FrameResult,
    OutputError,
    Prompt,
    PromptError,
    VideoConfig,
    VideoError,
    VideoPredictor,
)
from segany.core.boxes import mask_box
from segany.core.instance import Category
from segany.core.instances import Instances
from segany.core.progress import Cancellation, ProgressEvent
from segany.models.sam2.model import Sam2
from segany.predict.motion import Motion
from segany.predict.session_store import SessionStore
from segany.runtime.torch_model import TorchModel

SIZE_HW = (72, 128)
COUNT = 12
CLICK = Prompt(points_xy=[[40, 30]])
BOX = Prompt(box_xyxy=[60, 20, 110, 60])


def moving_frames(count: int = COUNT) -> list[np.ndarray]:
    """A bright disc and a dark square that move over noise."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    frames = []
    for index in range(count):
        frame = random.integers(90, 140, (*SIZE_HW, 3), dtype=np.uint8)
        frame[np.hypot(rows - 30, columns - 30 - 2 * index) < 14] = (250, 220, 60)
        frame[(abs(rows - 40) < 10) & (abs(columns - 95 + index) < 12)] = (20, 30, 90)
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def model() -> TorchModel:
    """Its weights are random, and would find that no object is ever visible."""
    model = small_sam2()
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias += 1
    return loaded(model)


@pytest.fixture(scope="module")
def predictor(model: TorchModel) -> VideoPredictor:
    return VideoPredictor(model)


@pytest.fixture
def session(predictor: VideoPredictor) -> Iterator[FileVideoSession]:
    with predictor.open(moving_frames()) as opened:
        yield opened


def tracked(results: Sequence[FrameResult] | Iterator[FrameResult], object_id: int) -> np.ndarray:
    """Logits of an object, frame by frame."""
    found = []
    for result in results:
        assert result.mask_logits is not None
        found.append(result.mask_logits[result.object_ids.index(object_id)])
    return np.stack(found)


def logits_of(session: FileVideoSession, object_id: int, **where: object) -> np.ndarray:
    return tracked(session.propagate(logits=True, **where), object_id)  # type: ignore[arg-type]


def test_results_are_masks_of_all_objects_at_the_size_of_the_video(session: FileVideoSession) -> None:
    answer = session.prompt(0, 7, CLICK)
    session.prompt(0, 3, BOX)
    assert answer.object_ids == (7,)
    results = list(session.propagate(logits=True))
    assert [result.frame for result in results] == list(range(COUNT))
    for result in results:
        assert result.object_ids == (7, 3)
        assert result.masks.shape == (2, *SIZE_HW)
        assert result.mask_logits is not None
        np.testing.assert_array_equal(result.masks, result.mask_logits > 0)
    np.testing.assert_array_equal(results[0].mask_of(7), answer.mask_of(7))
    assert any(result.masks.any() for result in results[1:])


def test_objects_do_not_influence_each_other_whatever_their_order(predictor: VideoPredictor) -> None:
    alone = {}
    for object_id, prompt in ((1, CLICK), (2, BOX)):
        with predictor.open(moving_frames()) as session:
            session.prompt(0, object_id, prompt)
            alone[object_id] = logits_of(session, object_id)
    for order in ((1, 2), (2, 1)):
        with predictor.open(moving_frames()) as session:
            for object_id in order:
                session.prompt(0, object_id, {1: CLICK, 2: BOX}[object_id])
            results = list(session.propagate(logits=True))
        for object_id, expected in alone.items():
            np.testing.assert_allclose(tracked(results, object_id), expected, atol=2e-3)
    assert np.abs(alone[1] - alone[2]).max() > 1


def test_an_object_may_come_later_and_leave_the_others_as_they_are(predictor: VideoPredictor) -> None:
    with predictor.open(moving_frames()) as session:
        session.prompt(0, 1, CLICK)
        expected = logits_of(session, 1)
        session.prompt(5, 2, BOX)
        results = list(session.propagate(logits=True))
    assert all(result.object_ids == (1, 2) for result in results)
    np.testing.assert_allclose(tracked(results, 1), expected, atol=2e-3)


def test_each_frame_is_encoded_once(model: TorchModel) -> None:
    calls = []
    trunk = model.module.image_encoder.trunk
    hook = trunk.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[operator, union-attr]
    with VideoPredictor(model).open(moving_frames(6)) as session:
        for object_id in range(3):
            session.prompt(0, object_id, CLICK)
        list(session.propagate())
    hook.remove()
    assert len(calls) == 6


def test_tracking_can_stop_and_go_on(predictor: VideoPredictor) -> None:
    with predictor.open(moving_frames()) as session:
        session.prompt(0, 1, CLICK)
        expected = logits_of(session, 1)
    with predictor.open(moving_frames()) as session:
        session.prompt(0, 1, CLICK)
        results = []
        for result in session.propagate(logits=True):
            results.append(result)
            if result.frame == 4:
                break
        results += list(session.propagate(5, logits=True))
    np.testing.assert_allclose(tracked(results, 1), expected, atol=1e-4)


def test_propagation_follows_the_direction(session: FileVideoSession) -> None:
    session.prompt(6, 1, CLICK)
    forward = list(session.propagate())
    backward = list(session.propagate(direction="backward"))
    both = list(session.propagate(direction="both"))
    assert [result.frame for result in forward] == list(range(6, COUNT))
    assert [result.frame for result in backward] == list(range(6, -1, -1))
    assert [result.frame for result in both] == [*range(6, COUNT), *range(5, -1, -1)]
    assert [result.frame for result in session.propagate(3, end=5)] == [3, 4, 5]
    assert [result.frame for result in session.propagate(5, "backward", 3)] == [5, 4, 3]


def test_progress_of_what_has_no_known_end(predictor: VideoPredictor) -> None:
    with predictor.open(iter(moving_frames(5))) as session:
        session.prompt(0, 1, CLICK)
        seen: list[ProgressEvent] = []
        list(session.propagate(progress=seen.append))
        assert seen == [ProgressEvent("tracking", done, None, "frames") for done in range(1, 6)]


def test_progress_counts_frames(session: FileVideoSession) -> None:
    session.prompt(8, 1, CLICK)
    for direction, total in (("forward", 4), ("backward", 9), ("both", 12)):
        seen: list[ProgressEvent] = []
        list(session.propagate(direction=direction, progress=seen.append))  # type: ignore[arg-type]
        assert seen == [ProgressEvent("tracking", done, total, "frames") for done in range(1, total + 1)]


def test_further_points_refine_and_a_correction_changes_what_follows(session: FileVideoSession) -> None:
    first = session.prompt(0, 1, CLICK)
    before = logits_of(session, 1)
    second = session.prompt(0, 1, Prompt(points_xy=[[10, 60]], labels=[0]))
    assert (first.masks != second.masks).any()
    refined = logits_of(session, 1)
    session.prompt(6, 1, Prompt(points_xy=[[90, 40]]))
    corrected = logits_of(session, 1)
    assert np.abs(refined - before).max() > 0.1
    np.testing.assert_allclose(corrected[0], refined[0], atol=1e-4)
    assert np.abs(corrected[7:] - refined[7:]).max() > 0.01
    np.testing.assert_array_equal(corrected[6] > 0, logits_of(session, 1, start=6, end=6)[0] > 0)


def test_corrections_are_undone_by_tracking_again_where_that_is_asked_for(model: TorchModel) -> None:
    with VideoPredictor(model, VideoConfig(remember_corrections=False)).open(moving_frames()) as session:
        session.prompt(0, 1, CLICK)
        before = logits_of(session, 1)
        session.prompt(6, 1, Prompt(points_xy=[[90, 40]]))
        np.testing.assert_allclose(logits_of(session, 1), before, atol=1e-4)


def test_a_correction_far_from_where_tracking_is_knows_the_old_mask(predictor: VideoPredictor) -> None:
    answers = []
    for far in (True, False):
        with predictor.open(moving_frames(60)) as session:
            session.prompt(50, 1, CLICK)
            if far:
                list(session.propagate(direction="both"))
            answers.append(session.prompt(25, 1, Prompt(points_xy=[[90, 40]])))
    assert (answers[0].masks != answers[1].masks).any()


def test_every_click_of_a_correction_remembers_the_video(model: TorchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    attend = Sam2.attend_memory
    with VideoPredictor(model).open(moving_frames()) as session:
        session.prompt(0, 1, CLICK)
        list(session.propagate())
        monkeypatch.setattr(
            Sam2, "attend_memory", lambda self, *args: asked.append(args[1][0].maskmem_tpos) or attend(self, *args)
        )
        for _ in range(3):
            session.prompt(6, 1, Prompt(points_xy=[[90, 40]]))
        session.prompt(0, 1, Prompt(points_xy=[[45, 30]]))  # where it was never followed to
    assert len(asked) == 3
    assert asked[0] == asked[1] == asked[2]
    assert len(asked[0]) == 6  # frame 0 and frames 1 to 5, and not frame 6 itself


def test_numbers_may_be_of_numpy(predictor: VideoPredictor, tmp_path: Path) -> None:
    with predictor.open(moving_frames()) as session:
        session.prompt(np.int64(0), np.int32(1), CLICK)  # type: ignore[arg-type]
        found = list(session.propagate(np.int64(0), end=np.int64(4)))  # type: ignore[arg-type]
        kept = session.result(np.int64(2))  # type: ignore[arg-type]
        assert kept is not None
        np.testing.assert_array_equal(kept.masks, found[2].masks)
        saved = session.save(tmp_path / "clip.session")
    with predictor.open(moving_frames(), resume=saved) as session:
        assert session.object_ids == (1,)
        session.clear(np.int64(0), np.int64(1))  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [1.0, "1", None, True, 2**40, (1,)])
def test_other_numbers_are_refused_and_change_nothing(session: FileVideoSession, number: object) -> None:
    for call in (
        lambda: session.prompt(0, number, CLICK),  # type: ignore[arg-type]
        lambda: session.prompt(number, 1, CLICK),  # type: ignore[arg-type]
        lambda: session.remove(number),  # type: ignore[arg-type]
        lambda: session.result(number),  # type: ignore[arg-type]
    ):
        with pytest.raises((PromptError, VideoError), match="whole number"):
            call()
    assert session.object_ids == ()


def test_only_the_latest_way_through_the_video_goes_on(session: FileVideoSession) -> None:
    session.prompt(0, 1, CLICK)
    first = session.propagate()
    next(first)
    next(session.propagate(5, "backward"))
    with pytest.raises(VideoError, match="called again"):
        next(first)


def test_a_mask_is_a_prompt(session: FileVideoSession) -> None:
    mask = np.zeros(SIZE_HW, dtype=bool)
    mask[16:45, 16:45] = True
    answer = session.prompt(0, 1, mask)
    overlap = (answer.mask_of(1) & mask).sum() / (answer.mask_of(1) | mask).sum()
    assert overlap > 0.9
    assert len(list(session.propagate())) == COUNT
    assert not session.prompt(0, 2, np.zeros(SIZE_HW, dtype=bool)).masks.any()
    np.testing.assert_array_equal(session.prompt(0, 3, Prompt(mask=mask)).masks, answer.masks)
    refined = session.prompt(0, 4, Prompt(points_xy=[[70, 30]], mask=mask))
    assert (refined.masks != answer.masks).any()
    with pytest.raises(PromptError, match="size"):
        session.prompt(0, 5, Prompt(mask=mask[:40]))


def test_clearing_and_removing(session: FileVideoSession) -> None:
    session.prompt(0, 1, CLICK)
    expected = logits_of(session, 1)
    session.prompt(6, 1, Prompt(points_xy=[[90, 40]]))
    session.prompt(0, 2, BOX)
    session.clear(6, 1)
    np.testing.assert_allclose(logits_of(session, 1), expected, atol=2e-3)
    session.remove(2)
    assert session.object_ids == (1,)
    session.clear(0, 1)
    assert session.object_ids == ()
    assert session.result(3) is None


def test_clearing_a_first_prompt_leaves_the_corrections(model: TorchModel) -> None:
    with VideoPredictor(model, VideoConfig(remember_corrections=False)).open(moving_frames()) as session:
        session.prompt(0, 1, CLICK)
        list(session.propagate())
        session.prompt(5, 1, Prompt(points_xy=[[90, 40]]))
        session.clear(0, 1)
        assert session.object_ids == (1,)
        assert next(session.propagate()).frame == 5
        session.clear(5, 1)
        assert session.object_ids == ()


def test_memory_is_bounded_and_results_are_kept(predictor: VideoPredictor, tmp_path: Path) -> None:
    with predictor.open(moving_frames(70)) as session:
        session.prompt(0, 1, CLICK)
        sizes = {}
        masks = {}
        for result in session.propagate():
            masks[result.frame] = result.masks
            if result.frame in (38, 69):
                sizes[result.frame] = session.save(tmp_path / "clip.session").stat().st_size
        assert sizes[69] - sizes[38] < 31 * 10_000  # the memory of one frame is 49 KB, its result some KB
        for frame, expected in masks.items():
            kept = session.result(frame)
            assert kept is not None
            np.testing.assert_array_equal(kept.masks, expected)


def test_live_frames_give_what_a_video_gives(predictor: VideoPredictor) -> None:
    frames = moving_frames(18)  # as many as object pointers are looked for, which is what counts
    with predictor.open(frames) as session:
        session.prompt(2, 1, CLICK)
        expected = logits_of(session, 1)
    with predictor.live() as live:
        assert live.step(frames[0]).object_ids == ()
        live.step(frames[1])
        live.step(frames[2])
        live.prompt(2, 1, CLICK)
        results = [live.step(frame, logits=True) for frame in frames[3:]]
        np.testing.assert_allclose(tracked(results, 1), expected[1:], atol=1e-4)
        live.prompt(17, 2, BOX)
        assert live.step(frames[0]).object_ids == (1, 2)
        with pytest.raises(VideoError, match="latest is 18"):
            live.prompt(3, 1, CLICK)
        with pytest.raises(VideoError, match="one size"):
            live.step(frames[0][:50])


def test_frames_of_an_iterator_are_tracked_as_they_come(predictor: VideoPredictor) -> None:
    with predictor.open(iter(moving_frames())) as session:
        session.prompt(0, 1, CLICK)
        with pytest.raises(VideoError, match="backward"):
            session.propagate(direction="both")
        assert len(list(session.propagate())) == COUNT


@pytest.mark.parametrize("motion_aware", [False, True])
def test_a_saved_session_goes_on_as_if_it_had_never_stopped(
    model: TorchModel, tmp_path: Path, motion_aware: bool
) -> None:
    predictor = VideoPredictor(model, VideoConfig(motion_aware=motion_aware))
    mask = np.zeros(SIZE_HW, dtype=bool)
    mask[16:45, 16:45] = True
    with predictor.open(moving_frames()) as session:
        session.prompt(0, 1, CLICK)
        session.prompt(0, 2, mask)
        done = list(session.propagate(end=6))
        saved = session.save(tmp_path / "work" / "clip.session")
        expected = list(session.propagate(7, logits=True))
    with predictor.open(moving_frames(), resume=saved) as session:
        assert session.object_ids == (1, 2)
        kept = session.result(4)
        assert kept is not None
        np.testing.assert_array_equal(kept.masks, done[4].masks)
        results = list(session.propagate(7, logits=True))
        for object_id in (1, 2):
            np.testing.assert_allclose(tracked(results, object_id), tracked(expected, object_id), atol=1e-5)
        refined = session.prompt(0, 1, Prompt(points_xy=[[10, 60]], labels=[0]))  # earlier points are known as well
        session.save(saved)  # over itself
    with predictor.open(moving_frames()) as session:
        session.prompt(0, 1, CLICK)
        again = session.prompt(0, 1, Prompt(points_xy=[[10, 60]], labels=[0]))
    np.testing.assert_array_equal(refined.masks, again.masks)


def test_a_session_of_something_else_is_refused(predictor: VideoPredictor, tmp_path: Path) -> None:
    with predictor.open(moving_frames()) as session:
        session.prompt(0, 1, CLICK)
        saved = session.save(tmp_path / "clip.session")
    for frames in ([frame[:50] for frame in moving_frames()], moving_frames(4)):
        with pytest.raises(VideoError, match="width 128, height 72, frames 12, which is not"):
            predictor.open(frames, resume=saved)
    other = small_sam2("sam2")
    other.name = "other"
    with pytest.raises(VideoError, match="made with model small"):
        VideoPredictor(loaded(other)).open(moving_frames(), resume=saved)
    with pytest.raises(VideoError, match="does not exist"):
        predictor.open(moving_frames(), resume=tmp_path / "none")
    for damage in (b"not a database at all", saved.read_bytes()[:5000], b""):
        (tmp_path / "bad").write_bytes(damage)
        with pytest.raises(VideoError, match="not a saved session"):
            predictor.open(moving_frames(), resume=tmp_path / "bad")
    whole = saved.read_bytes()
    for place in range(3000, len(whole) - 200, len(whole) // 9):
        (tmp_path / "bad").write_bytes(whole[:place] + bytes(200) + whole[place + 200 :])
        with contextlib.suppress(VideoError):  # some places hold nothing; no other error may come out
            predictor.open(moving_frames(), resume=tmp_path / "bad").close()


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_scratch_files_are_removed(predictor: VideoPredictor, scratch: Path) -> None:
    session = predictor.open(moving_frames(2))
    assert len(list(scratch.iterdir())) == 1
    session.close()
    session.close()
    assert list(scratch.iterdir()) == []


def test_scratch_files_of_forgotten_sessions_are_removed(predictor: VideoPredictor, scratch: Path) -> None:
    session = predictor.open(moving_frames(2))
    assert len(list(scratch.iterdir())) == 1
    del session
    gc.collect()
    assert list(scratch.iterdir()) == []


def test_a_closed_session_says_so(predictor: VideoPredictor, tmp_path: Path) -> None:
    session = predictor.open(moving_frames(2))
    session.prompt(0, 1, CLICK)
    session.close()
    for call in (lambda: session.result(0), lambda: session.save(tmp_path / "x"), lambda: session.remove(1)):
        with pytest.raises(VideoError, match="closed"):
            call()
    assert session.object_ids == (1,)


def test_a_full_disk_is_an_error_of_its_own(scratch: Path) -> None:
    noise = np.random.default_rng(0).random((1000, 1000)) > 0.5  # a megabyte of run lengths
    instances = Instances.from_masks(noise, object_ids=[1], scores=[1.0], columns={"reverse": [False]})
    store = SessionStore()
    (file,) = scratch.iterdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, limits[1]))  # as a full disk, for this process
    try:
        with pytest.raises(OutputError, match="could not be written"):
            [store.put(frame, instances) for frame in range(20)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        store.close()


def test_small_regions_of_results_are_cleaned(model: TorchModel) -> None:
    from segany.imaging.components import clean_masks

    with VideoPredictor(model).open(moving_frames(4)) as session:
        session.prompt(0, 1, CLICK)
        plain = np.concatenate([result.masks for result in session.propagate()])
    with VideoPredictor(model, VideoConfig(min_mask_region_area=30)).open(moving_frames(4)) as session:
        session.prompt(0, 1, CLICK)
        cleaned = np.concatenate([result.masks for result in session.propagate()])
    np.testing.assert_array_equal(cleaned, clean_masks(plain, 30))
    assert (cleaned != plain).any()


def test_motion_aware_tracking_starts_anew_from_every_prompt(
    model: TorchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    restarts: list[torch.Tensor] = []
    restart = Motion.restart
    monkeypatch.setattr(Motion, "restart", lambda self, low_res: restarts.append(low_res) or restart(self, low_res))
    with VideoPredictor(model, VideoConfig(motion_aware=True)).open(moving_frames(24)) as session:
        session.prompt(8, 1, CLICK)
        mask = np.zeros(SIZE_HW, dtype=bool)
        mask[60:70, 100:120] = True
        for result in session.propagate(direction="both"):
            if result.frame == 14:
                restarts.clear()
                session.prompt(14, 1, mask)
                (low_res,) = restarts
    side = model.low_res_size
    expected = np.array([100, 60, 120, 70]) * side / np.array([SIZE_HW[1], SIZE_HW[0]] * 2)
    np.testing.assert_allclose(mask_box(low_res.cpu().numpy() > 0), expected, atol=1.5)


def test_motion_decides_among_candidates(model: TorchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    choose = Motion.choose
    monkeypatch.setattr(
        Motion, "choose", lambda self, *args: calls.append(len(args[1])) or (choose(self, *args) + 1) % 3
    )
    found = []
    for motion_aware in (False, True):
        with VideoPredictor(model, VideoConfig(motion_aware=motion_aware)).open(moving_frames(5)) as session:
            session.prompt(0, 1, CLICK)
            found.append(logits_of(session, 1))
    assert calls == [3] * 4
    assert np.abs(found[0][1:] - found[1][1:]).max() > 0.1


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda s: s.propagate(), PromptError, "nothing to track"),
        (lambda s: s.prompt(COUNT, 1, CLICK), VideoError, "has 12 frames, 0 to 11"),
        (lambda s: s.prompt(-1, 1, CLICK), VideoError, "Frame -1 does not exist"),
        (lambda s: s.prompt(0, 1, Prompt(points_xy=[[300, 10]])), PromptError, "outside the image"),
        (lambda s: s.prompt(0, 1, np.zeros((5, 5), dtype=bool)), PromptError, "the size of the video"),
        (lambda s: s.prompt(0, 1, np.zeros(SIZE_HW)), PromptError, "must be bool"),
        (lambda s: s.remove(4), PromptError, "no object 4. The objects: none"),
        (lambda s: (s.prompt(0, 1, CLICK), s.clear(3, 1)), PromptError, "It has on: 0"),
        (lambda s: (s.prompt(0, 1, CLICK), s.propagate(40)), VideoError, "no frame 40 for start"),
        (lambda s: (s.prompt(0, 1, CLICK), s.propagate(4, end=2)), PromptError, "never reaches frame 2"),
        (lambda s: (s.prompt(0, 1, CLICK), s.propagate(direction="up")), PromptError, "forward, backward or both"),
        (lambda s: s.prompt(0, -1, CLICK), PromptError, "must not be negative, got -1"),
        (lambda s: s.prompt(0, 1, Prompt(mask_logits=np.zeros((16, 16)))), PromptError, r"takes \[64, 64\]"),
    ],
)
def test_invalid_calls_are_refused(session: FileVideoSession, mistake, error: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        mistake(session)


def test_a_mistake_changes_nothing(session: FileVideoSession) -> None:
    with pytest.raises(PromptError):
        session.prompt(0, 1, Prompt(points_xy=[[300, 10]]))
    assert session.object_ids == ()


def test_models_without_memory_are_refused() -> None:
    with pytest.raises(ConfigError, match="sam2"):
        VideoPredictor(small_sam())


def test_negative_areas_are_refused() -> None:
    with pytest.raises(ConfigError, match="min_mask_region_area"):
        VideoConfig(min_mask_region_area=-1)


# Owners, threads and cancellation.


def test_a_session_has_an_owner(predictor: VideoPredictor) -> None:
    with predictor.open(moving_frames(1), owner="ann") as session, predictor.live(owner="bob") as live:
        assert (session.owner, live.owner) == ("ann", "bob")
    with predictor.open(moving_frames(1)) as session:
        assert session.owner == ""


def test_cancel_ends_propagation_after_the_frame_in_hand(session: FileVideoSession) -> None:
    session.prompt(0, 1, CLICK)
    expected = list(session.propagate())
    results = session.propagate()
    assert [next(results).frame for _ in range(5)] == [0, 1, 2, 3, 4]
    session.cancel()
    with pytest.raises(CanceledError):
        next(results)
    assert session.result(4) is not None
    rest = list(session.propagate(5))  # the session stays usable
    for one, other in zip(rest, expected[5:], strict=True):
        np.testing.assert_array_equal(one.masks, other.masks)


def test_cancel_from_another_thread_while_a_frame_is_computed(session: FileVideoSession) -> None:
    session.prompt(0, 1, CLICK)
    frames: list[int] = []
    begun, errors = threading.Event(), []

    def run() -> None:
        try:
            for result in session.propagate(direction="both"):
                frames.append(result.frame)
                begun.set()
        except CanceledError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(60)
    session.cancel()
    thread.join(60)
    assert not thread.is_alive()
    assert len(errors) == 1
    assert frames == list(range(len(frames)))
    assert session.result(frames[-1]) is not None


def test_cancel_without_a_propagation_does_nothing(session: FileVideoSession) -> None:
    session.cancel()
    session.prompt(0, 1, CLICK)
    session.cancel()
    assert len(list(session.propagate())) == COUNT
    session.cancel()
    assert len(list(session.propagate())) == COUNT


def test_progress_may_end_the_propagation(session: FileVideoSession) -> None:
    session.prompt(0, 1, CLICK)
    cancellation = Cancellation()
    results = session.propagate(progress=cancellation.watch())
    assert [next(results).frame for _ in range(3)] == [0, 1, 2]
    cancellation.cancel()
    with pytest.raises(CanceledError):
        next(results)
    assert session.result(3) is not None  # the frame was done
    assert len(list(session.propagate())) == COUNT


def test_closing_ends_a_propagation(predictor: VideoPredictor) -> None:
    session = predictor.open(moving_frames())
    session.prompt(0, 1, CLICK)
    results = session.propagate()
    next(results)
    session.close()
    with pytest.raises(VideoError, match="closed"):
        next(results)
    live = predictor.live()
    live.close()
    with pytest.raises(VideoError, match="closed"):
        live.step(moving_frames(1)[0])


def test_a_prompt_between_two_frames_counts_from_the_next_one_on(session: FileVideoSession) -> None:
    session.prompt(0, 1, CLICK)
    ids = {}
    for result in session.propagate():
        ids[result.frame] = result.object_ids
        if result.frame == 3:
            session.prompt(3, 2, BOX)
            session.prompt(6, 3, CLICK)
        if result.frame == 8:
            session.remove(1)
    assert list(ids.values()) == [(1,)] * 4 + [(1, 2, 3)] * 5 + [(2, 3)] * (COUNT - 9)
    with pytest.raises(PromptError, match="no object 1"):
        session.remove(1)


def test_threads_may_share_a_session(predictor: VideoPredictor) -> None:
    with predictor.open(moving_frames()) as session:
        session.prompt(0, 1, CLICK)
        expected = [result.mask_of(1) for result in session.propagate()]
    with predictor.open(moving_frames()) as session:
        session.prompt(0, 1, CLICK)
        is_done, errors = threading.Event(), []

        def disturb(object_id: int) -> None:
            try:
                while not is_done.is_set():
                    session.prompt(object_id, object_id, BOX)
                    kept = session.result(object_id)
                    assert kept is not None
                    assert object_id in kept.object_ids
                    session.remove(object_id)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=disturb, args=(object_id,)) for object_id in (2, 3)]
        for thread in threads:
            thread.start()
        try:
            found = [result.mask_of(1) for result in session.propagate()]
        finally:
            is_done.set()
            for thread in threads:
                thread.join(60)
    assert errors == []
    for one, other in zip(found, expected, strict=True):  # batches of objects differ in the last bits
        assert (one != other).mean() < 1e-3


# Instances and categories.


def test_results_are_instances(session: FileVideoSession) -> None:
    session.prompt(4, 1, CLICK)
    session.prompt(4, 7, BOX, category=Category(3, "dog", "animal"))
    for result in session.propagate(direction="both"):
        instances = result.instances
        assert set(instances.sources.tolist()) == {"track"}
        assert instances.object_ids.tolist() == [1, 7]
        np.testing.assert_array_equal(instances.masks(), result.masks)
        np.testing.assert_array_equal(instances.scores, result.scores)
        assert instances.reverse.tolist() == [result.frame < 4] * 2
        assert [item.category for item in instances] == [None, Category(3, "dog", "animal")]
        kept = session.result(result.frame)
        assert kept is not None
        assert kept.instances.rle_counts == instances.rle_counts
        assert [item.category for item in kept.instances] == [item.category for item in instances]


def test_categories_may_change_and_are_saved(predictor: VideoPredictor, tmp_path: Path) -> None:
    with predictor.open(moving_frames(3)) as session:
        session.prompt(0, 1, CLICK, category=Category(1, "cat"))
        session.prompt(0, 1, CLICK)
        session.prompt(0, 2, BOX, category=Category(1, "cat"))
        with pytest.raises(PromptError, match="Category 1 is 'dog', but 'cat' for object 1"):
            session.prompt(0, 3, CLICK, category=Category(1, "dog"))
        assert session.object_ids == (1, 2)
        answer = session.prompt(0, 2, BOX, category=Category(2, "dog"))
        assert answer.instances[0].category == Category(2, "dog")
        list(session.propagate())
        saved = session.save(tmp_path / "clip.session")
    with predictor.open(moving_frames(3), resume=saved) as session:
        kept = session.result(1)
        assert kept is not None
        assert [item.category for item in kept.instances] == [Category(1, "cat"), Category(2, "dog")]
