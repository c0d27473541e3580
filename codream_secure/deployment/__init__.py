"""Real deployments: parties on machines of their own, each with an identity, joined by a transport.

:mod:`~codream_secure.deployment.identity` keeps a private key, :mod:`~codream_secure.deployment.public_half` is what
its owner hands out, :mod:`~codream_secure.deployment.roster` is the file that lists everybody, and
:mod:`~codream_secure.deployment.membership` makes the next version of it. They know no torch and no socket;
``docs/identities.md`` says how to use them.

:mod:`~codream_secure.deployment.streams` moves the bytes of sums between machines. Above all these,
:mod:`~codream_secure.deployment.coordinator` and :mod:`~codream_secure.deployment.learner` are CoDream's server and
client as programs; ``docs/deploying_codream.md`` says how to run them.
"""
