"""Password hashes, made by the libraries that other systems make theirs with: passlib, argon2-cffi, bcrypt and Django.

Usage: make_hashes.py PASSWORD

Prints a JSON object of the names of the hashes, and the hashes. Their costs are low: it is their form that matters.
"""

import json
import sys

import argon2
import bcrypt
import django
from django.conf import settings
from django.contrib.auth import hashers
from passlib.hash import (
    ldap_salted_sha1,
    ldap_salted_sha512,
    pbkdf2_sha1,
    pbkdf2_sha256,
    pbkdf2_sha512,
    phpass,
    scrypt,
    sha256_crypt,
    sha512_crypt,
)

password = sys.argv[1]
NAMES = ("PBKDF2", "PBKDF2SHA1", "Argon2", "BCryptSHA256", "BCrypt", "Scrypt")
settings.configure(PASSWORD_HASHERS=[f"django.contrib.auth.hashers.{name}PasswordHasher" for name in NAMES])
django.setup()


def of_django(name, **costs):
    hasher = hashers.get_hasher(name)
    for cost, value in costs.items():
        setattr(hasher, cost, value)
    return hasher.encode(password, hasher.salt())


def of_argon2(kind, **costs):
    return argon2.PasswordHasher(memory_cost=256, type=kind, **costs).hash(password)


def of_bcrypt(prefix):
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4, prefix)).decode()


hashes = {
    "argon2-cffi, argon2id": of_argon2(argon2.Type.ID, time_cost=2, parallelism=1),
    "argon2-cffi, argon2i": of_argon2(argon2.Type.I, time_cost=3, parallelism=4, hash_len=16),
    "bcrypt, 2a": of_bcrypt(b"2a"),
    "bcrypt, 2b": of_bcrypt(b"2b"),
    "passlib, scrypt": scrypt.using(rounds=10, block_size=8, parallelism=2).hash(password),
    "passlib, PBKDF2-SHA1": pbkdf2_sha1.using(rounds=1000).hash(password),
    "passlib, PBKDF2-SHA256": pbkdf2_sha256.using(rounds=1000).hash(password),
    "passlib, PBKDF2-SHA512": pbkdf2_sha512.using(rounds=1000).hash(password),
    "passlib, SHA-256 crypt": sha256_crypt.using(rounds=1000).hash(password),
    "passlib, SHA-512 crypt": sha512_crypt.using(rounds=5000).hash(password),
    "passlib, phpass": phpass.using(rounds=8).hash(password),
    "passlib, SSHA": ldap_salted_sha1.hash(password),
    "passlib, SSHA512": ldap_salted_sha512.hash(password),
    "Django, pbkdf2_sha256": of_django("pbkdf2_sha256", iterations=1000),
    "Django, pbkdf2_sha1": of_django("pbkdf2_sha1", iterations=1000),
    "Django, argon2": of_django("argon2", time_cost=1, memory_cost=256, parallelism=1),
    "Django, bcrypt": of_django("bcrypt", rounds=4),
    "Django, bcrypt_sha256": of_django("bcrypt_sha256", rounds=4),
    "Django, scrypt": of_django("scrypt", work_factor=1024),
}
print(json.dumps(hashes))
