from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.live_for_tests import Page, State, add_picture, asked, connected, model_ref, serving, until

from segany import ImagePredictor, ModelRef, Prompt
from segany.core.rle import box_xyxy, encode_masks
from segany.server.live import MAX_EXACT, MAX_TOKENS


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return model_ref(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, ref: ModelRef) -> Iterator[State]:
    with serving(tmp_path_factory.mktemp("served"), ref) as served:
        yield served


@pytest.fixture(scope="module")
def item(state: State) -> str:
    return add_picture(state.store, 0)


@pytest.fixture
def page(state: State, item: str) -> Iterator[Page]:
    with connected(state) as opened:
        assert opened.open(item) == "ready"
        yield opened


@pytest.fixture(scope="module")
def predictor(ref: ModelRef) -> ImagePredictor:
    return ImagePredictor(ref.load())


def same(answer: dict[str, Any], mask: np.ndarray, score: float) -> bool:
    encoding = encode_masks(mask)[0]
    facts = (encoding["counts"], int(mask.sum()), list(box_xyxy(encoding)), score)
    return (answer["counts"], answer["area"], answer["box_xyxy"], answer["score"]) == facts


def test_prediction_has_the_logits_of_the_predictor(
    page: Page, state: State, item: str, predictor: ImagePredictor
) -> None:
    answer = page.predict(1, item, points=[[60.5, 40.25]])
    prediction = predictor.predict(predictor.embed(state.store.items.file(item)), Prompt(points_xy=[[60.5, 40.25]]))
    low_res = prediction.low_res_logits[0]
    assert (answer["seq"], answer["candidates"], answer["side"]) == (1, 3, low_res.shape[-1])
    np.testing.assert_array_equal(answer["logits"] > 0, low_res > 0)
    expected = np.clip(low_res, -8, 8)
    assert np.abs(answer["logits"] * answer["quantization"] - expected).max() <= answer["quantization"]
    np.testing.assert_allclose(answer["scores"], prediction.scores[0])
    assert answer["latency_ms"] > 0


def test_single_mask_has_one_candidate(page: Page, item: str) -> None:
    assert page.predict(1, item, box=[10, 10, 90, 80], multimask=False)["candidates"] == 1


@pytest.mark.parametrize(
    ("prompt", "candidate", "expected"),
    [
        ({"points": [[60, 40]]}, 0, Prompt(points_xy=[[60, 40]])),
        ({"points": [[60, 40]]}, 2, Prompt(points_xy=[[60, 40]])),
        ({"points": [[60, 40], [20.5, 99]], "labels": [1, 0]}, None, Prompt([[60, 40], [20.5, 99]], [1, 0])),
        ({"box": [10, 10, 90.75, 80]}, None, Prompt(box_xyxy=[10, 10, 90.75, 80])),
        ({"points": [[60, 40]], "box": [0, 0, 180, 120]}, 1, Prompt([[60, 40]], box_xyxy=[0, 0, 180, 120])),
    ],
)
def test_exact_mask_is_that_of_the_predictor(
    page: Page,
    state: State,
    item: str,
    predictor: ImagePredictor,
    prompt: dict[str, Any],
    candidate: int | None,
    expected: Prompt,
) -> None:
    answer = page.exact(-1, item, candidate, **prompt)
    embedding = predictor.embed(state.store.items.file(item))
    prediction = predictor.predict(embedding, expected, masks="single" if candidate is None else "multi")
    assert answer["seq"] == -1
    assert same(answer, prediction.masks[0, candidate or 0], float(prediction.scores[0, candidate or 0]))


def test_refined_masks_are_those_of_the_predictor(
    page: Page, state: State, item: str, predictor: ImagePredictor
) -> None:
    embedding = predictor.embed(state.store.items.file(item))
    clicks, labels = [[60.0, 40.0], [120.0, 90.0], [30.0, 100.0]], [1, 1, 0]
    prediction = predictor.predict(embedding, Prompt(clicks[:1], labels[:1]), masks="multi")
    answer, candidate = page.predict(1, item, points=clicks[:1]), 2
    for count in (2, 3):
        refine = {"token": answer["token"], "candidate": candidate}
        prompt = {"points": clicks[:count], "labels": labels[:count], "refine": refine}
        answer = page.predict(count, item, multimask=False, **prompt)
        mask = page.exact(-count, item, None, **prompt)
        refined = prediction.refine(clicks[count - 1 : count], labels[count - 1 : count], candidate=candidate)
        prediction = predictor.predict(embedding, refined, masks="single")
        candidate = 0
        assert same(mask, prediction.masks[0, 0], float(prediction.scores[0, 0]))
        np.testing.assert_array_equal(answer["logits"][0] > 0, prediction.low_res_logits[0, 0] > 0)
    with connected(state) as other:  # which knows none of these predictions
        first = {"points": clicks[:1], "labels": labels[:1], "multimask": True, "candidate": 2}
        second = {"points": clicks[:2], "labels": labels[:2], "multimask": False, "candidate": 0}
        again = other.exact(-9, item, None, points=clicks, labels=labels, steps=[first, second])
        assert again == {**mask, "seq": -9}
        shown = other.predict(9, item, points=clicks, labels=labels, steps=[first, second], multimask=False)
        np.testing.assert_array_equal(shown["logits"], answer["logits"])
        first["multimask"] = False
        assert other.exact(-10, item, None, points=clicks, labels=labels, steps=[first])["code"] == "invalid"


