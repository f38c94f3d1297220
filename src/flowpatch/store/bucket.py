"""A store in an object store: to be written."""

from flowpatch.store.place import Place


class Bucket(Place):
    @classmethod
    def of_address(cls, address: str) -> "Bucket":
        raise NotImplementedError
