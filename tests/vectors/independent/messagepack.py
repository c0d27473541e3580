"""The part of MessagePack that the messages use: integers, nil, byte strings, text and arrays."""

from __future__ import annotations

from typing import Any


class Malformed(ValueError):
    """Bytes that are not what they should be."""


def pack(value: Any) -> bytes:
    """The shortest form of a value."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            raise TypeError("no message holds a boolean")
        case int():
            return _integer(value)
        case bytes():
            return _header(len(value), None, (0xC4, 0xC5, 0xC6)) + value
        case str():
            text = value.encode("utf-8")
            fixed = 0xA0 | len(text) if len(text) < 32 else None
            return _header(len(text), fixed, (0xD9, 0xDA, 0xDB)) + text
        case list():
            fixed = 0x90 | len(value) if len(value) < 16 else None
            return _header(len(value), fixed, (None, 0xDC, 0xDD)) + b"".join(pack(item) for item in value)
    raise TypeError(f"no message holds a {type(value).__name__}")


def _integer(value: int) -> bytes:
    if value < 0:
        raise ValueError("no message holds a negative number")
    if value < 128:
        return bytes([value])
    for code, width in ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
        if value < 1 << 8 * width:
            return bytes([code]) + value.to_bytes(width, "big")
    raise ValueError("too large")


def _header(length: int, fixed: int | None, codes: tuple[int | None, int, int]) -> bytes:
    if fixed is not None:
        return bytes([fixed])
    for code, width in zip(codes, (1, 2, 4), strict=True):
        if code is not None and length < 1 << 8 * width:
            return bytes([code]) + length.to_bytes(width, "big")
    raise ValueError("too long")


def unpack(data: bytes) -> Any:
    """The one value that the bytes hold, in whatever length of form; nothing may follow it."""
    reader = _Reader(data)
    value = reader.value(depth=0)
    if reader.at != len(data):
        raise Malformed("something follows the message")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise Malformed("the message is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def value(self, depth: int) -> Any:
        code = self.number(1)
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 0x100
        if code == 0xC0:
            return None
        if 0x90 <= code < 0xA0 or code in (0xDC, 0xDD):
            return self.array(code & 15 if code < 0xA0 else self.number(2 if code == 0xDC else 4), depth)
        if 0xA0 <= code < 0xC0 or code in (0xD9, 0xDA, 0xDB):
            return self.text(code & 31 if code < 0xC0 else self.number(1 << code - 0xD9))
        if code in (0xC4, 0xC5, 0xC6):
            return self.take(self.number(1 << code - 0xC4))
        if code in (0xCC, 0xCD, 0xCE, 0xCF):
            return self.number(1 << code - 0xCC)
        if code in (0xD0, 0xD1, 0xD2, 0xD3):
            return int.from_bytes(self.take(1 << code - 0xD0), "big", signed=True)
        raise Malformed(f"no message holds the type {code:#04x}")

    def array(self, count: int, depth: int) -> list[Any]:
        if depth == 3:
            raise Malformed("no message nests so deep")
        return [self.value(depth + 1) for _ in range(count)]

    def text(self, length: int) -> str:
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("a text is not UTF-8") from None
