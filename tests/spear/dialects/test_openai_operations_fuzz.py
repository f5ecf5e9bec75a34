"""Whatever a server answers: a result that can be used, or a `BackendError` that says why not."""

from __future__ import annotations

import base64
import math
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear.backends._http import FormFile, multipart
from spear.dialects._picture import MAX_SIDE, NotAPicture, read_picture
from spear.dialects.openai_audio import TranscriptDecoder, file_name, format_of, transcript_from_body
from spear.dialects.openai_embeddings import embeddings_from_body
from spear.dialects.openai_images import images_from_body
from spear.ir import BackendError, EmbeddingsRequest, EmbeddingsResult, dump_json, parse_json
from tests.servers._operations import png, read_form

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner), max_leaves=10
)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
some = settings(max_examples=50, deadline=None)


def objects(**fields):
    """Objects with keys that mean something, whose values may be anything."""
    return st.fixed_dictionaries({}, optional={key: values | value for key, value in fields.items()})


def _says(error, beginning):
    assert error.error.message.startswith(beginning)


vectors = st.lists(numbers, max_size=3) | st.lists(scalars | st.just(10**400), max_size=3) | st.binary(max_size=12).map(
    lambda data: base64.b64encode(data).decode()
)  # fmt: skip
embedding_bodies = objects(
    data=st.lists(objects(index=st.integers(-1, 3), embedding=vectors), max_size=3),
    usage=objects(prompt_tokens=st.integers(-1, 9)),
)


@given(embedding_bodies | values, st.sampled_from([None, "float", "base64"]), st.integers(1, 3))
@some
def test_any_answer_to_embeddings(body, encoding, count):
    request = EmbeddingsRequest(input=("x",) * count, encoding_format=encoding)
    try:
        result, usage = embeddings_from_body(body, request)
    except BackendError as error:
        _says(error, "the embeddings cannot be used: ")
        return
    rows = result.vectors if result.vectors is not None else result.base64
    assert len(rows) == count
    assert result == EmbeddingsResult.model_validate(result.model_dump())  # made without checks, and yet right
    assert usage.input_tokens is not None
    if result.vectors is not None:
        assert {len(row) for row in rows} == {result.dimensions}
        assert all(math.isfinite(number) for row in rows for number in row)


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=4), st.randoms())
@some
def test_vectors_arrive_in_both_forms_and_any_order(rows, random):
    places = list(range(len(rows)))
    random.shuffle(places)
    packed = [base64.b64encode(struct.pack("<3f", *row)).decode() for row in rows]
    for form in (rows, packed):
        body = parse_json(dump_json({"data": [{"index": at, "embedding": form[at]} for at in places]}))
        result, _ = embeddings_from_body(body, EmbeddingsRequest(input=("x",) * len(rows)))
        assert result.vectors == tuple(map(tuple, rows))


image_bodies = objects(
    data=st.lists(objects(b64_json=st.binary().map(lambda data: base64.b64encode(data).decode()), url=st.text())),
    usage=objects(input_tokens=st.integers(-1, 9)),
)


@given(image_bodies | values)
@some
def test_any_answer_to_images(body):
    try:
        images, _, usage = images_from_body(body)
    except BackendError as error:
        _says(error, "the images cannot be used: ")
        return
    assert images
    assert usage.images == len(images)


beginnings = st.sampled_from(
    [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\xff\xd8\xff\xc0\x00\x11\x08", b"RIFF\x10\0\0\0WEBPVP8X",
     b"RIFF\x10\0\0\0WEBPVP8L", b"RIFF\x10\0\0\0WEBPVP8 ", png(3, 4)]
)  # fmt: skip