def test_embedding_from_disk_gives_the_same_masks(tmp_path: Path, ref: ModelRef) -> None:
    masks = []
    for _ in range(2):
        with serving(tmp_path, ref) as state:
            first = next(state.store.items.iterate(), None)
            item = add_picture(state.store, 0) if first is None else first.id
            with connected(state) as page:
                assert page.open(item) == "ready"
                masks.append([page.exact(-1, item, candidate, points=[[60, 40]])["counts"] for candidate in range(3)])
    assert masks[0] == masks[1]
    files = list((tmp_path / "project" / "cache" / "embeddings").rglob("*.safetensors"))
    assert len(files) == 1


def test_token_of_another_connection_or_a_forgotten_one_is_unknown(page: Page, state: State, item: str) -> None:
    token = page.predict(0, item, points=[[60, 40]])["token"]
    with connected(state) as other:
        refused = other.predict(7, item, points=[[60, 40]], refine={"token": token, "candidate": 0})
    assert (refused["code"], refused["seq"]) == ("unknown_token", 7)
    for seq in range(MAX_TOKENS - 1):
        page.predict(seq, item, points=[[seq, 40]])
    refine = {"token": token, "candidate": 0}
    assert page.predict(100, item, points=[[60, 40]], refine=refine)["type"] == "prediction"  # and it is used again
    for seq in range(MAX_TOKENS):
        page.predict(seq, item, points=[[seq, 40]])
    assert page.exact(-1, item, points=[[60, 40]], refine=refine)["code"] == "unknown_token"


def test_newest_prediction_wins_and_no_exact_mask_is_dropped(tmp_path: Path, ref: ModelRef) -> None:
    with serving(tmp_path, ref) as state, connected(state) as page:
        item = add_picture(state.store, 0)
        for seq in range(1, 21):  # before there is an embedding
            page.send(type="predict", seq=seq, item=item, multimask=True, **asked(points=[[seq, 5]]))
            page.send(type="exact", seq=-seq, item=item, candidate=0, **asked(points=[[seq, 5]]))
        outcomes: dict[int, str] = {}
        while len(outcomes) < 40:
            message = page.receive()
            if "seq" in message:
                assert message["seq"] not in outcomes
                outcomes[message["seq"]] = message["type"]
        assert all(outcomes[-seq] == "mask" for seq in range(1, 21))
        assert outcomes[20] == "prediction"
        assert {outcomes[seq] for seq in range(1, 20)} <= {"busy", "prediction"}
        assert "busy" in outcomes.values()


def test_too_many_masks_at_once_are_refused_by_number(tmp_path: Path, ref: ModelRef) -> None:
    with serving(tmp_path, ref) as state, connected(state) as page:
        item = add_picture(state.store, 0)
        count = MAX_EXACT + 20
        for seq in range(1, count + 1):  # before there is an embedding
            page.send(type="exact", seq=-seq, item=item, candidate=0, **asked(points=[[seq, 5]]))
        answers = {}
        while len(answers) < count:
            message = page.receive_type("mask", "error")
            answers[message["seq"]] = message.get("code", "mask")
    assert sorted(answers) == list(range(-count, 0))
    assert set(answers.values()) == {"mask", "busy"}
    assert all(answers[-seq] == "mask" for seq in range(1, MAX_EXACT + 1))


def test_next_images_are_encoded_ahead(tmp_path: Path, ref: ModelRef) -> None:
    with serving(tmp_path, ref) as state:
        items = [add_picture(state.store, seed) for seed in range(4)]
        sha256s = [state.store.items.get(item).sha256 for item in items]
        with connected(state) as page:
            assert page.open(items[0]) == "ready"
            until(lambda: all(state.model_host.embeddings.get(sha256) for sha256 in sha256s[:3]))
            assert state.model_host.embeddings.get(sha256s[3]) is None
            page.send(type="open", item=items[1])
            message = page.receive_type("item")
            assert (message["id"], message["embedding"]) == (items[1], "ready")  # at once


def test_missing_image_fails_alone(page: Page, state: State, item: str) -> None:
    lost = add_picture(state.store, 5)
    state.store.items.file(lost).unlink()
    assert page.open(lost) == "failed"
    assert "missing" in page.seen[-1]["message"]
    assert "missing" in page.predict(3, lost, points=[[1, 1]])["message"]
    assert page.predict(4, item, points=[[1, 1]])["type"] == "prediction"


def test_unknown_item_is_an_error(page: Page, item: str) -> None:
    assert page.open("nothing") == "failed"
    assert page.predict(3, "nothing", points=[[1, 1]])["seq"] == 3
    assert page.predict(4, item, points=[[1, 1]])["type"] == "prediction"


