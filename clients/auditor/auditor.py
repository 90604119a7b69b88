#!/usr/bin/env python3
"""Checks the history of a Watchword instance without its code, its keys or its help.

  auditor.py export FILE --checkpoint NOTE --key KEY   an export of the whole history against signed checkpoints
  auditor.py receipt FILE --key KEY                    one event, and the proof that it is in the log
  auditor.py log PLACE --key KEY                       what a server, or a copy of its tiles, says of its log

It implements RFC 8785 (canonical JSON), RFC 9162 (Merkle trees) and C2SP signed-note, tlog-checkpoint, tlog-cosignature and
tlog-tiles anew, from these specifications. It needs Python 3.9 and `cryptography`, for Ed25519 (see requirements.txt).

It prints what it has checked, and what it has not. Exit codes: 0 checked, 1 found wrong, 2 wrong usage.
"""

import argparse
import base64
import binascii
import datetime
import hashlib
import json
import math
import os
import random
import re
import sys
import urllib.error
import urllib.request

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HASH = 32
TILE = 256
LISTED = 20


class Wrong(Exception):
    """Something is not what it should be."""


# Canonical JSON (RFC 8785)


def number(value):
    """A number as ECMAScript writes it (ECMA-262, Number::toString)."""
    if isinstance(value, int):
        if abs(value) >= 2**53:
            return number(float(value))
        return str(value)
    if not math.isfinite(value):
        raise Wrong("a number is not finite")
    if value == 0:
        return "0"
    digits, exponent = re.fullmatch(r"-?(\d(?:\.\d+)?)e([+-]\d+)", exact(value)).groups()
    digits, n = digits.replace(".", ""), int(exponent) + 1
    k = len(digits)
    if k <= n <= 21:
        text = digits + "0" * (n - k)
    elif 0 < n <= 21:
        text = digits[:n] + "." + digits[n:]
    elif -6 < n <= 0:
        text = "0." + "0" * -n + digits
    else:
        text = digits[0] + ("." + digits[1:] if k > 1 else "") + "e" + ("+" if n > 0 else "-") + str(abs(n - 1))
    return ("-" if value < 0 else "") + text


def exact(value):
    """The fewest digits that give this number, with an exponent."""
    for precision in range(17):
        text = f"{value:.{precision}e}"
        if float(text) == value:
            return text
    return f"{value:.17e}"


def canonical(value):
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be", "surrogatepass"))
    return "{" + ",".join(canonical(name) + ":" + canonical(it) for name, it in members) + "}"


def once(members):
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        raise Wrong("a member is there twice")
    return dict(members)


def parse(text):
    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise Wrong(f"it is not JSON: {error}") from None


# Merkle trees (RFC 9162, section 2.1)