@given(beginnings, st.binary(max_size=80), st.integers(0, 80))
@some
def test_any_bytes_are_a_picture_of_a_usable_size_or_none(beginning, data, cut):
    try:
        picture = read_picture((beginning + data)[cut:])
    except NotAPicture:
        return
    assert 0 < picture.width <= MAX_SIDE
    assert 0 < picture.height <= MAX_SIDE


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\xe0\x00\x02"])
def test_a_picture_of_nothing_but_segments_takes_no_time(filling):
    data = b"\xff\xd8" + filling * (16_000_000 // len(filling))
    began = time.process_time()
    with pytest.raises(NotAPicture, match="without its size"):
        read_picture(data)
    assert time.process_time() - began < 0.3


def test_the_sizes_of_real_pictures():
    jpeg = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc2\x00\x11\x08\x00\x20\x00\x30\x03" + bytes(20) + b"\xff\xd9"
    webp = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x2f\0\0\x1f\0\0"
    assert read_picture(png(7, 9)) == ("image/png", 7, 9)
    assert read_picture(jpeg) == ("image/jpeg", 48, 32)
    assert read_picture(webp) == ("image/webp", 48, 32)
    for picture in (png(7, 9), jpeg, webp):
        with pytest.raises(NotAPicture, match="breaks off"):
            read_picture(picture[:-1] if picture[:1] != b"\xff" else picture[:-2])


segments = st.lists(
    objects(start=st.integers(0, 3) | st.just(10**400), end=st.floats(3, 9), text=st.text(), speaker=st.text())
)
transcripts = objects(text=st.text(), language=st.text(), duration=st.floats(0, 9), segments=segments,
                      usage=objects(seconds=st.floats(-1, 9)))  # fmt: skip


@given(transcripts | values)
@some
def test_any_answer_to_a_recording(body):
    try:
        result, usage = transcript_from_body(body)
    except BackendError as error:
        _says(error, "the transcript cannot be used: ")
        return
    assert all(0 <= segment.start_s <= segment.end_s for segment in result.segments)
    assert usage.audio_seconds is None or usage.audio_seconds >= 0


events = objects(
    type=st.sampled_from(["transcript.text.delta", "transcript.text.done", "transcript.text.segment", "error", "news"]),
    delta=st.text(), text=st.text(), start=st.integers(0, 3), end=st.integers(3, 5), error=st.none(),
)  # fmt: skip


@given(st.lists(events | values, max_size=6))
@some
def test_any_stream_of_a_transcript(chunks):
    decoder = TranscriptDecoder()
    try:
        for chunk in chunks:
            decoder.feed(chunk)
        decoder.finish()
    except BackendError:
        return
    assert any(isinstance(chunk, dict) and chunk.get("type") == "transcript.text.done" for chunk in chunks)


names = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00\\"), min_size=1, max_size=12)


@given(st.dictionaries(names.filter(str.isidentifier), st.text(max_size=20), max_size=4), names, st.binary())
@some
def test_a_form_is_read_as_it_was_written(fields, name, data):
    kind, pieces = multipart(fields.items(), [FormFile("the_file", name, "audio/wav", data)])
    body = b"".join(pieces)
    boundary = kind.partition(b"boundary=")[2]
    assert body.count(boundary) == len(fields) + 2
    assert any(piece is data for piece in pieces)  # not copied
    _, files = read_form(body, kind.decode())
    assert files["the_file"][1:] == ("audio/wav", data)


def test_a_name_cannot_end_its_header():
    _, pieces = multipart([('a"\r\nx: y', "v")], [FormFile("f", 'n"\r\n\r\n.wav', "a/b\r\nc: d", b"")])
    body = b"".join(pieces)
    assert b'name="a%22%0D%0Ax: y"\r\n' in body
    assert b'filename="n%22%0D%0A%0D%0A.wav"\r\n' in body
    assert b"c: d" not in body


@given(st.binary(max_size=20))
@some
def test_any_bytes_have_a_format_or_none(data):
    assert format_of(data) in {"", "wav", "mp3", "opus", "flac", "aac"}


@pytest.mark.parametrize(
    ("mime", "name"),
    [("audio/mpeg", "audio.mp3"), ("audio/x-wav; codecs=1", "audio.wav"), ("x/y", "audio.bin")],
)  # fmt: skip
def test_the_name_of_an_upload_ends_as_its_type_says(mime, name):
    assert file_name(mime) == name
