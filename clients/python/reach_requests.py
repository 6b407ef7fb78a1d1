"""One request by `requests`, which takes proxy and certificates from HTTPS_PROXY and REQUESTS_CA_BUNDLE."""

import sys

import requests

from reach import SECONDS, main


def reach(url: str, key: str) -> tuple[int, str]:
    response = requests.get(url, headers={"Authorization": f"Bearer {key}"}, timeout=SECONDS)
    return response.status_code, response.text


if __name__ == "__main__":
    sys.exit(main(reach))
