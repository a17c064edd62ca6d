"""The messages of the WebSocket, from the page and to it, as in the page's `api/types.ts`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from segany.core.arrays import FloatArray
from segany.core.errors import SeganyError
from segany.core.prompt import Prompt

MAX_MESSAGE = 1 << 16
"""Characters of a message, far above those of the most points."""

MAX_POINTS = 256

QUANTIZATION = 8 / 127
"""Logits of 8 and more are as good as certain; int8 has no room for them. The page's own decoder does the same."""

MAX_SEQ = 2**53
"""Integers up to this are exact in JavaScript."""


class LiveError(SeganyError):
    """A message cannot be answered.

    Attributes:
        seq: the number of the request, if it had one.
        code: for the page; None where the message says all.
    """

    def __init__(self, message: str, seq: int | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.seq, self.code = seq, code


Id: TypeAlias = Annotated[str, Field(min_length=1, max_length=100)]
Seq: TypeAlias = Annotated[int, Field(ge=-MAX_SEQ, le=MAX_SEQ)]
Coordinate: TypeAlias = Annotated[float, Field(allow_inf_nan=False, ge=-1e7, le=1e7)]
Candidate: TypeAlias = Annotated[int, Field(ge=0, le=2)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    item: Id


class Refine(BaseModel):
    """The candidate of an earlier prediction whose logits are fed back."""

    model_config = ConfigDict(frozen=True, strict=True)

    token: Id
    candidate: Candidate


class Open(_Message):
    """Somebody looks at an item."""

    type: Literal["open"]


class WantDecoder(BaseModel):
    """The server is slow for this page, which would rather decode itself."""

    model_config = ConfigDict(frozen=True, strict=True)

    type: Literal["want_decoder"]


class _Prompted(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)

    points: Annotated[list[tuple[Coordinate, Coordinate]], Field(max_length=MAX_POINTS)]
    labels: Annotated[list[Literal[0, 1]], Field(max_length=MAX_POINTS)]
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None

    @model_validator(mode="after")
    def _check_lengths(self) -> _Prompted:
        if len(self.points) != len(self.labels):
            raise ValueError(f"there are {len(self.points)} points and {len(self.labels)} labels")
        return self

    def prompt(self, mask_logits: FloatArray | None) -> Prompt:
        """The prompt for the predictor.

        Raises:
            PromptError: it is empty, or the box has no area.
        """
        return Prompt(
            points_xy=self.points or None, labels=self.labels or None, box_xyxy=self.box, mask_logits=mask_logits
        )


class Step(_Prompted):
    """A prediction that was shown, and the candidate whose logits were fed back into the next one."""

    multimask: bool
    candidate: Candidate

    @model_validator(mode="after")
    def _check_candidate(self) -> Step:
        if self.candidate > 0 and not self.multimask:
            raise ValueError("a single mask has one candidate")
        return self


class _PromptMessage(_Message, _Prompted):
    """A prompt of a page.

    Attributes:
        seq: number of the request.
        refine: the prediction whose logits are fed back.
        steps: the predictions that led to it, oldest first: in place of `refine`, where the connection does not have
            that prediction, such as after a restart of the server. They are made again.
    """

    seq: Seq
    refine: Refine | None = None
    steps: Annotated[list[Step], Field(max_length=MAX_POINTS)] = []


class Predict(_PromptMessage):
    """A prompt whose low-res logits are to be shown; the newest one wins."""

    type: Literal["predict"]
    multimask: bool


class Exact(_PromptMessage):
    """A prompt whose mask is to be stored, at the size of the image.

    Attributes:
        candidate: of the three; None for the single mask.
    """

    type: Literal["exact"]
    candidate: Candidate | None = None


Up: TypeAlias = "Open | WantDecoder | Predict | Exact"

_UP: TypeAdapter[Up] = TypeAdapter(Annotated[Open | WantDecoder | Predict | Exact, Field(discriminator="type")])


def read_message(text: str | None) -> Up:
    """Read a message of the page; None is one of bytes.

    Raises:
        LiveError: it is none.
    """
    if text is None or len(text) > MAX_MESSAGE:
        raise LiveError(f"A message is text of at most {MAX_MESSAGE} characters.", code="invalid")
    try:
        return _UP.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        what = f"{place}: {first['msg']}" if place else first["msg"]
        raise LiveError(f"The message is not valid: {what[:300]}.", _seq_of(text), "invalid") from None


def _seq_of(text: str) -> int | None:
    """The number of a request that is not valid otherwise, so that the page need not wait for its answer."""
    try:
        seq = pydantic_core.from_json(text).get("seq")
    except (ValueError, AttributeError):
        return None
    return seq if type(seq) is int and abs(seq) <= MAX_SEQ else None


def quantized(low_res: FloatArray) -> npt.NDArray[np.int8]:
    """Logits in int8, in units of `QUANTIZATION`, rounded away from zero: their sign is the mask."""
    scaled = low_res * np.float32(1 / QUANTIZATION)
    rounded = np.copysign(np.ceil(np.abs(scaled)), scaled)
    return np.asarray(np.clip(rounded, -127, 127), dtype=np.int8)


def error_message(error: LiveError) -> dict[str, Any]:
    """The answer to what cannot be answered."""
    facts = {"seq": error.seq, "code": error.code}
    return {"type": "error", "message": str(error), **{k: v for k, v in facts.items() if v is not None}}
