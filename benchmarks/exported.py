"""The worker for exported models: segany's predictors with a runtime."""

from __future__ import annotations

import numpy as np

import segany
from benchmarks.protocol import Arrays, Call, Job, serve
from segany.predict.automatic import ProposingModel
from segany.runtime import open_export


def embed(job: Job) -> Call:
    """Image to embedding."""
    predictor, image = segany.ImagePredictor(_model(job)), job.pixels()
    return lambda: {"embedding": predictor.embed(image).features[0]}


def predict(job: Job) -> Call:
    """One point to three masks at the size of the image, with the embedding computed before."""
    predictor = segany.ImagePredictor(_model(job))
    embedding = predictor.embed(job.pixels())
    prompt = segany.Prompt(points_xy=[job.point_xy])

    def call() -> Arrays:
        prediction = predictor.predict(embedding, prompt, masks="multi")
        return {"masks": prediction.masks[0], "scores": prediction.scores[0]}

    return call


def automatic(job: Job) -> Call:
    """Automatic masks, sorted by area, the smallest first."""
    generator, image = segany.AutomaticMaskGenerator(_model(job)), job.pixels()

    def call() -> Arrays:
        instances = sorted(generator.generate(image), key=lambda instance: (instance.area, instance.box_xyxy))
        return {"masks": np.stack([instance.mask for instance in instances])}

    return call


def _model(job: Job) -> ProposingModel:
    """Load `job.weights`, a checkpoint or an exported folder, in the runtime that is the job's device."""
    if job.device == "torch":
        return segany.load(job.weights, device="cpu")
    return open_export(job.weights, job.device)


if __name__ == "__main__":
    serve({"embed": embed, "predict": predict, "automatic": automatic}, ("onnxruntime", "openvino"))
