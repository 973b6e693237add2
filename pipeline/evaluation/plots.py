"""Plots of a bundle's evaluation as PNG files, one function each.

Colours are distinguishable for colour-blind readers, and line styles, markers or hatching repeat what a colour says.
"""

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from pipeline.evaluation.evaluate import Classification, ReliabilityBin
from shared.array_types import FloatArray, IntArray
from shared.photos.images import Pixels

# Okabe and Ito 2008, "Color Universal Design".
_BLUE, _ORANGE, _GREEN, _VERMILLION, _SKY, _PURPLE, _BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000",
)  # fmt: skip
_COLOURS = (_BLUE, _ORANGE, _GREEN, _VERMILLION, _SKY, _PURPLE, _BLACK)
_MOST_DRAWN = 40  # categories; more cannot be read
_DPI = 110
_ALL = (-0.02, 1.02)  # from 0 to 100 % with room for what lies at the ends
_MAP_DIM = 50
_PERPLEXITY = 30
_MAP_STEPS = 500  # the usual 1,000 take twice the time and move little


class SimilarPhoto(NamedTuple):
    """One photo of a query's result grid: the query itself, or a neighbour."""

    pixels: Pixels
    category: str
    score: float | None = None  # cosine similarity; None: the query
    same_category: bool = True
    same_listing: bool = False


