# SPDX-License-Identifier: Apache-2.0
"""The background of a window where no matte tells it: what moves as the camera does.

The reference asks a network for salient objects. Motion needs no weights, and is what background smoothing depends on:
a picture can be carried along the flow where the whole scene moves as one, and had better not be where it does not.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fresco_backend.engine.flow import Flow

SAMPLE_EVERY = 8  # pixels, along both sides: as dense as the features that are carried
REPROJECTION = 1.0
"""Pixels by which the flow of the background may miss the camera's; OpenCV's DIS misses by some 0.3."""
RELATIVE = 0.1
"""Part of the camera's median motion that is allowed besides: depth and lenses bend it."""
DOMINANT = 0.25
"""Share of visible samples that must follow one motion; below it nothing is background."""
SPECKLE = 5  # side in pixels of the median that removes lone errors of the flow

Plane = NDArray[np.float32]


def moving_background(flow: Flow) -> Tensor:
    """Give what moves as the camera does to both neighbours: (N, 1, H, W) in [0, 1], 1 = background.

    The camera's motion between two frames is the homography that most of the flow agrees on (RANSAC; Fischler and
    Bolles, 1981). Where there is no such motion, nothing is background. The pair that closes the cycle has no say: it
    is furthest apart in time. A lone frame is background altogether.
    """
    shares = torch.ones(flow.frames, 1, *flow.forward.shape[2:])
    for k in range(flow.frames - 1):
        shares[k, 0] = torch.minimum(shares[k, 0], _share(flow.forward[k], flow.forward_occlusion[k]))
        shares[k + 1, 0] = torch.minimum(shares[k + 1, 0], _share(flow.backward[k], flow.backward_occlusion[k]))
    return shares.to(flow.forward.device)


def _share(motion: Tensor, occlusion: Tensor) -> Tensor:
    """Give how surely each pixel follows the camera: motion (2, H, W), occlusion (H, W) -> (H, W) in [0, 1]."""
    field = motion.permute(1, 2, 0).float().cpu().numpy()
    camera = _camera(field, occlusion.cpu().numpy() < 0.5)
    if camera is None:
        return torch.zeros(field.shape[:2])
    allowed = REPROJECTION + RELATIVE * float(np.median(np.linalg.norm(camera, axis=-1)))
    missed = np.linalg.norm(field - camera, axis=-1) / allowed
    certain = cv2.medianBlur(np.clip(2 - missed, 0, 1).astype(np.float32), SPECKLE)
    return torch.from_numpy(np.asarray(certain, dtype=np.float32))


def _camera(field: Plane, visible: NDArray[np.bool_]) -> Plane | None:
    """Give the flow (H, W, 2) that a moving camera alone would make, None where no motion dominates."""
    height, width = field.shape[:2]
    places = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    grid = np.s_[SAMPLE_EVERY // 2 :: SAMPLE_EVERY, SAMPLE_EVERY // 2 :: SAMPLE_EVERY]
    here = places[grid][visible[grid]]
    if len(here) < 16:
        return None
    cv2.setRNGSeed(0)  # same shot, same bits
    found, inliers = cv2.findHomography(here, here + field[grid][visible[grid]], cv2.RANSAC, REPROJECTION)
    if found is None or inliers.mean() < DOMINANT:
        return None
    moved = cv2.perspectiveTransform(places.reshape(-1, 1, 2), found).reshape(places.shape)
    return np.asarray(moved - places, dtype=np.float32)
