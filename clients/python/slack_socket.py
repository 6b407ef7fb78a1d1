"""A Slack app in socket mode, on Slack's own SDK: one event taken, acknowledged, and answered over the web API.

The tokens are read from SLACK_APP_TOKEN and SLACK_BOT_TOKEN, the proxy from HTTPS_PROXY, the certificates from
SSL_CERT_FILE. The argument is the base URL of the web API. Prints `{ok, text}` or `{ok, error}`.
"""

import asyncio
import json
import os
import sys

from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient

SECONDS = 20


async def serve_one_event(base_url: str) -> str:
    taken = asyncio.get_running_loop().create_future()
    web = AsyncWebClient(token=os.environ["SLACK_BOT_TOKEN"], base_url=base_url)
    client = SocketModeClient(app_token=os.environ["SLACK_APP_TOKEN"], web_client=web)

    async def on_request(client: SocketModeClient, request: SocketModeRequest) -> None:
        await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
        event = request.payload["event"]
        await web.chat_postMessage(channel=event["channel"], text=f"heard: {event['text']}")
        taken.set_result(event["text"])

    client.socket_mode_request_listeners.append(on_request)
    try:
        # Connecting asks again and again for an address that it does not get.
        client.wss_uri = await client.issue_new_wss_url()
        await client.connect()
        return await asyncio.wait_for(taken, SECONDS)
    finally:
        await client.close()


def main() -> int:
    try:
        report = {"ok": True, "text": asyncio.run(serve_one_event(sys.argv[1]))}
    except Exception as error:  # whatever ends the run belongs in the report
        report = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    print(json.dumps(report), flush=True)
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
