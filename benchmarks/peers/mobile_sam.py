"""The worker for the official MobileSAM code."""

from __future__ import annotations

import numpy as np
from mobile_sam import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry

from benchmarks.protocol import Arrays, Call, Job, serve


def embed(job: Job) -> Call:
    """Image to embedding."""
    predictor, image = _predictor(job), job.pixels()

    def call() -> Arrays:
        predictor.set_image(image)
        return {"embedding": predictor.features[0].cpu().numpy()}

    return call


def predict(job: Job) -> Call:
    """One point to three masks at the size of the image, with the embedding computed before."""
    predictor = _predictor(job)
    predictor.set_image(job.pixels())
    return lambda: _masks(predictor, job)


def whole(job: Job) -> Call:
    """The whole process: load the model, embed the image, predict once."""

    def call() -> Arrays:
        predictor = _predictor(job)
        predictor.set_image(job.pixels())
        return _masks(predictor, job)

    return call


def automatic(job: Job) -> Call:
    """Automatic masks, sorted by area, the smallest first."""
    generator, image = SamAutomaticMaskGenerator(_predictor(job).model), job.pixels()

    def call() -> Arrays:
        records = sorted(generator.generate(image), key=lambda record: (record["area"], tuple(record["bbox"])))
        return {"masks": np.stack([record["segmentation"] for record in records])}

    return call


def _predictor(job: Job) -> SamPredictor:
    return SamPredictor(sam_model_registry["vit_t"](checkpoint=job.weights).to(job.device).eval())


def _masks(predictor: SamPredictor, job: Job) -> Arrays:
    masks, scores, low_res_logits = predictor.predict(
        point_coords=np.array([job.point_xy]), point_labels=np.array([1]), multimask_output=True
    )
    return {"masks": masks, "scores": scores, "low_res_logits": low_res_logits}


if __name__ == "__main__":
    serve(
        {"embed": embed, "predict": predict, "whole": whole, "automatic": automatic},
        modules=("mobile_sam", "torchvision", "timm"),
    )