def draw_history(history: Sequence[dict[str, float]], path: Path, *, title: str) -> None:
    """Plot training and validation loss and accuracy by epoch.

    Args:
        history: epoch, train_loss, val_loss, train_accuracy, val_accuracy; what an epoch lacks is left out.
        path: of the PNG.
        title: names the bundle.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(f"Training\n{title}")
    lines = (("train", "training", _BLUE, "o-"), ("val", "validation", _ORANGE, "s--"))
    for axes, figure_name, label in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("loss (nats)", "accuracy"), strict=True
    ):
        for side, name, colour, style in lines:
            key = f"{side}_{figure_name}"
            points = [(epoch["epoch"], epoch[key]) for epoch in history if epoch.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, markersize=4, label=name)
                axes.legend()
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if figure_name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.savefig(path, dpi=_DPI)


def _largest(counts: Sequence[int]) -> list[int]:
    """Positions of the categories to draw, in their order: all, or of many those with the most photos."""
    if len(counts) <= _MOST_DRAWN:
        return list(range(len(counts)))
    return sorted(sorted(range(len(counts)), key=lambda position: -counts[position])[:_MOST_DRAWN])


def draw_confusion(found: Classification, path: Path, *, title: str) -> None:
    """Plot the confusion matrix: counts, shaded by their share of the category; of many categories the largest."""
    drawn = _largest([category.n for category in found.categories])
    shown = [found.categories[position] for position in drawn]
    counts = np.array(found.confusion)[np.ix_(drawn, drawn)]
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with _picture(path, f"Confusion: {found.n_photos} unseen photos\n{title}", (10, 8.5)) as axes:
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*counts.shape):
            if counts[row, column]:
                ink = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=ink, fontsize=8)
        ticks = range(len(shown))
        axes.set_xticks(ticks, [c.name for c in shown], rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(ticks, [f"{c.name} ({c.n})" for c in shown])
        axes.set(xlabel="answer", ylabel="category (photos)")
        bar = axes.figure.colorbar(image, ax=axes, shrink=0.7, label="share of the category's photos")
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1))


def draw_categories(found: Classification, path: Path, *, title: str) -> None:
    """Plot precision, recall and F1 of each category; of many the largest."""
    shown = [found.categories[position] for position in _largest([category.n for category in found.categories])]
    rows = np.arange(len(shown))
    with _picture(path, f"Per category: {found.n_photos} unseen photos\n{title}", (9, 7)) as axes:
        axes.barh(rows - 0.2, [c.precision for c in shown], 0.38, color=_BLUE, label="precision")
        axes.barh(
            rows + 0.2, [c.recall for c in shown], 0.38,
            color=_ORANGE, hatch="//", edgecolor="white", label="recall",
        )  # fmt: skip
        axes.plot([c.f1 for c in shown], rows, "D", color=_BLACK, markersize=5, label="F1")
        axes.axvline(found.accuracy, color="grey", linestyle=":", label=f"accuracy of all, {found.accuracy:.1%}")
        axes.set_yticks(rows, [f"{c.name} ({c.n})" for c in shown])
        axes.invert_yaxis()
        axes.set(xlim=_ALL, xlabel="share of photos", ylabel="category (photos)")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.figure.legend(loc="outside lower center", ncols=4)


def draw_reliability(found: Classification, path: Path, *, title: str, temperature: float) -> None:
    """Plot the reliability diagram before and after temperature scaling."""
    with _picture(path, f"Reliability: {found.n_photos} unseen photos\n{title}", (6.5, 7)) as axes:
        axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="as sure as right")
        sides = (
            (found.uncalibrated, "before", _ORANGE, "s--"),
            (found.calibrated, f"after, temperature {temperature:.2f}", _BLUE, "o-"),
        )
        for side, name, colour, style in sides:
            label = f"{name}: ECE {side.ece:.3f}, NLL {side.nll:.3f} nats"
            axes.plot(*_curve(side.bins), style, color=colour, markersize=5, label=label)
        axes.set(xlim=_ALL, ylim=_ALL, xlabel="probability of the answer", ylabel="answers that are right")
        _percent(axes)
        axes.set_aspect("equal")
        axes.figure.legend(loc="outside lower center")


def draw_abstention(found: Classification, path: Path, *, title: str, abstain_below: float) -> None:
    """Plot accuracy against coverage when answers below a probability are withheld."""
    with _picture(path, f"Answering only when sure: {found.n_photos} unseen photos\n{title}", (7.5, 5)) as axes:
        coverage, accuracy = [p.coverage for p in found.abstention], [p.accuracy for p in found.abstention]
        axes.plot(coverage, accuracy, "o-", color=_BLUE, markersize=4, label="accuracy of the photos answered")
        for point in found.abstention[3::4]:
            at = (point.coverage, point.accuracy)
            axes.annotate(f"p ≥ {point.threshold:.2f}", at, (0, 8), textcoords="offset points", fontsize=8, ha="left")
        axes.axhline(found.majority, color="grey", linestyle=":", label=f"most frequent category, {found.majority:.1%}")
        answered = [point for point in found.abstention if point.threshold >= abstain_below]
        if abstain_below and answered:
            label = f"the bundle's limit: certain from p = {abstain_below:.2f}"
            axes.axvline(answered[-1].coverage, color=_VERMILLION, linestyle="--", label=label)
        axes.set(xlim=(0, 1.1), ylim=(0, 1.1), xlabel="photos answered", ylabel="answers that are right")
        _percent(axes)
        axes.grid(alpha=0.3)
        axes.figure.legend(loc="outside lower center", ncols=2)


def draw_similar(found: Sequence[SimilarPhoto], path: Path, *, title: str) -> None:
    """Plot a query and its nearest neighbours, in two rows.

    Args:
        found: the query first, then the neighbours, most similar first.
        path: of the PNG.
        title: names the bundle.
    """
    n_columns = (len(found) + 1) // 2
    figure = Figure(figsize=(2.4 * n_columns, 6.4), layout=ConstrainedLayoutEngine(hspace=0.06))
    figure.suptitle(f"A photo the bundle has never seen, and the most similar ones\n{title}", fontsize=11)
    places = figure.subplots(2, n_columns, squeeze=False).flatten()
    for axes in places:
        axes.set(xticks=[], yticks=[], frame_on=False)
    for photo, axes in zip(found, places, strict=False):
        axes.imshow(photo.pixels)
        remark = "query" if photo.score is None else f"score {photo.score:.3f}"
        remark += ", same listing" if photo.same_listing else "" if photo.same_category else ", other category"
        axes.set_title(remark, fontsize=9, fontweight="bold" if photo.score is None else "normal")
        axes.set_xlabel(photo.category.replace(", ", ",\n", 1) if len(photo.category) > 26 else photo.category)
        axes.xaxis.label.set_fontsize(9)
        axes.set_frame_on(True)
        for edge in axes.spines.values():
            edge.set(
                color=_BLACK if photo.score is None else _BLUE if photo.same_category else _VERMILLION,
                linestyle="-" if photo.same_category else "--",
                linewidth=3,
            )
    figure.savefig(path, dpi=_DPI)


def draw_map(
    vectors: FloatArray, labels: IntArray, categories: Sequence[str], path: Path, *, title: str, seed: int = 17
) -> None:
    """Plot photos in the plane, similar ones near each other: t-SNE of the leading principal components.

    Args:
        vectors: (n, dim), L2 norm 1; n >= 4, and a few thousand at most.
        labels: (n,) positions in `categories`; of many the most frequent are told apart.
        categories: their names.
        path: of the PNG.
        title: names the bundle.
        seed: of t-SNE.
    """
    n_components = min(_MAP_DIM, *vectors.shape)
    leading = PCA(n_components, svd_solver="full").fit_transform(vectors)
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", max_iter=_MAP_STEPS, random_state=seed).fit_transform(leading)
    with _picture(path, f"Map of {len(vectors)} photos: near means similar\n{title}", (11, 8)) as axes:
        drawn = _largest(np.bincount(labels, minlength=len(categories)).tolist())
        others = np.isin(labels, drawn, invert=True)
        if others.any():
            axes.scatter(points[others, 0], points[others, 1], s=9, color="lightgrey", label=f"others ({others.sum()})")
        for category, name in ((position, categories[position]) for position in drawn):
            mine = labels == category
            if mine.any():
                axes.scatter(
                    points[mine, 0], points[mine, 1], s=16, linewidths=1, label=f"{name} ({mine.sum()})",
                    color=_COLOURS[category % len(_COLOURS)], marker="o" if category < len(_COLOURS) else "x",
                )  # fmt: skip
        axes.set(xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)", xticks=[], yticks=[])
        axes.figure.legend(loc="outside right center")


def write_page(pictures: Sequence[tuple[str, str]], path: Path, *, title: str) -> None:
    """Write an HTML page that shows all pictures.

    Args:
        pictures: file name and description of each, in order.
        path: of the page.
        title: its heading.
    """
    shown = "\n".join(
        f'<figure><img src="{html.escape(name)}" alt="{html.escape(about)}"><figcaption>{html.escape(about)}'
        "</figcaption></figure>"
        for name, about in pictures
    )
    style = "body{font:16px sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;background:#fff;color:#111}"
    style += "figure{margin:0 0 3rem}img{max-width:100%}"
    heading = html.escape(title)
    path.write_text(
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{heading}</title><style>{style}</style>\n'
        f"<h1>{heading}</h1>\n{shown}\n</html>\n",
        encoding="utf-8",
    )


def _curve(bins: Sequence[ReliabilityBin]) -> tuple[list[float], list[float]]:
    return [found.confidence for found in bins], [found.accuracy for found in bins]


def _percent(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))


@contextmanager
def _picture(path: Path, title: str, size: tuple[float, float]) -> Iterator[Axes]:
    """Give one set of axes, and save the figure when the body ends; without pyplot no display is needed."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11)
    yield axes
    figure.savefig(path, dpi=_DPI)
