"""A stranger with a valid certificate that sends one message far beyond any limit.

Its argument is a JSON object: folder, port, megabytes. It prints the status that its stream ends with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from codream_secure.deployment.streams.certificates import load
from codream_secure.deployment.streams.library import METHOD, SERVICE, load_grpc


def main() -> None:
    grpc = load_grpc()
    settings = json.loads(sys.argv[1])
    tls = load(Path(settings["folder"]), "member")
    credentials = grpc.ssl_channel_credentials(tls.authority, tls.private_key, tls.certificate)
    channel = grpc.secure_channel(f"127.0.0.1:{settings['port']}", credentials)
    call = channel.stream_stream(f"/{SERVICE}/{METHOD}")
    try:
        said = [len(answer) for answer in call(iter([bytes(settings["megabytes"] << 20)]))]
        print(json.dumps({"ended": "OK", "answers": said}), flush=True)
    except grpc.RpcError as error:
        print(json.dumps({"ended": error.code().name, "details": error.details()}), flush=True)


if __name__ == "__main__":
    main()
