"""BundleInputs: what a model bundle is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.feedback.lessons import NO_LESSONS, Lessons
from pipeline.training.weights.loading import LoadedWeights
from pipeline.training.words.sentences import Sentences
from shared.catalogue.tables import Catalogue
from shared.model.bundle import Split


@dataclass(frozen=True)
class BundleInputs:
    """What a bundle is made from: a network with trained trunk, and the catalogue its head is or was fitted on.

    Attributes:
        loaded: the weights and where they come from.
        catalogue: its photos, categories, attributes and paths.
        split: listings to train, validate and test on; all empty if the head came with the weights.
        recipe: how the network was trained, for the manifest.
        project: whether to fit a projection, which is kept if retrieval on validation photos gets better.
        history: one entry for each epoch, as the training loop reports it.
        notes: what was decided while it was trained.
        sentences: a sentence encoder beside the catalogue's words.
        lessons: from feedback; the network's head is trained on them already.
    """

    loaded: LoadedWeights
    catalogue: Catalogue
    split: Split
    recipe: str
    project: bool
    history: Sequence[Mapping[str, float]] = ()
    notes: Mapping[str, float | str] = field(default_factory=dict)
    sentences: Sentences | None = None
    lessons: Lessons = NO_LESSONS
