"""Colors by name, and paints to pick from at random. No torch."""

import numpy as np

Rng = np.random.Generator
Color = tuple[float, float, float] | np.ndarray  # red, green, blue in 0..1

DARK, WHITE, CREAM, GLASS = (0.12, 0.12, 0.15), (0.97, 0.97, 0.95), (0.93, 0.90, 0.84), (0.62, 0.80, 0.90)
BARK, METAL, WOOD = (0.38, 0.26, 0.18), (0.33, 0.35, 0.38), (0.62, 0.43, 0.27)
PAINTS = np.array(
    [
        *[(0.88, 0.14, 0.17), (0.95, 0.36, 0.22), (0.97, 0.56, 0.13), (0.99, 0.80, 0.20), (0.62, 0.78, 0.22)],
        *[(0.16, 0.62, 0.33), (0.07, 0.60, 0.60), (0.25, 0.67, 0.90), (0.13, 0.38, 0.80), (0.30, 0.24, 0.62)],
        *[(0.55, 0.29, 0.72), (0.83, 0.20, 0.56), (0.97, 0.55, 0.68), (0.96, 0.95, 0.93), (0.20, 0.21, 0.25)],
        *[(0.83, 0.65, 0.28), (0.74, 0.77, 0.81), (0.60, 0.83, 0.76), (0.98, 0.78, 0.66), (0.72, 0.70, 0.90)],
    ]
)
VIVID_PAINTS = PAINTS[:13]


def pick_color(rng: Rng, paints: np.ndarray = PAINTS) -> np.ndarray:
    """Return one of the paints, (N, 3), never quite the same one twice."""
    color = paints[rng.integers(len(paints))] * rng.uniform(0.86, 1.06) + rng.normal(0, 0.02, 3)
    return color.clip(0.02, 0.98)


def mixed(first: Color, second: Color, share: float) -> np.ndarray:
    """`share` of the second color in the first."""
    return np.asarray(first) * (1 - share) + np.asarray(second) * share
