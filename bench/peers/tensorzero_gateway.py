"""TensorZero's gateway as its Python package embeds it: compiled, in this process, behind a listener of its own.

Usage: tensorzero_gateway.py CONFIG. Says where it listens and serves until it is told to stop.
"""

import signal
import sys

from openai import OpenAI
from tensorzero import patch_openai_client

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
client = OpenAI(api_key="unused", base_url="http://127.0.0.1:1/unused")
patch_openai_client(client, config_file=sys.argv[1], clickhouse_url=None, async_setup=False)
address = str(client.base_url).removeprefix("http://").replace("0.0.0.0", "127.0.0.1")
print(f"listens on http://{address}", file=sys.stderr, flush=True)
signal.pause()
