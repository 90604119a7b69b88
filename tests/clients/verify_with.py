"""Verifies an access token with PyJWT and a key set that was fetched before.

Usage: verify_with.py JWKS TOKEN ISSUER APP

Prints the claims. The server's clock may be another, so it does not look at the time.
"""

import json
import sys

import jwt

jwks, token, issuer, app = sys.argv[1:]
key = jwt.PyJWKSet.from_dict(json.loads(jwks))[jwt.get_unverified_header(token)["kid"]]
times = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
print(json.dumps(jwt.decode(token, key.key, algorithms=[key.algorithm_name], audience=app, issuer=issuer, options=times)))
