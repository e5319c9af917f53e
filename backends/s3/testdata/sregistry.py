# What sregistry's s3 client does with a bucket, by boto3: push, search and pull of "vsoch/small:1.0", in small and in large,
# and search and pull of what sregfs has pushed.
import hashlib
import os
import sys

import boto3
from botocore.client import Config

url, bucket_name, access, secret, folder = sys.argv[1:]
s3 = boto3.resource(
    "s3",
    endpoint_url=url,
    aws_access_key_id=access,
    aws_secret_access_key=secret,
    config=Config(signature_version="s3v4"),
    region_name="us-east-1",
)
bucket = s3.Bucket(bucket_name)
s3.meta.client.head_bucket(Bucket=bucket_name)


def push(path, key):
    size = os.path.getsize(path) >> 20
    bucket.upload_file(path, key, {"Metadata": {"sizemb": "%s" % size, "client": "sregistry", "type": "container"}})


for name, size in ("small", 1000), ("large", 20 << 20):
    path = os.path.join(folder, name)
    with open(path, "wb") as f:
        f.write(b"pushed by sregistry" + b"\0" * size)
    push(path, "vsoch/%s:1.0.sif" % name)

found = {}
for summary in bucket.objects.all():
    o = s3.Object(bucket_name, summary.key)
    meta = {k.lower(): v for k, v in o.metadata.items()}
    found[summary.key] = (meta.get("client"), meta.get("type"), meta.get("sizemb"), meta.get("sha256"))
for key, size in ("vsoch/hello:1.sif", "0"), ("vsoch/hello:2.sif", "17"):
    assert found[key][:3] == ("sregistry", "container", size), (key, found[key])
    path = os.path.join(folder, "pulled")
    bucket.download_file(key, path)
    with open(path, "rb") as f:
        assert hashlib.sha256(f.read()).hexdigest() == found[key][3], key
print("checked")
