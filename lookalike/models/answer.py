"""The base class of all models of answers."""

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """An answer of the service, or part of one: frozen, and fields that a newer service adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())