def leaf_hash(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


class Tree:
    """A tree that knows the hash of each complete subtree."""

    def __init__(self):
        self.levels = [bytearray()]

    def __len__(self):
        return len(self.levels[0]) // HASH

    def append(self, leaf):
        level, node = 0, leaf
        while True:
            if level == len(self.levels):
                self.levels.append(bytearray())
            hashes = self.levels[level]
            hashes += node
            if (len(hashes) // HASH) % 2:
                return
            node, level = node_hash(hashes[-2 * HASH : -HASH], hashes[-HASH:]), level + 1

    def leaf(self, index):
        return bytes(self.levels[0][index * HASH : (index + 1) * HASH])

    def root(self, start, end):
        """MTH(D[start:end])."""
        size = end - start
        if size == 0:
            return hashlib.sha256(b"").digest()
        if size & (size - 1) == 0 and start % size == 0:
            level, index = size.bit_length() - 1, start // size
            return bytes(self.levels[level][index * HASH : (index + 1) * HASH])
        middle = start + split(size)
        return node_hash(self.root(start, middle), self.root(middle, end))

    def inclusion(self, index, start, end):
        """PATH(index, D[start:end]); section 2.1.3.1."""
        if end - start == 1:
            return []
        middle = start + split(end - start)
        if index < middle:
            return self.inclusion(index, start, middle) + [self.root(middle, end)]
        return self.inclusion(index, middle, end) + [self.root(start, middle)]

    def consistency(self, size, start, end, is_whole=True):
        """SUBPROOF(size, D[start:end], is_whole); section 2.1.4.1."""
        if size == end:
            return [] if is_whole else [self.root(start, end)]
        middle = start + split(end - start)
        if size <= middle:
            return self.consistency(size, start, middle, is_whole) + [self.root(middle, end)]
        return self.consistency(size, middle, end, False) + [self.root(start, middle)]


def split(size):
    """The largest power of two smaller than size."""
    return 1 << (size - 1).bit_length() - 1


def proves_inclusion(index, size, leaf, proof, root):
    """Section 2.1.3.2."""
    if not 0 <= index < size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == root


def proves_consistency(first, second, first_root, second_root, proof):
    """Section 2.1.4.2."""
    if first > second:
        return False
    if first == second:
        return not proof and first_root == second_root
    if first == 0:
        return not proof and first_root == hashlib.sha256(b"").digest()
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        return False
    fn, sn = first - 1, second - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == first_root and sr == second_root


# Notes, keys and checkpoints (C2SP signed-note, tlog-checkpoint, tlog-cosignature)


def unbase64(text, what):
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Wrong(f"{what} is not base64") from None


class Key:
    """A public key: `<name>+<id>+<key>`. Kind 1 signs notes, kind 4 co-signs them as a witness."""

    def __init__(self, text):
        self.text = text.strip()
        parts = self.text.split("+", 2)
        if len(parts) != 3 or not parts[0] or re.search(r"\s", parts[0]):
            raise Wrong(f"{self.text} is no key: <name>+<id>+<key>")
        self.name, key = parts[0], unbase64(parts[2], "the key")
        self.kind, public = key[0] if key else 0, key[1:]
        self.id = hashlib.sha256(self.name.encode() + b"\n" + key).digest()[:4]
        if self.kind not in (1, 4) or len(public) != 32 or parts[1] != self.id.hex():
            raise Wrong(f"{self.text} is no key of Ed25519, or its id is not its own")
        self.public = Ed25519PublicKey.from_public_bytes(public)

    def signed(self, note):
        """When this key signed a note (0 for a log's key); None if it did not."""
        for name, key_id, signature in note.signatures:
            if (name, key_id) != (self.name, self.id):
                continue
            message, time = note.text.encode(), 0
            if self.kind == 4:
                time = int.from_bytes(signature[:8], "big")
                signature, message = signature[8:], f"cosignature/v1\ntime {time}\n{note.text}".encode()
            try:
                self.public.verify(signature, message)
                return time
            except InvalidSignature:
                pass
        return None


class Note:
    """A text, and signatures that nobody has verified yet."""

    def __init__(self, text):
        body, separator, lines = text.rpartition("\n\n")
        if not separator or not lines.endswith("\n"):
            raise Wrong("it is no signed note: a text, an empty line, and signatures")
        self.text, self.signatures = body + "\n", []
        for line in lines[:-1].split("\n"):
            parts = line.split(" ")
            if len(parts) != 3 or parts[0] != "\u2014":
                raise Wrong("a line behind the text is no signature")
            signature = unbase64(parts[2], "a signature")
            if len(signature) < 5:
                raise Wrong("a signature is too short")
            self.signatures.append((parts[1], signature[:4], signature[4:]))


class Checkpoint:
    """What a note says of a log: its name, its size, and the root of its tree."""

    def __init__(self, note):
        self.note = note
        lines = note.text.split("\n")
        if len(lines) < 4 or not lines[0] or not re.fullmatch(r"0|[1-9]\d{0,19}", lines[1]):
            raise Wrong("the note is no checkpoint")
        self.origin, self.size, self.root = lines[0], int(lines[1]), unbase64(lines[2], "the root")
        if len(self.root) != HASH:
            raise Wrong("the root is not 32 bytes long")


class Trust:
    """The keys of the log that are believed: the given ones, and those that these endorse in the history."""

    def __init__(self, keys):
        for key in keys:
            if key.kind != 1:
                raise Wrong(f"{key.text} is a witness's key: give it with --witness")
        self.keys, self.retired, self.endorsed = list(keys), {}, []

    def see(self, event):
        """Follows the keys of the log through the history."""
        data, position = event.get("data"), event["position"]
        if not str(event.get("subject", "")).startswith("journal-") or not isinstance(data, dict):
            return
        if event.get("type") == "CheckpointKeyAdded" and data.get("endorsement"):
            try:
                new, note = Key(data["key"]), Note(data["endorsement"])
            except (Wrong, TypeError, AttributeError):
                return
            is_about_it = note.text == f"watchword checkpoint key\n{new.text}\n" and new.kind == 1
            by = [key for key in self.keys if key.name == new.name and key.signed(note) is not None]
            if is_about_it and by and new.text not in [key.text for key in self.keys]:
                self.keys.append(new)
                self.endorsed.append((position, new.text, by[0].text))
        if event.get("type") == "CheckpointKeyRetired":
            self.retired.setdefault(data.get("key"), position)

    def signers(self, checkpoint):
        signed = [k for k in self.keys if k.name == checkpoint.origin and k.signed(checkpoint.note) is not None]
        valid = [k for k in signed if self.retired.get(k.text, checkpoint.size + 1) > checkpoint.size]
        if valid:
            return [key.text for key in signed]
        if signed:
            at = self.retired[signed[0].text]
            raise Wrong(f"it is signed only by {signed[0].text}, which event {at} retired")
        names = ", ".join(sorted({name for name, _, _ in checkpoint.note.signatures}))
        raise Wrong(f"no signature ({names}) is a valid one of a given key of {checkpoint.origin}, or of one that it endorsed")


def cosigned(checkpoint, witnesses):
    times = []
    for key in witnesses:
        time = key.signed(checkpoint.note) if key.kind == 4 else None
        if time is None:
            raise Wrong(f"the witness {key.text} did not co-sign it")
        at = datetime.datetime.fromtimestamp(time, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        times.append(f"co-signed by {key.name} at {at}")
    return times


# Where a log is read: a server's `/v1/audit`, or a folder with `checkpoint` and `tile/` (C2SP tlog-tiles)


class Place:
    def __init__(self, place, token):
        self.place, self.token = place.rstrip("/"), token
        self.is_server = "://" in place

    def get(self, path):
        if not self.is_server:
            try:
                with open(os.path.join(self.place, *path.split("/")), "rb") as file:
                    return file.read()
            except OSError as error:
                raise Wrong(f"{path}: {error.strerror}") from None
        request = urllib.request.Request(f"{self.place}/{path}")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            raise Wrong(f"{self.place}/{path}: {error.code} {error.read(500).decode(errors='replace')}") from None
        except (urllib.error.URLError, OSError) as error:
            raise Wrong(f"{self.place}/{path}: {error}") from None

    def text(self, path):
        try:
            return self.get(path).decode()
        except UnicodeDecodeError:
            raise Wrong(f"{path} is no text") from None

    def tile(self, level, number, width):
        """The hashes of a tile: this many, however many there are by now."""
        path = f"tile/{level}/{tile_number(number)}"
        if width < TILE:
            path += f".p/{width}"
        hashes = self.get(path)
        if len(hashes) != width * HASH:
            raise Wrong(f"{path} does not have {width} hashes")
        return [hashes[at : at + HASH] for at in range(0, len(hashes), HASH)]

    def leaves(self, size):
        """The leaf hashes of the tree of this size, as the tiles of level 0 have them."""
        for number in range((size + TILE - 1) // TILE):
            yield from self.tile(0, number, min(TILE, size - number * TILE))


def tile_number(number):
    groups = [f"{number % 1000:03}"]
    while number >= 1000:
        number //= 1000
        groups.insert(0, f"x{number % 1000:03}")
    return "/".join(groups)


# What is checked


class Report:
    def __init__(self):
        self.checked, self.unchecked, self.wrong, self.more = [], [], [], 0

    def found(self, text):
        if len(self.wrong) < LISTED:
            self.wrong.append(text)
        else:
            self.more += 1

    def end(self, as_json):
        if as_json:
            print(json.dumps({"ok": not self.wrong, "checked": self.checked, "not_checked": self.unchecked,
                              "wrong": self.wrong, "more_wrong": self.more}))
        else:
            for title, texts in (("checked", self.checked), ("not checked", self.unchecked), ("WRONG", self.wrong)):
                for text in texts:
                    print(f"{title}: {text}")
            if self.more:
                print(f"WRONG: {self.more} more")
        return 1 if self.wrong else 0


def read_export(path, report, trust):
    """The tree of an export, and its leaf hashes by position. None if the events are not in order."""
    tree, streams, is_whole, position = Tree(), {}, True, 0
    with open(path, "rb") as file:
        for line_number, line in enumerate(file, 1):
            line = line.rstrip(b"\n")
            try:
                text = line.decode()
                event = parse(text)
                if not isinstance(event, dict) or canonical(event) != text:
                    raise Wrong("it is not canonical JSON (RFC 8785)")
                number, version = event.get("position"), event.get("streamversion")
                if type(number) is not int or type(version) is not int or not isinstance(event.get("subject"), str):
                    raise Wrong("it has no position, streamversion or subject")
            except (Wrong, UnicodeDecodeError) as error:
                report.found(f"line {line_number}: {error}")
                is_whole, position = False, position + 1
                continue
            if number != position + 1:
                report.found(f"line {line_number}: event {number} follows event {position}")
                is_whole = False
            if event.get("prevposition") != number - 1:
                report.found(f"event {number}: its prevposition is not {number - 1}")
            before = streams.get(event["subject"], 0)
            if version != before + 1:
                report.found(f"event {number}: it is version {version} of {event['subject']}, after version {before}")
            streams[event["subject"]], position = version, number
            trust.see(event)
            if is_whole:
                tree.append(leaf_hash(line))
    if is_whole:
        report.checked.append(
            f"{len(tree)} events in {len(streams)} streams: each line is canonical JSON, positions and the versions of each "
            "stream are without a gap"
        )
    for at, new, by in trust.endorsed:
        report.checked.append(f"event {at} adds the key {new}, endorsed by {by}")
    return tree


def check_note(checkpoint, name, trust, witnesses, report):
    """Whether a checkpoint is signed by whom it should be."""
    try:
        by = trust.signers(checkpoint) + cosigned(checkpoint, witnesses)
    except Wrong as error:
        report.found(f"{name}: {error}")
        return False
    report.checked.append(f"{name}: {checkpoint.size} events of {checkpoint.origin}, signed by {', '.join(by)}")
    return True


def export(arguments, keys, report):
    trust = Trust(keys)
    checkpoints = []
    for path in arguments.checkpoint:
        with open(path, encoding="utf-8", newline="") as file:
            checkpoints.append((path, Checkpoint(Note(file.read()))))
    checkpoints.sort(key=lambda it: it[1].size)
    tree = read_export(arguments.file, report, trust)
    proven = []
    for path, checkpoint in checkpoints:
        if not check_note(checkpoint, path, trust, arguments.witness, report):
            continue
        if checkpoint.size > len(tree):
            report.found(f"{path}: it has {checkpoint.size} events, the file only {len(tree)} in their places")
        elif tree.root(0, checkpoint.size) != checkpoint.root:
            after = proven[-1].size if proven else 0
            report.found(f"{path}: the first {checkpoint.size} events have another root: one after event {after} was changed")
        else:
            report.checked.append(f"{path}: the first {checkpoint.size} events of the file have its root")
            proven.append(checkpoint)
    for checkpoint in proven:
        sample_proofs(tree, checkpoint, proven[-1], arguments.samples, report)
    if arguments.log and checkpoints:
        compare_tiles(Place(arguments.log, arguments.token), tree, checkpoints[-1][1], report)
    covered = proven[-1].size if proven else 0
    if covered < len(tree):
        report.unchecked.append(f"events {covered + 1} to {len(tree)}: no checkpoint that fits covers them")
    report.unchecked.append("what is in the events: payloads against their schemas, and the sealed parts")
    if not arguments.witness:
        report.unchecked.append("whether others were shown another history: no witness was named")


def sample_proofs(tree, checkpoint, newest, samples, report):
    """Makes proofs of the file's own tree and verifies them as a stranger would."""
    size = checkpoint.size
    if size == 0:
        return
    positions = random.sample(range(size), min(samples, size))
    for index in positions:
        if not proves_inclusion(index, size, tree.leaf(index), tree.inclusion(index, 0, size), checkpoint.root):
            report.found(f"event {index + 1}: its inclusion in the tree of {size} cannot be proved")
    proof = tree.consistency(size, 0, newest.size)
    if not proves_consistency(size, newest.size, checkpoint.root, newest.root, proof):
        report.found(f"the tree of {size} events does not begin that of {newest.size}")
    shown = ", ".join(str(index + 1) for index in sorted(positions))
    report.checked.append(
        f"proofs made of the file: that events {shown}, chosen at random, are in the tree of {size}, and that this begins the "
        f"one of {newest.size}"
    )


def compare_tiles(place, tree, checkpoint, report):
    """Compares the file with published tiles, event by event."""
    published, differ = Tree(), []
    for index, leaf in enumerate(place.leaves(checkpoint.size)):
        published.append(leaf)
        if index >= len(tree) or tree.leaf(index) != leaf:
            differ.append(index + 1)
    if published.root(0, checkpoint.size) != checkpoint.root:
        report.found(f"the tiles of {place.place} do not have the root of the checkpoint of {checkpoint.size} events")
        return
    for position in differ:
        report.found(f"event {position}: it is not the one that was signed, whose hash is in the tiles")
    if not differ:
        report.checked.append(f"the hashes of all {checkpoint.size} events are those in the tiles of {place.place}")


def receipt(arguments, keys, report):
    with open(arguments.file, encoding="utf-8") as file:
        content = parse(file.read())
    try:
        position, event, size = content["position"], content["event"], content["size"]
        hashes = [unbase64(text, "a hash") for text in content["hashes"]]
        checkpoint = Checkpoint(Note(content["checkpoint"]))
    except (KeyError, TypeError, AttributeError):
        raise Wrong("it is no receipt") from None
    check_note(checkpoint, "the checkpoint of the receipt", Trust(keys), arguments.witness, report)
    if not isinstance(event, dict) or event.get("position") != position:
        report.found(f"the event in it is not event {position}")
    if size != checkpoint.size:
        report.found(f"its proof is for {size} events, its checkpoint of {checkpoint.size}")
    leaf = leaf_hash(canonical(event).encode())
    if proves_inclusion(position - 1, checkpoint.size, leaf, hashes, checkpoint.root):
        report.checked.append(f"event {position}, {event.get('type')} of {event.get('subject')} at {event.get('time')}, is in that tree")
    else:
        report.found(f"the hashes do not lead from this event to the signed root: event {position} is another")
    report.unchecked.append("whether it is in earlier or later trees of the log, and keys that are not given")


def log(arguments, keys, report):
    place = Place(arguments.place, arguments.token)
    checkpoint = Checkpoint(Note(place.text("checkpoint")))
    trust = Trust(keys)
    if not check_note(checkpoint, "the newest checkpoint", trust, arguments.witness, report):
        return
    if arguments.earlier:
        with open(arguments.earlier, encoding="utf-8", newline="") as file:
            earlier = Checkpoint(Note(file.read()))
        if check_note(earlier, arguments.earlier, trust, arguments.witness, report):
            begins(place, earlier, checkpoint, report)
    published = Tree()
    for leaf in place.leaves(checkpoint.size):
        published.append(leaf)
    if published.root(0, checkpoint.size) != checkpoint.root:
        report.found("the tiles of level 0 do not have the root of the newest checkpoint")
        return
    report.checked.append(f"the {checkpoint.size} hashes in the tiles have its root")
    upper_tiles(place, published, checkpoint.size, report)
    if place.is_server:
        ask_proofs(place, published, checkpoint, arguments.samples, report)
    report.unchecked.append("the events behind the hashes: check an export against this checkpoint")


def upper_tiles(place, published, size, report):
    """The tiles above the leaves hold nothing that does not follow from them."""
    level, count = 1, 0
    while size >> (8 * level):
        hashes = size >> (8 * level)
        for number in range((hashes + TILE - 1) // TILE):
            width = min(TILE, hashes - number * TILE)
            for place_in_tile, found in enumerate(place.tile(level, number, width)):
                index, below = number * TILE + place_in_tile, 1 << (8 * level)
                if found != published.root(index * below, (index + 1) * below):
                    report.found(f"tile {number} of level {level} has a wrong hash")
            count += 1
        level += 1
    if count:
        report.checked.append(f"{count} tiles above them follow from them")


def ask_proofs(place, published, checkpoint, samples, report):
    """Proofs that the server makes, for random positions and sizes."""
    size, root = checkpoint.size, checkpoint.root
    indexes = random.sample(range(size), min(samples, size))
    for index in indexes:
        answer = parse(place.text(f"proof/inclusion?position={index + 1}&size={size}"))
        hashes = [unbase64(text, "a hash") for text in answer["hashes"]]
        if not proves_inclusion(index, size, published.leaf(index), hashes, root):
            report.found(f"event {index + 1}: the server's inclusion proof is wrong")
    for index in indexes:
        first = index + 1
        answer = parse(place.text(f"proof/consistency?from={first}&to={size}"))
        hashes = [unbase64(text, "a hash") for text in answer["hashes"]]
        if not proves_consistency(first, size, published.root(0, first), root, hashes):
            report.found(f"the server's proof that {first} events begin {size} is wrong")
    report.checked.append(f"the server's inclusion and consistency proofs for {len(indexes)} random positions")


def begins(place, earlier, newest, report):
    """Whether the log only grew since an earlier checkpoint."""
    if not place.is_server:
        tree = Tree()
        for leaf in place.leaves(newest.size):
            tree.append(leaf)
        is_so = earlier.size <= newest.size and tree.root(0, earlier.size) == earlier.root
    else:
        answer = parse(place.text(f"proof/consistency?from={earlier.size}&to={newest.size}"))
        hashes = [unbase64(text, "a hash") for text in answer["hashes"]]
        is_so = proves_consistency(earlier.size, newest.size, earlier.root, newest.root, hashes)
    if is_so:
        report.checked.append(f"the {earlier.size} events of the earlier checkpoint are unchanged in the newest")
    else:
        report.found(f"the earlier checkpoint of {earlier.size} events is of another history than the newest")


def keys_of(text):
    """A key, or those in a file, one a line."""
    if os.path.exists(text):
        with open(text, encoding="utf-8") as file:
            return [Key(line) for line in file.read().splitlines() if line]
    return [Key(text)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--key", action="append", required=True, help="the log's public key, or a file with one a line")
    common.add_argument("--witness", action="append", default=[], help="a witness's key, whose co-signature is required")
    common.add_argument("--samples", type=int, default=20, help="how many random positions are proved (20)")
    common.add_argument("--token-file", help="the file with an API key that has the right audit:read")
    common.add_argument("--json", action="store_true", help="print JSON")
    of_export = commands.add_parser("export", parents=[common], help="check an export against checkpoints")
    of_export.add_argument("file")
    of_export.add_argument("--checkpoint", action="append", required=True, help="a signed checkpoint")
    of_export.add_argument("--log", help="also compare with the tiles of a server (\u2026/v1/audit) or in a folder")
    of_export.set_defaults(run=export)
    of_receipt = commands.add_parser("receipt", parents=[common], help="check a receipt of one event")
    of_receipt.add_argument("file")
    of_receipt.set_defaults(run=receipt)
    of_log = commands.add_parser("log", parents=[common], help="check the tiles and proofs of a server or a folder")
    of_log.add_argument("place", help="https://\u2026/v1/audit, or a folder with checkpoint and tile/")
    of_log.add_argument("--earlier", help="a checkpoint from before, which the newest must continue")
    of_log.set_defaults(run=log)
    arguments = parser.parse_args()
    for path in [getattr(arguments, "file", None), getattr(arguments, "earlier", None), *getattr(arguments, "checkpoint", [])]:
        if path and not os.path.isfile(path):
            parser.error(f"{path} is no file")
    try:
        keys = [key for text in arguments.key for key in keys_of(text)]
        arguments.witness = [key for text in arguments.witness for key in keys_of(text)]
        arguments.token = None
        if arguments.token_file:
            with open(arguments.token_file, encoding="utf-8") as file:
                arguments.token = file.read().strip()
    except (Wrong, OSError) as error:
        parser.error(str(error))
    report = Report()
    try:
        arguments.run(arguments, keys, report)
    except (Wrong, OSError, KeyError, TypeError) as error:
        report.found(str(error))
    return report.end(arguments.json)


if __name__ == "__main__":
    sys.exit(main())
