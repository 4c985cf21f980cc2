"""Overlaps of boxes against torchvision and hand-made cases."""

import pytest
import torch
from torchvision.ops import box_convert, box_iou, generalized_box_iou

from detr import box_ops as boxes
from detr.data.coco_json import iou_xywh


def random_xyxy(count: int, seed: int) -> torch.Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)).sort(dim=1).values
    return corners.flatten(1)


def test_normalize_divides_by_width_and_height() -> None:
    got = boxes.normalize_cxcywh(torch.tensor([[10.0, 20.0, 30.0, 60.0]]), (100, 200))
    torch.testing.assert_close(got, torch.tensor([[0.1, 0.4, 0.1, 0.4]]))


@pytest.mark.parametrize(("count1", "count2"), [(0, 0), (0, 3), (5, 8)])
def test_pairwise_overlaps_equal_torchvision(count1: int, count2: int) -> None:
    a, b = random_xyxy(count1, 1), random_xyxy(count2, 2)
    torch.testing.assert_close(boxes.generalized_box_iou(a[:, None], b[None]), generalized_box_iou(a, b))


def test_iou_of_coco_boxes_equals_torchvision() -> None:
    a, b = random_xyxy(50, 3).double(), random_xyxy(50, 4).double()
    a_xywh, b_xywh = (box_convert(x, "xyxy", "xywh").numpy() for x in (a, b))
    torch.testing.assert_close(torch.from_numpy(iou_xywh(a_xywh, b_xywh)), box_iou(a, b).diagonal())
    assert iou_xywh(a_xywh[:0], b_xywh[:0]).shape == (0,)


def test_overlaps_of_known_boxes() -> None:
    a = torch.tensor([0.0, 0.0, 2.0, 2.0])
    apart = torch.tensor([4.0, 0.0, 6.0, 2.0])  # encloses 12, covers 8: GIoU = -4/12
    assert boxes.generalized_box_iou(a, a) == 1
    torch.testing.assert_close(boxes.generalized_box_iou(a, apart), torch.tensor(-1 / 3))


def test_empty_boxes_give_numbers_not_nan() -> None:
    point = torch.tensor([1.0, 1.0, 1.0, 1.0], requires_grad=True)
    value = boxes.generalized_box_iou(point, torch.ones(4))
    value.backward()
    assert value == 0 and torch.isfinite(point.grad).all()
