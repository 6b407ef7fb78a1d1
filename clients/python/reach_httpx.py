"""One request by `httpx`, which takes proxy and certificates from HTTPS_PROXY and SSL_CERT_FILE."""

import sys

import httpx

from reach import SECONDS, main


def reach(url: str, key: str) -> tuple[int, str]:
    response = httpx.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=SECONDS)
    return response.status_code, response.text


if __name__ == "__main__":
    sys.exit(main(reach))
