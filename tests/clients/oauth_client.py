"""A strict OAuth library, Authlib, as a resource server and as a client of an app: it finds the endpoints by RFC 8414, and
introspects and revokes tokens with the app's id and an API key as client id and secret.

Usage: oauth_client.py ISSUER API_KEY WRONG_KEY

Prints one JSON object; ends with 0 if everything was as the RFCs say.
"""

import json
import os
import secrets
import sys

import requests

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.requests_client import OAuth2Session  # noqa: E402
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url  # noqa: E402

issuer, api_key, wrong_key = sys.argv[1:]
app = issuer.rsplit("/", 1)[1]
http = requests.Session()
http.trust_env = False

well_known = get_well_known_url(issuer, external=True)
found = http.get(well_known, timeout=30)
found.raise_for_status()
metadata = AuthorizationServerMetadata(found.json())
for name in ("introspection", "revocation"):
    getattr(metadata, f"validate_{name}_endpoint")()
    getattr(metadata, f"validate_{name}_endpoint_auth_methods_supported")()
metadata.validate_issuer()
metadata.validate_jwks_uri()


def client(method, key):
    session = OAuth2Session(
        client_id=app, client_secret=key, token_endpoint_auth_method=method, revocation_endpoint_auth_method=method
    )
    session.trust_env = False
    return session


def register():
    address = f"oauth.{secrets.token_hex(6)}@example.org"
    answer = http.post(
        f"{issuer}/auth/register", json={"email": address, "password": "violet-Kettle-93-harbour"}, timeout=30
    )
    answer.raise_for_status()
    return answer.json()


checks = {"issuer": metadata["issuer"] == issuer}
introspection, revocation = metadata["introspection_endpoint"], metadata["revocation_endpoint"]
for method in ("client_secret_basic", "client_secret_post"):
    for of in ("introspection", "revocation"):
        checks[f"{method} at {of}"] = method in metadata[f"{of}_endpoint_auth_methods_supported"]
    tokens = register()
    for kind in ("access_token", "refresh_token"):
        told = client(method, api_key).introspect_token(introspection, token=tokens[kind], token_type_hint=kind)
        checks[f"{method} introspects {kind}"] = (
            told.status_code == 200 and told.json()["active"] and told.json()["sub"] == tokens["user"]["id"]
        )
    for path in (introspection, revocation):
        told = client(method, wrong_key).introspect_token(path, token=tokens["access_token"])
        challenge = told.headers.get("WWW-Authenticate", "")
        checks[f"{method} is refused at {path}"] = (
            told.status_code == 401 and told.json()["error"] == "invalid_client" and challenge.startswith("Basic ")
        )
    kept = client(method, api_key).introspect_token(introspection, token=tokens["access_token"])
    checks[f"{method}: a refused revocation changes nothing"] = kept.json()["active"]
    for _ in range(2):
        gone = client(method, api_key).revoke_token(
            revocation, token=tokens["refresh_token"], token_type_hint="refresh_token"
        )
        checks[f"{method} revokes"] = gone.status_code == 200
    told = client(method, api_key).introspect_token(introspection, token=tokens["access_token"])
    checks[f"{method} sees the revocation"] = told.json() == {"active": False}

failed = [name for name, holds in checks.items() if not holds]
print(json.dumps({"checked": len(checks), "failed": failed, "well_known": well_known}))
sys.exit(1 if failed else 0)
