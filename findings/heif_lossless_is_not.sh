#!/usr/bin/env bash
# pillow-heif 1.8.1: `quality=-1` is lossless only from the colour conversion on; the pixels that come back are others.
#
# Expected: "-1 for lossless quality" gives back the pixels that were saved, as `lossless=True` does for WebP; at most
# chroma has to be kept whole with `chroma=444`, which the same documentation asks for.
# Seen: with `quality=-1` alone colours are off by up to 171 levels of 255 (at an edge); with `chroma=444` by one level in
# a third of all values, since RGB is turned into YCbCr of 8 bits and rounded, before anything is coded. Only with
# `matrix_coefficients=0` as well (the planes are then green, blue and red themselves) do the same pixels come back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check 'pillow==13.0.0' 'pillow-heif==1.8.1' 'numpy==2.4.6'
venv/bin/python - <<'PY'
import io

import numpy as np
import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()
across, down = np.meshgrid(np.arange(256), np.arange(256))
photo = np.stack([across, down, (across + down) % 256], axis=2).astype(np.uint8)
photo[64:128, 64:128] = (255, 0, 0)


def difference(image_format, **options):
    file = io.BytesIO()
    Image.fromarray(photo).save(file, image_format, **options)
    again = np.asarray(Image.open(file).convert("RGB")).astype(int)
    off = np.abs(again - photo)
    print(f"{image_format} {options}: at most {off.max()} levels off, {(off > 0).mean():.0%} of the values")
    return int(off.max())


webp = difference("WEBP", lossless=True)
alone = difference("HEIF", quality=-1)
documented = difference("HEIF", quality=-1, chroma=444)
exact = difference("HEIF", quality=-1, chroma=444, matrix_coefficients=0)
assert webp == exact == 0 and alone > 20 and 0 < documented <= 4, "changed"
PY
