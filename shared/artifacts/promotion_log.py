"""What was promoted when, and who may still promote: a value that knows no files."""

from typing import Self

from pydantic import BaseModel, ConfigDict

_REMEMBERED = 200


class Promotion(BaseModel):
    """One change of the live version."""

    model_config = ConfigDict(frozen=True)

    version: str
    at: float  # seconds since the epoch
    back: bool = False  # a rollback


class PromotionLog(BaseModel):
    """The last promotions, oldest first, and the fence."""

    model_config = ConfigDict(frozen=True)

    fence: int = 0
    promotions: tuple[Promotion, ...] = ()

    @property
    def live(self) -> str | None:
        return self.promotions[-1].version if self.promotions else None

    def lineage(self) -> list[str]:
        """What a rollback comes by, the live version last: promotions less those that were rolled back."""
        lineage: list[str] = []
        for promotion in self.promotions:
            if promotion.back:
                while lineage and lineage[-1] != promotion.version:
                    lineage.pop()
            if not lineage or lineage[-1] != promotion.version:
                lineage.append(promotion.version)
        return lineage

    def promoted(self, version: str, at: float, *, back: bool = False) -> Self:
        """As it is once `version` is live."""
        if version == self.live:
            return self
        entry = Promotion(version=version, at=at, back=back)
        return self.model_copy(update={"promotions": (*self.promotions, entry)[-_REMEMBERED:]})

    def fenced(self) -> Self:
        """With the fence one higher."""
        return self.model_copy(update={"fence": self.fence + 1})

    def agreeing_with(self, pointer: str | None, since: float) -> Self:
        """As the pointer says, which is the truth.

        The process that wrote the ledger may have died before it replaced the pointer; or a person did so by hand.

        Args:
            since: when the pointer was written, seconds since the epoch.
        """
        if self.live == pointer:
            return self
        before = self.model_copy(update={"promotions": self.promotions[:-1]})
        return before if pointer in (None, before.live) else self.promoted(pointer, since)
