"""An S3 server (moto) with the data set `FOLDER/data` in it, which answers requests that are signed by its one user only.

    python serve_s3.py FOLDER      prints its endpoint, the bucket and the keys as JSON, and ends with its input
"""

import json
import pathlib
import sys

import boto3
import requests
from moto.server import ThreadedMotoServer

BUCKET = "lockstep"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


def main(folder: pathlib.Path) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"

    def client(service: str):
        return boto3.client(
            service,
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="setup",
            aws_secret_access_key="setup",
        )

    s3, iam = client("s3"), client("iam")
    s3.create_bucket(Bucket=BUCKET)
    for path in sorted(folder.iterdir()):
        s3.upload_file(str(path), BUCKET, f"sets/first/{path.name}")
    iam.create_user(UserName="reader")
    iam.put_user_policy(UserName="reader", PolicyName="all", PolicyDocument=json.dumps(POLICY))
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    # From here on, signatures count.
    requests.post(f"{endpoint}/moto-api/reset-auth", data="0", timeout=10).raise_for_status()
    found = {
        "endpoint": endpoint,
        "url": f"s3://{BUCKET}/sets/first",
        "id": key["AccessKeyId"],
        "secret": key["SecretAccessKey"],
    }
    print(json.dumps(found), flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]) / "data")
