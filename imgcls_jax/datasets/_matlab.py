"""Annotations in MATLAB files."""

from pathlib import Path

import numpy as np

from imgcls_jax.errors import DataError


def column(path: Path, variable: str, field: str = "") -> np.ndarray:
    """The numbers or texts of a variable, or of one field of its structures, [n]."""
    import scipy.io

    try:
        found = scipy.io.loadmat(path, squeeze_me=True)[variable]
        return np.atleast_1d(np.atleast_1d(found)[field] if field else found)
    except Exception as error:  # a damaged file may raise any exception
        name = f"{variable}.{field}" if field else variable
        raise DataError(f"{name} cannot be read: {type(error).__name__}: {error}",
                        where=str(path), fix="copy the file again") from error
