"""Who takes part when the parties are machines of their own: identities on disk, and the roster that all of them hold.

It knows no torch and no socket. :mod:`~codream_secure.deployment.identity` keeps a private key,
:mod:`~codream_secure.deployment.public_half` is what its owner hands out,
:mod:`~codream_secure.deployment.roster` is the file that lists everybody, and
:mod:`~codream_secure.deployment.membership` makes the next version of it. ``docs/identities.md`` says how to use them.
"""
