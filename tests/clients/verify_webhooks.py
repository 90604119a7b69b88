"""An independent receiver: verifies messages with the library `standardwebhooks`.

Usage: verify_webhooks.py SECRET MESSAGES

MESSAGES is a file with a JSON object a line: `id`, `timestamp`, `signature` and `body`, as they came. Prints how many of
them are genuine, and how many are still taken for genuine after a change.
"""

import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

secret, path = sys.argv[1:]
webhook = Webhook(secret)


def is_genuine(message, **changes):
    message = message | changes
    headers = {f"webhook-{name}": message[name] for name in ("id", "timestamp", "signature")}
    try:
        return webhook.verify(message["body"], headers) == json.loads(message["body"])
    except WebhookVerificationError:
        return False


with open(path, encoding="utf-8") as file:
    messages = [json.loads(line) for line in file]
changed = [
    is_genuine(message, **changes)
    for message in messages
    for changes in (
        {"id": message["id"] + "x"},
        {"timestamp": str(int(message["timestamp"]) + 1)},
        {"body": message["body"].replace("{", "{ ", 1)},
        {"signature": "v1," + "A" * 43 + "="},
    )
]
print(json.dumps({"genuine": sum(map(is_genuine, messages)), "changed": sum(changed)}))
