"""NumPy array types of the project, by element type; docstrings and comments give the shapes."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]  # embeddings, scores, pixels as numbers
DoubleArray = npt.NDArray[np.float64]  # statistics, where float32 would round too much
IntArray = npt.NDArray[np.int64]  # rows, labels
BoolArray = npt.NDArray[np.bool_]
