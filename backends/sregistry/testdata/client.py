# SPDX-License-Identifier: Apache-2.0
"""A second client of a Singularity Registry Server, on Python's library alone.

It shares nothing with the Go code: what both do the same way is right, or wrong
twice. Usage: client.py sign|form|push|delete ARGUMENTS (see the functions).
"""

import base64
import datetime
import email.parser
import email.policy
import hashlib
import hmac
import json
import sys
import urllib.request
import uuid


def authorization(user, token, kind, stamp, collection, name, tag):
    message = "{}|{}|{}|{}|{}|".format(kind, collection, stamp, name, tag)
    signature = hmac.new(token.encode("utf-8"), message.encode("utf-8"), digestmod=hashlib.sha256).hexdigest()
    user = base64.b64encode(user.encode("utf-8")).decode("utf-8")
    return "SREGISTRY-HMAC-SHA256 Credential={}/{}/{},Signature={}".format(kind, user, stamp, signature)


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%HZ")


def sign(*args):
    print(authorization(*args))


def form(content_type, path):
    """Prints the fields of a recorded multipart form, and sums of its file."""
    with open(path, "rb") as f:
        body = f.read()
    head = "Content-Type: {}\r\nMIME-Version: 1.0\r\n\r\n".format(content_type).encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    fields = {}
    for part in message.iter_parts():
        content = part.get_payload(decode=True)
        name = part.get_param("name", header="content-disposition")
        if part.get_filename():
            fields[name + ".filename"] = part.get_filename()
            fields[name + ".type"] = part.get_content_type()
            fields[name] = hashlib.sha256(content).hexdigest()
        else:
            fields[name] = content.decode()
    print(json.dumps(fields))


def call(method, url, body=None, headers=None):
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    with urllib.request.urlopen(request) as response:
        return response.read()


def push(base, user, token, collection, name, tag, path):
    """The old upload, as the sregistry client does it."""
    asked = json.dumps({"collection": collection, "name": name, "tag": tag}).encode()
    auth = authorization(user, token, "push", now(), collection, name, tag)
    cid = json.loads(call("POST", base + "/api/upload/chunked_upload", asked,
                          {"Authorization": auth, "Content-Type": "application/json"}))["cid"]
    auth = authorization(user, token, "upload", now(), collection, name, tag)
    boundary, body = uuid.uuid4().hex, b""
    for key, value in (("SREGISTRY_EVENT", auth), ("name", name), ("collection", str(cid)), ("tag", tag)):
        body += '--{}\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'.format(boundary, key, value).encode()
    body += ('--{}\r\nContent-Disposition: form-data; name="file1"; filename="{}:{}.sif"\r\n'
             "Content-Type: text/plain\r\n\r\n").format(boundary, name, tag).encode()
    with open(path, "rb") as f:
        body += f.read() + "\r\n--{}--\r\n".format(boundary).encode()
    print(call("POST", base + "/upload", body, {
        "Authorization": auth, "Content-Type": "multipart/form-data; boundary=" + boundary}).decode())


def delete(base, user, token, collection, name, tag):
    auth = authorization(user, token, "delete", now(), collection, name, tag)
    call("DELETE", "{}/api/container/{}/{}:{}".format(base, collection, name, tag), None, {"Authorization": auth})


if __name__ == "__main__":
    {"sign": sign, "form": form, "push": push, "delete": delete}[sys.argv[1]](*sys.argv[2:])
