from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models_for_tests import loaded, small_sam, small_sam2

from segany import (
    ConfigError,
    FrameResult,
    OutputError,
    Prompt,
    PromptError,
    VideoConfig,
    VideoError,
    VideoPredictor,
    VideoSession,
)
from segany.models.sam2.model import Sam2
from segany.predict.motion import Motion
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
def session(predictor: VideoPredictor) -> Iterator[VideoSession]:
    with predictor.open(moving_frames()) as opened:
        yield opened


def tracked(results: Sequence[FrameResult] | Iterator[FrameResult], object_id: int) -> np.ndarray:
    """Logits of an object, frame by frame."""
    found = []
    for result in results:
        assert result.mask_logits is not None
        found.append(result.mask_logits[result.object_ids.index(object_id)])
    return np.stack(found)


def logits_of(session: VideoSession, object_id: int, **where: object) -> np.ndarray:
    return tracked(session.propagate(logits=True, **where), object_id)  # type: ignore[arg-type]


def test_results_are_masks_of_all_objects_at_the_size_of_the_video(session: VideoSession) -> None:
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


def test_each_frame_is_encoded_once(model: TorchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    encode = Sam2.encode_frame
    monkeypatch.setattr(Sam2, "encode_frame", lambda self, pixels: calls.append(1) or encode(self, pixels))
    with VideoPredictor(model).open(moving_frames(6)) as session:
        for object_id in range(3):
            session.prompt(0, object_id, CLICK)
        list(session.propagate())
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


def test_directions(session: VideoSession) -> None:
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
        seen: list[tuple[int, int | None]] = []
        list(session.propagate(progress=lambda *counts: seen.append(counts)))
        assert seen == [(done, None) for done in range(1, 6)]


def test_progress_counts_frames(session: VideoSession) -> None:
    session.prompt(8, 1, CLICK)
    for direction, total in (("forward", 4), ("backward", 9), ("both", 12)):
        seen: list[int | None] = []
        list(session.propagate(direction=direction, progress=lambda *counts, seen=seen: seen.append(counts)))  # type: ignore[arg-type]
        assert seen == [(done, total) for done in range(1, total + 1)]


def test_further_points_refine_and_a_correction_changes_what_follows(session: VideoSession) -> None:
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
                assert 25 not in session._tracks[1].tracked
            answers.append(session.prompt(25, 1, Prompt(points_xy=[[90, 40]])))
    assert (answers[0].masks != answers[1].masks).any()


def test_every_click_of_a_correction_remembers_the_video(model: TorchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    attend = Sam2.attend_memory
    with VideoPredictor(model).open(moving_frames()) as session:
        session.prompt(0, 1, CLICK)
        list(session.propagate())
        monkeypatch.setattr(
            Sam2, "attend_memory", lambda self, *args: asked.append(args[1][0].slots) or attend(self, *args)
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
def test_other_numbers_are_refused_and_change_nothing(session: VideoSession, number: object) -> None:
    for call in (
        lambda: session.prompt(0, number, CLICK),  # type: ignore[arg-type]
        lambda: session.prompt(number, 1, CLICK),  # type: ignore[arg-type]
        lambda: session.remove(number),  # type: ignore[arg-type]
        lambda: session.result(number),  # type: ignore[arg-type]
    ):
        with pytest.raises((PromptError, VideoError), match="whole number"):
            call()
    assert session.object_ids == ()


def test_only_the_latest_way_through_the_video_goes_on(session: VideoSession) -> None:
    session.prompt(0, 1, CLICK)
    first = session.propagate()
    next(first)
    next(session.propagate(5, "backward"))
    with pytest.raises(VideoError, match="called once more"):
        next(first)


def test_a_mask_is_a_prompt(session: VideoSession) -> None:
    mask = np.zeros(SIZE_HW, dtype=bool)
    mask[16:45, 16:45] = True
    answer = session.prompt(0, 1, mask)
    overlap = (answer.mask_of(1) & mask).sum() / (answer.mask_of(1) | mask).sum()
    assert overlap > 0.9
    assert len(list(session.propagate())) == COUNT
    assert not session.prompt(0, 2, np.zeros(SIZE_HW, dtype=bool)).masks.any()


def test_clearing_and_removing(session: VideoSession) -> None:
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


def test_memory_is_bounded_and_results_are_kept(predictor: VideoPredictor) -> None:
    with predictor.open(moving_frames(70)) as session:
        session.prompt(0, 1, CLICK)
        sizes = []
        masks = {}
        for result in session.propagate():
            sizes.append(len(session._tracks[1].tracked))
            masks[result.frame] = result.masks
        assert max(sizes) == max(sizes[:40])
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
        with pytest.raises(VideoError, match="step"):
            live.propagate()
        with pytest.raises(VideoError, match="cannot be saved"):
            live.save("x")


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
        session.prompt(0, 1, Prompt(points_xy=[[10, 60]], labels=[0]))  # earlier points are known as well
        prompt = session._tracks[1].prompts[0]
        assert isinstance(prompt, Prompt)
        assert prompt.points_xy is not None
        assert prompt.points_xy.tolist() == [[40, 30], [10, 60]]
        session.save(saved)  # over itself


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
        with pytest.raises(VideoError, match="no session"):
            predictor.open(moving_frames(), resume=tmp_path / "bad")
    whole = saved.read_bytes()
    for place in range(3000, len(whole) - 200, len(whole) // 9):
        (tmp_path / "bad").write_bytes(whole[:place] + bytes(200) + whole[place + 200 :])
        with contextlib.suppress(VideoError):  # some places hold nothing; no other error may come out
            predictor.open(moving_frames(), resume=tmp_path / "bad").close()


def test_scratch_files_are_removed(predictor: VideoPredictor) -> None:
    session = predictor.open(moving_frames(2))
    path = session._store._path
    assert path.exists()
    session.close()
    session.close()
    assert not path.exists()


def test_scratch_files_of_forgotten_sessions_are_removed(predictor: VideoPredictor) -> None:
    session = predictor.open(moving_frames(2))
    path = session._store._path
    del session
    gc.collect()
    assert not path.exists()


def test_a_closed_session_says_so(predictor: VideoPredictor, tmp_path: Path) -> None:
    session = predictor.open(moving_frames(2))
    session.prompt(0, 1, CLICK)
    session.close()
    for call in (lambda: session.result(0), lambda: session.save(tmp_path / "x"), lambda: session.remove(1)):
        with pytest.raises(VideoError, match="closed"):
            call()
    assert session.object_ids == (1,)


def test_a_full_disk_is_an_error_of_its_own(session: VideoSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session.prompt(0, 1, CLICK)
    session._store._open.execute("pragma max_page_count = 1")

    def fill() -> None:
        for _ in range(50):
            list(session.propagate())
            session.prompt(0, session.object_ids[-1] + 1, CLICK)

    with pytest.raises(OutputError, match="could not be written"):
        fill()


def test_small_regions_of_results_are_cleaned(model: TorchModel) -> None:
    from segany.imaging.components import clean_masks

    with VideoPredictor(model).open(moving_frames(4)) as session:
        session.prompt(0, 1, CLICK)
        plain = np.concatenate([result.masks for result in session.propagate()])
    with VideoPredictor(model, VideoConfig(clean_area=30)).open(moving_frames(4)) as session:
        session.prompt(0, 1, CLICK)
        cleaned = np.concatenate([result.masks for result in session.propagate()])
    np.testing.assert_array_equal(cleaned, clean_masks(plain, 30))
    assert (cleaned != plain).any()


def test_motion_aware_tracking_starts_anew_from_every_prompt(model: TorchModel) -> None:
    with VideoPredictor(model, VideoConfig(motion_aware=True)).open(moving_frames(24)) as session:
        session.prompt(8, 1, CLICK)
        for result in session.propagate(direction="both"):
            motion = session._tracks[1].motion
            if result.frame == 8:
                box = motion._filter.state[:2].copy()  # type: ignore[union-attr]
            if result.frame == 14:
                mask = np.zeros(SIZE_HW, dtype=bool)
                mask[60:70, 100:120] = True
                session.prompt(14, 1, mask)
                side = model.low_res_size
                expected = np.array([110 / SIZE_HW[1], 65 / SIZE_HW[0]]) * side
                np.testing.assert_allclose(motion._filter.state[:2], expected, atol=1.5)  # type: ignore[union-attr]
                assert np.abs(box - expected).max() > 5
        assert len(session._tracks[1].tracked) < 60


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
        (lambda s: s.step(moving_frames(1)[0]), VideoError, "live"),
        (lambda s: s.prompt(0, 1, Prompt(mask_logits=np.zeros((16, 16)))), PromptError, r"must be \[64, 64\]"),
    ],
)
def test_mistakes(session: VideoSession, mistake, error: type[Exception], message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        mistake(session)


def test_a_mistake_changes_nothing(session: VideoSession) -> None:
    with pytest.raises(PromptError):
        session.prompt(0, 1, Prompt(points_xy=[[300, 10]]))
    assert session.object_ids == ()


def test_models_without_memory_are_refused() -> None:
    with pytest.raises(ConfigError, match="sam2"):
        VideoPredictor(loaded(small_sam()))
    with pytest.raises(ConfigError, match="clean_area"):
        VideoConfig(clean_area=-1)
