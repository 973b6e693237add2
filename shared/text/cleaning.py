"""Placeholder until the rules are merged."""

from pydantic import BaseModel, ConfigDict


class TextRules(BaseModel):
    model_config = ConfigDict(frozen=True)

    def clean(self, text: str) -> str:
        return text
