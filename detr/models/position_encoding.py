"""Position embeddings: where on the feature map a token comes from.

Shapes: B images, D width of the transformer, H and W feature size.
"""

import math

import torch
from torch import Tensor, nn

from utils import UserError

LEARNED_GRID = 50  # rows and columns in the public files: 50 x 32 = 1600 pixels at stride 32, 800 at 16


class SinePositionEmbedding(nn.Module):
    """Fixed sines of the row and of the column, D/2 channels each (DETR, appendix A.4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.channels_per_axis = dim // 2

    def forward(self, padding_mask: Tensor) -> Tensor:
        """Map (B, H, W) bool, True on padding, to (B, D, H, W). Positions run over the image, not over its padding."""
        inside = (~padding_mask).to(torch.get_default_dtype())
        rows, columns = inside.cumsum(1), inside.cumsum(2)
        # Relative positions in (0, 2 pi]: an object half way down has the same embedding at every image size.
        rows = rows / (rows[:, -1:, :] + 1e-6) * (2 * math.pi)
        columns = columns / (columns[:, :, -1:] + 1e-6) * (2 * math.pi)
        return torch.cat((self._sines(rows), self._sines(columns)), dim=3).permute(0, 3, 1, 2)

    def _sines(self, positions: Tensor) -> Tensor:
        """Map (B, H, W) to (B, H, W, D/2): sine and cosine in turn, over a geometric range of wavelengths."""
        channel = torch.arange(self.channels_per_axis, device=positions.device)
        wavelength = 10000.0 ** (2 * (channel // 2).to(positions) / self.channels_per_axis)
        angles = positions[..., None] / wavelength
        return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(3)


class LearnedPositionEmbedding(nn.Module):
    """One learned vector per row and one per column, D/2 channels each, on a grid of at most 50 x 50."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(LEARNED_GRID, dim // 2)
        self.col_embed = nn.Embedding(LEARNED_GRID, dim // 2)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self, padding_mask: Tensor) -> Tensor:
        """Map (B, H, W) bool to (B, D, H, W). Raises UserError when the feature map is larger than the grid."""
        batch, height, width = padding_mask.shape
        if max(height, width) > LEARNED_GRID:
            raise UserError(
                f"--position_embedding learned knows {LEARNED_GRID} rows and columns, this batch has a feature map of "
                f"{height}x{width}; use smaller --scales and --max_size, neither --dilation nor --stride 16, or "
                "--position_embedding sine"
            )
        columns = self.col_embed.weight[:width].expand(height, width, -1)
        rows = self.row_embed.weight[:height, None].expand(height, width, -1)
        return torch.cat((columns, rows), dim=-1).permute(2, 0, 1).expand(batch, -1, -1, -1)
