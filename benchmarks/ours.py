"""The worker for segany."""

from __future__ import annotations

import atexit
from pathlib import Path

import numpy as np

import segany
from benchmarks.protocol import RESIDENT, Arrays, Call, Job, resident_bytes, serve


def embed(job: Job) -> Call:
    """Image to embedding, including the high-resolution features of models that have them."""
    predictor, image = _predictor(job), job.pixels()

    def call() -> Arrays:
        features = predictor.embed(image).features
        return {"embedding": features[0], **{f"high_res_feats_{level}": one for level, one in enumerate(features[1:])}}

    return call


def predict(job: Job) -> Call:
    """One point to three masks at the size of the image, with the embedding computed before."""
    predictor = _predictor(job)
    embedding = predictor.embed(job.pixels())
    return lambda: _masks(predictor, embedding, job)


def whole(job: Job) -> Call:
    """The whole process: load the model, embed the image, predict once."""

    def call() -> Arrays:
        predictor = _predictor(job)
        return _masks(predictor, predictor.embed(job.pixels()), job)

    return call


def automatic(job: Job) -> Call:
    """Automatic masks, sorted by area, the smallest first."""
    generator, image = segany.AutomaticMaskGenerator(segany.load(job.weights, device=job.device)), job.pixels()

    def call() -> Arrays:
        instances = sorted(generator.generate(image), key=lambda instance: (instance.area, instance.box_xyxy))
        return {"masks": np.stack([instance.mask for instance in instances])}

    return call


def encoder(job: Job) -> Call:
    """The image encoder alone, on noise."""
    import torch

    from benchmarks.noise import noise_pixels

    model = segany.load(job.weights, device=job.device).module
    pixels = torch.from_numpy(noise_pixels(model.preprocessing.input_size)).to(job.device)

    def call() -> Arrays:
        with torch.inference_mode():
            return {"embedding": model.image_encoder(pixels)[0].cpu().numpy()}

    return call


def track(job: Job) -> Call:
    """Track all objects to the next frame of a clip: read and encode the frame, predict masks at its size."""
    session = _session(job, job.clip)
    atexit.register(session.close)
    results = session.propagate(logits=True)

    def call() -> Arrays:
        result = next(results)
        assert result.mask_logits is not None
        return {"masks": result.masks, "mask_logits": result.mask_logits}

    return call


def track_60(job: Job) -> Call:
    """60 frames."""
    return track_many(job, 60, compared=59)


def track_300(job: Job) -> Call:
    """300 frames, of which the first 60 are those of `track_60`."""
    return track_many(job, 300, compared=59)


def track_many(job: Job, frames: int, compared: int) -> Call:
    """Track objects through a number of frames, repeating the clip. Returns the masks of one frame."""
    images = sorted(Path(job.clip).glob("*.jpg"))

    def call() -> Arrays:
        with _session(job, [images[frame % len(images)] for frame in range(frames)]) as session:
            resident = [resident_bytes() for _ in session.propagate()]
            result = session.result(compared)
        assert result is not None
        return {"masks": result.masks, RESIDENT: np.array(resident)}

    return call


def _session(job: Job, frames: str | list[Path]) -> segany.FileVideoSession:
    """A session with prompted objects, and the settings of the peer without its post-processing."""
    config = segany.VideoConfig(binarize_prompted=False, remember_corrections=False)
    session = segany.VideoPredictor(segany.load(job.weights, device=job.device), config).open(frames)
    for object_id, point_xy in enumerate(job.points_xy):
        session.prompt(0, object_id, segany.Prompt(points_xy=[point_xy]))
    return session


def _predictor(job: Job) -> segany.ImagePredictor:
    return segany.ImagePredictor(segany.load(job.weights, device=job.device))


def _masks(predictor: segany.ImagePredictor, embedding: segany.Embedding, job: Job) -> Arrays:
    prediction = predictor.predict(embedding, segany.Prompt(points_xy=[job.point_xy]), masks="multi")
    return {
        "masks": prediction.masks[0],
        "scores": prediction.scores[0],
        "low_res_logits": prediction.low_res_logits[0],
    }


if __name__ == "__main__":
    serve(
        {
            "embed": embed,
            "predict": predict,
            "whole": whole,
            "encoder": encoder,
            "automatic": automatic,
            "track": track,
            "track_60": track_60,
            "track_300": track_300,
        },
        modules=("segany",),
    )
