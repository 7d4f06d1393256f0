"""What people write into files and call them: JSON in which each key means one thing, names in one form of Unicode."""

import json
import unicodedata


def users_json(content: str | bytes):
    """Return the JSON that a person wrote; ValueError also for a key that an object has twice (json takes the last).

    And for brackets that are nested more deeply than Python can follow.
    """

    def table(pairs):
        keys = [key for key, _ in pairs]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"the key {json.dumps(twice[0], ensure_ascii=False)} is there twice in one object")
        return dict(pairs)

    try:
        return json.loads(content, object_pairs_hook=table)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def composed(name: str) -> str:
    """Return a name in the form NFC, in which most programs write it: an older Mac writes "ü" as two characters."""
    return unicodedata.normalize("NFC", name)
