"""The options that say what the numbers of data mean. A model keeps those of its fit, for new data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from clustering.options import SourceOptions

OF_STORES = ("missing_chunks", "nodata", "decode")
"""Options about stored numbers. Of data in memory, which may be decoded already, only nodata has an effect."""
NAMES = (*OF_STORES, "valid_range")


class ReadingOptions(NamedTuple):
    """How the numbers of some data were read."""

    stored: bool
    """Whether they are those of a store; a number that means missing there may be another one in memory."""
    values: Mapping[str, Any]
    """The options `NAMES` that differ from their defaults."""

    @classmethod
    def from_options(cls, options: Mapping[str, Any], variables: Sequence[str], *, stored: bool) -> ReadingOptions:
        """Take them from the options of a source.

        Parameters
        ----------
        options
            Options by name, as in `SourceOptions`.
        variables
            Variables of the source.
        stored
            Whether the data are in a store.
        """
        values = {name: options[name] for name in NAMES if options[name] != SourceOptions.model_fields[name].default}
        if len(variables) == 1:
            # New data may have another name, or none.
            values = {name: value.get(variables[0]) if isinstance(value, dict) else value
                      for name, value in values.items()}  # fmt: skip
        return cls(stored, values)

    def fill_in(self, options: SourceOptions, *, stored: bool, named: bool) -> SourceOptions:
        """Give the options of new data that the user did not set.

        Parameters
        ----------
        options
            Options of the new data.
        stored
            Whether these are in a store.
        named
            Whether their variables have names.
        """
        unset = {
            name: value
            for name, value in self.values.items()
            if name not in options.model_fields_set
            and (stored == self.stored or name not in OF_STORES)
            and (named or not isinstance(value, dict))
        }
        return options.model_copy(update=unset)