def test_without_a_model_the_page_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, ModelRef(str(tmp_path / "none.pt"))) as state, connected(state) as page:
        item = add_picture(state.store, 0)
        until(lambda: state.model_host.description()["state"] == "failed")
        assert page.open(item) == "failed"
        refused = page.predict(1, item, points=[[1, 1]])
        assert refused["type"] == "error"
        assert "none.pt" in refused["message"]


def test_page_gets_the_state_of_the_model_and_news(page: Page, state: State) -> None:
    assert page.seen[0] == {"type": "model", **state.model_host.description()}
    state.events.publish({"type": "items_changed"})
    assert page.receive() == {"type": "items_changed"}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"points": [[500, 40]]}, "outside the image"),
        ({"points": [], "labels": []}, "empty"),
        ({"box": [50, 50, 10, 10]}, "no area"),
        ({"labels": []}, "labels"),
        ({"labels": [2]}, "labels"),
        ({"points": [[1, 2, 3]]}, "points"),
        ({"points": [["a", 2]]}, "points"),
        ({"points": [[1, 2]] * 300, "labels": [1] * 300}, "points"),
        ({"refine": {"token": "t"}}, "candidate"),
        ({"refine": {"token": "t", "candidate": 3}}, "candidate"),
        ({"item": 7}, "item"),
        ({"item": "x" * 1000}, "item"),
        ({"multimask": "yes"}, "multimask"),
    ],
)
def test_bad_prompt_is_answered_with_its_number(page: Page, item: str, change: dict[str, Any], part: str) -> None:
    good = {"type": "predict", "seq": 5, "item": item, "multimask": True, **asked(points=[[60, 40]])}
    page.send(**{**good, **change})
    answer = page.receive()
    assert (answer["type"], answer["seq"]) == ("error", 5)
    assert part in answer["message"]
    page.send(**good)
    assert page.receive()["type"] == "prediction"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"type": "nothing"}',
        '{"type": "predict"}',
        '{"type": "open", "item": null}',
        "[" * 10_000,
        '{"type": "open", "item": "' + "x" * 100_000 + '"}',
        '{"type": "predict", "seq": NaN, "points": [[NaN, 1e999]]}',
    ],
)
def test_malformed_message_is_answered_and_the_connection_goes_on(page: Page, item: str, text: str) -> None:
    page.socket.send_text(text)
    assert page.receive()["code"] == "invalid"
    page.socket.send_bytes(text.encode())
    assert page.receive()["code"] == "invalid"
    assert page.predict(1, item, points=[[60, 40]])["type"] == "prediction"


_NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.none())
_POINTS = st.lists(st.lists(st.one_of(st.floats(-10, 200), _NUMBERS), min_size=1, max_size=3), max_size=4)
_VALUES = st.recursive(
    st.one_of(_NUMBERS, st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(["predict", "exact", "open", "job", 3]),
    "seq": st.one_of(st.integers(-5, 5), _VALUES),
    "item": st.one_of(st.just("ITEM"), _VALUES),
    "multimask": st.one_of(st.booleans(), _VALUES),
    "candidate": st.one_of(st.none(), st.integers(-1, 4), _VALUES),
    "points": st.one_of(_POINTS, _VALUES),
    "labels": st.one_of(st.lists(st.integers(-1, 2), max_size=4), _VALUES),
    "box": st.one_of(st.none(), st.lists(st.floats(-10, 200), min_size=4, max_size=4), _VALUES),
    "refine": st.one_of(st.none(), st.fixed_dictionaries({"token": st.text(), "candidate": _NUMBERS}), _VALUES),
}
_MESSAGES = st.one_of(
    st.fixed_dictionaries(_FIELDS).map(json.dumps),
    st.fixed_dictionaries({}, optional=_FIELDS).map(json.dumps),
    _VALUES.map(json.dumps),
    st.text(max_size=50),
)


@given(texts=st.lists(_MESSAGES, max_size=5))
@settings(
    max_examples=int(os.environ.get("SEGANY_FUZZ", "100")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_message_ends_the_connection(page: Page, item: str, texts: list[str]) -> None:
    for text in texts:
        page.socket.send_text(text.replace("ITEM", item))
    page.send(type="exact", seq=-999, item=item, candidate=0, **asked(points=[[60, 40]]))
    while (answer := page.receive()).get("seq") != -999:
        assert answer["type"] in ("error", "busy", "prediction", "mask", "item", "model")
        assert "Traceback" not in answer.get("message", "")
    assert answer["type"] == "mask"


def test_images_that_come_next_in_the_page_are_encoded_ahead(ref: ModelRef, tmp_path: Path) -> None:
    """By name, as the page lists them, not in the order in which they were added."""
    with serving(tmp_path, ref) as served:
        items = {number: add_picture(served.store, number) for number in (9, 2, 5, 1, 3)}
        sha256s = {number: served.store.items.get(item).sha256 for number, item in items.items()}
        with connected(served) as opened:
            assert opened.open(items[2]) == "ready"
            until(lambda: served.model_host.embeddings.get(sha256s[5]) is not None)
        assert [number for number in items if served.model_host.embeddings.get(sha256s[number])] == [2, 5, 3]
