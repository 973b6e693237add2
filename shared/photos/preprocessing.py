"""The preprocessing spec: how a photo becomes the network's input. `shared.photos.images` applies it."""

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Fit: TypeAlias = Literal["letterbox", "crop", "stretch"]


class PreprocessSpec(BaseModel):
    """How a photo is made square for the network; stored in the bundle and part of its fingerprint."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # Raise when the same bytes would give other pixels: an earlier version ignores fields that it does not know.
    version: Literal[1] = 1
    size_px: int = Field(224, ge=32, le=1024)
    fit: Fit = "letterbox"  # all of it between bars; its middle square; all of it, out of shape
    fill: int = Field(0, ge=0, le=255)  # grey level of the bars

    @property
    def n_bytes(self) -> int:
        """Size of the pixels in bytes."""
        return 3 * self.size_px**2

    def __str__(self) -> str:
        bars = f" on grey {self.fill}" if self.fit == "letterbox" and self.fill else ""
        return f"{self.fit} {self.size_px} px{bars}"
