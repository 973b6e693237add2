"""URLs of object stores, `s3://bucket/prefix`: parsed and checked without connecting to one."""

import re

SCHEME = "s3://"


def parse_bucket_url(url: str) -> tuple[str, str]:
    """Bucket and prefix of `s3://bucket/prefix`.

    Raises:
        ValueError: it is no such URL.
    """
    bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
    if not url.startswith(SCHEME) or not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
        raise ValueError(f"{url} is neither a directory nor `s3://bucket/prefix`")
    if any(part in ("", ".", "..") for part in prefix.rstrip("/").split("/")) and prefix.strip("/"):
        raise ValueError(f"{url} has an empty part, `.` or `..` in its prefix")
    return bucket, prefix.strip("/")
