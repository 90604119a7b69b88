"""Checks whether response times reveal if an address has an account: login, password reset and magic link.

Usage: timing.py BASE_URL PLATFORM_KEY [REQUESTS]

It makes an app, then sends REQUESTS (default 1000) to each route over one connection: half for addresses that are registered,
half for others, in an order drawn at random. Run it against a server without rate limits (WATCHWORD_RATE_LIMITS=off).
Prints the medians in milliseconds; ends with 1 if those of a route are more than 5 % apart.
"""

import http.client
import json
import random
import secrets
import statistics
import sys
import time
import urllib.parse

base, key = sys.argv[1:3]
requests = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
# Below the number of wrong passwords that lock an account.
GUESSES = 8
PASSWORD = "violet-Kettle-93-harbour"
CALLBACK = "https://client.example/callback"

connection = http.client.HTTPConnection(urllib.parse.urlsplit(base).netloc, timeout=60)
app = "timing-" + secrets.token_hex(4)


def post(path, body, expected, bearer=None):
    headers = {"Content-Type": "application/json"}
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    started = time.perf_counter()
    connection.request("POST", path, json.dumps(body), headers)
    response = connection.getresponse()
    answer = response.read()
    elapsed = time.perf_counter() - started
    if response.status != expected:
        sys.exit(f"POST {path}: {response.status} {answer.decode()}")
    return elapsed


def measure(route, body_of, expected, known, unknown):
    order = [True, False] * (requests // 2)
    random.shuffle(order)
    times = {True: [], False: []}
    for number, is_known in enumerate(order):
        # Each address equally often.
        addresses = known if is_known else unknown
        address = addresses[len(times[is_known]) % len(addresses)]
        times[is_known].append(post(f"/v1/apps/{app}/auth/{route}", body_of(address), expected) * 1000)
    medians = [statistics.median(times[is_known]) for is_known in (True, False)]
    apart = abs(medians[0] - medians[1]) / min(medians)
    print(
        f"{route}: known {medians[0]:.2f} ms, unknown {medians[1]:.2f} ms, {apart:.2%} apart "
        f"({len(times[True])} and {len(times[False])} requests)",
        flush=True,
    )
    return apart


settings = {"redirect_uris": [CALLBACK]}
post("/v1/apps", {"app_id": app, "name": "Timing", "settings": settings}, 201, key)
count = -(-requests // 2 // GUESSES)
known = [f"known{number}@example.org" for number in range(count)]
unknown = [f"other{number}@example.org" for number in range(count)]
for address in known:
    post(f"/v1/apps/{app}/auth/register", {"email": address, "password": PASSWORD}, 201)

apart = [
    measure("login", lambda address: {"email": address, "password": "wrong-Kettle-93"}, 401, known, unknown),
    measure("password-reset/request", lambda address: {"email": address}, 202, known, unknown),
    measure("magic-link", lambda address: {"email": address, "redirect_uri": CALLBACK}, 202, known, unknown),
]
sys.exit(max(apart) > 0.05)
