"""Kind `hashed_ngrams`: embeddings without a model. Texts that share words and parts of words get close vectors.

    _kind      the kind and its adapter
    _vectors   from texts to vectors; the part that needs numpy

This is lexical: it knows spelling and no meaning, so that "car" and "automobile" are strangers. It finds near
duplicates, misspellings and shared wording, and is the same on every machine. It takes the place of a model where
none is at hand; it is no model.
"""

from ._kind import KIND as KIND
