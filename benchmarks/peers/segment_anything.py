"""The worker for the official SAM code."""

from __future__ import annotations

import torch
from segment_anything import sam_model_registry

from benchmarks.noise import noise_pixels
from benchmarks.protocol import Arrays, Call, Job, serve


def encoder(job: Job) -> Call:
    """The image encoder of ViT-B alone, on noise."""
    image_encoder = sam_model_registry["vit_b"](checkpoint=job.weights).to(job.device).eval().image_encoder
    pixels = torch.from_numpy(noise_pixels(image_encoder.img_size)).to(job.device)

    def call() -> Arrays:
        with torch.inference_mode():
            return {"embedding": image_encoder(pixels)[0].cpu().numpy()}

    return call


if __name__ == "__main__":
    serve({"encoder": encoder}, modules=("segment_anything", "torchvision"))
