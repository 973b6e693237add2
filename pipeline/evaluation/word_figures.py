"""The figures of queries with words; `pipeline/evaluation/words.py` measures them."""

from pipeline.evaluation.intervals import Figures, Interval


class Figure(Figures):
    """A mean over unseen photos with its 95 % bootstrap interval over listings."""

    value: float
    interval: Interval


class WordsFigures(Figures):
    """Figures of unseen photos whose listing has words.

    Attributes:
        n_photos, n_listings: how many.
        accuracy: by kind of query: photo, title, words (all that the listing has), photo_and_title, photo_and_words.
        accuracy_gain: of the kinds with both, over the better of their parts, paired.
        ece: expected calibration error of the answers, by kind.
        precision_at_4: own listing excluded; in addition words_to_photos, which compares words with photos alone.
        found_at_10: title_to_photos, words_to_photos: words alone, compared with photos alone, find a photo of their
            own listing within ten among all unseen photos.
    """

    n_photos: int
    n_listings: int
    accuracy: dict[str, Figure]
    accuracy_gain: dict[str, Figure]
    ece: dict[str, float]
    precision_at_4: dict[str, Figure]
    found_at_10: dict[str, Figure]

    def summary(self) -> dict[str, float]:
        """The figures of a bundle's manifest."""
        figures = {f"accuracy_{kind}": found.value for kind, found in self.accuracy.items() if kind != "photo"}
        figures |= {f"ece_{kind}": value for kind, value in self.ece.items() if kind.startswith("photo_and")}
        figures |= {f"precision_at_4_{kind}": one.value for kind, one in self.precision_at_4.items() if kind != "photo"}
        return figures | {f"found_at_10_{kind}": found.value for kind, found in self.found_at_10.items()}
