"""A second implementation of the wire format, written from ``docs/wire_format.md`` alone, in plain Python.

It shares no code with the package that it checks and uses nothing but the standard library: its own message packing,
curves, block cipher, secret sharing, neighbour graph, encoding and polynomial arithmetic. It is for checking test
vectors: slow, and with no defence against timing attacks. ``python -m independent``, from the folder above, checks
every vector there.
"""
