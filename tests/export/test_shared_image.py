"""The image shared between prompts, as it is exported, makes the masks that the decoder makes."""

from __future__ import annotations

import pytest
import torch
from tests.export.exported import small_model

from segany.export.graphs import make_graphs
from segany.export.shared_image import ProposalsGraph, SharedImageGraph, image_products


@pytest.mark.parametrize("family", ["sam", "mobile_sam", "sam2"])
@torch.no_grad()
def test_proposals_are_those_of_the_decoder(family: str) -> None:
    model = small_model(family).module
    size = model.preprocessing.input_size
    generator = torch.Generator().manual_seed(0)
    features = model.encode_features(torch.randn(1, 3, size, size, generator=generator))
    share = SharedImageGraph(model)
    another = share.share([feature + 1 for feature in features])  # weights alone may be taken from it
    points, labels = torch.rand(5, 2, 2, generator=generator) * size, torch.tensor([[1, -1]] * 5)
    low_res, iou = ProposalsGraph(model, another)(points, labels, *share(*features))
    expected, expected_iou = model.decode_features([x[0] for x in features], points, labels, multimask=True)
    torch.testing.assert_close(iou, expected_iou, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(low_res, expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_each_image_has_tensors_of_its_own() -> None:
    share = SharedImageGraph(small_model("sam").module)
    size = share.model.preprocessing.input_size
    one, other = (
        image_products(share.share(share.model.encode_features(torch.full((1, 3, size, size), level))))
        for level in (-1.0, 1.0)
    )
    assert one.keys() == other.keys()
    assert all((one[name] != other[name]).any() for name in one)


def test_graphs_name_what_they_pass_on() -> None:
    graphs = {graph.name: graph for graph in make_graphs(small_model("sam").module)}
    passed_on = graphs["shared_image"].outputs
    assert tuple(graphs["proposals"].inputs) == ("points", "labels", *passed_on)
