"""What benchmarks run on, kept in var/bench: drawn photos, and weights that stand in for ResNet50's."""

from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps

from pipeline.demo.catalogue import generate
from shared.atomic_files import write_atomically
from tests.benchmarks.support.report import RESULTS

PHOTO_PX = 512
_QUALITY = 90
_N_LISTINGS = 52
# Of the last normalisation of each block, which random weights have at 1. Left there, values grow from block to block
# until int8 has too few steps for them, as those of trained networks do not.
_BLOCK_GAIN = 0.2


def catalogue(directory: Path, n_listings: int = _N_LISTINGS) -> Path:
    """A demo catalogue with two photos of each listing."""
    made = directory / f"catalogue-{n_listings}"
    if not made.exists():
        generate(made, n_listings=n_listings)
    return made


def query_photos(directory: Path | None = None) -> list[Path]:
    """312 different JPEGs of 512 x 512 pixels: so many that no two clients ask for the same at the same time."""
    directory = directory or RESULTS / "installed"
    made = directory / "queries"
    if not made.exists():
        made.mkdir(parents=True)
        for path in sorted((catalogue(directory) / "images").iterdir()):
            with Image.open(path) as photo:
                square = ImageOps.fit(photo.convert("RGB"), (PHOTO_PX, PHOTO_PX))
            for name, variant in (("a", square), ("b", ImageOps.mirror(square)), ("c", ImageOps.flip(square))):
                content = BytesIO()
                variant.save(content, "JPEG", quality=_QUALITY)
                (made / f"{path.stem}-{name}.jpg").write_bytes(content.getvalue())
    return sorted(made.iterdir())


def random_resnet50(file: Path) -> Path:
    """Weights of an untrained ResNet50 that int8 can hold, written to `file` unless they are there."""
    if not file.exists():
        import torch
        from torchvision.models import resnet50

        torch.manual_seed(17)
        network = resnet50()
        for name, module in network.named_modules():
            if name.endswith("bn3"):
                torch.nn.init.constant_(module.weight, _BLOCK_GAIN)
        with write_atomically(file) as temporary:
            torch.save(network.state_dict(), temporary)
    return file
