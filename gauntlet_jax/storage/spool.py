"""A spool: arrays put aside on disk during a round, so that memory does not grow with the number of peers."""

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gauntlet_jax.storage.digest import array_bytes
from gauntlet_jax.storage.zarr_arrays import Schema


class Spool:
    """Checked arrays of one schema, by a number; gone with this object."""

    def __init__(self, schema: Schema) -> None:
        """An empty spool.

        Args:
          schema: names, shapes and dtypes of every entry.
        """
        self._schema = dict(schema)
        self._folder = Path(tempfile.mkdtemp(prefix="gauntlet-spool-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def put(self, number: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps arrays that follow the schema, in place of those before.

        Raises:
          OSError: the disk is full.
        """
        with self._file(number).open("wb") as file:
            for name in self._schema:
                file.write(array_bytes(arrays[name]).data)

    def get(self, number: int) -> dict[str, np.ndarray]:
        """The arrays that were put there last.

        Raises:
          OSError: there are none.
        """
        data = self._file(number).read_bytes()
        arrays, at = {}, 0
        for name, spec in self._schema.items():
            count = int(np.prod(spec.shape))
            flat = np.frombuffer(data, spec.dtype.newbyteorder("<"), count, at)
            arrays[name] = flat.reshape(spec.shape).astype(spec.dtype, copy=False)
            at += flat.nbytes
        return arrays

    def _file(self, number: int) -> Path:
        return self._folder / str(number)
