# SPDX-License-Identifier: MIT
"""What contexts, networks, builders and runs have in common: they are given back once."""


class Handle:
    """Owns `handle`; `_give_back` is the library's function for it.

    Both are looked up when the object is made: at interpreter exit modules may be gone.
    """

    handle = None

    def close(self):
        """Gives it back."""
        if self.handle:
            self._give_back(self.handle)
            self.handle = type(self.handle)()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if self.handle:
            self.close()
