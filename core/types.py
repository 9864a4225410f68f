"""Types of arrays and of problems."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
ProblemType = Literal["regression", "binary", "multiclass", "multilabel", "ordinal"]
Standardise = Literal["none", "cleanup", "parent"]
