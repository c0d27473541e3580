"""The two apps that Flower looks for."""

from __future__ import annotations

from codream_secure.deployment.flower_apps import make_client_app, make_server_app

server_app = make_server_app()
client_app = make_client_app()
