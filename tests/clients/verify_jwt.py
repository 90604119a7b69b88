"""An independent client: registers a user, verifies their access token with PyJWT through the JWKS, and uses it.

Usage: verify_jwt.py BASE_URL APP OTHER_APP

Prints one JSON object and ends with 0 if the token of APP is valid by its own keys, accepted by the server, and refused
by the keys of OTHER_APP.
"""

import json
import secrets
import sys
import urllib.request

import jwt

base, app, other = sys.argv[1:]
issuer = f"{base}/v1/apps/{app}"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(path, body=None, bearer=None):
    request = urllib.request.Request(base + path)
    if bearer is not None:
        request.add_header("Authorization", f"Bearer {bearer}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with opener.open(request, timeout=30) as response:
        return json.load(response)


def keys_of(name):
    return jwt.PyJWKSet.from_dict(call(f"/v1/apps/{name}/.well-known/jwks.json"))


def decode(token, key, checks=None, **changes):
    arguments = {"algorithms": [key.algorithm_name], "audience": app, "issuer": issuer}
    required = {"require": ["iss", "aud", "sub", "sid", "exp", "iat", "jti", "client_id"]}
    return jwt.decode(token, key.key, options=required | (checks or {}), **(arguments | changes))


def refused(error, token, key, checks=None, **changes):
    try:
        decode(token, key, checks, **changes)
    except error:
        return True
    return False


address = f"verify.{secrets.token_hex(6)}@example.org"
answer = call(f"/v1/apps/{app}/auth/register", {"email": address, "password": "violet-Kettle-93-harbour"})
token = answer["access_token"]
header = jwt.get_unverified_header(token)
own = keys_of(app)
key = own[header["kid"]]
claims = decode(token, key)

verified = {
    "iss": claims["iss"] == call(f"/v1/apps/{app}/.well-known/openid-configuration")["issuer"] == issuer,
    "aud": claims["aud"] == app and refused(jwt.InvalidAudienceError, token, key, audience=other),
    "sub": claims["sub"] == answer["user"]["id"],
    "sid": claims["sid"] == answer["session_id"],
    "exp": claims["exp"] - claims["iat"] == answer["expires_in"]
    and refused(jwt.ExpiredSignatureError, token, key, {"verify_iat": False}, leeway=-answer["expires_in"] - 60),
    "typ": header["typ"] == "at+jwt",
    "kid": header["kid"] in {it.key_id for it in own.keys} and key.algorithm_name == header["alg"],
}
foreign = keys_of(other).keys
result = {
    "alg": header["alg"],
    "accepted": call(f"/v1/apps/{app}/auth/me", bearer=token)["id"] == claims["sub"],
    "verified": [name for name, holds in verified.items() if holds],
    "failed": [name for name, holds in verified.items() if not holds],
    "refused_by_another_apps_keys": header["kid"] not in {it.key_id for it in foreign}
    and all(refused(jwt.InvalidSignatureError, token, it) for it in foreign),
}
print(json.dumps(result))
sys.exit(0 if not result["failed"] and result["accepted"] and result["refused_by_another_apps_keys"] else 1)
