"""The worker for segany."""

from __future__ import annotations

import numpy as np

import segany
from benchmarks.protocol import Arrays, Call, Job, serve


def embed(job: Job) -> Call:
    """Image to embedding."""
    predictor, image = _predictor(job), job.pixels()
    return lambda: {"embedding": predictor.embed(image).features[0]}


def predict(job: Job) -> Call:
    """One point to three masks at the size of the image, with the embedding ready."""
    predictor = _predictor(job)
    embedding = predictor.embed(job.pixels())
    return lambda: _masks(predictor, embedding, job)


def whole(job: Job) -> Call:
    """Everything: load the model, embed the image, predict once."""

    def call() -> Arrays:
        predictor = _predictor(job)
        return _masks(predictor, predictor.embed(job.pixels()), job)

    return call


def automatic(job: Job) -> Call:
    """Masks of everything, in an order of their own: the smallest first."""
    generator, image = segany.AutomaticMaskGenerator(segany.load(job.weights, device=job.device)), job.pixels()

    def call() -> Arrays:
        records = sorted(generator.generate(image), key=lambda record: (record.area, record.bbox_xywh))
        return {"masks": np.stack([record.mask for record in records])}

    return call


def encoder(job: Job) -> Call:
    """The image encoder alone, on noise."""
    import torch

    from benchmarks.noise import noise_pixels

    model = segany.load(job.weights, device=job.device)
    pixels = torch.from_numpy(noise_pixels(model.preprocessing.input_size)).to(job.device)

    def call() -> Arrays:
        with torch.inference_mode():
            return {"embedding": model.image_encoder(pixels)[0].cpu().numpy()}

    return call


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
        {"embed": embed, "predict": predict, "whole": whole, "encoder": encoder, "automatic": automatic},
        modules=("segany",),
    )
