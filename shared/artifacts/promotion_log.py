"""The promotion log as a value: what was promoted when, and who may still promote. Backends read and write it."""

from typing import Self

from pydantic import BaseModel, ConfigDict

_REMEMBERED = 200


class Promotion(BaseModel):
    """One change of the live version.

    Attributes:
        at: seconds since the epoch.
        back: whether it was a rollback.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    at: float
    back: bool = False


class PromotionLog(BaseModel):
    """The last promotions, oldest first, and the fence.

    Attributes:
        fence: the highest number that `ArtifactStore.take_fence` gave.
    """

    model_config = ConfigDict(frozen=True)

    fence: int = 0
    promotions: tuple[Promotion, ...] = ()

    @property
    def live(self) -> str | None:
        """The version promoted last, None when none ever was."""
        return self.promotions[-1].version if self.promotions else None

    def lineage(self) -> list[str]:
        """The versions that rollbacks go back through, the live one last: promotions less those rolled back."""
        lineage: list[str] = []
        for promotion in self.promotions:
            if promotion.back:
                while lineage and lineage[-1] != promotion.version:
                    lineage.pop()
            if not lineage or lineage[-1] != promotion.version:
                lineage.append(promotion.version)
        return lineage

    def promoted(self, version: str, at: float, *, back: bool = False) -> Self:
        """The log once `version` is live; itself if that is live already."""
        if version == self.live:
            return self
        entry = Promotion(version=version, at=at, back=back)
        return self.model_copy(update={"promotions": (*self.promotions, entry)[-_REMEMBERED:]})

    def fenced(self) -> Self:
        """The log with the fence one higher."""
        return self.model_copy(update={"fence": self.fence + 1})

    def agreeing_with(self, pointer: str | None, since: float) -> Self:
        """The log corrected by the pointer, which decides what is live.

        The process that wrote the log may have died before it replaced the pointer; or a person replaced it by hand.

        Args:
            pointer: the live version.
            since: when the pointer was written, seconds since the epoch.
        """
        if self.live == pointer:
            return self
        before = self.model_copy(update={"promotions": self.promotions[:-1]})
        return before if pointer in (None, before.live) else self.promoted(pointer, since)
