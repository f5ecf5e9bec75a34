"""Kind `sentence_model`: embeddings by a real model of sentences, all-MiniLM-L6-v2, offline.

    _kind      the kind and its adapter
    _answers   what a worker says, checked
    _worker    the program of its worker processes; the part that needs PyTorch

The weights come in a Python package, and nothing is ever fetched. The model runs in processes of its own: it holds
Python's lock for long, takes half a gigabyte, and cannot be interrupted but by ending it.
"""

from ._kind import KIND as KIND
