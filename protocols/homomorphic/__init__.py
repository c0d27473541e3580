"""Homomorphic sums: clients encrypt, the server adds ciphertexts, and only a key holder can open what comes out.

To read it from the ground up, all in this package: ``parameters`` and ``packing`` (what a ciphertext carries),
``planning`` (which parameters are chosen), ``seal`` and ``vectors`` (encryption itself), ``tags`` and ``vouchers``
(what tells a key holder that a sum is one), ``opening``, and then the machines: ``client``, ``shared_key``,
``granted_key``, ``authority`` and ``server``.

**BFV or CKKS.** Both carry the very integers that a masked sum adds up, and give the same sum to the last bit: BFV
because it is exact, CKKS because its errors are kept below half an integer and rounded off, which fails with
probability 2^-40 at most in a whole round. BFV packs a little more into a ciphertext and carries integer noise; CKKS
decrypts faster. There is no sum for which CKKS is needed.

**Who holds the key** is part of the protocol's name. ``bfv`` and ``ckks``: all clients, so the server learns nothing at
all, not even sums, and every client can open everything. ``bfv-authority`` and ``ckks-authority``: a party of its own,
which opens sums for the server and sees nothing else.
"""
